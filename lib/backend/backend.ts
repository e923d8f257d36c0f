/**
 * What the two backends that go over UDP have in common and where they differ: `tulle` (our header) and `udp` (flannel's
 * format: bare IP packets). The functions are pure: from a net-conf or a lease to numbers.
 */

import type { Peer } from '../datapath/peers.ts';
import { FORMAT_BARE, FORMAT_TULLE } from '../datapath/slab.ts';
import type { NetworkConfig } from '../lease/config.ts';
import { type Lease, type LeaseAttributes, leaseKeyOf } from '../lease/lease.ts';
import { TulleError } from '../util/errors.ts';
import { IP4_HEADER_BYTES, parseAddress4 } from '../wire/ip4.ts';
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
  const port = Object.entries(config.backend).find(([key]) => key.toLowerCase() === 'port')?.[1] ?? DEFAULT_PORT;
  if (!isPort(port))
    throw new TulleError('bad-config', `Backend.Port ${JSON.stringify(port)} is no UDP port: use 1 to 65535`);
  return { type, port };
}

const isPort = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value > 0 && value <= 0xffff;

/** Bytes that the backend puts around an inner packet, over an IPv4 underlay. */
export function overheadOf(type: BackendType): number {
  return IP4_HEADER_BYTES + UDP_HEADER_BYTES + (type === 'tulle' ? HEADER_BYTES : 0);
}

/** The largest inner packet that crosses the underlay in one piece. */
export function overlayMtu(type: BackendType, underlayMtu: number): number {
  const mtu = underlayMtu - overheadOf(type);
  // 576: what every IPv4 host must take (RFC 791); below it TCP's minimum segment does not fit either.
  if (mtu < 576)
    throw new TulleError(
      'bad-mtu',
      `an underlay MTU of ${underlayMtu} leaves ${mtu} bytes for pods: raise it to ${576 + overheadOf(type)} or more`,
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
  const { BackendType, BackendData, PublicIP } = lease.attributes;
  // flannel leaves the type out for udp; some of its versions wrote it.
  const type = BackendType ?? 'udp';
  if (type !== backend.type) return `its backend is "${type}" where this network's is "${backend.type}"`;
  const address = parseAddress4(PublicIP);
  if (address === undefined || address === 0) return `its PublicIP ${JSON.stringify(PublicIP)} is no IPv4 address`;
  const peer = { subnet: lease.subnet, address, key: leaseKeyOf(lease), format: formatOf(backend.type) };
  if (backend.type === 'udp') return { ...peer, port: backend.port };
  const data: Record<string, unknown> =
    typeof BackendData === 'object' && BackendData !== null ? { ...BackendData } : {};
  if (data['Version'] !== DATA_VERSION)
    return `its BackendData has version ${JSON.stringify(data['Version'])}, not ${DATA_VERSION}`;
  if (!isPort(data['Port'])) return `its BackendData names no port (${JSON.stringify(data['Port'])})`;
  return { ...peer, port: data['Port'] };
}
