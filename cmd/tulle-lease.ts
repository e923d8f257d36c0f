/** `tulle lease …`: tulled's own flags say which registry, the rest is lib/observe/lease-command.ts. */
import { networkInterfaces } from 'node:os';
import { environmentName, type FlagName, flags } from '../lib/daemon/flags.ts';
import { daemonOptions } from '../lib/daemon/options.ts';
import { nearest, parseFlags } from '../lib/daemon/parse-flags.ts';
import { realParts } from '../lib/daemon/parts.ts';
import { registryName } from '../lib/daemon/registry.ts';
import { openFileRegistry } from '../lib/lease/file-registry.ts';
import type { RegistryHistory } from '../lib/lease/history.ts';
import { readJournal, viewOf } from '../lib/lease/journal.ts';
import type { Registry } from '../lib/lease/registry.ts';
import { type LeaseCommand, runLeaseCommand } from '../lib/observe/lease-command.ts';
import type { Identity } from '../lib/observe/lease-rows.ts';
import { TulleError } from '../lib/util/errors.ts';
import type { Logger } from '../lib/util/log.ts';

const VERBS = ['ls', 'watch', 'log', 'at', 'why'];
const OTHER_FLAGS: readonly FlagName[] = [
  ...(['subnet-file', 'state-dir', 'node-id'] as const),
  ...(['kube-subnet-mgr', 'kubeconfig-file', 'kube-api-url', 'net-config-path', 'kube-annotation-prefix'] as const),
];
const ours = flags.filter(flag => flag.group === 'registry' || OTHER_FLAGS.includes(flag.name));

export const LEASE_HELP = `tulle lease: who has which subnet, who had it, and why

usage: tulle lease VERB [FLAG ...]

  ls               the leases of this moment
  watch            the leases, and every change as it happens, until Ctrl-C
  log [SUBNET]     all that is known to have happened, oldest first
  at WHEN          the leases as they were: WHEN is a revision (4711), a time (2026-08-01 12:00:00Z), or how long ago (10m)
  why SUBNET       who holds it since when, how it was chosen, who had it before, why it changed hands

SUBNET is a subnet (10.5.1.0/24) or an address in one (10.5.1.7).

flags:
  --json           for programs: one JSON value (watch: one a line)
${ours.map(flag => `  -${flag.name.padEnd(22)} ${flag.help}`).join('\n')}

They are tulled's, and so are their variables (${environmentName(ours[1])} …): on a node, give what its tulled was given.
etcd remembers every revision up to its last compaction; what tulled saw and decided is in its journal, beside subnet.env.

  tulle lease ls -etcd-endpoints=http://10.88.0.1:2379
  tulle lease why 10.5.1.0/24 --registry=file:/var/lib/tulle/leases
  tulle lease at 2h --json
`;

/** Runs `tulle lease ARGS`. */
export async function lease(args: readonly string[]): Promise<number> {
  const { words, tulled, json, help } = split(args);
  if (help || words.length === 0 || words[0] === 'help') {
    process.stdout.write(LEASE_HELP);
    return 0;
  }
  if (!VERBS.includes(words[0])) throw usage(`there is no "tulle lease ${words[0]}"`);
  const { registry: options, journalFile, nodeId } = daemonOptions(parseFlags(tulled, environment()));

  const stopper = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stopper.abort());
  process.stdout.on('error', () => stopper.abort()); // "tulle lease watch | head": the reader has gone
  const records = readJournal(journalFile);
  const opened = await open(options, words[0]);
  try {
    await runLeaseCommand(words, {
      ...opened,
      registryName: registryName(options),
      journal: { path: journalFile, records },
      me: identity(nodeId, viewOf(records).own),
      nowMs: Date.now(),
      json,
      out: text => void process.stdout.write(text),
      signal: stopper.signal,
    });
  } finally {
    opened.history?.close();
    await opened.registry.close();
    await new Promise<void>(done => process.stdout.write('', () => done())); // a pipe may still be filling
  }
  return 0;
}

/** Only what concerns us: a -ip-masq that this machine's tulled is given must not stop a look at the leases. */
function environment(): Record<string, string | undefined> {
  return Object.fromEntries(ours.map(environmentName).map(name => [name, process.env[name]]));
}

async function open(
  options: ReturnType<typeof daemonOptions>['registry'],
  verb: string,
): Promise<Pick<LeaseCommand, 'registry' | 'history'>> {
  const log = warnings;
  if (options.kind === 'file') return { registry: openFileRegistry(options.directory, { log }) };
  if (options.kind === 'kubernetes') {
    const { openKubeRegistry } = await import('../lib/kube/registry.ts');
    return { registry: openKubeRegistry({ ...options, log }) };
  }
  const { openEtcdRegistry } = await import('../etcd/registry.ts');
  const registry: Registry = openEtcdRegistry({ ...options, log, exactExpiry: verb === 'ls' });
  if (!['log', 'at', 'why'].includes(verb)) return { registry };
  const { openEtcdHistory } = await import('../etcd/history.ts');
  const history: RegistryHistory = openEtcdHistory({ ...options, log });
  return { registry, history };
}

/** What is wrong in the registry, one line on stderr each. */
const warnings: Logger = {
  debug: () => {},
  info: () => {},
  warn: (fields, message) => {
    const details = Object.values(fields).filter(value => typeof value === 'string');
    process.stderr.write(`tulle: ${[message, ...details].join(': ')}\n`);
  },
  error: () => {},
};

/** Who this machine is: as it is told, else as its tulled was, else as a tulled would be. */
function identity(given: string | undefined, own: { node: string; publicIp: string } | undefined): Identity {
  const addresses = new Set(own === undefined ? [] : [own.publicIp]);
  for (const list of Object.values(networkInterfaces())) for (const { address } of list ?? []) addresses.add(address);
  try {
    return { nodeId: given ?? own?.node ?? realParts.nodeId(undefined), addresses };
  } catch {
    return { addresses }; // no machine-id, and no permission to make one up
  }
}

/** Our own words and flags apart from tulled's, whose values may be words of their own ("-etcd-prefix /x"). */
function split(args: readonly string[]): { words: string[]; tulled: string[]; json: boolean; help: boolean } {
  const result = { words: [] as string[], tulled: [] as string[], json: false, help: false };
  for (let index = 0; index < args.length; index++) {
    const arg = args[index];
    const match = /^--?([^-=][^=]*)(=.*)?$/s.exec(arg);
    if (match === null) result.words.push(arg);
    else if (arg === '-json' || arg === '--json') result.json = true;
    else if (['-h', '-help', '--help'].includes(arg)) result.help = true;
    else {
      const flag = ours.find(({ name }) => name === match[1]);
      if (flag === undefined) {
        const near = nearest(match[1], [...ours.map(({ name }) => name), 'json']);
        throw usage(
          `${arg.split('=')[0]}: there is no such flag${near === undefined ? '' : `; did you mean -${near}?`}`,
        );
      }
      result.tulled.push(arg);
      if (match[2] === undefined && flag.kind !== 'boolean' && index + 1 < args.length)
        result.tulled.push(args[++index]);
    }
  }
  return result;
}

function usage(message: string): TulleError {
  return new TulleError('usage', `${message}: see "tulle lease --help"`);
}
