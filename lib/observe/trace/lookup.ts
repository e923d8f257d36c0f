/** The route table's answer, computed from the peers: what lib/datapath does with one load from an array. */
import { printEndpoint } from '../../datapath/peers.ts';
import { indexOf6, route6Of, staysOnLink6 } from '../../datapath/route6.ts';
import { contains4, subnetIndex } from '../../wire/cidr.ts';
import { parseAddress4 } from '../../wire/ip4.ts';
import { parseAddress6 } from '../../wire/ip6.ts';
import type { TraceQuestion } from './packet.ts';
import type { PeerFact, RouteFact, TraceState } from './state.ts';

/** Where the overlay's route table leads. */
export type Lookup =
  | { kind: 'peer'; fact: PeerFact }
  | { kind: 'no-lease' | 'own' | 'outside' | 'not-ipv4' | 'link-local' };

/** What egress does with the destination: the same questions in the same order. */
export function lookUp({ source, destination }: TraceQuestion, state: TraceState): Lookup {
  const { network, own, peers } = state;
  const to4 = parseAddress4(destination);
  if (to4 !== undefined) {
    const index = subnetIndex(to4, network.network, network.subnetLength);
    if (index < 0) return { kind: 'outside' };
    if (contains4(own.subnet, to4)) return { kind: 'own' };
    return holder(peers.find(({ peer }) => contains4(peer.subnet, to4)));
  }
  const [from6, to6] = [parseAddress6(source)!, parseAddress6(destination)!];
  const route = state.format === 'tulle' ? route6Of(network) : undefined;
  if (route === undefined) return { kind: 'not-ipv4' };
  if (staysOnLink6(from6, 0) || staysOnLink6(to6, 0)) return { kind: 'link-local' };
  const index = route.index(to6, 0);
  if (index < 0) return { kind: 'outside' };
  if (indexOf6(own.subnet6, network) === index) return { kind: 'own' };
  return holder(peers.find(({ peer }) => indexOf6(peer.subnet6, network) === index));
}

const holder = (fact: PeerFact | undefined): Lookup =>
  fact === undefined ? { kind: 'no-lease' } : { kind: 'peer', fact };

/** Whether an inner source lies in the pod network, and not in our own subnet. */
export function isForeign(source: string, { network, own }: Pick<TraceState, 'network' | 'own'>): boolean {
  const from4 = parseAddress4(source);
  if (from4 !== undefined) return contains4(network.network, from4) && !contains4(own.subnet, from4);
  const index = route6Of(network)?.index(parseAddress6(source)!, 0) ?? -1;
  return index >= 0 && index !== indexOf6(own.subnet6, network);
}

/** The address of a peer's endpoint, without its port. */
export function hostOf({ peer }: PeerFact): string {
  const endpoint = printEndpoint(peer);
  return endpoint.slice(0, endpoint.lastIndexOf(':')).replace(/^\[|\]$/g, '');
}

/** This node's kernel's way to the peer. */
export const outerRoute = (state: TraceState, fact: PeerFact): RouteFact | undefined => state.routeTo(hostOf(fact));

/** The largest inner packet that goes to this peer in one piece, by all that is known here. */
export function largestTo(state: TraceState, fact: PeerFact): number {
  const known = Math.min(fact.limit, state.mtu);
  // Node's own sockets let the kernel fragment what is too long.
  const believed = state.transport === 'dgram' ? 0 : (outerRoute(state, fact)?.mtu ?? 0);
  return believed === 0 ? known : Math.min(known, believed - state.overhead);
}
