// Which subnet a node takes: pure, from one snapshot. The order is the same for every registry:
// own lease → the subnet of subnet.env, if it is free → a reservation for this node → a free one.
import { equals4, type Subnet4, sizeOf } from '../wire/cidr.ts';
import { fitsConfig, fitsConfig4, fitsConfig6, type NetworkConfig } from './config.ts';
import { type Lease, type LeaseAttributes, type LeaseSubnets, nodeIdOf, sameSubnets } from './lease.ts';
import { createOverlapIndex, type OverlapIndex } from './overlap.ts';
import type { Snapshot } from './registry.ts';

/** Who asks, and for what. */
export interface LeaseRequest {
  config: NetworkConfig;
  nodeId: string;
  /** What the lease is to carry; BackendData.NodeID is the node id where the backend has BackendData at all. */
  attributes: LeaseAttributes;
  /** The subnets that subnet.env names: pods of the last run may still use them. */
  previousSubnet?: Partial<LeaseSubnets>;
}

export interface Choice {
  /** Keep and renew this lease, create one, or nothing is left. */
  action:
    | { kind: 'keep'; lease: Lease }
    | { kind: 'create'; subnets: LeaseSubnets }
    | { kind: 'full' }
    /** The registry assigned one that the configuration does not allow. */
    | { kind: 'misfit'; lease: Lease };
  /** Leases of ours that no longer fit the configuration: remove them first. */
  discard: Lease[];
  /** Reservations of ours that do not fit: an operator made them, an operator must mend them. */
  unusable: Lease[];
  /** A live lease of another node that carries our address. */
  conflict?: Lease;
  /**
   * Leases with our node id on another address: this node got a new address, or somebody cloned its machine-id. We
   * cannot tell, so they are left alone.
   */
  twins: Lease[];
}

/**
 * How a free subnet is drawn: at random among the first `width` free ones from SubnetMin (flannel: 100), so that nodes
 * that start together seldom want the same one; widen it after a collision.
 */
export interface Draw {
  /** 0 <= random() < 1 */
  random: () => number;
  width: number;
}

/** Decides on one snapshot. */
export function chooseLease(snapshot: Snapshot, request: LeaseRequest, draw: Draw): Choice {
  const { config, previousSubnet = {} } = request;
  if (snapshot.assigned !== undefined) return takeAssigned(snapshot, snapshot.assigned, request);
  const ours = snapshot.leases.filter(lease => isOwn(lease, request));
  const fitting = ours.filter(lease => fitsConfig(config, lease));
  const discard = ours.filter(lease => lease.expiresAtMs !== null && !fitting.includes(lease));
  const unusable = ours.filter(lease => lease.expiresAtMs === null && !fitting.includes(lease));
  const others = snapshot.leases.filter(lease => !ours.includes(lease));
  const conflict = others.find(lease => sameAddress(lease, request));
  const twins = others.filter(lease => nodeIdOf(lease) === request.nodeId);
  const choice = { discard, unusable, twins, ...(conflict && { conflict }) };
  const keep = (lease: Lease): Choice => ({ action: { kind: 'keep', lease }, ...choice });

  // Should several fit, the one of subnet.env is preferred, then the one written last.
  const isPrevious = ({ subnet }: LeaseSubnets): boolean =>
    previousSubnet.subnet !== undefined && equals4(subnet, previousSubnet.subnet);
  fitting.sort((a, b) => Number(isPrevious(b)) - Number(isPrevious(a)) || b.modRevision - a.modRevision);
  const own = fitting.find(lease => !isReservation(lease));
  if (own !== undefined) return keep(own);

  const taken = createOverlapIndex<true>();
  for (const lease of snapshot.leases) if (!discard.includes(lease)) taken.add(lease, true);
  for (const subnets of snapshot.unreadable ?? []) taken.add(subnets, true);
  const subnets = freeSubnets(config, previousSubnet, taken, draw);
  const reservation = fitting[0];
  if (reservation !== undefined && !(subnets !== undefined && isPrevious(subnets))) return keep(reservation);
  return { action: subnets === undefined ? { kind: 'full' } : { kind: 'create', subnets }, ...choice };
}

