/**
 * DELs that tulle-cni wrote down while no daemon was there to do them. They are done once the socket listens and before
 * the first request is served; so a client that finds nobody listening knows that its file will be seen. What fails then
 * is tried again from time to time, until an ADD for the same attachment makes it void.
 */
import { lstatSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf, messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { CniRequest } from './plugin.ts';
import { type AnswerFrame, decodeRequest, MAX_REQUEST, type RequestFrame } from './protocol/frame.ts';
import { pendingFolder, pendingName } from './protocol/pending-name.ts';

/** A temporary file of a client that is alive is younger: it only writes and renames. */
const ABANDONED_MS = 60_000;
const RETRY_MS = 30_000;

export interface PendingOptions {
  socket: string;
  /** Does a DEL if it `isWanted` still when its turn comes; an exit code of 0 means that it is done. */
  perform(frame: RequestFrame, isWanted: () => boolean): Promise<AnswerFrame>;
  log: Logger;
  /** Default 30 s. */
  retryMs?: number;
}

export class PendingDels {
  readonly #options: PendingOptions;
  readonly #folder: string;
  /** Files that are there, as far as we know. */
  readonly #left = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: PendingOptions) {
    this.#options = options;
    this.#folder = pendingFolder(options.socket);
  }

  /** Does everything that is written down. Never rejects. */
  async drain(): Promise<void> {
    const { log } = this.#options;
    let done = 0;
    const names = this.#names();
    this.#left.clear();
    for (const name of names) this.#left.add(name);
    // Some become void while others are done.
    for (const name of names) if (this.#left.has(name) && (await this.#perform(name))) done++;
    if (done > 0) log.info({ done, folder: this.#folder }, 'DELs from the time without a daemon are done');
    if (this.#left.size === 0 || this.#closed) return;
    log.warn(
      { left: this.#left.size, folder: this.#folder },
      'DELs that were written down failed; they are tried again',
    );
    this.#timer = setTimeout(() => void this.drain(), this.#options.retryMs ?? RETRY_MS);
    this.#timer.unref();
  }

  /**
   * An ADD begins for this attachment, or a DEL is done: one from its past would now, or at the next start, do harm. Also
   * one that was not there when we looked, by a client that gave us up.
   */
  forget({ config, containerId, ifname }: CniRequest): void {
    this.#remove(pendingName(config.name, containerId, ifname));
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** The files in the order in which they were written; none when the folder is not there or not ours alone. */
  #names(): string[] {
    try {
      const status = lstatSync(this.#folder);
      const isOurs = status.uid === 0 || status.uid === process.geteuid?.();
      if (!status.isDirectory() || !isOurs || (status.mode & 0o077) !== 0) {
        this.#options.log.error({ folder: this.#folder }, 'not read: it must be a folder of mode 0700 of this user');
        return [];
      }
      const names = readdirSync(this.#folder);
      for (const name of names.filter(name => name.endsWith('.tmp'))) this.#sweep(name);
      return names
        .filter(name => /^[0-9a-f]{16}\.del$/.test(name))
        .map(name => ({ name, time: statSync(join(this.#folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
        .sort((a, b) => a.time - b.time)
        .map(({ name }) => name);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') this.#options.log.error({ error, folder: this.#folder }, 'cannot be read');
      return [];
    }
  }

  #sweep(name: string): void {
    const path = join(this.#folder, name);
    // Its client may rename it at this moment.
    const status = statSync(path, { throwIfNoEntry: false });
    if (status !== undefined && Date.now() - status.mtimeMs > ABANDONED_MS) rmSync(path, { force: true });
  }

  async #perform(name: string): Promise<boolean> {
    const { perform, log } = this.#options;
    const frame = this.#read(name);
    if (frame === undefined || frame.environment.get('CNI_COMMAND') !== 'DEL') {
      log.warn({ file: join(this.#folder, name) }, 'not a DEL that was written down; removed');
      this.#remove(name);
      return false;
    }
    const { exitCode, stdout } = await perform(frame, () => this.#left.has(name));
    if (exitCode !== 0) {
      log.debug({ file: name, answer: stdout }, 'a DEL that was written down failed');
      return false;
    }
    this.#remove(name);
    return true;
  }

  #read(name: string): RequestFrame | undefined {
    const path = join(this.#folder, name);
    try {
      return statSync(path).size > MAX_REQUEST ? undefined : decodeRequest(readFileSync(path));
    } catch {
      return undefined;
    }
  }

  #remove(name: string): void {
    this.#left.delete(name);
    try {
      rmSync(join(this.#folder, name), { force: true });
    } catch (error) {
      this.#options.log.warn({ file: name, error: messageOf(error) }, 'a DEL that was written down cannot be removed');
    }
  }
}
