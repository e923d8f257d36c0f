// From what a registry says to what must change: pure, no I/O, no clock. A watcher feeds every message of a registry to
// `reconcile`; the changes that come out make the route table equal to the registry. The same message twice gives no
// change the second time, so a watcher may list again whenever it is in doubt.
import { isDeepStrictEqual } from 'node:util';
import { parseAddress6 } from '../wire/address6.ts';
import { parseAddress4 } from '../wire/ip4.ts';
import { type Lease, type LeaseSubnets, nodeIdOf, printSubnets, subnetKey } from './lease.ts';
import { createOverlapIndex, subnetProblem } from './overlap.ts';
import type { Events, Snapshot } from './registry.ts';

/**
 * Who we are: a lease on our subnet is ours and never a peer, nor is one with our node id; where `publicIp` is told, only
 * if it has that address too: a machine that was cloned with its node id is another node.
 */
export interface Own {
  nodeId?: string;
  publicIp?: string;
  lease?: LeaseSubnets;
}

/** What one watcher knows. Treat it as a value: every function here returns a new one. */
export interface PeerView {
  readonly own: Own;
  /** The registry's revision of the last message; -1 before the first one. */
  readonly revision: number;
  /** All leases that are well-formed by themselves, ours included, by key. */
  readonly known: ReadonlyMap<string, Lease>;
  /** Why a value was skipped, by key. */
  readonly malformed: ReadonlyMap<string, string>;
  /** Those of the known leases that packets may go to. */
  readonly peers: ReadonlyMap<string, Lease>;
  /** Why a lease in the registry is not a peer: malformed, or it overlaps another one. */
  readonly problems: ReadonlyMap<string, string>;
}

export interface PeerChange {
  kind: 'add' | 'update' | 'remove';
  /** The lease as it is now; for 'remove' as it was. */
  lease: Lease;
}

/** A lease of somebody that was skipped: say it once. */
export interface Problem {
  key: string;
  why: string;
}

export interface Reconciled {
  view: PeerView;
  /** Removals first, then updates, then additions: a table that holds one entry a subnet never needs two. */
  changes: PeerChange[];
  /** Only those that the view before did not have. */
  problems: Problem[];
}

/** The view before the first message. */
export function emptyView(own: Own = {}): PeerView {
  return { own, revision: -1, known: new Map(), malformed: new Map(), peers: new Map(), problems: new Map() };
}

/** Applies one message of `Registry.watch` or `list`. */
export function reconcile(previous: PeerView, message: Snapshot | Events): Reconciled {
  const fresh = message.kind === 'snapshot';
  const known = new Map(fresh ? [] : previous.known);
  const malformed = new Map(fresh ? [] : previous.malformed);

  // A malformed value is skipped: what we knew under its key stays.
  const keep = (key: string): void => {
    const before = previous.known.get(key);
    if (fresh && before !== undefined) known.set(key, before);
  };
  const put = (lease: Lease): void => {
    const key = subnetKey(lease);
    const why = leaseProblem(lease);
    if (why === undefined) {
      malformed.delete(key);
      known.set(key, lease);
    } else {
      malformed.set(key, why);
      keep(key);
    }
  };

  if (message.kind === 'snapshot') {
    for (const lease of message.leases) put(lease);
    for (const subnets of message.unreadable ?? []) keep(subnetKey(subnets));
  } else {
    for (const event of message.events) {
      if (event.kind === 'put') put(event.lease);
      else {
        known.delete(subnetKey(event));
        malformed.delete(subnetKey(event));
      }
    }
  }
  return derive(previous, previous.own, message.revision, known, malformed);
}

/** The same registry seen by a node whose own lease changed: what was ours may become a peer and the reverse. */
export function withOwn(previous: PeerView, own: Own): Reconciled {
  return derive(previous, own, previous.revision, previous.known, previous.malformed);
}

function derive(
  previous: PeerView,
  own: Own,
  revision: number,
  known: ReadonlyMap<string, Lease>,
  malformed: ReadonlyMap<string, string>,
): Reconciled {
  const problems = new Map(malformed);
  const peers = selectPeers(known, own, problems);
  return {
    view: { own, revision, known, malformed, peers, problems },
    changes: difference(previous.peers, peers),
    problems: [...problems]
      .filter(([key, why]) => previous.problems.get(key) !== why)
      .map(([key, why]) => ({ key, why })),
  };
}

/** Everybody's leases but ours; of leases that overlap, the older one counts. */
function selectPeers(known: ReadonlyMap<string, Lease>, own: Own, problems: Map<string, string>): Map<string, Lease> {
  const ownKey = own.lease === undefined ? undefined : subnetKey(own.lease);
  const isOurs = (lease: Lease): boolean =>
    own.nodeId !== undefined &&
    nodeIdOf(lease) === own.nodeId &&
    (own.publicIp === undefined || lease.attributes.PublicIP === own.publicIp);
  const candidates = [...known].filter(([key, lease]) => key !== ownKey && !isOurs(lease));
  candidates.sort(([keyA, a], [keyB, b]) => a.createRevision - b.createRevision || (keyA < keyB ? -1 : 1));

  const peers = new Map<string, Lease>();
  const index = createOverlapIndex<Lease>();
  if (own.lease !== undefined) index.add(own.lease, undefined);
  for (const [key, lease] of candidates) {
    const clash = index.find(lease);
    if (clash === undefined) {
      index.add(lease, lease);
      peers.set(key, lease);
    } else {
      const other = clash.value === undefined ? 'our own lease' : `the older lease ${printSubnets(clash.value)}`;
      problems.set(key, `overlaps ${other}`);
    }
  }
  return peers;
}

function difference(before: ReadonlyMap<string, Lease>, after: ReadonlyMap<string, Lease>): PeerChange[] {
  const changes: PeerChange[] = [];
  for (const [key, lease] of before) if (!after.has(key)) changes.push({ kind: 'remove', lease });
  const added: PeerChange[] = [];
  for (const [key, lease] of after) {
    const old = before.get(key);
    if (old === undefined) added.push({ kind: 'add', lease });
    else if (!samePeer(old, lease)) changes.push({ kind: 'update', lease });
  }
  return changes.concat(added);
}

/** A renewal changes neither; a new address or another holder does. */
function samePeer(a: Lease, b: Lease): boolean {
  return a === b || (a.createRevision === b.createRevision && isDeepStrictEqual(a.attributes, b.attributes));
}

/** Why a lease by itself is useless, or undefined when it is well. */
function leaseProblem(lease: Lease): string | undefined {
  const { PublicIP, PublicIPv6 } = lease.attributes;
  const usable4 = typeof PublicIP === 'string' && (parseAddress4(PublicIP) ?? 0) !== 0;
  const usable6 = typeof PublicIPv6 === 'string' && parseAddress6(PublicIPv6) !== undefined;
  if (!usable4 && !usable6) return `has no usable PublicIP (${JSON.stringify(PublicIP)})`;
  return subnetProblem(lease);
}
