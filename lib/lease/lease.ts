// What a lease is, and the name that it has in every registry.
//
// A *network* is the whole range of the pods' addresses, a *subnet* one node's slice of it, a *lease* the timed claim of
// one node on one subnet. The shapes are flannel's, so that tulled and flanneld can share a registry.
import {
  equals4,
  equals6,
  formatCidr4,
  formatCidr6,
  parseCidr4,
  parseCidr6,
  type Subnet4,
  type Subnet6,
} from '../wire/cidr.ts';

export type { Subnet4, Subnet6 } from '../wire/cidr.ts';

/** The value of a lease: flannel's LeaseAttrs (pkg/lease/lease.go). Keys that we do not know are kept. */
export interface LeaseAttributes {
  /** The underlay IPv4 address that datagrams for this subnet are sent to; "0.0.0.0" in a network without IPv4. */
  PublicIP: string;
  PublicIPv6: string | null;
  /** Absent for flannel's udp backend. */
  BackendType?: string;
  BackendData?: unknown;
  BackendV6Data?: unknown;
  [other: string]: unknown;
}

export interface Lease {
  /** {address: 0, prefixLength: 0} in a network without IPv4, as in flannel. */
  subnet: Subnet4;
  subnet6?: Subnet6;
  attributes: LeaseAttributes;
  /** Wall clock, milliseconds since 1970: an estimate for people. null: a reservation, which never expires. */
  expiresAtMs: number | null;
  /** The registry's revision that made the key. It changes when the subnet changes hands. */
  createRevision: number;
  /** The registry's revision that wrote the value: the token of compare-and-swap. */
  modRevision: number;
}

/** What names a lease: its IPv4 subnet and, in a dual-stack network, its IPv6 subnet. */
export type LeaseSubnets = Pick<Lease, 'subnet' | 'subnet6'>;

/** Only the subnets of something that has them. */
export function subnetsOf({ subnet, subnet6 }: LeaseSubnets): LeaseSubnets {
  return subnet6 === undefined ? { subnet } : { subnet, subnet6 };
}

/** Whether two leases are of the same subnets: as comparing their keys, without making texts of thousands. */
export function sameSubnets(a: LeaseSubnets, b: LeaseSubnets): boolean {
  if (!equals4(a.subnet, b.subnet)) return false;
  if (a.subnet6 === undefined || b.subnet6 === undefined) return a.subnet6 === b.subnet6;
  return equals6(a.subnet6, b.subnet6);
}

/** flannel's key below `subnets/`: "10.5.1.0-24", dual stack "10.5.1.0-24&fd00:12:13::-64". */
export function subnetKey(lease: LeaseSubnets): string {
  const key4 = formatCidr4(lease.subnet).replace('/', '-');
  return lease.subnet6 === undefined ? key4 : `${key4}&${formatCidr6(lease.subnet6).replace('/', '-')}`;
}

const keyPattern = /^([0-9.]+)-([0-9]+)(?:&([0-9a-f:]+)-([0-9]+))?$/;

/**
 * The subnets that a key names, or undefined when it is not a key of ours. Stricter than flannel's pattern: whole text,
 * no address bits below the prefix, and only the one spelling that `subnetKey` gives, so that no two keys name one subnet.
 */
export function parseSubnetKey(text: string): LeaseSubnets | undefined {
  const match = keyPattern.exec(text);
  if (match === null) return undefined;
  const subnet = parseCidr4(`${match[1]}/${match[2]}`);
  if (subnet === undefined) return undefined;
  if (match[3] === undefined) return subnetKey({ subnet }) === text ? { subnet } : undefined;
  const subnet6 = parseCidr6(`${match[3]}/${match[4]}`);
  if (subnet6 === undefined) return undefined;
  return subnetKey({ subnet, subnet6 }) === text ? { subnet, subnet6 } : undefined;
}

/** "10.5.1.0/24" or "10.5.1.0/24 fd00::/64": the subnets as people write them. */
export function printSubnets(lease: LeaseSubnets): string {
  const { subnet, subnet6 } = lease;
  if (subnet6 === undefined) return formatCidr4(subnet);
  return subnet.prefixLength === 0 ? formatCidr6(subnet6) : `${formatCidr4(subnet)} ${formatCidr6(subnet6)}`;
}

/** The 32 bits of a lease that every datagram of its holder carries: they change when the subnet changes hands. */
export function leaseKeyOf(lease: Pick<Lease, 'createRevision'>): number {
  return lease.createRevision >>> 0;
}

/** The node id that a lease carries (BackendData.NodeID), or undefined: flannel's own leases have none. */
export function nodeIdOf(lease: Pick<Lease, 'attributes'>): string | undefined {
  const data = lease.attributes.BackendData;
  if (typeof data !== 'object' || data === null || !('NodeID' in data)) return undefined;
  return typeof data.NodeID === 'string' && data.NodeID !== '' ? data.NodeID : undefined;
}

/**
 * What is to be written on a lease that exists: ours, in flannel's order of keys, and whatever else the value held that
 * we do not understand. A backend that has no BackendType or BackendData (flannel's udp) leaves none of an earlier one.
 */
export function mergeAttributes(existing: LeaseAttributes, ours: LeaseAttributes): LeaseAttributes {
  const merged: LeaseAttributes = { ...ours };
  for (const [key, value] of Object.entries(existing)) {
    if (!(key in merged) && !understood.has(key)) merged[key] = value;
  }
  return merged;
}

const understood = new Set(['PublicIP', 'PublicIPv6', 'BackendType', 'BackendData', 'BackendV6Data']);
