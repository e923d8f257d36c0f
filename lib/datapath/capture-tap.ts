/**
 * The tap that captures: copies what passes the data path's edges into the ring. It runs on the worker's thread, allocates
 * nothing per packet, and changes nothing.
 *
 * Whose packet is it? What is sent names its peer; what is read from the TUN is looked up, as egress will; what was received
 * lies in a slot whose record names the sender, and so does what is written to the TUN, because it is written from there.
 */
import { subnetIndex } from '../wire/cidr.ts';
import { IP4_HEADER_BYTES, ip4Destination } from '../wire/ip4.ts';
import { IP6_DESTINATION, IP6_HEADER_BYTES } from '../wire/ip6.ts';
import { KIND_BUNDLE, TULLE_VERSION } from '../wire/tulle.ts';
import {
  VNET_FLAG_NEEDS_CSUM,
  VNET_GSO_NONE,
  VNET_HEADER_BYTES,
  vnetFlags,
  vnetGsoSize,
  vnetGsoType,
} from '../wire/vnet.ts';
import {
  POINT_TUN_READ,
  POINT_TUN_WRITTEN,
  POINT_UDP_RECEIVED,
  POINT_UDP_SENT,
  RECORD_PARTIAL,
  RECORD_REPLY,
  RING_ALL_PEERS,
  RING_DROPS_ONLY,
  RING_GENERATION,
  RING_SNAPLEN,
  type Ring,
  RingWriter,
} from './capture-ring.ts';
import { FIRST_DROP } from './counters.ts';
import { findPeer, type Network } from './peers.ts';
import { type Route6, route6Of } from './route6.ts';
import {
  IOV_WORDS,
  MESSAGE_WORDS,
  OWN_SUBNET,
  PACKET_WORDS,
  PEER_BYTES,
  PEER_MASK,
  PEER_SUBNET,
  RECORD_WORDS,
  SLOT_BYTES,
  SLOTS,
  type Slab,
  TUN_READ_OFFSET,
} from './slab.ts';
import type { Tap } from './tap.ts';

/** Enough of a packet for its headers, whatever the snaplen: the reader's filters look at them. */
const LEAST_KEPT = 128;
/** A bundle is kept whole, because a filter looks at each of its packets; it is no longer than a path's MTU. */
const BUNDLE_KEPT = 16_384;

const NOBODY = -1;

/**
 * Follows the settings in the ring: puts a tap into `slab.tap` when a capture begins and takes it away when the last one ends.
 * For a loop, once a turn; `now` is the clock of the records.
 */
export class TapSwitch {
  readonly #slab: Slab;
  readonly #network: Network;
  readonly #now: () => number;
  #generation = 0;

  constructor(slab: Slab, network: Network, now: () => number) {
    this.#slab = slab;
    this.#network = network;
    this.#now = now;
  }

  look(): void {
    const generation = this.#slab.ring.control[RING_GENERATION];
    if (generation !== this.#generation) this.#follow();
  }

  #follow(): void {
    this.#generation = Atomics.load(this.#slab.ring.control, RING_GENERATION);
    this.#slab.tap = this.#generation === 0 ? undefined : new CaptureTap(this.#slab, this.#network, this.#now);
  }
}

export class CaptureTap implements Tap {
  readonly #slab: Slab;
  readonly #network: Network;
  readonly #route6: Route6 | undefined;
  readonly #ring: Ring;
  readonly #writer: RingWriter;
  readonly #now: () => number;
  readonly #all: boolean;
  readonly #snaplen: number;
  readonly #dropsOnly: boolean;
  #time = 0;
  #trains = 0;
  /** The number of the train in each receive slot. */
  readonly #trainOf = new Int32Array(SLOTS);
  /** Where the gather cursor is: its entry, and the bytes of it that were taken. */
  #iov = 0;
  #taken = 0;

  constructor(slab: Slab, network: Network, now: () => number) {
    this.#slab = slab;
    this.#network = network;
    this.#route6 = route6Of(network);
    this.#ring = slab.ring;
    this.#writer = new RingWriter(slab.ring);
    this.#now = now;
    this.#all = slab.ring.control[RING_ALL_PEERS] !== 0;
    this.#dropsOnly = slab.ring.control[RING_DROPS_ONLY] !== 0;
    this.#snaplen = Math.max(LEAST_KEPT, slab.ring.control[RING_SNAPLEN]);
  }

