/**
 * The worker's side of what nodes say to each other beside packets (docs/wire.md: probes, messages, traced packets).
 *
 *   in    Ingress gives a datagram of such a kind after it has checked its sender, as every datagram's
 *         probe          answered in this turn, by the first 20 of its own bytes: no reply is longer than its probe
 *         probe reply    a letter to the main thread, with the time
 *         message        a letter to the main thread
 *         traced packet  delivered by Ingress as any packet; what became of it is a letter, also when its lease key is stale:
 *                        then the main thread lets its sender know, who could not ask
 *   out   errands of the main thread, looked for once a turn: probes and messages are sent, a packet that is to be traced is
 *         given to Egress as if it came from the TUN; a receipt says what became of each, and when
 *
 * Each peer may send PER_PEER datagrams of these kinds a second: the rest is dropped and counted. A fenced node does nothing.
 * borrowed: the slots of the batch, until `flush`.
 */
import { subnetIndex } from '../wire/cidr.ts';
import {
  emitTulle,
  HEADER_BYTES,
  KIND_MESSAGE,
  KIND_PROBE,
  KIND_PROBE_REPLY,
  PROBE_BYTES,
  probeTokenHigh,
  probeTokenLow,
  setProbeToken,
  traceId,
  tulleId,
} from '../wire/tulle.ts';
import { VNET_HEADER_BYTES } from '../wire/vnet.ts';
import { dropIndex, flowIndex } from './counters.ts';
import {
  ERRAND_MESSAGE,
  ERRAND_PROBE,
  LETTER_BODY,
  LETTER_BODY_BYTES,
  LETTER_KIND,
  LETTER_LENGTH,
  LETTER_NUMBER,
  LETTER_SEQUENCE,
  LETTER_STATUS,
  LETTER_STORED,
  LETTER_SUBNET,
  LETTER_TOKEN_HIGH,
  LETTER_TOKEN_LOW,
  Letters,
  letterId,
  MAIL_ANSWER,
  MAIL_MESSAGE,
  MAIL_PROBE_REPLY,
  MAIL_RECEIPT,
  MAIL_TRACE_SENT,
  MAIL_TRACED,
  NOT_SENT_FENCED,
  NOT_SENT_FORMAT,
  NOT_SENT_NO_PEER,
  setLetterId,
  setLetterTime,
} from './mailbox.ts';
import type { SendMessages } from './message-table.ts';
import type { Network } from './peers.ts';
import {
  CONTROL_ERRANDS_PUT,
  CONTROL_ERRANDS_TAKEN,
  CONTROL_KEY,
  CONTROL_MAIL_TOLD,
  FORMAT_TULLE,
  IOV_WORDS,
  MESSAGE_WORDS,
  OWN_SUBNET,
  PADDING_BYTES,
  PEER_BYTES,
  PEER_FORMAT,
  PEER_KEY,
  PEER_SUBNET,
  SLOT_BYTES,
  type Slab,
  TUN_READ_OFFSET,
} from './slab.ts';
import { TraceWatch } from './trace-watch.ts';

/** Datagrams of side traffic that one peer is listened to in a second: more than a peer of ours ever sends. */
export const PER_PEER = 100;
/** Probes that are answered at most in one batch; a batch of more than these is no measurement. */
const REPLIES = 64;
/** Refused traced packets whose sender is told in a second: a person traces by hand, and whoever forges an address gets little. */
export const REFUSALS = 10;
/** How much of a traced packet is shown: all headers. */
const SHOWN_BYTES = 256;

/** What is shorter has no addresses to watch for. */
const LEAST_PACKET = 20;

const LIMITED = dropIndex('ingress-limited');
const UNKNOWN_KIND = dropIndex('ingress-unknown-kind');
const SENT = flowIndex('side-sent');
const RECEIVED = flowIndex('side-received');

/** What of Egress is needed here. */
export interface Tracer {
  /** Takes the packet in the first TUN slot by itself and marks it. The drop counter's index, or -1: it left. */
  trace(length: number, id: number): number;
}

export interface SideOptions {
  network: Network;
  send: SendMessages;
  /** Milliseconds of lib/sys's monotonic clock. */
  now: () => number;
  /** Tells the main thread that there is mail. */
  tell: () => void;
}

