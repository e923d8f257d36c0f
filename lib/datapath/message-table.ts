/**
 * The table of messages to the underlay: gather entries, the messages over them, and what becomes of each. A message is
 * one datagram or one train. A refused train turns trains off and leaves again as single datagrams.
 */
import { constants } from 'node:os';
import { set16 } from '../wire/bytes.ts';
import { MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS } from '../wire/gso.ts';
import { datagramVersion, emitTulle, HEADER_BYTES, KIND_BUNDLE, KIND_PACKET, TULLE_VERSION } from '../wire/tulle.ts';
import { type DropReason, dropIndex, flowIndex } from './counters.ts';
import {
  CONTROL_KEY,
  CONTROL_MTU,
  CONTROL_TRAINS_OFF,
  CONTROL_UNDERLAY_ERROR,
  INNER_HEADER_BYTES,
  IOV_WORDS,
  MAX_IOVS,
  MAX_MESSAGES,
  MESSAGE_WORDS,
  PEER_BYTES,
  PEER_LIMIT,
  type Slab,
} from './slab.ts';

/** Hands `messageCount` messages of the slab's table to the underlay, writes each one's status, returns how many left. */
export type SendMessages = (messageCount: number) => number;

/**
 * Hears of a datagram that is too long for the way to `peer`: the inner packet at `ip`, or a super-packet there that is cut every
 * `segmentSize` bytes (else 0).
 */
export type TooBig = (peer: number, ip: number, segmentSize: number) => void;

const { EADDRNOTAVAIL, EAGAIN, EINVAL, EIO, EMSGSIZE, ENETDOWN, ENETUNREACH } = constants.errno;
/** Errors that speak of the underlay as a whole, not of one peer: the link is down, the route or our address is gone. */
const WHOLE_UNDERLAY = new Set<number>([ENETDOWN, ENETUNREACH, EADDRNOTAVAIL, EINVAL]);

const DATAGRAMS = flowIndex('egress-datagrams');
const TRAINS = flowIndex('egress-trains');
const BUNDLED = flowIndex('egress-bundled');
const TOO_BIG = dropIndex('egress-too-big');
/** In place of a segment size: fragments, whose sender cannot be told more than we did for it. */
const FRAGMENT = 0xffff;

export class MessageTable {
  readonly #slab: Slab;
  readonly #send: SendMessages;
  /** Of each message in the table: its datagrams, and the bytes of all of them. */
  readonly #datagrams = new Uint16Array(MAX_MESSAGES);
  readonly #bytesOf = new Uint32Array(MAX_MESSAGES);
  /** Of each message with segments: where their super-packet is, and its segment size; 0 for others. */
  readonly #superOf = new Uint32Array(MAX_MESSAGES);
  readonly #sizeOf = new Uint16Array(MAX_MESSAGES);
  readonly #tooBig: TooBig;
  #messages = 0;
  #iovs = 0;
  #headers = 0;
  /** The run that the next datagram may join: its peer, or -1 when there is none, and the size of its datagrams. */
  #runPeer = -1;
  #runSize = 0;
  /** What the last message is when the next packet may be bundled with it: its peer (else -1), flags, packets. */
  #bundlePeer = -1;
  #bundleFlags = 0;
  #bundleCount = 0;

  constructor(slab: Slab, send: SendMessages, tooBig: TooBig) {
    this.#slab = slab;
    this.#send = send;
    this.#tooBig = tooBig;
  }