/** A registry that gives out the subnets leaves nothing to choose. */
function takeAssigned({ leases }: Snapshot, lease: Lease, request: LeaseRequest): Choice {
  const others = leases.filter(other => !sameSubnets(other, lease));
  const conflict = others.find(other => sameAddress(other, request));
  const kind = fitsConfig(request.config, lease) ? 'keep' : 'misfit';
  return { action: { kind, lease }, discard: [], unusable: [], twins: [], ...(conflict && { conflict }) };
}

/** A key that an operator made for us and that we have not taken yet: no TTL, and our address or our node id alone. */
function isReservation(lease: Lease): boolean {
  return lease.expiresAtMs === null && (nodeIdOf(lease) === undefined || hasNoAddress(lease));
}

/**
 * Whether a lease is ours to take up. Without a node id (flannel's own leases, reservations) the address decides, as in
 * flannel. With one, node id and address must both be ours: machines that were cloned share the id. Rejected: to take a
 * lease of our id on another address where subnet.env names its subnet; the file does not know that the subnet was lost
 * since and is a clone's now (test/model found it).
 */
export function isOwn(lease: Lease, request: Pick<LeaseRequest, 'nodeId' | 'attributes'>): boolean {
  const holder = nodeIdOf(lease);
  if (holder === undefined) return sameAddress(lease, request);
  return holder === request.nodeId && (hasNoAddress(lease) || sameAddress(lease, request));
}

/** A reservation that an operator wrote for a node id, wherever that node is. */
function hasNoAddress({ attributes, expiresAtMs }: Lease): boolean {
  return expiresAtMs === null && attributes.PublicIP === '0.0.0.0' && attributes.PublicIPv6 === null;
}

function sameAddress(lease: Lease, { attributes }: Pick<LeaseRequest, 'attributes'>): boolean {
  const { PublicIP, PublicIPv6 } = attributes;
  if (PublicIP !== '' && PublicIP !== '0.0.0.0') return lease.attributes.PublicIP === PublicIP;
  return PublicIPv6 !== null && lease.attributes.PublicIPv6 === PublicIPv6;
}

/** Each family's part of `wanted` where it fits and is free, else a free one; undefined when a family is full. */
function freeSubnets(
  config: NetworkConfig,
  wanted: Partial<LeaseSubnets>,
  taken: OverlapIndex<true>,
  draw: Draw,
): LeaseSubnets | undefined {
  let subnet: Subnet4 = { address: 0, prefixLength: 0 };
  if (config.enableIPv4) {
    const { subnetMin, subnetMax, subnetLength: prefixLength } = config;
    const size = sizeOf(prefixLength);
    const isFree = (address: number): boolean => taken.find({ subnet: { address, prefixLength } }) === undefined;
    const wish = fitsConfig4(config, wanted.subnet) ? wanted.subnet?.address : undefined;
    const address = freeAddress(subnetMin, subnetMax, start => start + size, isFree, wish, draw);
    if (address === undefined) return undefined;
    subnet = { address, prefixLength };
  }

  const { subnetMin6, subnetMax6, subnetLength6: prefixLength } = config;
  if (subnetMin6 === undefined || subnetMax6 === undefined || prefixLength === undefined) return { subnet };
  const size = 1n << BigInt(128 - prefixLength);
  const none: Subnet4 = { address: 0, prefixLength: 0 };
  const isFree = (address: bigint): boolean =>
    taken.find({ subnet: none, subnet6: { address, prefixLength } }) === undefined;
  const wish = fitsConfig6(config, wanted.subnet6) ? wanted.subnet6?.address : undefined;
  const address = freeAddress(subnetMin6, subnetMax6, start => start + size, isFree, wish, draw);
  return address === undefined ? undefined : { subnet, subnet6: { address, prefixLength } };
}

function freeAddress<A extends number | bigint>(
  min: A,
  max: A,
  next: (address: A) => A,
  isFree: (address: A) => boolean,
  wish: A | undefined,
  { random, width }: Draw,
): A | undefined {
  if (wish !== undefined && isFree(wish)) return wish;
  const free: A[] = [];
  for (let address = min; address <= max && free.length < width; address = next(address)) {
    if (isFree(address)) free.push(address);
  }
  return free[Math.floor(random() * free.length)];
}
