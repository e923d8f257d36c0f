/**
 * Faults that need no relay: the MTU of a node's own interface, which its kernel and its daemon notice as on a real node,
 * and the file registry out of a node's reach.
 */
import { renameSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { withRtnetlink } from '../netlink/netlink.ts';
import { SWITCH } from './build.ts';
import { leaseDirectory, registryPath } from './cluster.ts';
import type { Fault } from './fault-record.ts';
import { UNDERLAY } from './plan.ts';
import { type LabState, namespaceFile } from './state.ts';

const nodeOf = (fault: Fault): string => fault.where!.split('-')[0];

/** Puts `fault` in force beside `others`. Only for faults that isDirect names. */
export function applyDirect(state: LabState, fault: Fault, others: readonly Fault[]): void {
  if (fault.kind === 'mtu') setMtu(state, nodeOf(fault), [...others, fault]);
  else setRegistry(state, nodeOf(fault), false);
}

/** Takes back what `fault` did, but for what others still want. */
export function withdrawDirect(state: LabState, fault: Fault, others: readonly Fault[]): void {
  const node = nodeOf(fault);
  if (fault.kind === 'mtu') setMtu(state, node, others);
  else setRegistry(state, node, !others.some(other => isRegistryCut(other) && nodeOf(other) === node));
}

const isRegistryCut = (fault: Fault): boolean =>
  fault.kind === 'partition' && fault.where?.endsWith('-registry') === true;

/** The smallest MTU that somebody wants. Both ends of the link, as a cable has one MTU. */
function setMtu(state: LabState, node: string, faults: readonly Fault[]): void {
  const wishes = faults.filter(fault => fault.kind === 'mtu' && fault.mode === 'link' && nodeOf(fault) === node);
  const mtu = Math.min(UNDERLAY.mtu, ...wishes.map(fault => fault.bytes));
  withRtnetlink(namespaceFile(state, node), netlink => netlink.setLink('eth0', { mtu }));
  withRtnetlink(namespaceFile(state, SWITCH), netlink => netlink.setLink(node, { mtu }));
}

/** The node finds the directory of leases through a link of its own, which leads nowhere while the registry is cut off. */
function setRegistry(state: LabState, node: string, reachable: boolean): void {
  const path = registryPath(state, node);
  const target = reachable ? leaseDirectory(state) : join(state.directory, 'out-of-reach', node);
  symlinkSync(target, `${path}.new`);
  renameSync(`${path}.new`, path);
}
