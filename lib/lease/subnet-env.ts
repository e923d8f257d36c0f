// subnet.env: what a node's lease means for its container runtime, in flannel's format (pkg/subnet/subnet.go,
// WriteSubnetFile). CNI plugins, mk-docker-opts and we ourselves at the next start read it.
//
//   FLANNEL_NETWORK=10.50.0.0/16          also a comma list where there are several
//   FLANNEL_SUBNET=10.50.91.1/24          the first host address of the subnet, not its network address
//   FLANNEL_IPV6_NETWORK=fd00::/48
//   FLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64
//   FLANNEL_MTU=1472
//   FLANNEL_IPMASQ=false
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';
import {
  formatCidr4,
  formatCidr6,
  networkOf,
  networkOf6,
  parseCidr4,
  parseCidr6,
  type Subnet4,
  type Subnet6,
} from '../wire/cidr.ts';
import { writeFileAtomic } from './atomic-file.ts';
import type { NetworkConfig } from './config.ts';
import type { LeaseSubnets } from './lease.ts';

/** What the file says; subnets are network addresses here. Lines that are missing or make no sense are left out. */
export interface SubnetEnv {
  networks: Subnet4[];
  subnets: Subnet4[];
  networks6: Subnet6[];
  subnets6: Subnet6[];
  mtu?: number;
  ipMasq?: boolean;
}

export interface SubnetEnvContent {
  config: Pick<NetworkConfig, 'enableIPv4' | 'enableIPv6' | 'network' | 'network6'>;
  lease: LeaseSubnets;
  mtu: number;
  ipMasq: boolean;
}

/** The text of the file. */
export function formatSubnetEnv({ config, lease, mtu, ipMasq }: SubnetEnvContent): string {
  const lines: string[] = [];
  if (config.enableIPv4) {
    const { address, prefixLength } = lease.subnet;
    lines.push(`FLANNEL_NETWORK=${formatCidr4(config.network)}`);
    lines.push(`FLANNEL_SUBNET=${formatCidr4({ address: address + 1, prefixLength })}`);
  }
  if (config.enableIPv6 && config.network6 !== undefined && lease.subnet6 !== undefined) {
    const { address, prefixLength } = lease.subnet6;
    lines.push(`FLANNEL_IPV6_NETWORK=${formatCidr6(config.network6)}`);
    lines.push(`FLANNEL_IPV6_SUBNET=${formatCidr6({ address: address + 1n, prefixLength })}`);
  }
  lines.push(`FLANNEL_MTU=${mtu}`, `FLANNEL_IPMASQ=${ipMasq}`);
  return `${lines.join('\n')}\n`;
}

/** Reads the text of the file, as tolerant as a shell that sources it: quotes and `export` are fine. */
export function parseSubnetEnv(text: string): SubnetEnv {
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^\s*(?:export\s+)?([A-Z0-9_]+)=(.*?)\s*$/.exec(line);
    if (match !== null) values.set(match[1], match[2].replace(/^(["'])(.*)\1$/, '$2'));
  }
  const list = <T>(name: string, parse: (text: string) => T | undefined): T[] =>
    (values.get(name) ?? '').split(',').flatMap(item => parse(item.trim()) ?? []);
  const subnet4 = (item: string): Subnet4 | undefined => mapDefined(parseCidr4(item), networkOf);
  const subnet6 = (item: string): Subnet6 | undefined => mapDefined(parseCidr6(item), networkOf6);
  const mtu = values.get('FLANNEL_MTU') ?? '';
  const ipMasq = values.get('FLANNEL_IPMASQ');
  return {
    networks: list('FLANNEL_NETWORK', subnet4),
    subnets: list('FLANNEL_SUBNET', subnet4),
    networks6: list('FLANNEL_IPV6_NETWORK', subnet6),
    subnets6: list('FLANNEL_IPV6_SUBNET', subnet6),
    ...(/^[0-9]{1,5}$/.test(mtu) && { mtu: Number(mtu) }),
    ...((ipMasq === 'true' || ipMasq === 'false') && { ipMasq: ipMasq === 'true' }),
  };
}

/** What the file at `path` says, or undefined when there is none. Throws TulleError 'subnet-file'. */
export function readSubnetEnv(path: string): SubnetEnv | undefined {
  try {
    return parseSubnetEnv(readFileSync(path, 'utf8'));
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw fileError(path, 'read', error);
  }
}

/** The subnets of the file as `LeaseRequest.previousSubnet` wants them. */
export function previousSubnetOf(env: SubnetEnv | undefined): Partial<LeaseSubnets> {
  const [subnet] = env?.subnets ?? [];
  const [subnet6] = env?.subnets6 ?? [];
  return { ...(subnet && { subnet }), ...(subnet6 && { subnet6 }) };
}

/** Writes the file in one step, mode 0644, and makes its folder, mode 0755. Throws TulleError 'subnet-file'. */
export function writeSubnetEnv(path: string, content: SubnetEnvContent): void {
  const folder = dirname(path);
  try {
    if (!existsSync(folder)) {
      mkdirSync(folder, { recursive: true, mode: 0o755 });
      chmodSync(folder, 0o755); // whatever the umask says
    }
    writeFileAtomic(path, formatSubnetEnv(content), 0o644);
  } catch (error) {
    throw fileError(path, 'write', error);
  }
}

function fileError(path: string, verb: 'read' | 'write', error: unknown): TulleError {
  const message = `cannot ${verb} the subnet file ${path} (${messageOf(error)}): choose another with -subnet-file`;
  return new TulleError('subnet-file', message, { cause: error });
}

function mapDefined<A, B>(value: A | undefined, map: (value: A) => B): B | undefined {
  return value === undefined ? undefined : map(value);
}
