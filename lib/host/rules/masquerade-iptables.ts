/**
 * Attachments in iptables, where there is no nft: a chain that all packets pass, and in it the rules of each address one
 * after the other. Each change starts a program and the kernel compares address by address: it works, and it is slow.
 */
import { decodeId, type Entry, type EntryStore, encodeId } from './entry.ts';
import { restore, save } from './iptables.ts';
import type { IptablesTool } from './tools.ts';

export interface IptablesEntriesOptions {
  tool: IptablesTool;
  family: 4 | 6;
  /** At most 28 characters. */
  chain: string;
  randomFully: boolean;
  namespace?: string;
}

const FROM = 'POSTROUTING';

export class IptablesEntries implements EntryStore {
  readonly name: string;
  readonly #options: IptablesEntriesOptions;
  /** The chain was made by this process. */
  #made = false;

  constructor(options: IptablesEntriesOptions) {
    this.#options = options;
    this.name = `${options.family === 4 ? 'iptables' : 'ip6tables'} -t nat chain ${options.chain}`;
  }

  async load(): Promise<Entry[]> {
    return this.#parse(await this.#read());
  }

  async apply(remove: readonly Entry[], add: readonly Entry[]): Promise<void> {
    const { chain } = this.#options;
    const head = this.#made ? [] : await this.#head();
    const removed = remove.flatMap(entry => this.#rules(entry).map(rule => `-D ${chain} ${rule}`));
    const added = add.flatMap(entry => this.#rules(entry).map(rule => `-A ${chain} ${rule}`));
    await restore(this.#options, 'nat', [...head, ...removed, ...added]);
    this.#made = true;
  }

  async intact(entries: readonly Entry[]): Promise<boolean> {
    if (!this.#made && entries.length === 0) return true;
    const lines = await this.#read();
    if (!lines.some(line => this.#isJump(line))) return false;
    // Compared as sets: rules of different addresses may stand in any order.
    const print = (list: readonly Entry[]): string =>
      list
        .map(entry => JSON.stringify(entry))
        .sort()
        .join();
    return print(this.#parse(lines)) === print(entries);
  }

  async rebuild(entries: readonly Entry[]): Promise<void> {
    const { chain } = this.#options;
    const lines = await this.#read();
    await restore(this.#options, 'nat', [
      `:${chain} - [0:0]`,
      ...this.#jump(lines),
      ...entries.flatMap(entry => this.#rules(entry).map(rule => `-A ${chain} ${rule}`)),
    ]);
    this.#made = true;
  }

  async destroy(): Promise<void> {
    const { chain } = this.#options;
    const lines = await this.#read();
    this.#made = false;
    if (lines.length === 0) return;
    const jumps = lines.filter(line => this.#isJump(line)).map(line => line.replace('-A ', '-D '));
    await restore(this.#options, 'nat', [`:${chain} - [0:0]`, ...jumps, `-X ${chain}`]);
  }

  /** What is missing of the chain and its jump. ":CHAIN" would empty a chain that is there. */
  async #head(): Promise<string[]> {
    const { chain } = this.#options;
    const lines = await this.#read();
    return [...(lines.some(line => line.startsWith(`:${chain} `)) ? [] : [`:${chain} - [0:0]`]), ...this.#jump(lines)];
  }

  #jump(lines: readonly string[]): string[] {
    const jump = `-A ${FROM} -m comment --comment "tulle pods" -j ${this.#options.chain}`;
    return lines.some(line => this.#isJump(line)) ? [] : [jump];
  }

  #isJump(line: string): boolean {
    return line.startsWith(`-A ${FROM} `) && line.endsWith(` -j ${this.#options.chain}`);
  }

  #rules({ id, family, address, networks }: Entry): string[] {
    const from = `-s ${address}/${family === 4 ? 32 : 128}`;
    const comment = `-m comment --comment "${encodeId(id)}"`;
    const multicast = family === 4 ? '224.0.0.0/4' : 'ff00::/8';
    return [
      ...networks.map(network => `${from} -d ${network} ${comment} -j RETURN`),
      `${from} ! -d ${multicast} ${comment} -j MASQUERADE${this.#options.randomFully ? ' --random-fully' : ''}`,
    ];
  }

  async #read(): Promise<string[]> {
    const { chain } = this.#options;
    const lines = await save(this.#options, 'nat');
    return lines.filter(line => line.startsWith(`:${chain} `) || line.startsWith(`-A ${chain} `) || this.#isJump(line));
  }

  #parse(lines: readonly string[]): Entry[] {
    const { chain, family } = this.#options;
    const entries = new Map<string, Entry & { networks: string[] }>();
    const masqueraded = new Set<string>();
    const pattern = /-s (\S+)\/\d+ (! )?-d (\S+) .*--comment "?([^\s"]*)"? -j (\S+)/;
    for (const line of lines) {
      const [, address, not, network, comment, target] = line.startsWith(`-A ${chain} `)
        ? (pattern.exec(line) ?? [])
        : [];
      const id = comment === undefined ? undefined : decodeId(comment);
      if (id === undefined) continue;
      const entry = entries.get(address) ?? { id, family, address, networks: [] };
      entries.set(address, entry);
      if (not === undefined && target === 'RETURN') entry.networks.push(network);
      else if (target === 'MASQUERADE') masqueraded.add(address);
    }
    // Half an entry is one that somebody took rules from: none, so that it is made again.
    return [...entries.values()].filter(entry => masqueraded.has(entry.address));
  }
}
