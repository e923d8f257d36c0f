/**
 * What the two backends that go over UDP have in common and where they differ: `tulle` (our header) and `udp` (flannel's
 * format: bare IP packets). The functions are pure: from a net-conf or a lease to numbers.
 */

import type { Peer } from '../datapath/peers.ts';
import { staysOnLink6 } from '../datapath/route6.ts';
import { FORMAT_BARE, FORMAT_TULLE } from '../datapath/slab.ts';
import type { NetworkConfig } from '../lease/config.ts';
import { type Lease, type LeaseAttributes, leaseKeyOf } from '../lease/lease.ts';
import { TulleError } from '../util/errors.ts';
import { IP4_HEADER_BYTES, parseAddress4 } from '../wire/ip4.ts';
import { IP6_HEADER_BYTES, parseAddress6 } from '../wire/ip6.ts';
import { HEADER_BYTES } from '../wire/tulle.ts';
import { UDP_HEADER_BYTES } from '../wire/udp.ts';

export type BackendType = 'tulle' | 'udp';

/** flannel's default port for its udp backend; ours too, because one socket understands both formats. */
export const DEFAULT_PORT = 8285;
/** The version of the BackendData that we write: it goes up when a reader of the old one would go wrong. */
const DATA_VERSION = 1;

export interface Backend {
  type: BackendType;
  port: number;
  /** The version of IP that nodes speak with each other; absent is 4. It is the whole network's choice. */
  underlay?: 6;
}

export const formatOf = (type: BackendType): number => (type === 'tulle' ? FORMAT_TULLE : FORMAT_BARE);

/** The backend that a net-conf asks for. Code 'bad-config' when it is none of ours or its options are wrong. */
export function backendOf(config: Pick<NetworkConfig, 'backendType' | 'backend'>): Backend {
  const type = config.backendType;
  if (type !== 'tulle' && type !== 'udp') {
    throw new TulleError(
      'bad-config',
      `Backend.Type "${type}" is not supported: use "tulle", or "udp" for flannel's format`,
    );
  }
  // Go's encoding/json matches keys in any case, and so does everything that reads a net-conf.
  const option = (name: string): unknown =>
    Object.entries(config.backend).find(([key]) => key.toLowerCase() === name)?.[1];
  const port = option('port') ?? DEFAULT_PORT;
  if (!isPort(port))
    throw new TulleError('bad-config', `Backend.Port ${JSON.stringify(port)} is no UDP port: use 1 to 65535`);
  const underlay = option('underlay') ?? 'ipv4';
  if (underlay !== 'ipv4' && underlay !== 'ipv6')
    throw new TulleError('bad-config', `Backend.Underlay ${JSON.stringify(underlay)} is neither "ipv4" nor "ipv6"`);
  if (underlay === 'ipv4') return { type, port };
  if (type === 'udp')
    throw new TulleError(
      'bad-config',
      'Backend.Underlay "ipv6" needs Backend.Type "tulle": flannel\'s udp speaks IPv4',
    );
  return { type, port, underlay: 6 };
}

const isPort = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value > 0 && value <= 0xffff;

/** Bytes that the backend puts around an inner packet. */
export function overheadOf({ type, underlay }: Pick<Backend, 'type' | 'underlay'>): number {
  const ip = underlay === 6 ? IP6_HEADER_BYTES : IP4_HEADER_BYTES;
  return ip + UDP_HEADER_BYTES + (type === 'tulle' ? HEADER_BYTES : 0);
}

/** The largest inner packet that crosses the underlay in one piece. `ip6`: pods have IPv6 addresses too. */
export function overlayMtu(
  backend: Pick<Backend, 'type' | 'underlay'>,
  underlayMtu: number,
  { ip6 = false }: { ip6?: boolean } = {},
): number {
  const overhead = overheadOf(backend);
  const mtu = underlayMtu - overhead;
  // 576: what every IPv4 host must take (RFC 791); below it TCP's minimum segment does not fit either. IPv6: RFC 8200 §5.
  const least = ip6 ? 1280 : 576;
  if (mtu < least)
    throw new TulleError(
      'bad-mtu',
      `an underlay MTU of ${underlayMtu} leaves ${mtu} bytes for pods: raise it to ${least + overhead} or more`,
    );
  return mtu;
}

/** What a lease says about its holder's backend. flannel's udp backend says nothing. */
export function backendAttributes(
  backend: Backend,
  nodeId: string,
): Pick<LeaseAttributes, 'BackendType' | 'BackendData'> {
  if (backend.type === 'udp') return {};
  return { BackendType: 'tulle', BackendData: { Version: DATA_VERSION, Port: backend.port, NodeID: nodeId } };
}

/** The peer that a lease describes, or the reason why packets cannot go there, for the log. */
export function peerOf(lease: Lease, backend: Backend): Peer | string {
  const { BackendType, BackendData } = lease.attributes;
  // flannel leaves the type out for udp; some of its versions wrote it.
  const type = BackendType ?? 'udp';
  if (type !== backend.type) return `its backend is "${type}" where this network's is "${backend.type}"`;
  const address = backend.underlay === 6 ? endpoint6(lease.attributes) : endpoint4(lease.attributes);
  if (typeof address === 'string') return address;
  const { subnet, subnet6 } = lease;
  const subnets = subnet6 === undefined ? { subnet } : { subnet, subnet6 };
  const peer = { ...subnets, address, key: leaseKeyOf(lease), format: formatOf(backend.type) };
  if (backend.type === 'udp') return { ...peer, port: backend.port };
  const data: Record<string, unknown> =
    typeof BackendData === 'object' && BackendData !== null ? { ...BackendData } : {};
  if (data['Version'] !== DATA_VERSION)
    return `its BackendData has version ${JSON.stringify(data['Version'])}, not ${DATA_VERSION}`;
  if (!isPort(data['Port'])) return `its BackendData names no port (${JSON.stringify(data['Port'])})`;
  return { ...peer, port: data['Port'] };
}

function endpoint4({ PublicIP }: LeaseAttributes): number | string {
  const address = parseAddress4(PublicIP);
  return address === undefined || address === 0
    ? `its PublicIP ${JSON.stringify(PublicIP)} is no IPv4 address`
    : address;
}

function endpoint6({ PublicIPv6 }: LeaseAttributes): Uint8Array | string {
  const address = typeof PublicIPv6 === 'string' ? parseAddress6(PublicIPv6) : undefined;
  // One that stays on its link says nothing without the link.
  if (address !== undefined && !staysOnLink6(address, 0)) return address;
  return `its PublicIPv6 ${JSON.stringify(PublicIPv6)} is no IPv6 address that others can send to`;
}