  read(count: number): void {
    this.#time = this.#now();
    if (this.#dropsOnly) return;
    for (let slot = 0; slot < count; slot++) this.#tunSlot(slot, -1);
    this.#writer.publish();
  }

  sent(count: number): void {
    this.#time = this.#now();
    if (this.#dropsOnly) return;
    const { words, messagesOffset } = this.#slab;
    for (let message = 0; message < count; message++) {
      const row = (messagesOffset >> 2) + message * MESSAGE_WORDS;
      if (words[row + 4] === 0) this.#message(row, -1);
    }
    this.#writer.publish();
  }

  received(count: number): void {
    this.#time = this.#now();
    for (let slot = 0; slot < count; slot++) {
      this.#trainOf[slot] = 0;
      if (!this.#dropsOnly) this.#record(slot, -1);
    }
    this.#writer.publish();
  }

  written(packetsOffset: number, count: number, iovsOffset: number): void {
    this.#time = this.#now();
    if (this.#dropsOnly) return;
    const { words } = this.#slab;
    for (let packet = 0; packet < count; packet++) {
      const row = (packetsOffset >> 2) + packet * PACKET_WORDS;
      if (words[row + 2] === 0) this.#write(row, iovsOffset, -1);
    }
    this.#writer.publish();
  }

  droppedRead(slot: number, reason: number): void {
    this.#tunSlot(slot, reason - FIRST_DROP);
    this.#writer.publish();
  }

  droppedMessage(row: number, reason: number): void {
    this.#message(row, reason - FIRST_DROP);
    this.#writer.publish();
  }

  droppedRecord(slot: number, reason: number): void {
    this.#record(slot, reason - FIRST_DROP);
    this.#writer.publish();
  }

  droppedDatagram(offset: number, length: number, reason: number): void {
    const slot = this.#slotOf(offset);
    if (slot === NOBODY) return;
    const { words, udpSlotsOffset } = this.#slab;
    const record = this.#recordOf(slot);
    const stride = words[record + 1];
    const index = stride > 0 ? Math.floor((offset - udpSlotsOffset - slot * SLOT_BYTES) / stride) : 0;
    this.#datagram(slot, this.#senderOf(slot), offset, length, index, reason - FIRST_DROP);
    this.#writer.publish();
  }

  droppedInner(offset: number, length: number, reason: number): void {
    const slot = this.#slotOf(offset);
    const peer = slot === NOBODY ? NOBODY : this.#senderOf(slot);
    if (!this.#isWanted(peer)) return;
    const to = this.#begin(POINT_TUN_WRITTEN, 0, length, length);
    if (to < 0) return;
    this.#ring.bytes.copyWithin(to, offset, offset + Math.min(length, this.#snaplen));
    this.#writer.reason(reason - FIRST_DROP);
    if (peer !== NOBODY) this.#describe(peer);
    this.#writer.publish();
  }

  droppedWrite(row: number, reason: number): void {
    this.#write(row, this.#slab.ingressIovsOffset, reason - FIRST_DROP);
    this.#writer.publish();
  }

  /** The packet of a TUN slot: behind its vnet header, which says what the kernel left undone. */
  #tunSlot(slot: number, reason: number): void {
    const { bytes, words, tunSlotsOffset, tunLengthsOffset } = this.#slab;
    const vnet = tunSlotsOffset + slot * SLOT_BYTES + TUN_READ_OFFSET;
    const ip = vnet + VNET_HEADER_BYTES;
    const length = Math.max(0, words[(tunLengthsOffset >> 2) + slot] - VNET_HEADER_BYTES);
    const peer = this.#holderOf(ip, length);
    if (!this.#isWanted(peer)) return;
    const flags = (vnetFlags(bytes, vnet) & VNET_FLAG_NEEDS_CSUM) !== 0 ? RECORD_PARTIAL : 0;
    const to = this.#begin(POINT_TUN_READ, flags, length, length);
    if (to < 0) return;
    bytes.copyWithin(to, ip, ip + Math.min(length, this.#snaplen));
    if (vnetGsoType(bytes, vnet) !== VNET_GSO_NONE) this.#writer.segments(vnetGsoSize(bytes, vnet));
    this.#writer.reason(reason);
    if (peer !== NOBODY) this.#describe(peer);
  }

  /** The datagrams of one message: its gathered bytes, cut every segment size. */
  #message(row: number, reason: number): void {
    const { words, egressIovsOffset, peersOffset } = this.#slab;
    const peer = (words[row + 3] - peersOffset) / PEER_BYTES;
    if (!this.#isWanted(peer)) return;
    let left = 0;
    for (let iov = words[row]; iov < words[row] + words[row + 1]; iov++)
      left += words[(egressIovsOffset >> 2) + iov * IOV_WORDS + 1];
    const stride = words[row + 2] === 0 ? left : words[row + 2];
    const count = stride === 0 ? 1 : Math.ceil(left / stride);
    const train = count > 1 ? ++this.#trains : 0;
    this.#iov = words[row];
    this.#taken = 0;
    for (let index = 0; index < count; index++) {
      const length = Math.min(stride, left);
      left -= length;
      const to = this.#beginDatagram(POINT_UDP_SENT, this.#firstByte(egressIovsOffset), length);
      this.#gather(egressIovsOffset, to, length, this.#keptOf(this.#firstByte(egressIovsOffset), length));
      if (to < 0) continue;
      if (count > 1) {
        this.#writer.train(train, index, count);
        this.#writer.segments(stride);
      }
      this.#writer.reason(reason);
      this.#describe(peer);
    }
  }

  /** The datagrams of one receive record. */
  #record(slot: number, reason: number): void {
    const { words, udpSlotsOffset } = this.#slab;
    const record = this.#recordOf(slot);
    const sender = this.#senderOf(slot);
    const length = words[record];
    const stride = words[record + 1] > 0 ? words[record + 1] : length;
    const start = udpSlotsOffset + slot * SLOT_BYTES;
    for (let at = 0, index = 0; at < length || index === 0; at += stride, index++) {
      this.#datagram(slot, sender, start + at, Math.min(stride, length - at), index, reason);
      if (stride === 0) return;
    }
  }

  #datagram(slot: number, sender: number, offset: number, length: number, index: number, reason: number): void {
    if (!this.#isWanted(sender)) return;
    const { bytes, words } = this.#slab;
    const to = this.#beginDatagram(POINT_UDP_RECEIVED, bytes[offset], length);
    if (to < 0) return;
    const record = this.#recordOf(slot);
    const stride = words[record + 1];
    bytes.copyWithin(to, offset, offset + this.#keptOf(bytes[offset], length));
    const count = stride > 0 ? Math.ceil(words[record] / stride) : 1;
    if (count > 1) {
      if (this.#trainOf[slot] === 0) this.#trainOf[slot] = ++this.#trains;
      this.#writer.train(this.#trainOf[slot], index, count);
      this.#writer.segments(stride);
    }
    this.#writer.reason(reason);
    if (sender !== NOBODY) this.#describe(sender);
    this.#writer.remote((record + 4) << 2);
  }

  /** A packet for the TUN: vnet header first, gathered. */
  #write(row: number, iovsOffset: number, reason: number): void {
    const { bytes, words } = this.#slab;
    const first = (iovsOffset >> 2) + words[row] * IOV_WORDS;
    const vnet = words[first];
    let length = -VNET_HEADER_BYTES;
    for (let iov = 0; iov < words[row + 1]; iov++) length += words[first + iov * IOV_WORDS + 1];
    // The packet itself lies where it was received, whether the vnet header stands before it or elsewhere.
    const slot = this.#slotOf(words[first + (words[first + 1] > VNET_HEADER_BYTES ? 0 : IOV_WORDS)]);
    const isReply = iovsOffset === this.#slab.replyIovsOffset;
    const peer = slot === NOBODY ? NOBODY : this.#senderOf(slot);
    if (!this.#isWanted(peer) || length < 0) return;
    const partial = (vnetFlags(bytes, vnet) & VNET_FLAG_NEEDS_CSUM) !== 0 ? RECORD_PARTIAL : 0;
    const to = this.#begin(POINT_TUN_WRITTEN, partial | (isReply ? RECORD_REPLY : 0), length, length);
    if (to < 0) return;
    this.#iov = words[row];
    this.#taken = VNET_HEADER_BYTES;
    this.#gather(iovsOffset, to, length, Math.min(length, this.#snaplen));
    if (vnetGsoType(bytes, vnet) !== VNET_GSO_NONE) this.#writer.segments(vnetGsoSize(bytes, vnet));
    this.#writer.reason(reason);
    if (peer !== NOBODY) this.#describe(peer);
  }

  #begin(point: number, flags: number, kept: number, length: number): number {
    return this.#writer.begin(point, flags, Math.min(kept, this.#snaplen), length, this.#time);
  }

  #beginDatagram(point: number, first: number, length: number): number {
    return this.#writer.begin(point, 0, this.#keptOf(first, length), length, this.#time);
  }

  /** How much of a datagram is kept that begins with this byte. */
  #keptOf(first: number, length: number): number {
    const isBundle = first === ((TULLE_VERSION << 4) | KIND_BUNDLE);
    return Math.min(length, isBundle ? Math.max(this.#snaplen, BUNDLE_KEPT) : this.#snaplen);
  }

  #firstByte(iovsOffset: number): number {
    const { bytes, words } = this.#slab;
    return bytes[words[(iovsOffset >> 2) + this.#iov * IOV_WORDS] + this.#taken];
  }

  /** Moves the cursor over `length` gathered bytes and copies the first `kept` of them to `to`, unless that is negative. */
  #gather(iovsOffset: number, to: number, length: number, kept: number): void {
    const { bytes, words } = this.#slab;
    let left = length;
    let wanted = to < 0 ? 0 : kept;
    let target = to;
    while (left > 0) {
      const entry = (iovsOffset >> 2) + this.#iov * IOV_WORDS;
      const from = words[entry] + this.#taken;
      const part = Math.min(left, words[entry + 1] - this.#taken);
      const copied = Math.min(part, wanted);
      if (copied > 0) bytes.copyWithin(target, from, from + copied);
      target += copied;
      wanted -= copied;
      left -= part;
      this.#taken += part;
      if (this.#taken === words[entry + 1]) {
        this.#iov++;
        this.#taken = 0;
      }
    }
  }

  /** Names the record's peer by its place in the table. */
  #describe(peer: number): void {
    const { words, peersOffset } = this.#slab;
    const record = peersOffset + peer * PEER_BYTES;
    this.#writer.remote(record);
    this.#writer.peer(words[(record >> 2) + PEER_SUBNET], words[(record >> 2) + PEER_MASK]);
  }

  /** Whether anybody wants the packets of this peer; what belongs to nobody is for the reader to judge. */
  #isWanted(peer: number): boolean {
    if (this.#all || peer === NOBODY) return true;
    const { words, peersOffset } = this.#slab;
    const subnet = words[((peersOffset + peer * PEER_BYTES) >> 2) + PEER_SUBNET] >>> 0;
    const index = subnetIndex(subnet, this.#network.network, this.#network.subnetLength);
    return index < 0 || this.#ring.wanted[index] !== 0;
  }

  /** The peer that holds the destination of the packet at `ip`. */
  #holderOf(ip: number, length: number): number {
    const { bytes, routes, routes6 } = this.#slab;
    const version = length > 0 ? bytes[ip] >>> 4 : 0;
    let peer = OWN_SUBNET;
    if (version === 4 && length >= IP4_HEADER_BYTES) {
      const index = subnetIndex(ip4Destination(bytes, ip), this.#network.network, this.#network.subnetLength);
      if (index >= 0) peer = routes[index];
    } else if (version === 6 && length >= IP6_HEADER_BYTES && this.#route6 !== undefined) {
      const index = this.#route6.index(bytes, ip + IP6_DESTINATION);
      if (index >= 0) peer = routes6[index];
    }
    return peer >= OWN_SUBNET ? NOBODY : peer;
  }

  #recordOf(slot: number): number {
    return (this.#slab.recordsOffset >> 2) + slot * RECORD_WORDS;
  }

  /** The receive slot that holds this place. */
  #slotOf(offset: number): number {
    const slot = Math.floor((offset - this.#slab.udpSlotsOffset) / SLOT_BYTES);
    return slot >= 0 && slot < SLOTS ? slot : NOBODY;
  }

  #senderOf(slot: number): number {
    return findPeer(this.#slab, this.#recordOf(slot) + 4);
  }
}
