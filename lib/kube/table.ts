// The nodes that a watch knows, as leases. It says what changed in them and nothing else: a kubelet writes its node's status
// every few seconds, and hardly ever does that concern the overlay.
import { isDeepStrictEqual } from 'node:util';
import { type Lease, type LeaseSubnets, subnetKey, subnetsOf } from '../lease/lease.ts';
import type { LeaseEvent, Snapshot } from '../lease/registry.ts';
import type { Logger } from '../util/log.ts';
import type { AnnotationNames } from './annotations.ts';
import { announcedBy, leaseOf, type NodeFacts } from './node.ts';
import type { Versions } from './versions.ts';

interface Entry {
  facts: NodeFacts;
  /** The name of the subnet, or undefined without one. */
  key: string | undefined;
  lease: Lease | undefined;
  unreadable: string | undefined;
}

export interface NodeTable {
  /** Everything anew. */
  replace(nodes: Iterable<NodeFacts>): void;
  /** One node as it is now; the events that follow from it, mostly none. */
  put(facts: NodeFacts): LeaseEvent[];
  remove(name: string): LeaseEvent[];
  snapshot(revision: number): Snapshot;
  get(name: string): NodeFacts | undefined;
  readonly size: number;
}

export function createNodeTable(names: AnnotationNames, versions: Versions, log: Logger): NodeTable {
  let nodes = new Map<string, Entry>();
  /** Subnet → the nodes that have it: one, unless somebody made a mistake. */
  let holders = new Map<string, Set<string>>();
  const complained = new Map<string, string>();

  function entryOf(facts: NodeFacts, before: Entry | undefined): Entry {
    const { subnets } = facts;
    if (subnets === undefined) {
      complain(facts.name, facts.problem);
      return { facts, key: undefined, lease: undefined, unreadable: undefined };
    }
    const announced = announcedBy(facts, names);
    const key = subnetKey(subnets);
    if ('unreadable' in announced) {
      complain(facts.name, announced.unreadable);
      // What was known of the same holder stays.
      const isSame = before?.key === key && before.facts.uid === facts.uid;
      return { facts, key, lease: isSame ? before.lease : undefined, unreadable: announced.unreadable };
    }
    complain(facts.name, undefined);
    if (announced.attributes === undefined) return { facts, key, lease: undefined, unreadable: undefined };
    const same =
      before?.lease !== undefined &&
      before.key === key &&
      before.facts.uid === facts.uid &&
      isDeepStrictEqual(before.facts.annotations, facts.annotations);
    // The version in which this content came: what else changed in the node since then is no write of the lease.
    const lease = same
      ? before.lease
      : leaseOf({ ...facts, subnets }, announced.attributes, versions.revisionOf(facts.version));
    return { facts, key, lease, unreadable: undefined };
  }

  /** Once for each reason; `about` is the node, or the subnet that several nodes have. */
  function complain(about: string, why: string | undefined, node = about): void {
    if (why === undefined) complained.delete(about);
    else if (complained.get(about) !== why) {
      complained.set(about, why);
      log.warn({ node, why }, 'a node is skipped');
    }
  }

  /** Of several nodes with one subnet the oldest has it. */
  function holderOf(key: string): Entry | undefined {
    const entries = [...(holders.get(key) ?? [])].map(name => nodes.get(name)!);
    if (entries.length > 1) {
      entries.sort((a, b) => a.facts.createdAtMs - b.facts.createdAtMs || (a.facts.uid < b.facts.uid ? -1 : 1));
      const [first, ...others] = entries.map(entry => entry.facts.name);
      complain(key, `its pod CIDR ${key} is that of the older node ${first}, too`, others[0]);
    }
    return entries[0];
  }

  function link(name: string, entry: Entry | undefined, before: Entry | undefined): void {
    if (before?.key !== undefined) {
      const names = holders.get(before.key)!;
      names.delete(name);
      if (names.size === 0) holders.delete(before.key);
    }
    if (entry === undefined) nodes.delete(name);
    else nodes.set(name, entry);
    if (entry?.key === undefined) return;
    const names = holders.get(entry.key);
    if (names === undefined) holders.set(entry.key, new Set([name]));
    else names.add(name);
  }

  function change(name: string, entry: Entry | undefined): LeaseEvent[] {
    const before = nodes.get(name);
    const keys = [...new Set([before?.key, entry?.key])].filter(key => key !== undefined);
    const held = keys.map(key => holderOf(key));
    link(name, entry, before);
    return keys.flatMap((key, i): LeaseEvent[] => {
      const [was, is] = [held[i], holderOf(key)];
      if (is?.lease !== undefined) return is.lease === was?.lease ? [] : [{ kind: 'put', lease: is.lease }];
      return was?.lease === undefined ? [] : [{ kind: 'removed', ...subnetsOf(was.lease) }];
    });
  }

  return {
    replace(list) {
      const before = nodes;
      nodes = new Map();
      holders = new Map();
      for (const facts of list) link(facts.name, entryOf(facts, before.get(facts.name)), nodes.get(facts.name));
      for (const name of complained.keys()) if (!nodes.has(name)) complained.delete(name);
    },
    put(facts) {
      const before = nodes.get(facts.name);
      return change(facts.name, entryOf(facts, before));
    },
    remove(name) {
      complained.delete(name);
      return change(name, undefined);
    },
    snapshot(revision) {
      const leases: Lease[] = [];
      const unreadable: LeaseSubnets[] = [];
      for (const key of holders.keys()) {
        const { lease, facts, unreadable: why } = holderOf(key)!;
        if (lease !== undefined) leases.push(lease);
        else if (why !== undefined) unreadable.push(facts.subnets!);
      }
      return { kind: 'snapshot', leases, revision, ...(unreadable.length > 0 && { unreadable }) };
    },
    get: name => nodes.get(name)?.facts,
    get size() {
      return nodes.size;
    },
  };
}
