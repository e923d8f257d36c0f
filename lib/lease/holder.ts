// Who holds what, in words: the one line that a person reads when a lease cannot be had or is lost.
import { TulleError } from '../util/errors.ts';
import { formatCidr4, formatCidr6 } from '../wire/cidr.ts';
import { isOwn, type LeaseRequest } from './choose.ts';
import { type Lease, type LeaseSubnets, nodeIdOf, printSubnets, sameSubnets } from './lease.ts';
import { createOverlapIndex } from './overlap.ts';
import type { Snapshot } from './registry.ts';

/** "the lease 10.5.3.0/24 of node a (10.88.0.2)" */
export function holderOf(lease: Lease): string {
  const nodeId = nodeIdOf(lease);
  const address = lease.attributes.PublicIP;
  return `the lease ${printSubnets(lease)} of ${nodeId === undefined ? `node ${address}` : `node ${nodeId} (${address})`}`;
}

export const twinAdvice =
  'if two machines have one node id (a cloned /etc/machine-id), give each its own with --node-id; ' +
  'if this one only got a new address, that lease ends by itself';

/** Why our lease is lost, or undefined when it is still ours or free; `found` is what is there in its place now. */
export function whyLost(
  snapshot: Snapshot,
  found: Lease | undefined,
  lease: Lease,
  request: LeaseRequest,
): string | undefined {
  if (snapshot.assigned !== undefined) return whyReassigned(snapshot.assigned, lease);
  return found === undefined ? whyTaken(snapshot, lease) : whyForeign(found, request);
}

/** Why a lease on our subnet is not ours any more, or undefined when it is. */
function whyForeign(found: Lease, request: LeaseRequest): string | undefined {
  if (isOwn(found, request)) return undefined;
  const twin = nodeIdOf(found) === request.nodeId ? `, which is our own node id on another address: ${twinAdvice}` : '';
  return `the subnet is now in ${holderOf(found)}${twin}`;
}

/** Why a lease that is gone cannot be made again, or undefined when its subnet is free. */
function whyTaken({ leases, unreadable = [] }: Snapshot, lease: Lease): string | undefined {
  const index = createOverlapIndex<Lease>();
  for (const subnets of unreadable) index.add(subnets, undefined);
  for (const other of leases) index.add(other, other);
  const clash = index.find(lease);
  if (clash === undefined) return undefined;
  return clash.value === undefined
    ? 'its entry in the registry cannot be read'
    : `the subnet is now in ${holderOf(clash.value)}`;
}

/** Why the subnet that a registry gave us is not ours any more, or undefined when it is. */
function whyReassigned(assigned: LeaseSubnets, lease: LeaseSubnets): string | undefined {
  if (sameSubnets(assigned, lease)) return undefined;
  return `the registry gives this node ${printSubnets(assigned)} now, not ${printSubnets(lease)}`;
}

export function misfit(lease: LeaseSubnets): TulleError {
  return new TulleError(
    'bad-config',
    `the registry gives this node ${printSubnets(lease)}, which the network configuration does not allow: make them agree`,
  );
}

/** Two nodes with one address: without a lease of our own there is nothing that we may do. */
export function addressConflict({ attributes }: LeaseRequest, conflict: Lease): TulleError {
  const nodeId = nodeIdOf(conflict);
  const also = nodeId === undefined ? ', and another process keeps it' : '';
  const takeOver = nodeId === undefined ? '' : ', or take that lease over with --node-id';
  return new TulleError(
    'address-conflict',
    `${attributes.PublicIP} is also the PublicIP of ${holderOf(conflict)}${also}: ` +
      `give each node its own address (-iface, -public-ip)${takeOver}`,
  );
}

export function outOfSubnets({ config }: LeaseRequest, { leases, unreadable = [] }: Snapshot): TulleError {
  const network = config.enableIPv4 ? formatCidr4(config.network) : formatCidr6(config.network6!);
  const held = leases.length + unreadable.length;
  return new TulleError(
    'out-of-subnets',
    `out of subnets: no free one is left in ${network} (${held} leases): ` +
      'enlarge Network, raise SubnetLen, widen SubnetMin to SubnetMax, or remove the leases of nodes that are gone',
  );
}
