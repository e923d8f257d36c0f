/**
 * Ingress: datagrams from the underlay become packets for the TUN.
 *
 *   1. split what one receive gave (a UDP_GRO train) by its stride
 *   2. who sent it? the outer source must be a leaseholder's endpoint, the header's key that lease's key, and the inner
 *      source, where it lies in the pod network, must lie in that lease's subnet
 *   3. a packet is written as it is, behind a vnet header that is derived from what was parsed, never from the wire
 *   4. segments of one super-packet that follow each other without a gap are coalesced: one gathered write, with the
 *      first segment's headers rewritten for the whole run; a gap, another super-packet or the batch's end closes the run
 *   5. a refused coalesced write turns coalescing off (one of UDP only that of UDP), and its segments are written one by one
 *
 * Nothing is kept from one batch to the next: a run that is open at the end of a batch is closed there.
 * borrowed: every offset, until `take` returns.
 */
import { get32 } from '../wire/bytes.ts';
import { contains4, type Subnet4 } from '../wire/cidr.ts';
import { checkSegment, isIp6, l4DistanceOf, protocolOf, superHeaderLength, totalLength } from '../wire/either.ts';
import { checkIp4, ip4Destination, ip4Source, PROTOCOL_TCP, PROTOCOL_UDP } from '../wire/ip4.ts';
import { checkIp6, IP6_DESTINATION, IP6_SOURCE } from '../wire/ip6.ts';
import { TCP_CHECKSUM } from '../wire/tcp.ts';
import {
  bundlePacket,
  bundlePacketLength,
  checkTulle,
  FLAG_PARTIAL_CHECKSUM,
  HEADER_BYTES,
  KIND_BUNDLE,
  KIND_PACKET,
  KIND_TRACED,
  nextInBundle,
  TULLE_VERSION,
  tulleFlags,
  tulleId,
  tulleIndex,
  tulleKey,
  tulleKind,
  tulleSegmentSize,
} from '../wire/tulle.ts';
import { UDP_CHECKSUM } from '../wire/udp.ts';
import { emitVnet, VNET_FLAG_NEEDS_CSUM, VNET_GSO_NONE, VNET_HEADER_BYTES } from '../wire/vnet.ts';
import { dropIndex, flowIndex } from './counters.ts';
import { FlowRun, type Sum } from './flow-run.ts';
import { PacketTable, RUN_OF_SEGMENTS, type WritePackets, writeRunHeaders } from './packet-table.ts';
import { findPeer, type Network, type Own } from './peers.ts';
import { indexOf6, type Route6, route6Of, staysOnLink6 } from './route6.ts';
import type { SideTraffic } from './side-traffic.ts';
import {
  CONTROL_CLOCK,
  CONTROL_COALESCE_OFF,
  CONTROL_UDP_COALESCE_OFF,
  FORMAT_TULLE,
  PEER_BYTES,
  PEER_FORMAT,
  PEER_HEARD,
  PEER_INDEX6,
  PEER_KEY,
  PEER_MASK,
  PEER_SUBNET,
  RECORD_WORDS,
  SLOT_BYTES,
  type Slab,
} from './slab.ts';

/** UIO_MAXIOV (include/uapi/linux/uio.h) bounds a gathered write; UDP_MAX_SEGMENTS (include/linux/udp.h) a UDP super-packet. */
const MAX_TCP_RUN = 1_024;
const MAX_UDP_RUN = 128;

const DATAGRAMS = flowIndex('ingress-datagrams');
const TRAINS = flowIndex('ingress-trains');
const BUNDLED = flowIndex('ingress-bundled');
const TRUNCATED = dropIndex('ingress-truncated');
const UNKNOWN_SENDER = dropIndex('ingress-unknown-sender');
const MALFORMED = dropIndex('ingress-malformed');
const WRONG_VERSION = dropIndex('ingress-wrong-version');
const WRONG_FORMAT = dropIndex('ingress-wrong-format');
const UNKNOWN_KIND = dropIndex('ingress-unknown-kind');
const STALE_KEY = dropIndex('ingress-stale-key');
const SPOOFED = dropIndex('ingress-spoofed-source');
const NOT_OURS = dropIndex('ingress-not-ours');
const FENCED = dropIndex('ingress-fenced');
const NOT_IPV4 = dropIndex('ingress-not-ipv4');
const LIMITED = dropIndex('ingress-limited');
const WRITE_FAILED = dropIndex('ingress-write-failed');

