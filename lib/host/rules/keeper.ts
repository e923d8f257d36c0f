/**
 * Keeps rules present: whoever flushes a table ("nft flush ruleset", a firewall's restart) takes ours along. Every few
 * seconds each surface is looked at; news of nf_tables make the next look come at once. What was changed is made again.
 */
import { watchNfTables } from '../../netlink/nftables.ts';
import { messageOf } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import type { Surface } from './surface.ts';

/** Looks that news ask for are at least so far apart: a busy kube-proxy changes rules many times a second. */
const NEWS_PAUSE_MS = 1000;

export interface KeeperOptions {
  surfaces: readonly Surface[];
  seconds: number;
  log: Logger;
  namespace?: string;
  /** Called when the answer of `failure` may have changed. */
  onChange?: () => void;
}

export class Keeper {
  readonly #options: KeeperOptions;
  /** What cannot be made, by surface: the message. */
  readonly #failing = new Map<Surface, string>();
  #timer: NodeJS.Timeout | undefined;
  #stopWatching: () => void = () => {};
  #stopped = false;
  #looking: Promise<void> | undefined;
  #lastLook = 0;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Why some rules are not there, or undefined when all are. */
  get failure(): string | undefined {
    return [...this.#failing.values()][0];
  }

  /** Makes what does not stand yet, then keeps it. Never throws: what fails is logged and tried again. */
  async start(): Promise<void> {
    for (const surface of this.#options.surfaces) {
      if (!(await this.#isIntact(surface))) await this.#make(surface);
    }
    const { namespace, log, surfaces } = this.#options;
    if (this.#stopped || surfaces.length === 0) return;
    try {
      this.#stopWatching = watchNfTables(namespace, () => this.#onNews());
    } catch (error) {
      log.debug({ error: messageOf(error) }, 'no news of nf_tables: rules are looked at on time only');
    }
    this.#plan(this.#options.seconds * 1000);
  }

  /** Looks at everything now, and makes again what is gone. */
  look(): Promise<void> {
    this.#looking ??= this.#lookOnce().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  /** Ends the looks; waits for one that is going on. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#stopWatching();
    await this.#looking;
  }

  #onNews(): void {
    this.#plan(Math.max(0, this.#lastLook + NEWS_PAUSE_MS - performance.now()), true);
  }

  #dueAt = Number.POSITIVE_INFINITY;

  #plan(delayMs: number, onlySooner = false): void {
    const at = performance.now() + delayMs;
    if (this.#stopped || (onlySooner && at >= this.#dueAt)) return;
    clearTimeout(this.#timer);
    this.#dueAt = at;
    this.#timer = setTimeout(() => {
      this.#dueAt = Number.POSITIVE_INFINITY;
      this.look().then(() => this.#plan(this.#options.seconds * 1000, true));
    }, delayMs);
    this.#timer.unref();
  }

  async #lookOnce(): Promise<void> {
    this.#lastLook = performance.now();
    for (const surface of this.#options.surfaces) {
      if (this.#stopped) return;
      if (this.#failing.has(surface)) await this.#make(surface);
      else if (!(await this.#isIntact(surface)) && (await this.#make(surface))) {
        this.#options.log.warn({ rules: surface.name }, 'somebody changed our traffic rules: made again');
      }
    }
  }

  async #isIntact(surface: Surface): Promise<boolean> {
    try {
      return await surface.intact();
    } catch (error) {
      this.#options.log.debug({ rules: surface.name, error: messageOf(error) }, 'cannot look at traffic rules');
      return false; // making them again says what is wrong, or mends it
    }
  }

  async #make(surface: Surface): Promise<boolean> {
    const { log, onChange } = this.#options;
    try {
      await surface.ensure();
      if (this.#failing.delete(surface)) log.info({ rules: surface.name }, 'traffic rules stand now');
    } catch (error) {
      const message = messageOf(error);
      // The same trouble every few seconds is one line.
      if (this.#failing.get(surface) !== message)
        log.error({ rules: surface.name, error: message }, 'traffic rules cannot be written; tried again all the time');
      this.#failing.set(surface, message);
    }
    onChange?.();
    return !this.#failing.has(surface);
  }
}
