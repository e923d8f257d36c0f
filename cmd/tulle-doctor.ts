/** `tulle doctor …`: tulled's own flags say which underlay and registry, the rest is lib/observe/doctor/command.ts. */
import { networkInterfaces } from 'node:os';
import { environmentName, type FlagName, flags } from '../lib/daemon/flags.ts';
import { daemonOptions } from '../lib/daemon/options.ts';
import { type ParsedFlags, parseFlags } from '../lib/daemon/parse-flags.ts';
import { openRegistry } from '../lib/daemon/registry.ts';
import { type Lease, nodeIdOf } from '../lib/lease/lease.ts';
import type { Registry } from '../lib/lease/registry.ts';
import { DEFAULT_CONTROL_SOCKET } from '../lib/observe/control-client.ts';
import { runDoctor } from '../lib/observe/doctor/command.ts';
import type { PeerInput } from '../lib/observe/doctor/peers.ts';
import { TulleError } from '../lib/util/errors.ts';
import { silentLogger } from '../lib/util/log.ts';
import { formatCidr4 } from '../lib/wire/cidr.ts';

const UNDERLAY: readonly FlagName[] = ['iface', 'iface-regex', 'iface-can-reach', 'public-ip', 'node-id'];
const ours = flags.filter(({ group, name }) => ['registry', 'kubernetes'].includes(group) || UNDERLAY.includes(name));

export const DOCTOR_HELP = `tulle doctor: what of this machine, and of the way to its peers, keeps an overlay from working

usage: tulle doctor [--json] [--socket PATH] [FLAG ...]

It tries what it can in a network namespace of its own and changes nothing. With a running tulled the peers are those
that it knows, measured by its probes; without one give a registry to have the peers' machines looked at.

flags:
  --json             for programs: one JSON document
                     tulle doctor --json
  --socket PATH      tulled's --control-socket, where it is not ${DEFAULT_CONTROL_SOCKET}
                     tulle doctor --socket /run/tulle/node1-tulled.sock
${ours.map(flag => `  -${flag.name.padEnd(16)} ${flag.help}\n                     tulle doctor ${flag.example}`).join('\n')}

All but the first two are tulled's, and so are their variables (${environmentName(ours[0])} …): give what tulled is given.

Exit codes: 0 nothing keeps an overlay from working, 1 something does. docs/doctor.md explains every finding.
`;

/** Runs `tulle doctor ARGS`. */
export async function doctor(args: readonly string[]): Promise<number> {
  const { tulled, json, socket, help } = split(args);
  if (help) {
    process.stdout.write(DOCTOR_HELP);
    return 0;
  }
  const parsed = parseFlags(tulled, environment());
  const options = daemonOptions(parsed);
  const code = await runDoctor({
    socket,
    json,
    interface: options.interface,
    peersOf: namesRegistry(parsed) ? () => peersOf(options) : undefined,
    out: text => void process.stdout.write(text),
  });
  await new Promise<void>(done => process.stdout.write('', () => done())); // a pipe may still be filling
  return code;
}

/** The default registry is an etcd on this machine, which nobody may have: only one that was named is asked. */
const namesRegistry = ({ given, values }: ParsedFlags): boolean =>
  given.has('registry') || given.has('etcd-endpoints') || values['kube-subnet-mgr'];

async function peersOf({ registry: options, nodeId }: ReturnType<typeof daemonOptions>): Promise<PeerInput[]> {
  const registry = await open(options);
  try {
    const { leases } = await registry.list();
    const own = new Set(Object.values(networkInterfaces()).flatMap(list => (list ?? []).map(({ address }) => address)));
    const isOurs = (lease: Lease): boolean =>
      own.has(lease.attributes.PublicIP) || (nodeId !== undefined && nodeIdOf(lease) === nodeId);
    return leases.filter(lease => !isOurs(lease)).map(peerOf);
  } finally {
    await registry.close();
  }
}

/** To look, no node of Kubernetes needs to be us. */
async function open(options: ReturnType<typeof daemonOptions>['registry']): Promise<Registry> {
  if (options.kind !== 'kubernetes') return openRegistry(options, silentLogger);
  const { openKubeRegistry } = await import('../lib/kube/registry.ts');
  return openKubeRegistry({ ...options, log: silentLogger });
}

function peerOf(lease: Lease): PeerInput {
  const { PublicIP, BackendType, BackendData } = lease.attributes;
  const named = typeof BackendData === 'object' && BackendData !== null && 'Port' in BackendData && BackendData.Port;
  const port = typeof named === 'number' ? named : 8285;
  const format = BackendType === 'tulle' ? 'tulle' : 'bare';
  return { subnet: formatCidr4(lease.subnet), node: nodeIdOf(lease) ?? null, endpoint: `${PublicIP}:${port}`, format };
}

/** Only what concerns us: a -ip-masq that this machine's tulled is given must not stop a look. */
function environment(): Record<string, string | undefined> {
  return Object.fromEntries(ours.map(environmentName).map(name => [name, process.env[name]]));
}

/** Our own flags apart from tulled's. */
function split(args: readonly string[]): { tulled: string[]; json: boolean; socket: string; help: boolean } {
  const result = { tulled: [] as string[], json: false, socket: DEFAULT_CONTROL_SOCKET, help: false };
  for (let index = 0; index < args.length; index++) {
    const arg = args[index];
    const [name, value] = [
      arg.replace(/^--?/, '').split('=')[0],
      arg.includes('=') ? arg.slice(arg.indexOf('=') + 1) : undefined,
    ];
    if (!arg.startsWith('-')) throw usage(`"${arg}" is no flag`);
    if (name === 'json') result.json = true;
    else if (['help', 'h'].includes(name)) result.help = true;
    else if (name === 'socket') result.socket = value ?? args[++index] ?? result.socket;
    else {
      const flag = ours.find(known => known.name === name);
      if (flag === undefined) throw usage(`${arg.split('=')[0]}: there is no such flag`);
      result.tulled.push(arg);
      if (value === undefined && flag.kind !== 'boolean' && index + 1 < args.length) result.tulled.push(args[++index]);
    }
  }
  return result;
}

function usage(message: string): TulleError {
  return new TulleError('usage', `${message}: see "tulle doctor --help"`);
}
