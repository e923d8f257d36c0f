/**
 * The slab: the one SharedArrayBuffer of a data path. The worker's arena (slots that packets are read into, tables that
 * tell the kernel what to gather), the route table and the counters all lie in it, so every place is one integer offset
 * and the addon needs to know one registered arena.
 *
 *   control    words that both threads look at: stop, epoch, which endpoint hash is valid, the latches of the offloads
 *   deadline   until when the lease allows to forward; the worker looks at it each turn, so that a node which wakes from a
 *              suspend is fenced before its first packet, whatever the main thread does
 *   counters   one Float64 a counter, written by the worker alone, read by anyone (64-bit aligned stores do not tear)
 *   routes     Uint16 per subnet of the network: the peer's number, or NO_LEASE, or OWN_SUBNET; one more for IPv6 subnets
 *   hashes     two open-addressing tables, endpoint → peer number + 1; one is valid, the other is being rebuilt
 *   peers      64 bytes a peer, see PEER_…
 *   letters    two rings of side traffic: what the main thread wants sent, and what came that is no packet (mailbox.ts)
 *   arena      what the worker alone uses: slots and tables
 *   ring       what is captured, on its way to the main thread (capture-ring.ts); not touched while nobody captures
 */
import { RING_BYTES, RING_WORDS, type Ring } from './capture-ring.ts';
import { COUNTER_COUNT } from './counters.ts';
import type { Tap } from './tap.ts';

/** Bytes of a slot: 2 of padding, the vnet header (10), the largest IP packet (65,535), and room for a whole UDP_GRO buffer. */
export const SLOT_BYTES = 66_048;
/** Slots a direction: 16 super-packets are about 1 MB, which stays in the second-level cache of most machines. */
export const SLOTS = 16;
/**
 * Where a TUN read lands in its slot. The vnet header fills bytes 2 to 11, so the packet begins at byte 12, 4-aligned,
 * and the tulle header (12 bytes) takes exactly the place of the vnet header once that has been read.
 */
export const TUN_READ_OFFSET = 2;

/** Messages to the underlay in one batch: 16 super-packets of the smallest segments that one UDP_SEGMENT train holds. */
export const MAX_MESSAGES = 2_048;
/** Packets to the TUN in one batch: 16 trains of 128 datagrams each. */
export const MAX_PACKETS = 2_048;
/** Gather entries of one direction: three a segment (tulle header, inner header, slice). */
export const MAX_IOVS = 8_192;

/** The longest IPv4 and TCP headers together (RFC 791, RFC 9293: 60 bytes each), rounded up. */
export const INNER_HEADER_BYTES = 128;

export const MESSAGE_WORDS = 5;
export const PACKET_WORDS = 3;
export const IOV_WORDS = 2;
export const RECORD_WORDS = 12;
export const POLL_WORDS = 3;

/** Words of the control region. */
export const CONTROL_STOP = 0;
/** Counts the worker's turns: what was unlinked before a turn began is not looked at after it. */
export const CONTROL_EPOCH = 1;
export const CONTROL_HASH = 2;
/** 1 once the kernel refused a UDP_SEGMENT train; from then on segments leave one by one. */
export const CONTROL_TRAINS_OFF = 3;
/** 1 once the TUN refused a GSO write; from then on segments are written one by one. */
export const CONTROL_COALESCE_OFF = 4;
/** The lease key that our datagrams carry (32 bits). */
export const CONTROL_KEY = 5;
/** The errno with which the underlay refuses all datagrams; 0 while they leave. */
export const CONTROL_UNDERLAY_ERROR = 6;
/** The overlay's MTU: the largest packet that the device is told to give. */
export const CONTROL_MTU = 7;
/** When the worker's turn began: milliseconds of its clock, modulo 2^32, and never 0. */
export const CONTROL_CLOCK = 8;
/** The two rings of side traffic, see mailbox.ts: how many records were put in and taken out, modulo 2^32. */
export const CONTROL_ERRANDS_PUT = 9;
export const CONTROL_ERRANDS_TAKEN = 10;
export const CONTROL_MAIL_PUT = 11;
export const CONTROL_MAIL_TAKEN = 12;
/** 1 while the main thread has been told of mail and has not looked yet. */
export const CONTROL_MAIL_TOLD = 13;
/** CONTROL_COALESCE_OFF for UDP alone: kernels before 6.2 take GSO writes of TCP only. */
export const CONTROL_UDP_COALESCE_OFF = 14;
const CONTROL_WORDS = 32;