export class Ingress {
  readonly #slab: Slab;
  readonly #network: Subnet4;
  readonly #own: Subnet4;
  /** undefined in a network without IPv6 */
  readonly #route6: Route6 | undefined;
  readonly #ownIndex6: number;
  readonly #table: PacketTable;
  readonly #flow: FlowRun;
  readonly #side: SideTraffic | undefined;

  /** The open run; #runCount 0 when there is none. */
  #runPeer = -1;
  #runId = 0;
  #runCount = 0;
  #runFirst = 0;
  #runSegmentSize = 0;
  #runInner = 0;
  #runL4 = 0;
  #runIp = 0;
  #runTotal = 0;
  #runPayload = 0;
  #runWord = 0;
  #runLimit = 0;

  /** `side`: takes what carries no packet; without it such datagrams are of an unknown kind. */
  constructor(slab: Slab, network: Network, own: Own, write: WritePackets, sum: Sum, side?: SideTraffic) {
    this.#slab = slab;
    this.#network = network.network;
    this.#own = own.subnet;
    this.#route6 = route6Of(network);
    this.#ownIndex6 = indexOf6(own.subnet6, network);
    this.#table = new PacketTable(slab, write);
    this.#flow = new FlowRun(slab, this.#table, sum);
    this.#side = side;
  }

  /** Delivers the datagrams of the first `count` records; all are written or counted when it returns. */
  take(count: number): void {
    for (let slot = 0; slot < count; slot++) this.#record(slot);
    this.#closeRun();
    this.#flow.close();
    this.#table.flush();
    this.#side?.flush();
  }

  /** Discards the datagrams of the first `count` records, because this node may not forward. */
  fence(count: number): void {
    for (let slot = 0; slot < count; slot++) {
      this.#slab.counters[FENCED] += this.#datagramsOf(slot);
      this.#slab.tap?.droppedRecord(slot, FENCED);
    }
  }

