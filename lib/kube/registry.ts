// Kubernetes as a registry of leases: the nodes are the leases, their pod CIDRs the subnets, flannel's annotations what the
// holders say of themselves. The cluster gives out the subnets, so nothing is chosen here: a snapshot names what is this node's
// (`assigned`), and the verbs write this node's own object and no other.
//
// There is no TTL. A lease ends when its Node object does; decision 10 (docs/decisions) says what that is worth.
import { isDeepStrictEqual } from 'node:util';
import type { Lease, LeaseAttributes, LeaseSubnets } from '../lease/lease.ts';
import { printSubnets, sameSubnets } from '../lease/lease.ts';
import { type Registry, RegistryError, type Snapshot } from '../lease/registry.ts';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { annotationNames, defaultAnnotationPrefix } from './annotations.ts';
import { createApi } from './api.ts';
import { type ApiPlace, openCredentials } from './credentials.ts';
import { type FollowTimes, followNodes, listNodes, usualTimes } from './follow.ts';
import { findNodeName, type NodeSource } from './identity.ts';
import { netConfFor, readNetConf } from './net-conf.ts';
import { announcedBy, type Families, leaseOf, type NodeFacts, readNode } from './node.ts';
import { createOwnNode, type OwnNode } from './own-node.ts';
import { createReadiness } from './readiness.ts';
import { createNodeTable, type NodeTable } from './table.ts';
import { createVersions } from './versions.ts';

export interface KubeRegistryOptions extends ApiPlace {
  annotationPrefix?: string;
  /** flannel's is /etc/kube-flannel/net-conf.json. */
  netConfigPath: string;
  /** Who we are; absent for who only looks. */
  node?: NodeSource;
  /** Say NetworkUnavailable=False once this node carries packets. */
  setNetworkUnavailable?: boolean;
  log: Logger;
  times?: Partial<FollowTimes>;
  deadlineMs?: number;
  random?: () => number;
}

/** A list that the watch goes on from; an older one is made anew. */
const freshMs = 60_000;

