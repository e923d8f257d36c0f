/** nft and iptables for both contenders, which masquerade with them: the machine's, else Debian's, fetched. */
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { findProgram } from '../programs.ts';

/** What a runtime's PATH is. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Fetched, iptables has its plain name nowhere: an installation makes that link. */
const TOOLS = [
  { package: 'nftables', program: 'nft', links: { nft: 'nft' } },
  { package: 'iptables', program: 'iptables-nft', links: { iptables: 'iptables-nft', ip6tables: 'ip6tables-nft' } },
];

/**
 * Variables with which a program finds the tools.
 * @param directory where links may lie
 * @throws Error when a tool is neither installed nor to be had
 */
export async function findRuleTools(directory: string): Promise<Record<string, string>> {
  const folder = join(directory, 'rule-tools');
  const libraries: string[] = [];
  for (const tool of TOOLS) {
    const found = await findProgram(tool, { limitMs: 120_000, fetch: true });
    if (typeof found === 'string') throw new Error(`no ${tool.program}: ${found}`);
    if (PATH.split(':').includes(dirname(found.path))) continue;
    mkdirSync(folder, { recursive: true });
    for (const [name, target] of Object.entries(tool.links)) {
      symlinkSync(join(dirname(found.path), target), join(folder, name));
    }
    libraries.push(...(found.environment['LD_LIBRARY_PATH'] ?? '').split(':'));
  }
  if (!existsSync(folder)) return { PATH };
  const extensions = libraries
    .map(each => join(each, 'xtables'))
    .find(each => each.startsWith('/') && existsSync(each));
  return {
    PATH: `${folder}:${PATH}`,
    LD_LIBRARY_PATH: libraries.join(':'),
    ...(extensions !== undefined && { XTABLES_LIBDIR: extensions }),
  };
}