export class SideTraffic {
  readonly #slab: Slab;
  readonly #options: SideOptions;
  readonly #errands: Letters;
  readonly #mail: Letters;
  /** For each peer's place: the second that it is counted in, and how much it sent in it. */
  readonly #second: Float64Array;
  readonly #count: Uint16Array;
  #refusedSecond = 0;
  #refused = 0;
  #replies = 0;
  #bell = false;

  constructor(slab: Slab, options: SideOptions) {
    this.#slab = slab;
    this.#options = options;
    this.#errands = new Letters(slab, 'errands');
    this.#mail = new Letters(slab, 'mail');
    this.#second = new Float64Array(slab.peerCapacity);
    this.#count = new Uint16Array(slab.peerCapacity);
  }

  /** Whether this peer has sent too much of it lately: the caller drops the datagram as ingress-limited. */
  exceeds(peer: number): boolean {
    const second = Math.floor(this.#options.now() / 1_000);
    if (this.#second[peer] !== second) {
      this.#second[peer] = second;
      this.#count[peer] = 0;
    }
    if (this.#count[peer] >= PER_PEER) return true;
    this.#count[peer]++;
    return false;
  }

  /** A checked datagram that carries no packet. Returns -1, or the index of the drop counter. */
  take(peer: number, kind: number, offset: number, length: number): number {
    const { bytes, counters } = this.#slab;
    if (kind !== KIND_PROBE && kind !== KIND_PROBE_REPLY && kind !== KIND_MESSAGE) return UNKNOWN_KIND;
    if (this.exceeds(peer)) return LIMITED;
    if (kind === KIND_PROBE) {
      if (!this.#answer(peer, offset)) return LIMITED;
    } else {
      const at = this.#open(kind === KIND_MESSAGE ? MAIL_MESSAGE : MAIL_PROBE_REPLY, peer, length);
      if (at < 0) return LIMITED;
      const { words } = this.#slab;
      const word = at >> 2;
      if (kind === KIND_PROBE_REPLY) {
        words[word + LETTER_SEQUENCE] = tulleId(bytes, offset);
        words[word + LETTER_TOKEN_HIGH] = probeTokenHigh(bytes, offset);
        words[word + LETTER_TOKEN_LOW] = probeTokenLow(bytes, offset);
      } else this.#store(at, offset, length);
      this.#close();
    }
    counters[RECEIVED]++;
    return -1;
  }

  /** A traced packet was delivered (drop -1) or not: `inner` bytes at `offset + HEADER_BYTES`, as they came. */
  traced(peer: number, offset: number, inner: number, drop: number): void {
    const at = this.#open(MAIL_TRACED, peer, inner);
    if (at < 0) return;
    this.#slab.words[(at >> 2) + LETTER_STATUS] = drop;
    setLetterId(this.#slab, at, traceId(this.#slab.bytes, offset));
    this.#store(at, offset + HEADER_BYTES, Math.min(inner, SHOWN_BYTES));
    this.#close();
  }

  /**
   * A traced packet from a peer's endpoint with a key that is not that peer's. It is not counted among what the peer may send:
   * whoever forges its address must not use that up.
   */
  refused(peer: number, offset: number, length: number, drop: number): void {
    const second = Math.floor(this.#options.now() / 1_000);
    if (this.#refusedSecond !== second) {
      this.#refusedSecond = second;
      this.#refused = 0;
    }
    if (length < HEADER_BYTES + LEAST_PACKET || this.#refused++ >= REFUSALS) return;
    this.traced(peer, offset, length - HEADER_BYTES, drop);
  }

  /** Sends the answers of this batch, and rings if there is mail. */
  flush(): void {
    if (this.#replies > 0) {
      this.#slab.counters[SENT] += this.#options.send(this.#replies);
      this.#replies = 0;
    }
    if (this.#bell) this.#ring();
  }

  /** True when the main thread wants something; cheap enough for every turn. */
  get isWanted(): boolean {
    const { control } = this.#slab;
    return control[CONTROL_ERRANDS_PUT] !== control[CONTROL_ERRANDS_TAKEN];
  }

  /** Does all errands. The table of messages and the first TUN slot must be free. */
  run(fenced: boolean, egress: Tracer): void {
    for (let at = this.#errands.first(); at >= 0; at = this.#errands.first()) {
      const kind = this.#slab.words[(at >> 2) + LETTER_KIND];
      if (kind === ERRAND_PROBE || kind === ERRAND_MESSAGE) this.#send(at, kind, fenced);
      else this.#trace(at, fenced, egress);
      this.#errands.taken();
    }
    this.flush();
  }

  /** The first 20 bytes of the probe become the reply. */
  #answer(peer: number, offset: number): boolean {
    const { bytes, control } = this.#slab;
    if (this.#replies === REPLIES) return false;
    emitTulle(bytes, offset, KIND_PROBE_REPLY, 0, 0, control[CONTROL_KEY], tulleId(bytes, offset), 0);
    const row = this.#replies++;
    this.#message(row, peer, row, 1);
    this.#iov(row, offset, PROBE_BYTES);
    return true;
  }

  #send(at: number, kind: number, fenced: boolean): void {
    const { bytes, words, control, counters } = this.#slab;
    const word = at >> 2;
    const peer = this.#peerOf(words[word + LETTER_SUBNET]);
    let status = 0;
    let time = 0;
    if (fenced) status = NOT_SENT_FENCED;
    else if (peer < 0) status = NOT_SENT_NO_PEER;
    else if (words[((this.#slab.peersOffset + peer * PEER_BYTES) >> 2) + PEER_FORMAT] !== FORMAT_TULLE) {
      status = NOT_SENT_FORMAT;
    } else {
      const body = at + LETTER_BODY;
      const sequence = words[word + LETTER_SEQUENCE];
      const key = control[CONTROL_KEY];
      if (kind === ERRAND_PROBE) {
        emitTulle(bytes, body, KIND_PROBE, 0, 0, key, sequence & 0xffff, 0);
        setProbeToken(bytes, body, words[word + LETTER_TOKEN_HIGH], words[word + LETTER_TOKEN_LOW]);
      } else emitTulle(bytes, body, KIND_MESSAGE, 0, 0, key, sequence & 0xffff, sequence >>> 16);
      const stored = kind === ERRAND_PROBE ? PROBE_BYTES : words[word + LETTER_STORED];
      const iovs = this.#gather(body, stored, Math.max(words[word + LETTER_LENGTH], stored));
      this.#message(0, peer, 0, iovs);
      time = this.#options.now();
      if (this.#options.send(1) === 1) counters[SENT]++;
      else status = words[(this.#slab.messagesOffset >> 2) + 4];
    }
    if (time === 0) time = this.#options.now();
    this.#receipt(at, MAIL_RECEIPT, status, time);
  }

  /** Puts the packet where the TUN would have put it. */
  #trace(at: number, fenced: boolean, egress: Tracer): void {
    const { bytes, words } = this.#slab;
    const word = at >> 2;
    const packet = this.#slab.tunSlotsOffset + TUN_READ_OFFSET + VNET_HEADER_BYTES;
    const stored = Math.min(words[word + LETTER_STORED], LETTER_BODY_BYTES);
    const length = Math.min(
      Math.max(words[word + LETTER_LENGTH], stored),
      SLOT_BYTES - TUN_READ_OFFSET - VNET_HEADER_BYTES,
    );
    bytes.fill(0, packet - VNET_HEADER_BYTES, packet);
    bytes.copyWithin(packet, at + LETTER_BODY, at + LETTER_BODY + stored);
    bytes.fill(0, packet + stored, packet + length);
    words[this.#slab.tunLengthsOffset >> 2] = VNET_HEADER_BYTES + length;
    this.#slab.tap?.read(1);
    const id = letterId(this.#slab, at);
    // In front of it, so that the ICMP error that we send ourselves is seen too.
    if (!fenced && length >= LEAST_PACKET) {
      const found = (ip: number, bytesOf: number): void => this.#answered(id, ip, bytesOf);
      this.#slab.tap = new TraceWatch(this.#slab, packet, this.#options.now, found);
    }
    const time = this.#options.now();
    const status = fenced ? NOT_SENT_FENCED : egress.trace(VNET_HEADER_BYTES + length, id);
    const mail = this.#receipt(at, MAIL_TRACE_SENT, status, time);
    if (mail < 0) return;
    // As it stands now, with the header that Egress put before it.
    words[(mail >> 2) + LETTER_LENGTH] = length;
    this.#store(mail, packet - HEADER_BYTES, Math.min(HEADER_BYTES + length, SHOWN_BYTES));
    this.#close();
  }

  /** A packet that may answer the traced one, somewhere in the slab. */
  #answered(id: number, ip: number, length: number): void {
    const { words } = this.#slab;
    const at = this.#mail.reserve();
    if (at < 0) return;
    words[at >> 2] = MAIL_ANSWER;
    words[(at >> 2) + LETTER_LENGTH] = length;
    setLetterTime(this.#slab, at, this.#options.now());
    setLetterId(this.#slab, at, id);
    this.#store(at, ip, Math.min(length, SHOWN_BYTES));
    this.#close();
    this.#ring();
  }

  /** Says what became of an errand; the letter of a trace is left open. */
  #receipt(errand: number, kind: number, status: number, time: number): number {
    const { words } = this.#slab;
    const at = this.#mail.reserve();
    if (at < 0) return at;
    const [from, to] = [errand >> 2, at >> 2];
    words[to + LETTER_KIND] = kind;
    for (const field of [LETTER_SUBNET, LETTER_LENGTH, LETTER_SEQUENCE]) words[to + field] = words[from + field];
    words[to + LETTER_TOKEN_HIGH] = words[from + LETTER_TOKEN_HIGH];
    words[to + LETTER_TOKEN_LOW] = words[from + LETTER_TOKEN_LOW];
    words[to + LETTER_STATUS] = status;
    setLetterTime(this.#slab, at, time);
    setLetterId(this.#slab, at, letterId(this.#slab, errand));
    if (kind === MAIL_RECEIPT) this.#mail.put();
    return at;
  }

  /** A letter about a datagram of this peer; -1 when the main thread does not keep up. */
  #open(kind: number, peer: number, length: number): number {
    const { words } = this.#slab;
    const at = this.#mail.reserve();
    if (at < 0) return at;
    const record = (this.#slab.peersOffset + peer * PEER_BYTES) >> 2;
    const word = at >> 2;
    words[word + LETTER_KIND] = kind;
    words[word + LETTER_SUBNET] = words[record + PEER_SUBNET];
    words[word + LETTER_NUMBER] = words[record + PEER_KEY];
    words[word + LETTER_LENGTH] = length;
    setLetterTime(this.#slab, at, this.#options.now());
    return at;
  }

  #close(): void {
    this.#mail.put();
    this.#bell = true;
  }

  #ring(): void {
    this.#bell = false;
    if (Atomics.exchange(this.#slab.control, CONTROL_MAIL_TOLD, 1) === 0) this.#options.tell();
  }

  #store(at: number, offset: number, length: number): void {
    const stored = Math.min(length, LETTER_BODY_BYTES);
    this.#slab.bytes.copyWithin(at + LETTER_BODY, offset, offset + stored);
    this.#slab.words[(at >> 2) + LETTER_STORED] = stored;
  }

  /** The place of the peer that holds this subnet now, or -1. */
  #peerOf(subnet: number): number {
    const { network, subnetLength } = this.#options.network;
    const index = subnetIndex(subnet >>> 0, network, subnetLength);
    const peer = index < 0 ? OWN_SUBNET : this.#slab.routes[index];
    return peer >= OWN_SUBNET ? -1 : peer;
  }

  #message(row: number, peer: number, firstIov: number, iovs: number): void {
    const { words } = this.#slab;
    const at = (this.#slab.messagesOffset >> 2) + row * MESSAGE_WORDS;
    words[at] = firstIov;
    words[at + 1] = iovs;
    words[at + 2] = 0;
    words[at + 3] = this.#slab.peersOffset + peer * PEER_BYTES;
    words[at + 4] = 0;
  }

  #iov(index: number, offset: number, length: number): void {
    const at = (this.#slab.egressIovsOffset >> 2) + index * IOV_WORDS;
    this.#slab.words[at] = offset;
    this.#slab.words[at + 1] = length;
  }

  /** Gathers what is stored and as many zeros as are missing. Returns the number of entries. */
  #gather(offset: number, stored: number, length: number): number {
    let iovs = 0;
    this.#iov(iovs++, offset, stored);
    for (let left = length - stored; left > 0; left -= PADDING_BYTES) {
      this.#iov(iovs++, this.#slab.paddingOffset, Math.min(left, PADDING_BYTES));
    }
    return iovs;
  }
}
