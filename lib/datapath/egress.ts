/**
 * Egress: packets that the TUN gave become datagrams to peers.
 *
 *   1. look at the vnet header: what did the kernel leave undone (checksum, segmentation)?
 *   2. check the inner header, find the peer that holds the destination's subnet, decrement the TTL
 *   3. a packet gets a tulle header in front, in place of the vnet header (flannel's format: no header at all);
 *      neighbours of equal size to one peer become one train
 *   4. a super-packet becomes trains of segments: per segment one tulle header of its own, and the borrowed inner header
 *      and slice of the packet where it lies
 *   5. the tables are handed to the kernel; a refused train turns trains off and leaves again as single datagrams
 *
 * Nothing here waits, and nothing is kept from one batch to the next. borrowed: every offset, until `take` returns.
 */
import { constants } from 'node:os';
import { finishPartial } from '../wire/checksum.ts';
import { subnetIndex } from '../wire/cidr.ts';
import {
  checkSuperHeaders4,
  MAX_TRAIN_BYTES,
  MAX_TRAIN_DATAGRAMS,
  segmentCount,
  superHeaderLength4,
  trainSends,
} from '../wire/gso.ts';
import {
  checkIp4,
  decrementTtl,
  ip4Destination,
  ip4HeaderLength,
  ip4Protocol,
  ip4TotalLength,
  ip4Ttl,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../wire/ip4.ts';
import { TCP_CHECKSUM } from '../wire/tcp.ts';
import {
  emitTulle,
  FLAG_LAST_SEGMENT,
  FLAG_PARTIAL_CHECKSUM,
  HEADER_BYTES,
  KIND_PACKET,
  KIND_SEGMENT,
} from '../wire/tulle.ts';
import { UDP_CHECKSUM } from '../wire/udp.ts';
import {
  VNET_FLAG_NEEDS_CSUM,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_UDP_L4,
  VNET_HEADER_BYTES,
  vnetChecksumOffset,
  vnetChecksumStart,
  vnetFlags,
  vnetGsoSize,
  vnetGsoType,
} from '../wire/vnet.ts';
import { type DropReason, dropIndex, flowIndex } from './counters.ts';
import type { Network } from './peers.ts';
import {
  CONTROL_KEY,
  CONTROL_TRAINS_OFF,
  FORMAT_TULLE,
  IOV_WORDS,
  MAX_IOVS,
  MAX_MESSAGES,
  MESSAGE_WORDS,
  NO_LEASE,
  OWN_SUBNET,
  PEER_BYTES,
  SLOT_BYTES,
  type Slab,
  TUN_READ_OFFSET,
} from './slab.ts';

/** Hands `messageCount` messages of the slab's table to the underlay, writes each one's status, returns how many left. */
export type SendMessages = (messageCount: number) => number;

const { EAGAIN, EINVAL, EIO, EMSGSIZE } = constants.errno;

const PACKETS = flowIndex('egress-packets');
const BYTES = flowIndex('egress-bytes');
const SUPER_PACKETS = flowIndex('egress-super-packets');
const DATAGRAMS = flowIndex('egress-datagrams');
const TRAINS = flowIndex('egress-trains');
const MALFORMED = dropIndex('egress-malformed');
const NOT_IPV4 = dropIndex('egress-not-ipv4');
const OUTSIDE = dropIndex('egress-outside-network');
const NO_LEASE_DROP = dropIndex('egress-no-lease');
const OWN = dropIndex('egress-own-subnet');
const TTL = dropIndex('egress-ttl-exceeded');

export class Egress {
  readonly #slab: Slab;
  readonly #network: Network;
  readonly #tulle: boolean;
  readonly #send: SendMessages;

  /** Of each message in the table: its datagrams, and the bytes of all of them. */
  readonly #datagrams = new Uint16Array(MAX_MESSAGES);
  readonly #bytesOf = new Uint32Array(MAX_MESSAGES);
  #messages = 0;
  #iovs = 0;
  #headers = 0;
  /** The run that the next packet may join: its peer, its datagrams' size, or -1 when it cannot grow. */
  #runPeer = -1;
  #runSize = 0;
  #nextId = 0;

  constructor(slab: Slab, network: Network, format: number, send: SendMessages) {
    this.#slab = slab;
    this.#network = network;
    this.#tulle = format === FORMAT_TULLE;
    this.#send = send;
  }

  /** Forwards the packets of the first `count` TUN slots; all of them have left or are counted when it returns. */
  take(count: number): void {
    const lengths = this.#slab.tunLengthsOffset >> 2;
    for (let slot = 0; slot < count; slot++) {
      const offset = this.#slab.tunSlotsOffset + slot * SLOT_BYTES + TUN_READ_OFFSET;
      const drop = this.#packet(offset, this.#slab.words[lengths + slot]);
      if (drop >= 0) this.#slab.counters[drop]++;
    }
    this.#flush();
  }

  /** One TUN read: vnet header and packet, `length` bytes at `offset`. Returns -1, or the index of the drop counter. */
  #packet(offset: number, length: number): number {
    const { bytes, counters } = this.#slab;
    const available = length - VNET_HEADER_BYTES;
    const ip = offset + VNET_HEADER_BYTES;
    if (available < 1) return MALFORMED;
    if (bytes[ip] >>> 4 === 6) return NOT_IPV4;
    if (checkIp4(bytes, ip, available) !== 0) return MALFORMED;

    const index = subnetIndex(ip4Destination(bytes, ip), this.#network.network, this.#network.subnetLength);
    if (index < 0) return OUTSIDE;
    const peer = this.#slab.routes[index];
    if (peer === NO_LEASE) return NO_LEASE_DROP;
    if (peer === OWN_SUBNET) return OWN;
    if (ip4Ttl(bytes, ip) <= 1) return TTL;
    decrementTtl(bytes, ip);

    const total = ip4TotalLength(bytes, ip);
    const gsoType = vnetGsoType(bytes, offset) & ~VNET_GSO_ECN;
    if (gsoType === VNET_GSO_NONE) {
      const partial = (vnetFlags(bytes, offset) & VNET_FLAG_NEEDS_CSUM) !== 0;
      if (!this.#single(peer, offset, ip, total, partial)) return MALFORMED;
    } else if (!this.#superPacket(peer, ip, total, gsoType, vnetGsoSize(bytes, offset))) {
      return MALFORMED;
    }
    counters[PACKETS]++;
    counters[BYTES] += total;
    return -1;
  }

  #single(peer: number, vnet: number, ip: number, total: number, partial: boolean): boolean {
    const bytes = this.#slab.bytes;
    let flags = 0;
    if (partial) {
      const start = vnetChecksumStart(bytes, vnet);
      const field = vnetChecksumOffset(bytes, vnet);
      if (start + field + 2 > total) return false;
      if (this.#tulle && isL4Checksum(bytes, ip, start, field)) flags = FLAG_PARTIAL_CHECKSUM;
      else finishPartial(bytes, ip + start, field, ip + total);
    }
    if (this.#messages === MAX_MESSAGES || this.#iovs === MAX_IOVS) this.#flush();
    if (this.#tulle) {
      emitTulle(bytes, ip - HEADER_BYTES, KIND_PACKET, flags, 0, this.#slab.control[CONTROL_KEY], 0, 0);
      this.#datagram(peer, ip - HEADER_BYTES, HEADER_BYTES + total);
    } else {
      this.#datagram(peer, ip, total);
    }
    return true;
  }

  /** A datagram that lies in one piece: it joins the run of its equals to the same peer, or begins one. */
  #datagram(peer: number, offset: number, size: number): void {
    const last = this.#messages - 1;
    const joins =
      this.#runPeer === peer &&
      size <= this.#runSize &&
      this.#slab.control[CONTROL_TRAINS_OFF] === 0 &&
      this.#datagrams[last] < MAX_TRAIN_DATAGRAMS &&
      this.#bytesOf[last] + size <= MAX_TRAIN_BYTES;
    this.#iov(offset, size);
    if (!joins) {
      this.#message(peer, 1, 1, size, 0);
      this.#runPeer = peer;
      this.#runSize = size;
      return;
    }
    const at = (this.#slab.messagesOffset >> 2) + last * MESSAGE_WORDS;
    this.#slab.words[at + 1]++;
    this.#slab.words[at + 2] = this.#runSize;
    this.#datagrams[last]++;
    this.#bytesOf[last] += size;
    // UDP_SEGMENT allows a shorter datagram at the end of a train only (udp(7)).
    if (size < this.#runSize) this.#runPeer = -1;
  }

  /** A TCP or UDP super-packet: `total` bytes at `ip`, to be cut every `segmentSize` bytes of payload. */
  #superPacket(peer: number, ip: number, total: number, gsoType: number, segmentSize: number): boolean {
    const bytes = this.#slab.bytes;
    if (!this.#tulle || segmentSize === 0 || checkSuperHeaders4(bytes, ip, total) !== 0) return false;
    if (gsoType !== (ip4Protocol(bytes, ip) === PROTOCOL_TCP ? VNET_GSO_TCPV4 : VNET_GSO_UDP_L4)) return false;
    const inner = superHeaderLength4(bytes, ip);
    const segments = segmentCount(total - inner, segmentSize);
    if (segments > MAX_MESSAGES || segments * 3 > MAX_IOVS) return false;
    if (
      this.#messages + segments > MAX_MESSAGES ||
      this.#headers + segments > MAX_MESSAGES ||
      this.#iovs + segments * 3 > MAX_IOVS
    ) {
      this.#flush();
    }

    const size = HEADER_BYTES + inner + segmentSize;
    // Headers push a 64 KB super-packet over one train: two trains of equal length, rather than a long and a tiny one.
    const train = this.#slab.control[CONTROL_TRAINS_OFF] === 0 ? Math.ceil(segments / trainSends(segments, size)) : 1;
    const id = this.#nextId;
    this.#nextId = (id + 1) & 0xffff;
    const key = this.#slab.control[CONTROL_KEY];
    for (let first = 0; first < segments; first += train) {
      const end = Math.min(first + train, segments);
      let trainBytes = 0;
      for (let i = first; i < end; i++) {
        const header = this.#slab.headersOffset + this.#headers++ * 16;
        const flags = i === segments - 1 ? FLAG_PARTIAL_CHECKSUM | FLAG_LAST_SEGMENT : FLAG_PARTIAL_CHECKSUM;
        emitTulle(bytes, header, KIND_SEGMENT, flags, segmentSize, key, id, i);
        const at = inner + i * segmentSize;
        const slice = Math.min(segmentSize, total - at);
        this.#iov(header, HEADER_BYTES);
        this.#iov(ip, inner);
        this.#iov(ip + at, slice);
        trainBytes += HEADER_BYTES + inner + slice;
      }
      this.#message(peer, end - first, 3 * (end - first), trainBytes, end - first > 1 ? size : 0);
    }
    this.#runPeer = -1;
    this.#slab.counters[SUPER_PACKETS]++;
    return true;
  }

  #iov(offset: number, length: number): void {
    const at = (this.#slab.egressIovsOffset >> 2) + this.#iovs++ * IOV_WORDS;
    this.#slab.words[at] = offset;
    this.#slab.words[at + 1] = length;
  }

  /** Closes a message over the last `iovs` gather entries. */
  #message(peer: number, datagrams: number, iovs: number, bytes: number, segmentSize: number): void {
    const at = (this.#slab.messagesOffset >> 2) + this.#messages * MESSAGE_WORDS;
    const words = this.#slab.words;
    words[at] = this.#iovs - iovs;
    words[at + 1] = iovs;
    words[at + 2] = segmentSize;
    words[at + 3] = this.#slab.peersOffset + peer * PEER_BYTES;
    words[at + 4] = 0;
    this.#datagrams[this.#messages] = datagrams;
    this.#bytesOf[this.#messages] = bytes;
    this.#messages++;
  }

  #flush(): void {
    const count = this.#messages;
    if (count > 0) {
      const left = this.#send(count);
      this.#account(count, left === count);
    }
    this.#messages = 0;
    this.#iovs = 0;
    this.#headers = 0;
    this.#runPeer = -1;
  }

  #account(count: number, allLeft: boolean): void {
    const { words, counters, control } = this.#slab;
    const table = this.#slab.messagesOffset >> 2;
    for (let message = 0; message < count; message++) {
      const at = table + message * MESSAGE_WORDS;
      const status = allLeft ? 0 : words[at + 4];
      const datagrams = this.#datagrams[message];
      if (status === 0) {
        counters[DATAGRAMS] += datagrams;
        if (datagrams > 1) counters[TRAINS]++;
      } else if (datagrams > 1 && (status === EINVAL || status === EIO)) {
        // The kernel cannot do trains on this path after all: never again, and these leave one by one.
        control[CONTROL_TRAINS_OFF] = 1;
        this.#sendSingly(at, datagrams);
      } else {
        counters[dropOf(status)] += datagrams;
      }
    }
  }

  /** Sends the datagrams of one refused train as messages of their own; the train's message is spent. */
  #sendSingly(message: number, datagrams: number): void {
    const { words, counters } = this.#slab;
    const iovs = words[message + 1] / datagrams;
    const end = words[message] + words[message + 1];
    words[message + 1] = iovs;
    words[message + 2] = 0;
    // The message moves along its own gather entries; the table's first place serves, so that the kernel gets one message.
    const table = this.#slab.messagesOffset >> 2;
    const saved = words.slice(table, table + MESSAGE_WORDS);
    const single = words.slice(message, message + MESSAGE_WORDS);
    for (let first = single[0]; first < end; first += iovs) {
      single[0] = first;
      words.set(single, table);
      if (this.#send(1) === 1) counters[DATAGRAMS]++;
      else counters[dropOf(words[table + 4])]++;
    }
    words.set(saved, table);
  }
}

/** Where a status ends that did not let a datagram leave. */
function dropOf(status: number): number {
  const reason: DropReason =
    status === EMSGSIZE ? 'egress-too-big' : status === EAGAIN ? 'egress-queue-full' : 'egress-send-failed';
  return dropIndex(reason);
}

/** True when the place is that of the TCP or UDP checksum right behind the IP header: what a receiver derives by itself. */
function isL4Checksum(bytes: Uint8Array, ip: number, start: number, field: number): boolean {
  if (start !== ip4HeaderLength(bytes, ip)) return false;
  const protocol = ip4Protocol(bytes, ip);
  return (protocol === PROTOCOL_TCP && field === TCP_CHECKSUM) || (protocol === PROTOCOL_UDP && field === UDP_CHECKSUM);
}