/** Throws TulleError 'bad-kubeconfig' or 'bad-option'; speaks to the API server at the first verb. */
export function openKubeRegistry(options: KubeRegistryOptions): Registry {
  const { log, netConfigPath, node: source, random = Math.random } = options;
  const names = annotationNames(options.annotationPrefix ?? defaultAnnotationPrefix);
  const api = createApi({
    credentials: openCredentials(options),
    random,
    ...(options.deadlineMs !== undefined && { deadlineMs: options.deadlineMs }),
  });
  const versions = createVersions();
  const closing = new AbortController();
  /** Both until the net-conf was read. */
  let families: Families = { four: true, six: true };
  let own: OwnNode | undefined;
  /** What this process last saw of its own node, with the revision of that content: what a write is compared with. */
  let mine: { facts: NodeFacts; lease: Lease | undefined } | undefined;
  /** A list that no watch has taken up yet, and the table of the watch that runs. */
  let fresh: { table: NodeTable; version: string; at: number } | undefined;
  let followed: NodeTable | undefined;

  const read = (object: unknown): NodeFacts | undefined => readNode(object, names, families);
  const newTable = (): NodeTable => createNodeTable(names, versions, log);
  const readiness = createReadiness({
    wanted: options.setNetworkUnavailable ?? true,
    log,
    random,
    signal: closing.signal,
  });

  async function ownNode(): Promise<OwnNode> {
    if (own !== undefined) return own;
    if (source === undefined) throw new RegistryError('denied', 'this registry was opened to look at, not to write');
    const name = await findNodeName(api, source);
    own = createOwnNode({ api, name, names, read, log });
    return own;
  }

  /** Our lease as the node has it; its attributes are empty before we announced any. */
  function see(facts: NodeFacts | undefined): Lease | undefined {
    const { subnets } = facts ?? {};
    if (facts === undefined || subnets === undefined) {
      mine = facts && { facts, lease: undefined };
      return undefined;
    }
    const before = mine?.lease;
    const announced = announcedBy(facts, names);
    const attributes = ('attributes' in announced && announced.attributes) || nothingYet;
    let lease = leaseOf({ ...facts, subnets }, attributes, versions.revisionOf(facts.version));
    // The revision is that of the content, not of the node: a kubelet's heartbeat is no write of the lease.
    const sameNode = before !== undefined && mine!.facts.uid === facts.uid && sameSubnets(before, lease);
    if (sameNode && isDeepStrictEqual(before.attributes, attributes)) lease = before;
    mine = { facts, lease };
    return lease;
  }

  async function list(): Promise<Snapshot> {
    if (followed !== undefined && source !== undefined) {
      // The watch knows the others; only our own must be the present truth.
      const facts = await (await ownNode()).read();
      const revision = facts === undefined ? versions.revisionOf('0') : versions.revisionOf(facts.version);
      return withOwn(followed.snapshot(revision), facts);
    }
    const { nodes, version } = await listNodes({ api, read });
    versions.atPresent(version);
    const table = newTable();
    table.replace(nodes);
    fresh = { table, version, at: performance.now() };
    const name = source === undefined ? undefined : (await ownNode()).name;
    return withOwn(table.snapshot(versions.revisionOf(version)), name === undefined ? undefined : table.get(name));
  }

  function withOwn(snapshot: Snapshot, facts: NodeFacts | undefined): Snapshot {
    const assigned = see(facts);
    if (assigned === undefined) return snapshot;
    // The watch may lag behind what was read just now.
    const leases = snapshot.leases.filter(lease => !sameSubnets(lease, assigned));
    return { ...snapshot, leases: [...leases, assigned], assigned };
  }

  /** Writes our attributes where the node still has the lease that the caller means. */
  async function announce(subnets: LeaseSubnets, attributes: LeaseAttributes | null, known?: Lease): Promise<Lease> {
    const node = await ownNode();
    const facts = await node.announce(attributes, found => {
      const lease = see(found);
      if (known !== undefined) {
        if (lease === undefined || !sameSubnets(lease, known)) throw missing(known, node.name);
        if (lease.modRevision !== known.modRevision) throw conflict(known);
      } else if (lease === undefined) throw unassigned(node.name, found.problem);
      else if (!sameSubnets(lease, subnets)) throw taken(subnets, node.name, lease);
    });
    const lease = see(facts);
    if (lease === undefined || !sameSubnets(lease, subnets)) throw missing({ ...subnets }, node.name);
    readiness.look(facts);
    return lease;
  }

  return {
    kind: 'kubernetes',

    async config() {
      const netConf = readNetConf(netConfigPath);
      if (families.four !== netConf.families.four || families.six !== netConf.families.six) fresh = undefined;
      families = netConf.families;
      if (source === undefined) return netConf;
      const node = await ownNode();
      // Asked every minute by every node of a cluster: what the watch knows is good enough, and costs no call.
      const watched = followed?.get(node.name);
      const facts = watched ?? (await node.read());
      if (facts === undefined) {
        throw new RegistryError('no-config', `the cluster has no node ${node.name}: waiting for its kubelet`);
      }
      const { subnets, problem } = facts;
      if (subnets === undefined) throw new RegistryError('no-config', unassigned(node.name, problem).message);
      if (watched === undefined) see(facts);
      return { text: netConfFor(netConf, netConfigPath, node.name, subnets), revision: netConf.revision };
    },

    thisNode() {
      const subnets = mine?.facts.subnets;
      if (own === undefined || subnets === undefined)
        throw new RegistryError('unavailable', 'this node is not known yet');
      return { name: own.name, subnets };
    },

    list,

    async create(lease) {
      try {
        return await announce(lease, lease.attributes);
      } catch (error) {
        // Without a Node there is nothing to make: only its kubelet can. Waiting is right.
        const isMissing = error instanceof RegistryError && error.code === 'missing';
        throw isMissing ? new RegistryError('unavailable', messageOf(error)) : error;
      }
    },

    update: (lease, attributes) => announce(lease, attributes, lease),

    async remove(lease) {
      try {
        await announce(lease, null, lease);
      } catch (error) {
        if (!(error instanceof RegistryError && error.code === 'missing')) throw error;
      }
    },

    announceReady() {
      if (own !== undefined) readiness.begin(own);
    },

    async *watch(signal, onTrouble) {
      const usable = fresh !== undefined && performance.now() - fresh.at < freshMs ? fresh : undefined;
      fresh = undefined;
      const table = usable?.table ?? newTable();
      const both = AbortSignal.any([signal, closing.signal]);
      const onNode = (facts: NodeFacts): void => {
        if (facts.name === own?.name) readiness.look(facts);
      };
      try {
        const from = usable?.version;
        const times = { ...usualTimes, ...options.times };
        for await (const message of followNodes({
          ...{ api, table, versions, read, onNode, from, log, onTrouble, times, random },
          signal: both,
        })) {
          followed = table;
          yield message;
        }
      } finally {
        if (followed === table) followed = undefined;
      }
    },

    async close() {
      closing.abort();
      await readiness.ended();
      api.close();
    },
  };
}

/** No node id, no address: a reservation that nobody but us may take. */
const nothingYet: LeaseAttributes = { PublicIP: '0.0.0.0', PublicIPv6: null };

function unassigned(node: string, problem: string | undefined): RegistryError {
  const cure =
    'the controller-manager gives them out with --allocate-node-cidrs and --cluster-cidr (kubeadm: --pod-network-cidr)';
  return new RegistryError('unavailable', `the node ${node} is of no use: ${problem ?? 'it has no podCIDR'}: ${cure}`);
}

function taken(subnets: LeaseSubnets, node: string, lease: Lease): RegistryError {
  return new RegistryError('taken', `${printSubnets(subnets)} is not this node's: ${node} has ${printSubnets(lease)}`);
}

function missing(lease: LeaseSubnets, node: string): RegistryError {
  return new RegistryError('missing', `the node ${node} does not have ${printSubnets(lease)} any more`);
}

function conflict(lease: Lease): RegistryError {
  return new RegistryError('conflict', `the annotations of ${printSubnets(lease)} were changed by somebody else`);
}