/** Values of the route table that are not a peer's number. */
export const NO_LEASE = 0xffff;
export const OWN_SUBNET = 0xfffe;

/** Bytes of a peer's record; the first 32 are a struct sockaddr_in or sockaddr_in6, ready for the kernel. */
export const PEER_BYTES = 64;
/** Words (Int32) inside a peer's record. */
export const PEER_KEY = 8;
export const PEER_SUBNET = 9;
export const PEER_MASK = 10;
/** CONTROL_CLOCK when the peer's last valid datagram came; 0: never. The worker's alone. */
export const PEER_HEARD = 11;
/** The largest inner packet that probes have proven to cross; the main thread's alone, and NO_LIMIT until they found one. */
export const PEER_PROVEN = 12;
export const PEER_FORMAT = 13;
/** The number of its IPv6 subnet, or -1. */
export const PEER_INDEX6 = 14;
/** The largest inner packet that crosses to this peer in one piece: the worker learns it, a new underlay MTU resets it. */
export const PEER_LIMIT = 15;
/** What PEER_LIMIT holds until a path has proven narrower: no packet is longer. */
export const NO_LIMIT = 65_535;

/** A reply of our own to the TUN: 2 of padding, the vnet header, an ICMP error of at most 1280 bytes (RFC 4443 §2.4 c). */
export const REPLY_BYTES = 1_296;

/** The rings of side traffic: records, and the bytes of one: 64 of fields, then a datagram or the beginning of a packet. */
export const ERRANDS = 128;
export const MAILS = 256;
export const LETTER_BYTES = 1_344;
/** Zeros, to be gathered as the padding of probes and traced packets, as often as it takes. */
export const PADDING_BYTES = 1_024;

/** A peer's wire format: flannel's bare IP packets, or ours. */
export const FORMAT_BARE = 0;
export const FORMAT_TULLE = 1;

/** Places beyond two a subnet; two, because a peer that changes takes a new place before its old one is free again. */
const SPARE_PEERS = 64;

export interface Slab {
  buffer: SharedArrayBuffer;
  bytes: Uint8Array;
  words: Int32Array;
  /** The same bytes, eight a number. */
  doubles: Float64Array;
  control: Int32Array;
  counters: Float64Array;
  /** One number: until when, in milliseconds of lib/sys's monotonic clock, this node may forward. */
  deadline: Float64Array;
  routes: Uint16Array;
  routes6: Uint16Array;
  hashes: [Uint16Array, Uint16Array];
  peerCapacity: number;
  /** Byte offsets into `bytes`. */
  peersOffset: number;
  tunSlotsOffset: number;
  tunLengthsOffset: number;
  headersOffset: number;
  /** 128 bytes a message: copies of inner headers, for segments that must have headers of their own (flannel's format). */
  innerHeadersOffset: number;
  /** 16 bytes a packet for the TUN: a vnet header that cannot stand right before its packet. */
  vnetsOffset: number;
  messagesOffset: number;
  egressIovsOffset: number;
  udpSlotsOffset: number;
  recordsOffset: number;
  packetsOffset: number;
  ingressIovsOffset: number;
  pollOffset: number;
  /** SLOTS places of REPLY_BYTES for ICMP errors, and one more to prepare a quotation in. */
  repliesOffset: number;
  replyPacketsOffset: number;
  replyIovsOffset: number;
  ring: Ring;
  /** This thread's listener, while somebody captures. */
  tap: Tap | undefined;
  errandsOffset: number;
  mailsOffset: number;
  paddingOffset: number;
}

