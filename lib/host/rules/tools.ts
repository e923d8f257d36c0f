/**
 * Which programs there are on this machine to write rules with, and which of the two iptables is in use.
 *
 * iptables exists twice: over nf_tables, and the older one with tables of its own ("legacy"). A packet passes the hooks of
 * both, and a FORWARD policy of DROP in either ends it. So what must be accepted is accepted in the one that the machine
 * calls `iptables`, and also in the other where that has a filter table.
 */
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { type NfTables, openNfTables } from '../../netlink/nftables.ts';
import { withNamespace } from '../../sys/sys.ts';
import { messageOf } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import { runTool } from './command.ts';

export interface IptablesTool {
  flavour: 'nf_tables' | 'legacy';
  /** Absolute paths. */
  save: string;
  restore: string;
}

export interface RuleTools {
  /** nft, where the kernel has nf_tables, too. */
  nft?: string;
  /** The machine's own first; empty where there is none that works. */
  iptables: IptablesTool[];
  /** A socket to the kernel's nf_tables, whether there are tools or not; the owner closes it. */
  nfTables?: NfTables;
}

export interface ToolOptions {
  family: 4 | 6;
  log: Logger;
  /** path; none is the calling thread's own */
  namespace?: string;
  /** folders; default PATH and where Debian and others keep them */
  path?: readonly string[];
}

export function defaultPath(): string[] {
  const path = (process.env.PATH ?? '').split(delimiter).filter(isAbsolute);
  return [...path, '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin'];
}

function find(path: readonly string[], name: string): string | undefined {
  return path
    .map(folder => join(folder, name))
    .find(file => {
      try {
        accessSync(file, constants.X_OK);
        return statSync(file).isFile();
      } catch {
        return false;
      }
    });
}

export async function findRuleTools(options: ToolOptions): Promise<RuleTools> {
  const { namespace, path = defaultPath() } = options;
  const nfTables = openNfTables(namespace);
  const nft = find(path, 'nft');
  return {
    ...(nfTables !== undefined && { nfTables }),
    ...(nft !== undefined && nfTables !== undefined && { nft }),
    iptables: await findIptables({ ...options, path }, nfTables),
  };
}

async function findIptables(
  options: ToolOptions & { path: readonly string[] },
  nfTables: NfTables | undefined,
): Promise<IptablesTool[]> {
  const { family, path, namespace, log } = options;
  const base = family === 4 ? 'iptables' : 'ip6tables';
  const named = async (name: string): Promise<IptablesTool | undefined> => {
    const [save, restore] = [find(path, `${name}-save`), find(path, `${name}-restore`)];
    if (save === undefined || restore === undefined) return undefined;
    try {
      // "iptables-restore v1.8.9 (nf_tables)"; before 1.8 there was only legacy, and it did not say so.
      const version = await runTool(restore, ['--version'], namespace === undefined ? {} : { namespace });
      return { flavour: version.includes('nf_tables') ? 'nf_tables' : 'legacy', save, restore };
    } catch (error) {
      log.debug({ tool: restore, error: messageOf(error) }, 'iptables of no use');
      return undefined;
    }
  };
  const own = await named(base);
  if (own === undefined) return [];
  const otherInUse =
    own.flavour === 'nf_tables'
      ? legacyTables(family, namespace).includes('filter')
      : nfTables?.baseChains().some(chain => isIptablesForward(chain, family)) === true;
  const other = otherInUse ? await named(`${base}-${own.flavour === 'nf_tables' ? 'legacy' : 'nft'}`) : undefined;
  return other === undefined || other.flavour === own.flavour ? [own] : [own, other];
}

/** FORWARD as iptables over nf_tables makes it. */
export function isIptablesForward(chain: { family: string; table: string; name: string }, family: 4 | 6): boolean {
  return chain.family === (family === 4 ? 'ip' : 'ip6') && chain.table === 'filter' && chain.name === 'FORWARD';
}

/** The tables of legacy iptables that exist in the namespace; reading makes none. */
export function legacyTables(family: 4 | 6, namespace: string | undefined): string[] {
  const file = `/proc/thread-self/net/${family === 4 ? 'ip' : 'ip6'}_tables_names`;
  const read = (): string => readFileSync(file, 'utf8');
  try {
    return (namespace === undefined ? read() : withNamespace(namespace, read)).split('\n').filter(line => line !== '');
  } catch {
    return []; // the kernel has no legacy iptables, or has not loaded it
  }
}