  #record(slot: number): void {
    const { words, counters } = this.#slab;
    const record = (this.#slab.recordsOffset >> 2) + slot * RECORD_WORDS;
    const length = words[record];
    const stride = words[record + 1] > 0 ? words[record + 1] : length;
    const datagrams = this.#datagramsOf(slot);
    if (datagrams > 1) counters[TRAINS]++;
    if (words[record + 2] !== 0) {
      counters[TRUNCATED] += datagrams;
      this.#slab.tap?.droppedRecord(slot, TRUNCATED);
      return;
    }
    const peer = findPeer(this.#slab, record + 4);
    if (peer < 0) {
      counters[UNKNOWN_SENDER] += datagrams;
      this.#slab.tap?.droppedRecord(slot, UNKNOWN_SENDER);
      return;
    }
    const start = this.#slab.udpSlotsOffset + slot * SLOT_BYTES;
    let refused = 0;
    for (let i = 0; i < datagrams; i++) {
      const offset = start + i * stride;
      const size = Math.min(stride, start + length - offset);
      const drop = this.#datagram(peer, offset, size);
      if (drop < 0) continue;
      counters[drop]++;
      refused++;
      this.#slab.tap?.droppedDatagram(offset, size, drop);
    }
    if (refused === datagrams) return;
    words[((this.#slab.peersOffset + peer * PEER_BYTES) >> 2) + PEER_HEARD] = this.#slab.control[CONTROL_CLOCK];
  }

  /** How many datagrams one receive gave; they are counted. */
  #datagramsOf(slot: number): number {
    const { words, counters } = this.#slab;
    const record = (this.#slab.recordsOffset >> 2) + slot * RECORD_WORDS;
    const stride = words[record + 1];
    const datagrams = stride > 0 ? Math.ceil(words[record] / stride) : 1;
    counters[DATAGRAMS] += datagrams;
    return datagrams;
  }

  /** Returns -1, or the index of the drop counter. */
  #datagram(peer: number, offset: number, length: number): number {
    const { bytes, words } = this.#slab;
    if (length === 0) return MALFORMED;
    const record = (this.#slab.peersOffset + peer * PEER_BYTES) >> 2;
    const version = bytes[offset] >>> 4;
    if (version === 4) {
      return words[record + PEER_FORMAT] === FORMAT_TULLE ? WRONG_FORMAT : this.#single(record, offset, length, false);
    }
    if (version === 6) return UNKNOWN_KIND;
    if (version !== TULLE_VERSION) return WRONG_VERSION;
    if (words[record + PEER_FORMAT] !== FORMAT_TULLE) return WRONG_FORMAT;
    if (length < HEADER_BYTES) return MALFORMED;
    const kind = tulleKind(bytes, offset);
    if ((tulleKey(bytes, offset) | 0) !== words[record + PEER_KEY]) {
      if (kind === KIND_TRACED) this.#side?.refused(peer, offset, length, STALE_KEY);
      return STALE_KEY;
    }
    if (kind > KIND_BUNDLE) return this.#aside(peer, record, kind, offset, length);
    if (checkTulle(bytes, offset, length) !== 0) return MALFORMED;
    const partial = (tulleFlags(bytes, offset) & FLAG_PARTIAL_CHECKSUM) !== 0;
    if (kind === KIND_PACKET) return this.#single(record, offset + HEADER_BYTES, length - HEADER_BYTES, partial);
    if (kind === KIND_BUNDLE) return this.#bundle(record, offset, length, partial);
    return partial ? this.#segment(peer, record, offset, length) : MALFORMED;
  }

  /** What is no packet, or one that its sender follows with its eyes. */
  #aside(peer: number, record: number, kind: number, offset: number, length: number): number {
    const side = this.#side;
    if (side === undefined || kind > KIND_TRACED) return UNKNOWN_KIND;
    if (checkTulle(this.#slab.bytes, offset, length) !== 0) return MALFORMED;
    if (kind !== KIND_TRACED) return side.take(peer, kind, offset, length);
    if (side.exceeds(peer)) return LIMITED;
    // By itself, so that what becomes of it can be told from what becomes of its neighbours.
    this.#closeRun();
    this.#flow.close();
    this.#table.flush();
    const { bytes, counters } = this.#slab;
    const failed = counters[WRITE_FAILED];
    const partial = (tulleFlags(bytes, offset) & FLAG_PARTIAL_CHECKSUM) !== 0;
    const drop = this.#single(record, offset + HEADER_BYTES, length - HEADER_BYTES, partial);
    this.#flow.close();
    this.#table.flush();
    const fate = drop < 0 && counters[WRITE_FAILED] > failed ? WRITE_FAILED : drop;
    side.traced(peer, offset, length - HEADER_BYTES, fate);
    return drop;
  }

  /** The packets of a checked bundle, each delivered or counted by itself; the datagram itself is well. */
  #bundle(record: number, offset: number, length: number, partial: boolean): number {
    const { bytes, counters } = this.#slab;
    counters[BUNDLED] += tulleIndex(bytes, offset) - 1;
    for (let at = offset + HEADER_BYTES; at < offset + length; at = nextInBundle(bytes, at)) {
      const drop = this.#single(record, bundlePacket(at), bundlePacketLength(bytes, at), partial);
      if (drop < 0) continue;
      counters[drop]++;
      this.#slab.tap?.droppedInner(bundlePacket(at), bundlePacketLength(bytes, at), drop);
    }
    return -1;
  }

  /** Where the inner addresses of a checked packet may not be what they are: the drop counter, or -1. */
  #refuse(record: number, ip: number): number {
    const { bytes, words } = this.#slab;
    if (isIp6(bytes, ip)) return this.#refuse6(record, ip);
    const source = ip4Source(bytes, ip);
    if (contains4(this.#network, source) && (source & words[record + PEER_MASK]) !== words[record + PEER_SUBNET])
      return SPOOFED;
    const destination = ip4Destination(bytes, ip);
    if (contains4(this.#network, destination) && !contains4(this.#own, destination)) return NOT_OURS;
    return -1;
  }

  /** The same for IPv6. Nothing that belongs to a link may come from beyond it: neighbour discovery trusts its link. */
  #refuse6(record: number, ip: number): number {
    const { bytes, words } = this.#slab;
    const route = this.#route6;
    if (route === undefined) return NOT_IPV4;
    if (staysOnLink6(bytes, ip + IP6_SOURCE)) return SPOOFED;
    if (staysOnLink6(bytes, ip + IP6_DESTINATION)) return NOT_OURS;
    const source = route.index(bytes, ip + IP6_SOURCE);
    if (source >= 0 && source !== words[record + PEER_INDEX6]) return SPOOFED;
    const destination = route.index(bytes, ip + IP6_DESTINATION);
    return destination >= 0 && destination !== this.#ownIndex6 ? NOT_OURS : -1;
  }

  /** One whole packet, `available` bytes at `ip`. */
  #single(record: number, ip: number, available: number, partial: boolean): number {
    const bytes = this.#slab.bytes;
    if (available > 0 && isIp6(bytes, ip)) {
      if (this.#route6 === undefined) return NOT_IPV4;
      if (checkIp6(bytes, ip, available) !== 0) return MALFORMED;
    } else if (checkIp4(bytes, ip, available) !== 0) return MALFORMED;
    const refused = this.#refuse(record, ip);
    if (refused >= 0) return refused;
    const total = totalLength(bytes, ip);
    let start = 0;
    let field = 0;
    if (partial) {
      start = l4DistanceOf(bytes, ip);
      const protocol = protocolOf(bytes, ip);
      field = protocol === PROTOCOL_TCP ? TCP_CHECKSUM : protocol === PROTOCOL_UDP ? UDP_CHECKSUM : -1;
      if (field < 0 || start + field + 2 > total) return MALFORMED;
    }
    this.#closeRun();
    if (this.#slab.control[CONTROL_COALESCE_OFF] === 0 && this.#flow.take(ip, total, partial)) return -1;
    this.#flow.close();
    if (!this.#table.hasRoom(1, 2)) this.#table.flush();
    // In a train of bare packets, and in a bundle, the bytes before a packet belong to its neighbour: the vnet header stands
    // elsewhere.
    emitVnet(bytes, this.#table.vnetOffset(), partial ? VNET_FLAG_NEEDS_CSUM : 0, VNET_GSO_NONE, 0, 0, start, field);
    this.#table.iov(this.#table.vnetOffset(), VNET_HEADER_BYTES);
    this.#table.iov(ip, total);
    this.#table.packet(2, RUN_OF_SEGMENTS, 1, total);
    return -1;
  }

  /** One segment of a super-packet: it continues the open run, or closes that and begins one. */
  #segment(peer: number, record: number, offset: number, length: number): number {
    const bytes = this.#slab.bytes;
    const ip = offset + HEADER_BYTES;
    const id = tulleId(bytes, offset);
    const index = tulleIndex(bytes, offset);
    const size = tulleSegmentSize(bytes, offset);
    const available = length - HEADER_BYTES;
    const continues =
      this.#runCount > 0 &&
      this.#runCount < this.#runLimit &&
      this.#table.hasRoom(0, 1) &&
      this.#runPeer === peer &&
      this.#runId === id &&
      this.#runFirst + this.#runCount === index &&
      this.#runSegmentSize === size &&
      available > this.#runInner &&
      // An id comes round every 65,536 super-packets; TCP's sequence number tells an old one from a new one.
      get32(bytes, ip + this.#runL4 + 4) === this.#runWord;
    if (continues) {
      const slice = Math.min(size, this.#runTotal - this.#runInner - index * size);
      if (slice <= 0 || available !== this.#runInner + slice) return MALFORMED;
      this.#table.iov(ip + this.#runInner, slice);
      this.#runCount++;
      this.#runPayload += slice;
      return -1;
    }

    if (checkSegment(bytes, offset, length) !== 0) return MALFORMED;
    if (isIp6(bytes, ip) && this.#route6 === undefined) return NOT_IPV4;
    const refused = this.#refuse(record, ip);
    if (refused >= 0) return refused;
    this.#closeRun();
    this.#flow.close();
    if (!this.#table.hasRoom(1, 2)) this.#table.flush();
    const inner = superHeaderLength(bytes, ip);
    const l4 = l4DistanceOf(bytes, ip);
    // The first segment lies in one piece with its headers, and the vnet header takes the tulle header's place.
    this.#table.iov(ip - VNET_HEADER_BYTES, VNET_HEADER_BYTES + available);
    this.#runPeer = peer;
    this.#runId = id;
    this.#runCount = 1;
    this.#runFirst = index;
    this.#runSegmentSize = size;
    this.#runInner = inner;
    this.#runL4 = l4;
    this.#runIp = ip;
    this.#runTotal = totalLength(bytes, ip);
    this.#runPayload = available - inner;
    this.#runWord = get32(bytes, ip + l4 + 4);
    const tcp = protocolOf(bytes, ip) === PROTOCOL_TCP;
    this.#runLimit = tcp ? MAX_TCP_RUN : MAX_UDP_RUN;
    const { control } = this.#slab;
    if (control[CONTROL_COALESCE_OFF] !== 0 || (!tcp && control[CONTROL_UDP_COALESCE_OFF] !== 0)) this.#closeRun();
    return -1;
  }

  #closeRun(): void {
    const count = this.#runCount;
    if (count === 0) return;
    this.#runCount = 0;
    const isLast =
      this.#runInner + (this.#runFirst + count - 1) * this.#runSegmentSize + this.#runSegmentSize >= this.#runTotal;
    writeRunHeaders(
      this.#slab.bytes,
      this.#runIp,
      this.#runInner,
      this.#runFirst,
      this.#runSegmentSize,
      this.#runPayload,
      isLast,
      count,
    );
    this.#table.packet(count, RUN_OF_SEGMENTS, count, this.#runInner + this.#runPayload);
  }
}