/** How a slab is cut for a number of subnets of each kind; the same on both threads, because it depends on nothing else. */
function cut(subnetCount: number, subnetCount6: number) {
  let end = 0;
  const take = (bytes: number, alignment = 64): number => {
    const start = Math.ceil(end / alignment) * alignment;
    end = start + bytes;
    return start;
  };
  const peerCapacity = Math.min(2 * subnetCount + SPARE_PEERS, OWN_SUBNET);
  const hashSize = 2 ** Math.ceil(Math.log2(peerCapacity * 2));
  const plan = {
    peerCapacity,
    hashSize,
    control: take(CONTROL_WORDS * 4),
    counters: take(COUNTER_COUNT * 8),
    deadline: take(8),
    routes: take(subnetCount * 2),
    routes6: take(subnetCount6 * 2),
    hashA: take(hashSize * 2),
    hashB: take(hashSize * 2),
    peers: take(peerCapacity * PEER_BYTES),
    poll: take(4 * POLL_WORDS * 4),
    tunLengths: take(SLOTS * 4),
    messages: take(MAX_MESSAGES * MESSAGE_WORDS * 4),
    headers: take(MAX_MESSAGES * 16),
    innerHeaders: take(MAX_MESSAGES * INNER_HEADER_BYTES),
    vnets: take(MAX_PACKETS * 16),
    egressIovs: take(MAX_IOVS * IOV_WORDS * 4),
    records: take(SLOTS * RECORD_WORDS * 4),
    packets: take(MAX_PACKETS * PACKET_WORDS * 4),
    ingressIovs: take(MAX_IOVS * IOV_WORDS * 4),
    replies: take((SLOTS + 1) * REPLY_BYTES),
    replyPackets: take(SLOTS * PACKET_WORDS * 4),
    replyIovs: take(SLOTS * IOV_WORDS * 4),
    errands: take(ERRANDS * LETTER_BYTES),
    mails: take(MAILS * LETTER_BYTES),
    padding: take(PADDING_BYTES),
    tunSlots: take(SLOTS * SLOT_BYTES, 4096),
    udpSlots: take(SLOTS * SLOT_BYTES, 4096),
    ringControl: take(RING_WORDS * 4),
    ringWanted: take(subnetCount),
    ring: take(RING_BYTES, 4096),
  };
  return { ...plan, totalBytes: end };
}

/** Views on a slab; pass the buffer that another thread made, or none to make a new one. */
export function openSlab(subnetCount: number, subnetCount6 = 0, shared?: SharedArrayBuffer): Slab {
  const plan = cut(subnetCount, subnetCount6);
  const buffer = shared ?? new SharedArrayBuffer(plan.totalBytes);
  if (buffer.byteLength !== plan.totalBytes)
    throw new RangeError(`slab of ${buffer.byteLength} bytes, not ${plan.totalBytes}`);
  const bytes = new Uint8Array(buffer);
  const words = new Int32Array(buffer, 0, Math.floor(plan.totalBytes / 4));
  const slab: Slab = {
    buffer,
    bytes,
    words,
    doubles: new Float64Array(buffer, 0, Math.floor(plan.totalBytes / 8)),
    control: new Int32Array(buffer, plan.control, CONTROL_WORDS),
    counters: new Float64Array(buffer, plan.counters, COUNTER_COUNT),
    deadline: new Float64Array(buffer, plan.deadline, 1),
    routes: new Uint16Array(buffer, plan.routes, subnetCount),
    routes6: new Uint16Array(buffer, plan.routes6, subnetCount6),
    hashes: [new Uint16Array(buffer, plan.hashA, plan.hashSize), new Uint16Array(buffer, plan.hashB, plan.hashSize)],
    peerCapacity: plan.peerCapacity,
    peersOffset: plan.peers,
    tunSlotsOffset: plan.tunSlots,
    tunLengthsOffset: plan.tunLengths,
    headersOffset: plan.headers,
    innerHeadersOffset: plan.innerHeaders,
    vnetsOffset: plan.vnets,
    messagesOffset: plan.messages,
    egressIovsOffset: plan.egressIovs,
    udpSlotsOffset: plan.udpSlots,
    recordsOffset: plan.records,
    packetsOffset: plan.packets,
    ingressIovsOffset: plan.ingressIovs,
    pollOffset: plan.poll,
    repliesOffset: plan.replies,
    replyPacketsOffset: plan.replyPackets,
    replyIovsOffset: plan.replyIovs,
    ring: {
      bytes,
      words,
      times: new Float64Array(buffer, 0, Math.floor(plan.totalBytes / 8)),
      control: new Int32Array(buffer, plan.ringControl, RING_WORDS),
      wanted: new Uint8Array(buffer, plan.ringWanted, subnetCount),
      offset: plan.ring,
      size: RING_BYTES,
    },
    tap: undefined,
    errandsOffset: plan.errands,
    mailsOffset: plan.mails,
    paddingOffset: plan.padding,
  };
  if (shared === undefined) {
    slab.routes.fill(NO_LEASE);
    slab.routes6.fill(NO_LEASE);
    slab.deadline[0] = Number.POSITIVE_INFINITY;
  }
  return slab;
}
