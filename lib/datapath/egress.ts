/**
 * Egress: packets that the TUN gave become datagrams to peers.
 *
 *   1. look at the vnet header: what did the kernel leave undone (checksum, segmentation)?
 *   2. check the inner header, find the peer that holds the destination's subnet, decrement the TTL
 *   3. a packet gets a tulle header in front, in place of the vnet header (flannel's format: no header at all);
 *      neighbours of equal size to one peer become one train, small ones of unequal size one bundle
 *   4. a super-packet becomes trains of segments: per segment one tulle header of its own, and the borrowed inner header
 *      and slice of the packet where it lies; in flannel's format finished headers of its own and the borrowed slice
 *   5. the tables are handed to the kernel; a refused train turns trains off and leaves again as single datagrams
 *   6. the senders of packets that go no further are told so (icmp-reply.ts)
 *
 * Nothing here waits, and nothing is kept from one batch to the next. borrowed: every offset, until `take` returns.
 */
import { set16 } from '../wire/bytes.ts';
import { finish } from '../wire/checksum.ts';
import { subnetIndex } from '../wire/cidr.ts';
import {
  checkSuperHeaders,
  isIp6,
  l4DistanceOf,
  protocolOf,
  rewriteSegment,
  superHeaderLength,
  totalLength,
} from '../wire/either.ts';
import { segmentCount, trainSends } from '../wire/gso.ts';
import {
  checkIp4,
  decrementTtl,
  ip4Destination,
  ip4TotalLength,
  ip4Ttl,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../wire/ip4.ts';
import { checkIp6, decrementHopLimit, IP6_DESTINATION, IP6_SOURCE, ip6HopLimit, ip6TotalLength } from '../wire/ip6.ts';
import { TCP_CHECKSUM } from '../wire/tcp.ts';
import {
  emitTulle,
  FLAG_LAST_SEGMENT,
  FLAG_PARTIAL_CHECKSUM,
  HEADER_BYTES,
  KIND_PACKET,
  KIND_SEGMENT,
  markTraced,
} from '../wire/tulle.ts';
import { UDP_CHECKSUM } from '../wire/udp.ts';
import {
  VNET_FLAG_NEEDS_CSUM,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_UDP_L4,
  VNET_HEADER_BYTES,
  vnetChecksumOffset,
  vnetChecksumStart,
  vnetFlags,
  vnetGsoSize,
  vnetGsoType,
} from '../wire/vnet.ts';
import { dropIndex, flowIndex } from './counters.ts';
import type { Sum } from './flow-run.ts';
import { fragments4, mayFragment4 } from './fragment.ts';
import { IcmpReply, NO_HOST, NO_ROUTE, TIME_EXCEEDED, TOO_BIG, type WriteReplies } from './icmp-reply.ts';
import { MessageTable, type SendMessages } from './message-table.ts';
import { type PathLookup, PathMtu } from './path-mtu.ts';
import type { Network, Own } from './peers.ts';
import { type Route6, route6Of, staysOnLink6 } from './route6.ts';
import {
  CONTROL_KEY,
  CONTROL_TRAINS_OFF,
  FORMAT_TULLE,
  MAX_IOVS,
  MAX_MESSAGES,
  NO_LEASE,
  OWN_SUBNET,
  PEER_BYTES,
  PEER_LIMIT,
  SLOT_BYTES,
  type Slab,
  TUN_READ_OFFSET,
} from './slab.ts';

const PACKETS = flowIndex('egress-packets');
const BYTES = flowIndex('egress-bytes');
const SUPER_PACKETS = flowIndex('egress-super-packets');
const MALFORMED = dropIndex('egress-malformed');
const NOT_IPV4 = dropIndex('egress-not-ipv4');
const OUTSIDE = dropIndex('egress-outside-network');
const NO_LEASE_DROP = dropIndex('egress-no-lease');
const OWN = dropIndex('egress-own-subnet');
const TTL = dropIndex('egress-ttl-exceeded');
const TOO_BIG_DROP = dropIndex('egress-too-big');
const LINK_LOCAL = dropIndex('egress-link-local');
const FENCED = dropIndex('egress-fenced');
const FRAGMENTS = flowIndex('egress-fragments');

/** What can still happen to a packet when it is handed to the socket. */
const SEND_DROPS = (['egress-too-big', 'egress-queue-full', 'egress-send-failed'] as const).map(dropIndex);

/** Fragments of 65,535 bytes for the narrowest path, with room to spare. */
const MAX_FRAGMENTS = 160;

export interface EgressOptions {
  network: Network;
  own: Own;
  /** FORMAT_BARE or FORMAT_TULLE. */
  format: number;
  send: SendMessages;
  sum: Sum;
  writeReplies: WriteReplies;
  pathTo: PathLookup;
  /** Milliseconds of a clock that nobody sets. */
  now: () => number;
}

export class Egress {
  readonly #slab: Slab;
  readonly #network: Network;
  /** undefined in a network without IPv6 */
  readonly #route6: Route6 | undefined;
  readonly #tulle: boolean;
  readonly #table: MessageTable;
  readonly #sum: Sum;
  readonly #reply: IcmpReply;
  readonly #paths: PathMtu;

  #nextId = 0;

  constructor(slab: Slab, options: EgressOptions) {
    const { network, own, format, send, sum, writeReplies, pathTo, now } = options;
    this.#slab = slab;
    this.#network = network;
    this.#tulle = format === FORMAT_TULLE;
    // flannel's format is IPv4's.
    this.#route6 = this.#tulle ? route6Of(network) : undefined;
    this.#table = new MessageTable(slab, send, (peer, ip, size) => this.#refused(peer, ip, size));
    this.#sum = sum;
    this.#reply = new IcmpReply(slab, network, own, writeReplies, now);
    this.#paths = new PathMtu(slab, pathTo, now);
  }

  /** Forwards the packets of the first `count` TUN slots; all of them have left or are counted when it returns. */
  take(count: number): void {
    const lengths = this.#slab.tunLengthsOffset >> 2;
    for (let slot = 0; slot < count; slot++) {
      const offset = this.#slab.tunSlotsOffset + slot * SLOT_BYTES + TUN_READ_OFFSET;
      const drop = this.#packet(offset, this.#slab.words[lengths + slot]);
      if (drop < 0) continue;
      this.#slab.counters[drop]++;
      this.#slab.tap?.droppedRead(slot, drop);
    }
    this.#table.flush();
    this.#reply.flush();
  }

  /**
   * The packet in the first TUN slot, `length` bytes with its vnet header, takes the way of all packets, but in a batch of its
   * own, and marked with this number in our format. Returns the index of the drop counter, or -1: its datagram left.
   */
  trace(length: number, id: number): number {
    const { bytes, counters } = this.#slab;
    const offset = this.#slab.tunSlotsOffset + TUN_READ_OFFSET;
    const drop = this.#packet(offset, length);
    if (drop >= 0) {
      counters[drop]++;
      this.#slab.tap?.droppedRead(0, drop);
    } else if (this.#tulle) markTraced(bytes, offset + VNET_HEADER_BYTES - HEADER_BYTES, id);
    const before = SEND_DROPS.map(index => counters[index]);
    this.#table.flush();
    this.#reply.flush();
    return drop >= 0 ? drop : (SEND_DROPS.find((index, i) => counters[index] > before[i]) ?? -1);
  }

  /** Discards the packets of the first `count` TUN slots, because this node may not forward. */
  fence(count: number): void {
    this.#slab.counters[FENCED] += count;
    for (let slot = 0; slot < count; slot++) this.#slab.tap?.droppedRead(slot, FENCED);
  }

  /** One TUN read: vnet header and packet, `length` bytes at `offset`. Returns -1, or the index of the drop counter. */
  #packet(offset: number, length: number): number {
    const { bytes } = this.#slab;
    const available = length - VNET_HEADER_BYTES;
    const ip = offset + VNET_HEADER_BYTES;
    if (available < 1) return MALFORMED;
    const gsoType = vnetGsoType(bytes, offset) & ~VNET_GSO_ECN;
    const segmentSize = gsoType === VNET_GSO_NONE ? 0 : vnetGsoSize(bytes, offset);
    if (isIp6(bytes, ip)) return this.#packet6(offset, ip, available, gsoType, segmentSize);
    if (checkIp4(bytes, ip, available) !== 0) return MALFORMED;
    const index = subnetIndex(ip4Destination(bytes, ip), this.#network.network, this.#network.subnetLength);
    if (index < 0) return OUTSIDE;
    const peer = this.#slab.routes[index];
    if (peer >= OWN_SUBNET) return this.#noPeer(peer, ip, segmentSize);
    if (ip4Ttl(bytes, ip) <= 1) return this.#report(TTL, TIME_EXCEEDED, ip, segmentSize);
    return this.#forward(peer, offset, ip, ip4TotalLength(bytes, ip), gsoType, segmentSize);
  }

  /** The same for an IPv6 packet. */
  #packet6(offset: number, ip: number, available: number, gsoType: number, segmentSize: number): number {
    const bytes = this.#slab.bytes;
    if (this.#route6 === undefined) return NOT_IPV4;
    if (checkIp6(bytes, ip, available) !== 0) return MALFORMED;
    if (staysOnLink6(bytes, ip + IP6_SOURCE) || staysOnLink6(bytes, ip + IP6_DESTINATION)) return LINK_LOCAL;
    const index = this.#route6.index(bytes, ip + IP6_DESTINATION);
    if (index < 0) return OUTSIDE;
    const peer = this.#slab.routes6[index];
    if (peer >= OWN_SUBNET) return this.#noPeer(peer, ip, segmentSize);
    if (ip6HopLimit(bytes, ip) <= 1) return this.#report(TTL, TIME_EXCEEDED, ip, segmentSize);
    return this.#forward(peer, offset, ip, ip6TotalLength(bytes, ip), gsoType, segmentSize);
  }

  /** A checked packet whose peer is known and whose TTL suffices. */
  #forward(peer: number, vnet: number, ip: number, total: number, gsoType: number, segmentSize: number): number {
    const { bytes, counters } = this.#slab;
    const limit = this.#slab.words[((this.#slab.peersOffset + peer * PEER_BYTES) >> 2) + PEER_LIMIT];
    if (gsoType === VNET_GSO_NONE) {
      const partial = (vnetFlags(bytes, vnet) & VNET_FLAG_NEEDS_CSUM) !== 0;
      if (total > limit && total > this.#paths.limitNow(peer)) return this.#tooBig(peer, vnet, ip, total, partial);
      oneHopLess(bytes, ip);
      if (!this.#single(peer, vnet, ip, total, partial)) return MALFORMED;
    } else {
      if (segmentSize === 0 || checkSuperHeaders(bytes, ip, total) !== 0) return MALFORMED;
      const tcp = isIp6(bytes, ip) ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4;
      if (gsoType !== (protocolOf(bytes, ip) === PROTOCOL_TCP ? tcp : VNET_GSO_UDP_L4)) return MALFORMED;
      const inner = superHeaderLength(bytes, ip);
      const longest = Math.min(total, inner + segmentSize);
      if (longest > limit && longest > this.#paths.limitNow(peer)) {
        this.#reply.report(TOO_BIG, ip, segmentSize, this.#paths.limitNow(peer));
        return TOO_BIG_DROP;
      }
      oneHopLess(bytes, ip);
      if (!this.#superPacket(peer, ip, total, inner, segmentSize)) return MALFORMED;
    }
    counters[PACKETS]++;
    counters[BYTES] += total;
    return -1;
  }

  /** A packet for a subnet that no peer holds: `route` is NO_LEASE or OWN_SUBNET. */
  #noPeer(route: number, ip: number, segmentSize: number): number {
    return route === NO_LEASE
      ? this.#report(NO_LEASE_DROP, NO_ROUTE, ip, segmentSize)
      : this.#report(OWN, NO_HOST, ip, segmentSize);
  }

  /** Tells the packet's sender, and returns the drop counter. */
  #report(drop: number, what: number, ip: number, segmentSize: number): number {
    this.#reply.report(what, ip, segmentSize, 0);
    return drop;
  }

  /** A packet that is longer than the way to its peer is wide: fragments if it allows that, else its sender is told. */
  #tooBig(peer: number, vnet: number, ip: number, total: number, partial: boolean): number {
    const { bytes, counters } = this.#slab;
    const limit = this.#paths.limitNow(peer);
    if (!mayFragment4(bytes, ip)) {
      this.#reply.report(TOO_BIG, ip, 0, limit);
      return TOO_BIG_DROP;
    }
    if (partial && !this.#finishChecksum(vnet, ip, total)) return MALFORMED;
    if (!this.#table.hasRoom(2 * MAX_FRAGMENTS, 3 * MAX_FRAGMENTS)) this.#table.flush();
    decrementTtl(bytes, ip);
    counters[FRAGMENTS] += fragments4(this.#slab, this.#table, peer, ip, limit, this.#tulle);
    counters[PACKETS]++;
    counters[BYTES] += total;
    return -1;
  }

  /**
   * The kernel refused a datagram as too long for its path: its packet is at `ip`, of a super-packet when `segmentSize` is not
   * 0. The path's width is learnt, and the sender told. The table counts the datagram.
   */
  #refused(peer: number, ip: number, segmentSize: number): void {
    const { bytes } = this.#slab;
    const total = totalLength(bytes, ip);
    const tried = segmentSize === 0 ? total : Math.min(total, superHeaderLength(bytes, ip) + segmentSize);
    const limit = this.#paths.learn(peer, tried);
    if (limit < tried) this.#reply.report(TOO_BIG, ip, segmentSize, limit);
  }

  #single(peer: number, vnet: number, ip: number, total: number, partial: boolean): boolean {
    const bytes = this.#slab.bytes;
    let flags = 0;
    if (partial) {
      const start = vnetChecksumStart(bytes, vnet);
      const field = vnetChecksumOffset(bytes, vnet);
      if (start + field + 2 > total) return false;
      if (this.#tulle && isL4Checksum(bytes, ip, start, field)) flags = FLAG_PARTIAL_CHECKSUM;
      else this.#finishChecksum(vnet, ip, total);
    }
    if (!this.#table.hasRoom(1, 3)) this.#table.flush();
    if (this.#tulle) {
      if (!this.#table.joins(peer, HEADER_BYTES + total) && this.#table.bundle(peer, ip, total, flags)) return true;
      emitTulle(bytes, ip - HEADER_BYTES, KIND_PACKET, flags, 0, this.#slab.control[CONTROL_KEY], 0, 0);
      this.#table.datagram(peer, ip - HEADER_BYTES, HEADER_BYTES + total);
      this.#table.mayBundle(peer, flags);
    } else {
      this.#table.datagram(peer, ip, total);
    }
    return true;
  }

  /** Finishes a partial checksum. False when its place is outside the packet. */
  #finishChecksum(vnet: number, ip: number, total: number): boolean {
    const bytes = this.#slab.bytes;
    const start = vnetChecksumStart(bytes, vnet);
    const field = vnetChecksumOffset(bytes, vnet);
    if (start + field + 2 > total) return false;
    set16(bytes, ip + start + field, finish(this.#sum(ip + start, total - start, 0)) || 0xffff);
    return true;
  }

  /** A checked TCP or UDP super-packet: `total` bytes at `ip`, `inner` of them headers, to be cut every `segmentSize` bytes. */
  #superPacket(peer: number, ip: number, total: number, inner: number, segmentSize: number): boolean {
    const segments = segmentCount(total - inner, segmentSize);
    const iovs = this.#tulle ? 3 : 2;
    if (segments > MAX_MESSAGES || segments * iovs > MAX_IOVS) return false;
    if (!this.#table.hasRoom(segments, segments * iovs)) this.#table.flush();

    const outer = this.#tulle ? HEADER_BYTES + inner : inner;
    // Headers push a 64 KB super-packet over one train: two trains of equal length, rather than a long and a tiny one.
    const sends = trainSends(segments, outer + segmentSize);
    const train = this.#slab.control[CONTROL_TRAINS_OFF] === 0 ? Math.ceil(segments / sends) : 1;
    const id = this.#nextId;
    this.#nextId = (id + 1) & 0xffff;
    for (let first = 0; first < segments; first += train) {
      const end = Math.min(first + train, segments);
      let trainBytes = 0;
      for (let i = first; i < end; i++) {
        const at = inner + i * segmentSize;
        const slice = Math.min(segmentSize, total - at);
        if (this.#tulle) this.#tulleSegment(ip, inner, segmentSize, slice, id, i, i === segments - 1);
        else this.#bareSegment(ip, inner, segmentSize, slice, i, i === segments - 1);
        trainBytes += outer + slice;
      }
      const count = end - first;
      this.#table.message(peer, count, iovs * count, trainBytes, count > 1 ? outer + segmentSize : 0);
      this.#table.ofSuperPacket(ip, segmentSize);
    }
    this.#slab.counters[SUPER_PACKETS]++;
    return true;
  }

  /** Our format: a header of its own, then the super-packet's headers and the slice where they lie. */
  #tulleSegment(
    ip: number,
    inner: number,
    size: number,
    slice: number,
    id: number,
    index: number,
    last: boolean,
  ): void {
    const header = this.#table.header();
    const flags = last ? FLAG_PARTIAL_CHECKSUM | FLAG_LAST_SEGMENT : FLAG_PARTIAL_CHECKSUM;
    emitTulle(this.#slab.bytes, header, KIND_SEGMENT, flags, size, this.#slab.control[CONTROL_KEY], id, index);
    this.#table.iov(header, HEADER_BYTES);
    this.#table.iov(ip, inner);
    this.#table.iov(ip + inner + index * size, slice);
  }

  /** flannel's format: a packet with its own, finished headers, then the slice where it lies. */
  #bareSegment(ip: number, inner: number, size: number, slice: number, index: number, last: boolean): void {
    const bytes = this.#slab.bytes;
    const headers = this.#table.innerHeaders();
    bytes.copyWithin(headers, ip, ip + inner);
    rewriteSegment(bytes, headers, inner, index, size, slice, last);
    const ipLength = l4DistanceOf(bytes, headers);
    const at = ip + inner + index * size;
    // The header's length is even, so the two sums add up (RFC 1071 §2 (A)).
    const total = this.#sum(at, slice, this.#sum(headers + ipLength, inner - ipLength, 0));
    const field = protocolOf(bytes, headers) === PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
    set16(bytes, headers + ipLength + field, finish(total) || 0xffff);
    this.#table.iov(headers, inner);
    this.#table.iov(at, slice);
  }
}

/** True when the place is that of the TCP or UDP checksum right behind the IP header: what a receiver derives by itself. */
function isL4Checksum(bytes: Uint8Array, ip: number, start: number, field: number): boolean {
  if (start !== l4DistanceOf(bytes, ip)) return false;
  const protocol = protocolOf(bytes, ip);
  return (protocol === PROTOCOL_TCP && field === TCP_CHECKSUM) || (protocol === PROTOCOL_UDP && field === UDP_CHECKSUM);
}

function oneHopLess(bytes: Uint8Array, ip: number): void {
  if (isIp6(bytes, ip)) decrementHopLimit(bytes, ip);
  else decrementTtl(bytes, ip);
}
