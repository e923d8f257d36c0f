/**
 * A chain of our own in iptables and the jump to it from a built-in chain. The jump comes last, as flannel's does:
 * what the operator, docker or a network policy decides before it stays decided.
 */
import type { NfTables } from '../../netlink/nftables.ts';
import { runTool } from './command.ts';
import type { Surface } from './surface.ts';
import { type IptablesTool, legacyTables } from './tools.ts';

export interface IptablesChainOptions {
  family: 4 | 6;
  tool: IptablesTool;
  table: 'nat' | 'filter';
  /** The built-in chain that the packets come from. */
  from: 'POSTROUTING' | 'FORWARD';
  chain: string;
  /** Of the jump. */
  comment: string;
  /** Without "-A CHAIN". */
  rules: readonly string[];
  nfTables?: NfTables;
  namespace?: string;
}

/** Another program may hold the lock of legacy iptables (/run/xtables.lock): wait so long, in seconds. */
const LOCK_WAIT = '5';

export class IptablesChain implements Surface {
  readonly name: string;
  readonly table: 'nat' | 'filter';
  readonly #options: IptablesChainOptions;
  /** Our lines, as iptables-save printed them after the last `ensure`: how it spells rules differs between versions. */
  #seen = '';
  #generation: number | undefined;

  constructor(options: IptablesChainOptions) {
    this.#options = options;
    const { family, tool, table, chain } = options;
    this.table = table;
    const program = family === 4 ? 'iptables' : 'ip6tables';
    this.name = `${program}${tool.flavour === 'legacy' ? '-legacy' : ''} -t ${table} chain ${chain}`;
  }

  async ensure(): Promise<void> {
    const { table, from, chain, comment, rules } = this.#options;
    const jumps = jumpsIn(await this.#read(), from, chain);
    await restore(this.#options, table, [
      `:${chain} - [0:0]`, // makes the chain, or empties it
      ...rules.map(rule => `-A ${chain} ${rule}`),
      ...jumps.slice(1).map(line => line.replace('-A ', '-D ')),
      ...(jumps.length === 0 ? [`-A ${from} -m comment --comment "${comment}" -j ${chain}`] : []),
    ]);
    this.#generation = this.#now();
    this.#seen = (await this.#read()).join('\n');
  }

  async intact(): Promise<boolean> {
    if (this.#seen === '') return false;
    // Over nf_tables one number says that nothing changed anywhere, and no process need be started.
    const now = this.#now();
    if (now !== undefined && now === this.#generation) return true;
    if ((await this.#read()).join('\n') !== this.#seen) return false;
    this.#generation = now;
    return true;
  }

  async remove(): Promise<boolean> {
    const { table, from, chain } = this.#options;
    this.#seen = '';
    const lines = await this.#read();
    if (lines.length === 0) return false;
    await restore(this.#options, table, [
      `:${chain} - [0:0]`,
      ...jumpsIn(lines, from, chain).map(line => line.replace('-A ', '-D ')),
      `-X ${chain}`,
    ]);
    return true;
  }

  #now(): number | undefined {
    return this.#options.tool.flavour === 'nf_tables' ? this.#options.nfTables?.generation() : undefined;
  }

  /** Our lines of the table. */
  async #read(): Promise<string[]> {
    const { table, from, chain } = this.#options;
    const isOurs = (line: string): boolean =>
      line.startsWith(`:${chain} `) || line.startsWith(`-A ${chain} `) || isJump(line, from, chain);
    return (await save(this.#options, table)).filter(isOurs);
  }
}

const isJump = (line: string, from: string, chain: string): boolean =>
  line.startsWith(`-A ${from} `) && line.endsWith(` -j ${chain}`);

const jumpsIn = (lines: readonly string[], from: string, chain: string): string[] =>
  lines.filter(line => isJump(line, from, chain));

export type IptablesPlace = Pick<IptablesChainOptions, 'family' | 'tool' | 'namespace'>;

/** What iptables-save prints of one table. */
export async function save({ tool, namespace, family }: IptablesPlace, table: string): Promise<string[]> {
  // Legacy iptables-save would make the table, and with it the machine's hooks, only to print that it is empty.
  if (tool.flavour === 'legacy' && !legacyTables(family, namespace).includes(table)) return [];
  const text = await runTool(tool.save, ['-t', table], namespace === undefined ? {} : { namespace });
  return text.split('\n');
}

/** All lines in one transaction; the other rules of the table stay. */
export async function restore({ tool, namespace }: IptablesPlace, table: string, lines: string[]): Promise<void> {
  const input = `*${table}\n${lines.join('\n')}\nCOMMIT\n`;
  await runTool(tool.restore, ['--noflush', '-w', LOCK_WAIT], { input, ...(namespace !== undefined && { namespace }) });
}
