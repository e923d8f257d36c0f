/**
 * What the data path counts, by name. A packet is never thrown over: it is forwarded or it falls under exactly one drop
 * reason. Where a super-packet was cut already, its datagrams are counted one by one. Both lists are closed; the place in the list is the place in the slab, so new names go to the end of theirs.
 */

/** Why a packet was discarded, with the sentence that explains it to a person. */
export const DROP_REASONS = {
  'egress-malformed': 'the TUN gave something that is no whole IP packet',
  'egress-not-ipv4': 'an IPv6 packet: this network carries IPv4',
  'egress-outside-network': 'its destination lies outside the pod network',
  'egress-no-lease': "nobody holds a lease for the destination's subnet",
  'egress-own-subnet': "its destination lies in this node's own subnet: the bridge or its route is missing",
  'egress-ttl-exceeded': 'its TTL ended here',
  'egress-send-failed': 'the underlay refused the datagram',
  'egress-too-big': 'it does not fit the underlay',
  'egress-queue-full': "the underlay socket's send buffer stayed full",
  'ingress-truncated': 'the datagram was longer than a slot',
  'ingress-unknown-sender': "it came from no leaseholder's endpoint",
  'ingress-malformed': 'its tulle header or its inner packet is not well formed',
  'ingress-wrong-version': "it speaks neither this version of tulle's header nor bare IP",
  'ingress-wrong-format': 'it speaks another wire format than the lease of its sender announces',
  'ingress-unknown-kind': 'its kind is not one that this node understands',
  'ingress-stale-key': "its lease key is not that of its sender's lease",
  'ingress-spoofed-source': "its inner source lies in the pod network but not in its sender's subnet",
  'ingress-not-ours': "its inner destination lies in the pod network but not in this node's subnet",
  'ingress-write-failed': 'the TUN refused the packet',
  'egress-fenced': "this node's lease ran out without a renewal: it may not send",
  'ingress-fenced': "this node's lease ran out without a renewal: it may not deliver",
  'egress-link-local':
    'an IPv6 packet to a multicast or link-local address, which stays on its link: the kernel makes some by itself',
  'ingress-not-ipv4': 'an IPv6 packet: this network carries IPv4',
  'ingress-limited': 'its sender sent more probes and messages than a node listens to',
} as const;

export type DropReason = keyof typeof DROP_REASONS;

const FLOWS = [
  'egress-packets', // IP packets read from the TUN and handed to the underlay; a super-packet counts once
  'egress-bytes', // inner bytes of those
  'egress-super-packets', // those of them that were super-packets
  'egress-datagrams', // UDP datagrams that left
  'egress-trains', // UDP_SEGMENT trains that left
  'egress-bundled', // packets that joined another one's datagram
  'egress-batches', // readTun calls that gave something
  'ingress-packets', // IP packets written to the TUN; a coalesced one counts once
  'ingress-bytes',
  'ingress-super-packets', // those that several segments were coalesced into
  'ingress-datagrams',
  'ingress-trains', // UDP_GRO trains received
  'ingress-bundled', // packets that came in another one's datagram
  'ingress-batches',
  'icmp-sent', // ICMP errors that the sender of a dropped packet was given
  'icmp-limited', // those that it was not given, because too many were due at once
  'egress-fragments', // datagrams that are fragments which we made of a packet that allows it
  'side-sent', // probes, their replies and messages that left
  'side-received', // those that came and were listened to
  // Batches by size, each in the first that it fits, as BATCH_BOUNDS has them; then what all batches held.
  'egress-batches-1',
  'egress-batches-2',
  'egress-batches-4',
  'egress-batches-8',
  'egress-batches-16',
  'egress-records', // packets read from the TUN, dropped ones too
  'ingress-batches-1',
  'ingress-batches-2',
  'ingress-batches-4',
  'ingress-batches-8',
  'ingress-batches-16',
  'ingress-records', // what receives gave: a datagram, or a UDP_GRO train
] as const;

export type FlowName = (typeof FLOWS)[number];

export const DROP_NAMES = Object.keys(DROP_REASONS) as DropReason[];

export const COUNTER_COUNT = FLOWS.length + DROP_NAMES.length;

/** SLOTS is the longest batch. */
export const BATCH_BOUNDS: readonly number[] = [1, 2, 4, 8, 16];

/** Once a batch. `batches`, `sizes`: the places of "…-batches" and of "…-batches-1", behind which the others lie. */
export function countBatch(counters: Float64Array, batches: number, sizes: number, count: number): void {
  counters[batches]++;
  counters[sizes + Math.min(BATCH_BOUNDS.length - 1, 32 - Math.clz32(count - 1))]++;
  counters[sizes + BATCH_BOUNDS.length] += count;
}

/** The drop counters come behind the flows'; `DROP_NAMES[index - FIRST_DROP]` is a drop counter's reason. */
export const FIRST_DROP = FLOWS.length;

/** The place of a counter in the slab. */
export const flowIndex = (name: FlowName): number => FLOWS.indexOf(name);
export const dropIndex = (name: DropReason): number => FLOWS.length + DROP_NAMES.indexOf(name);

/** The reason that counts there. */
export const dropName = (index: number): DropReason | undefined => DROP_NAMES[index - FLOWS.length];

const read = <Name extends string>(names: readonly Name[], from: number, counters: Float64Array) =>
  Object.fromEntries(names.map((name, index) => [name, counters[from + index]])) as Record<Name, number>;

export const readFlows = (counters: Float64Array): Record<FlowName, number> => read(FLOWS, 0, counters);
export const readDrops = (counters: Float64Array): Record<DropReason, number> =>
  read(DROP_NAMES, FLOWS.length, counters);