  /** Whether that many more messages (or headers, whichever is more) and gather entries fit. */
  hasRoom(messages: number, iovs: number): boolean {
    return Math.max(this.#messages, this.#headers) + messages <= MAX_MESSAGES && this.#iovs + iovs <= MAX_IOVS;
  }

  /** The place of a fresh tulle header, valid until the next flush. */
  header(): number {
    return this.#slab.headersOffset + this.#headers++ * 16;
  }

  /** The place of a copy of inner headers, valid until the next flush. */
  innerHeaders(): number {
    return this.#slab.innerHeadersOffset + this.#headers++ * INNER_HEADER_BYTES;
  }

  /** Whether a datagram of this size would join the open run. */
  joins(peer: number, size: number): boolean {
    const last = this.#messages - 1;
    return (
      this.#runPeer === peer &&
      size <= this.#runSize &&
      this.#slab.control[CONTROL_TRAINS_OFF] === 0 &&
      this.#datagrams[last] < MAX_TRAIN_DATAGRAMS &&
      this.#bytesOf[last] + size <= MAX_TRAIN_BYTES
    );
  }

  /** A datagram that lies in one piece: it joins the run of its equals to the same peer, or begins one. */
  datagram(peer: number, offset: number, size: number): void {
    const last = this.#messages - 1;
    const joins = this.joins(peer, size);
    this.iov(offset, size);
    if (!joins) {
      this.message(peer, 1, 1, size, 0);
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

  /**
   * A packet of `total` bytes at `ip` that joins no run: with the packet before it, when that went to the same peer in a
   * datagram of its own and both fit into one, it becomes a bundle. False when it must be a datagram of its own. The 2 bytes
   * before a packet are free: its length goes there (docs/wire.md, "Bundle"). Needs room for a message and three entries.
   */
  bundle(peer: number, ip: number, total: number, flags: number): boolean {
    const { bytes, words, control } = this.#slab;
    const last = this.#messages - 1;
    if (control[CONTROL_TRAINS_OFF] !== 0 || last < 0 || this.#bundlePeer !== peer) return false;
    if (this.#datagrams[last] !== 1 || this.#bundleFlags !== flags) return false;
    // The first packet has its header before it; in a bundle each has its length before it too.
    const before = this.#bundleCount === 1 ? this.#bytesOf[last] + 2 : this.#bytesOf[last];
    // No longer than the datagram of the largest packet to this peer.
    const limit = words[((this.#slab.peersOffset + peer * PEER_BYTES) >> 2) + PEER_LIMIT];
    if (before + 2 + total > HEADER_BYTES + Math.min(control[CONTROL_MTU], limit)) return false;
    const message = (this.#slab.messagesOffset >> 2) + last * MESSAGE_WORDS;
    const first = (this.#slab.egressIovsOffset >> 2) + words[message] * IOV_WORDS;
    if (this.#bundleCount === 1) {
      const firstIp = words[first] + HEADER_BYTES;
      const firstTotal = words[first + 1] - HEADER_BYTES;
      words[first] = this.header();
      words[first + 1] = HEADER_BYTES;
      set16(bytes, firstIp - 2, firstTotal);
      this.iov(firstIp - 2, firstTotal + 2);
    }
    set16(bytes, ip - 2, total);
    this.iov(ip - 2, total + 2);
    this.#bundleCount++;
    emitTulle(bytes, words[first], KIND_BUNDLE, flags, 0, control[CONTROL_KEY], 0, this.#bundleCount);
    words[message + 1] = this.#bundleCount + 1;
    this.#bytesOf[last] = before + 2 + total;
    this.#runPeer = -1;
    this.#slab.counters[BUNDLED]++;
    return true;
  }

  /** Says that the last message is one packet behind a tulle header with these flags: the next may be bundled with it. */
  mayBundle(peer: number, flags: number): void {
    this.#bundlePeer = this.#datagrams[this.#messages - 1] === 1 ? peer : -1;
    this.#bundleFlags = flags;
    this.#bundleCount = 1;
  }

  /** Adds a gather entry. */
  iov(offset: number, length: number): void {
    const at = (this.#slab.egressIovsOffset >> 2) + this.#iovs++ * IOV_WORDS;
    this.#slab.words[at] = offset;
    this.#slab.words[at + 1] = length;
  }

  /** Closes a message over the last `iovs` gather entries. */
  message(peer: number, datagrams: number, iovs: number, bytes: number, segmentSize: number): void {
    const at = (this.#slab.messagesOffset >> 2) + this.#messages * MESSAGE_WORDS;
    const words = this.#slab.words;
    words[at] = this.#iovs - iovs;
    words[at + 1] = iovs;
    words[at + 2] = segmentSize;
    words[at + 3] = this.#slab.peersOffset + peer * PEER_BYTES;
    words[at + 4] = 0;
    this.#datagrams[this.#messages] = datagrams;
    this.#bytesOf[this.#messages] = bytes;
    this.#sizeOf[this.#messages] = 0;
    this.#messages++;
    this.#runPeer = -1;
    this.#bundlePeer = -1;
  }

  /** Says that the last message carries segments of the super-packet at `ip`. */
  ofSuperPacket(ip: number, segmentSize: number): void {
    this.#superOf[this.#messages - 1] = ip;
    this.#sizeOf[this.#messages - 1] = segmentSize;
  }

  /** Says that the last message is a fragment. */
  ofFragment(): void {
    this.#sizeOf[this.#messages - 1] = FRAGMENT;
  }

  /** Hands all to the underlay and accounts for each. */
  flush(): void {
    const count = this.#messages;
    if (count > 0) {
      const left = this.#send(count);
      this.#account(count, left === count);
    }
    this.#messages = 0;
    this.#iovs = 0;
    this.#headers = 0;
    this.#runPeer = -1;
    this.#bundlePeer = -1;
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
        control[CONTROL_UNDERLAY_ERROR] = 0;
      } else if (datagrams > 1 && (status === EINVAL || status === EIO)) {
        // Either this path cannot do trains after all, or it is closed to all datagrams (EINVAL: our address is gone).
        if (this.#sendSingly(at, datagrams)) control[CONTROL_TRAINS_OFF] = 1;
      } else if (status === EMSGSIZE) {
        this.#narrow(message, at, datagrams);
      } else {
        this.#drop(at, datagrams, dropOf(status));
        if (WHOLE_UNDERLAY.has(status)) control[CONTROL_UNDERLAY_ERROR] = status;
      }
    }
  }

  /** Counts the datagrams of the message whose row begins at this word: they were refused. */
  #drop(at: number, datagrams: number, reason: number): void {
    this.#slab.counters[reason] += datagrams;
    this.#slab.tap?.droppedMessage(at, reason);
  }

  /** Message `row` is too long for its path: what may still fit leaves by itself, of the rest the senders are told. */
  #narrow(row: number, at: number, datagrams: number): void {
    const { words, bytes } = this.#slab;
    if (this.#sizeOf[row] === 0 && datagrams > 1) {
      this.#sendSingly(at, datagrams);
    } else if (this.#sizeOf[row] !== 0 || words[at + 1] === 1) {
      this.#drop(at, datagrams, TOO_BIG);
      this.#tellOf(words[at + 3], words[at], row);
    } else {
      // A bundle: its packets go as datagrams of their own. Each lies in its slot with room for a header before it.
      const first = (this.#slab.egressIovsOffset >> 2) + words[at] * IOV_WORDS;
      const flags = bytes[words[first] + 1];
      const count = words[at + 1] - 1;
      for (let iov = first + IOV_WORDS; iov <= first + count * IOV_WORDS; iov += IOV_WORDS) {
        words[iov] += 2 - HEADER_BYTES;
        words[iov + 1] += HEADER_BYTES - 2;
        emitTulle(bytes, words[iov], KIND_PACKET, flags, 0, this.#slab.control[CONTROL_KEY], 0, 0);
      }
      words[at]++;
      words[at + 1] = count;
      this.#sendSingly(at, count);
    }
  }

  /** Tells of the datagram of message `row` that begins with this gather entry and was to go to this address. */
  #tellOf(addressOffset: number, iov: number, row: number): void {
    const { words, bytes } = this.#slab;
    const peer = this.#peerAt(addressOffset);
    const size = this.#sizeOf[row];
    if (size === FRAGMENT) return;
    if (size !== 0) {
      this.#tooBig(peer, this.#superOf[row], size);
      return;
    }
    const offset = words[(this.#slab.egressIovsOffset >> 2) + iov * IOV_WORDS];
    const ip = datagramVersion(bytes, offset) === TULLE_VERSION ? offset + HEADER_BYTES : offset;
    this.#tooBig(peer, ip, 0);
  }

  #peerAt(addressOffset: number): number {
    return (addressOffset - this.#slab.peersOffset) / PEER_BYTES;
  }

  /** Sends the datagrams of one refused train as messages of their own. True when one of them left. */
  #sendSingly(message: number, datagrams: number): boolean {
    const { words, counters, control } = this.#slab;
    const row = (message - (this.#slab.messagesOffset >> 2)) / MESSAGE_WORDS;
    let anyLeft = false;
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
      if (this.#send(1) === 1) {
        counters[DATAGRAMS]++;
        anyLeft = true;
      } else {
        const status = words[table + 4];
        this.#drop(table, 1, dropOf(status));
        if (status === EMSGSIZE) this.#tellOf(words[table + 3], first, row);
        if (WHOLE_UNDERLAY.has(status)) control[CONTROL_UNDERLAY_ERROR] = status;
      }
    }
    words.set(saved, table);
    return anyLeft;
  }
}

/** Where a status ends that did not let a datagram leave. */
function dropOf(status: number): number {
  const reason: DropReason =
    status === EMSGSIZE ? 'egress-too-big' : status === EAGAIN ? 'egress-queue-full' : 'egress-send-failed';
  return dropIndex(reason);
}
