// This node's own object: read before each decision, written only where it must differ.
//
// All writes are strategic merge patches of nodes/status, as flannel's are, so that flannel's permissions are enough; they
// name nothing but our annotations or our condition, and the resource version that was read, so that a write which somebody
// else made in between is seen.
import type { LeaseAttributes } from '../lease/lease.ts';
import { RegistryError } from '../lease/registry.ts';
import type { Logger } from '../util/log.ts';
import { type AnnotationNames, annotationsFor, badOverwrites } from './annotations.ts';
import type { Api } from './api.ts';
import type { NodeFacts } from './node.ts';

export interface OwnNode {
  readonly name: string;
  /** undefined: the cluster has no node of this name. */
  read(): Promise<NodeFacts | undefined>;
  /**
   * Writes the annotations that say `attributes`, null: takes them away. `check` sees the node as it is right before, and may
   * throw. Returns the node as it is afterwards. Throws RegistryError 'missing' when there is no such node.
   */
  announce(attributes: LeaseAttributes | null, check: (facts: NodeFacts) => void): Promise<NodeFacts>;
  /** NetworkUnavailable=False, for scheduler and people; does nothing where it is so. */
  setNetworkAvailable(): Promise<void>;
}

export interface OwnNodeOptions {
  api: Api;
  name: string;
  names: AnnotationNames;
  read: (object: unknown) => NodeFacts | undefined;
  log: Logger;
}

/** A kubelet writes every few seconds at most: to lose this often is no accident. */
const mostConflicts = 10;
const patchType = 'application/strategic-merge-patch+json';
const condition = { type: 'NetworkUnavailable', status: 'False', reason: 'TulleIsUp' };

export function createOwnNode({ api, name, names, read, log }: OwnNodeOptions): OwnNode {
  const path = `/api/v1/nodes/${encodeURIComponent(name)}`;
  let complained = '';

  function factsOf(object: unknown): NodeFacts {
    const facts = read(object);
    if (facts?.name === name) return facts;
    throw new RegistryError('unavailable', `the API server at ${api.server} answers what is not the node ${name}`);
  }

  async function get(): Promise<NodeFacts | undefined> {
    try {
      return factsOf(await api.request({ purpose: { verb: 'get', resource: 'nodes' }, path }));
    } catch (error) {
      if (error instanceof RegistryError && error.code === 'missing') return undefined;
      throw error;
    }
  }

  async function patch(json: object): Promise<NodeFacts> {
    const purpose = { verb: 'patch', resource: 'nodes/status' } as const;
    return factsOf(await api.request({ purpose, path: `${path}/status`, body: { type: patchType, json } }));
  }

  /** Reads, decides, writes; again when somebody else wrote in between. */
  async function change(decide: (facts: NodeFacts) => object | undefined): Promise<NodeFacts> {
    for (let attempt = 1; ; attempt++) {
      const facts = await get();
      if (facts === undefined) throw gone();
      const wanted = decide(facts);
      if (wanted === undefined) return facts;
      try {
        return await patch(wanted);
      } catch (error) {
        const isConflict = error instanceof RegistryError && error.code === 'conflict';
        if (!isConflict) throw error;
        if (attempt < mostConflicts) continue;
        throw new RegistryError('unavailable', `the node ${name} is written all the time: ${error.message}`);
      }
    }
  }

  const gone = (): RegistryError =>
    new RegistryError('missing', `the cluster has no node ${name}: it was deleted, or NODE_NAME is wrong`);

  return {
    name,
    read: get,
    announce: (attributes, check) =>
      change(facts => {
        check(facts);
        const existing = facts.annotations;
        const bad = badOverwrites(existing, names).join(', ');
        if (bad !== complained && bad !== '') log.warn({ node: name, annotations: bad }, 'these are no addresses');
        complained = bad;
        const wanted =
          attributes === null
            ? Object.fromEntries(Object.keys(withoutOperators(existing, names)).map(key => [key, null]))
            : annotationsFor(attributes, existing, names);
        const former = existing[names.backendType];
        const type = attributes === null ? undefined : wanted[names.backendType];
        if (former !== undefined && type !== undefined && former !== type) {
          log.info({ node: name, was: former, is: type }, 'taking over the annotations of another daemon');
        }
        const differing = Object.entries(wanted).filter(([key, value]) => (existing[key] ?? null) !== value);
        if (differing.length === 0) return undefined;
        return { metadata: { resourceVersion: facts.version, annotations: Object.fromEntries(differing) } };
      }),
    async setNetworkAvailable() {
      await change(({ networkUnavailable, version }) => {
        if (networkUnavailable?.status === condition.status && networkUnavailable.reason === condition.reason) return;
        const now = `${new Date().toISOString().slice(0, 19)}Z`;
        const message = 'tulle is running on this node';
        const written = { ...condition, message, lastTransitionTime: now, lastHeartbeatTime: now };
        return { metadata: { resourceVersion: version }, status: { conditions: [written] } };
      });
    },
  };
}

/** What an operator wrote is the operator's to remove. */
function withoutOperators(existing: Record<string, string>, names: AnnotationNames): Record<string, string> {
  const { publicIpOverwrite, publicIpv6Overwrite, nodePublicIp, nodePublicIpv6 } = names;
  const kept = [publicIpOverwrite, publicIpv6Overwrite, nodePublicIp, nodePublicIpv6];
  return Object.fromEntries(Object.entries(existing).filter(([key]) => !kept.includes(key)));
}
