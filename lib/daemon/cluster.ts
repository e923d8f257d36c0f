/** GET /cluster on the control socket: what all nodes say of themselves, asked through this one. */
import { printEndpoint } from '../datapath/peers.ts';
import { FORMAT_TULLE } from '../datapath/slab.ts';
import { nodeIdOf } from '../lease/lease.ts';
import type { ControlRoutes } from '../observe/control.ts';
import { type NodeMessages, VERB_SUMMARY } from '../observe/node-messages.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { formatCidr4, parseCidr4 } from '../wire/cidr.ts';
import type { Observed } from './observed.ts';

/** What one node answers, or why it does not. */
export interface ClusterEntry {
  subnet: string;
  node: string | null;
  endpoint: string | null;
  status?: unknown;
  error?: string;
}

const TIMEOUT_MS = 1_500;
const LONGEST_TIMEOUT_MS = 10_000;
/** Nodes that are asked at the same time: their questions must fit the letters. */
const AT_ONCE = 32;

/** `?timeout=MS` says how long to wait for each node. */
export function clusterRoute(observed: Observed, routes: ControlRoutes): void {
  routes.add('GET', '/cluster', async ({ query, signal }) => {
    const given = query.get('timeout');
    const timeoutMs = given === null ? TIMEOUT_MS : Number(given);
    if (!(timeoutMs > 0 && timeoutMs <= LONGEST_TIMEOUT_MS)) {
      throw new TulleError('bad-request', `timeout must be 1 to ${LONGEST_TIMEOUT_MS} milliseconds`);
    }
    return { json: await askCluster(observed, timeoutMs, signal) };
  });
}

/** This node first. @throws TulleError 'unavailable' before there is an overlay */
export async function askCluster(
  observed: Observed,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<{ nodes: ClusterEntry[] }> {
  const { overlay, messages, peers } = observed;
  if (overlay === undefined || messages === undefined) {
    throw new TulleError('unavailable', 'this node has no overlay yet');
  }
  const lease = observed.manager?.lease;
  const self: ClusterEntry = {
    subnet: lease === undefined ? '-' : formatCidr4(lease.subnet),
    node: observed.nodeId ?? null,
    endpoint: null,
    status: observed.summary(),
  };
  const known = new Map((peers?.peers ?? []).map(one => [one.subnet.address, one]));
  const ask = async (peer: ReturnType<typeof overlay.peers>[number]): Promise<ClusterEntry> => {
    const of = known.get(peer.subnet.address);
    const entry = {
      subnet: formatCidr4(peer.subnet),
      node: (of && nodeIdOf(of)) ?? null,
      endpoint: printEndpoint(peer),
    };
    if (peer.format !== FORMAT_TULLE) return { ...entry, error: "flannel's format has no messages" };
    try {
      return { ...entry, status: await messages.ask(peer.subnet, VERB_SUMMARY, {}, timeoutMs, signal) };
    } catch (error) {
      return { ...entry, error: messageOf(error) };
    }
  };
  const queue = overlay.peers();
  const nodes: ClusterEntry[] = [];
  const worker = async (): Promise<void> => {
    for (let peer = queue.shift(); peer !== undefined; peer = queue.shift()) nodes.push(await ask(peer));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  const addressOf = ({ subnet }: ClusterEntry): number => parseCidr4(subnet)?.address ?? 0;
  nodes.sort((a, b) => addressOf(a) - addressOf(b));
  return { nodes: [self, ...nodes] };
}

/** Lets this node answer for itself. */
export function answerSummary(messages: NodeMessages, observed: Observed): void {
  messages.answer(VERB_SUMMARY, () => observed.summary());
}
