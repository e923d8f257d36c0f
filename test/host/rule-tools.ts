/** nft and iptables for tests, installed or fetched, in folders that hold just the tools that a test wants to be there. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

type Found = { path: string; environment: Record<string, string> } | { reason: string };

function findRoot(from: string): string {
  return existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from));
}
const root = findRoot(dirname(fileURLToPath(import.meta.url)));
const { cacheFolder, fetchDebian } = (await import(join(root, 'scripts/fetch-debian.mjs'))) as {
  cacheFolder(): string;
  fetchDebian(options: { package: string; program: string; folder?: string }): Found;
};

export type ToolSet = 'nft' | 'iptables' | 'legacy' | 'both' | 'neither';

export interface RuleToolFolders {
  /** Folders for the option `path` of lib/host/rules. In 'legacy', `iptables` itself is the older one. */
  path(set: ToolSet): string[];
  /** One program, for the test's own use. */
  nft: string;
  iptables: string;
  legacy: string;
  /** Everything that the tools need beside what is installed: for who shows them to a container. */
  needed: string[];
  remove(): void;
}

/** Or the reason why there are none, said aloud. */
export function openRuleTools(): RuleToolFolders | string {
  const nft = fetchDebian({ package: 'nftables', program: 'nft' });
  const iptables = fetchDebian({ package: 'iptables', program: 'iptables-nft' });
  const legacy = fetchDebian({ package: 'iptables', program: 'iptables-legacy', folder: 'iptables-legacy' });
  for (const found of [nft, iptables, legacy]) {
    if (!('reason' in found)) continue;
    const reason = `SKIPPED: ${found.reason}`;
    console.error(reason);
    return reason;
  }
  const directory = mkdtempSync(join(tmpdir(), `tulle-rule-tools-${process.pid}-`));
  const put = (folder: string, name: string, found: Found, program?: string): string => {
    if ('reason' in found) throw new Error(found.reason);
    const target = program === undefined ? found.path : join(dirname(found.path), program);
    const libraries = (found.environment['LD_LIBRARY_PATH'] ?? '').split(':');
    // Fetched, iptables finds its extensions only if it is told where they are.
    const extensions = libraries
      .map(each => join(each, 'xtables'))
      .find(each => each.startsWith('/') && existsSync(each));
    const environment = { ...found.environment, ...(extensions !== undefined && { XTABLES_LIBDIR: extensions }) };
    const exports = Object.entries(environment).map(([key, value]) => `export ${key}='${value}'\n`);
    mkdirSync(join(directory, folder), { recursive: true });
    const file = join(directory, folder, name);
    writeFileSync(file, `#!/bin/sh\n${exports.join('')}exec '${target}' "$@"\n`);
    chmodSync(file, 0o755);
    return file;
  };
  for (const family of ['iptables', 'ip6tables']) {
    for (const end of ['', '-save', '-restore']) {
      put('iptables', family + end, iptables, `${family}-nft${end}`);
      put('iptables', `${family}-legacy${end}`, legacy, `${family}-legacy${end}`);
      put('legacy', family + end, legacy, `${family}-legacy${end}`);
      put('legacy', `${family}-nft${end}`, iptables, `${family}-nft${end}`);
    }
  }
  const folder = (name: string): string => join(directory, name);
  const sets: Record<ToolSet, string[]> = {
    nft: [folder('nft')],
    iptables: [folder('iptables')],
    legacy: [folder('legacy')],
    both: [folder('nft'), folder('iptables')],
    neither: [folder('nothing')],
  };
  return {
    path: set => sets[set],
    nft: put('nft', 'nft', nft),
    iptables: join(folder('iptables'), 'iptables'),
    legacy: join(folder('legacy'), 'iptables'),
    needed: [directory, cacheFolder()].filter(existsSync),
    remove: () => rmSync(directory, { recursive: true, force: true }),
  };
}
