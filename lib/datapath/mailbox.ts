/**
 * The letters between the two threads of a data path: what nodes say to each other beside packets (probes, messages, traced
 * packets) is decided on the main thread and sent and received by the worker, which owns the socket.
 *
 *   errands   main thread → worker: send this probe, this message, this packet as if it came from the TUN
 *   mail      worker → main thread: it was sent, or why not; a reply, a message, a traced packet came
 *
 * Each is a ring in the slab with one writer and one reader: the writer fills a record, then counts it as put; the reader
 * empties it, then counts it as taken. A full ring refuses; nobody waits. Nothing here is touched once a packet.
 */
import { CONTROL_ERRANDS_PUT, CONTROL_MAIL_PUT, ERRANDS, LETTER_BYTES, MAILS, type Slab } from './slab.ts';

/** Words of a letter. */
export const LETTER_KIND = 0;
/** The address of the subnet of the peer that it goes to or came from. */
export const LETTER_SUBNET = 1;
/** Mail: the lease key of the peer that sent it. */
export const LETTER_NUMBER = 2;
/** Bytes that are stored behind the fields, and of the whole: the rest is zeros. */
export const LETTER_STORED = 3;
export const LETTER_LENGTH = 4;
/** Receipt: 0, an errno, or NOT_SENT_…; traced packet: -1, or the index of the drop counter. */
export const LETTER_STATUS = 5;
/** Sequence number of a probe; the number of a message's part, and above it (16 bits) how many there are. */
export const LETTER_SEQUENCE = 6;
export const LETTER_TOKEN_HIGH = 7;
export const LETTER_TOKEN_LOW = 8;
/** Index of a Float64 in the letter: when it happened, by the worker's clock. Words 10 and 11. */
const LETTER_TIME_DOUBLE = 5;
/** Another one: the number of a traced packet. Words 12 and 13; 14 and 15 are free. */
const LETTER_ID_DOUBLE = 6;
export const LETTER_BODY = 64;
export const LETTER_BODY_BYTES = LETTER_BYTES - LETTER_BODY;

/** Kinds of errands. */
export const ERRAND_PROBE = 1;
export const ERRAND_MESSAGE = 2;
/** An IP packet, to be taken as if the TUN had given it. */
export const ERRAND_TRACE = 3;

/** Kinds of mail. */
export const MAIL_RECEIPT = 1;
export const MAIL_PROBE_REPLY = 2;
export const MAIL_MESSAGE = 3;
/** A traced packet came, and this became of it. */
export const MAIL_TRACED = 4;
/** What became of a packet that was to be traced: as MAIL_RECEIPT. */
export const MAIL_TRACE_SENT = 5;
/** A packet that may be the answer to a traced one was written to the TUN. */
export const MAIL_ANSWER = 6;

/** Statuses of a receipt that are no errno, nor -1, which of a traced packet says that it left. */
export const NOT_SENT_FENCED = -2;
export const NOT_SENT_NO_PEER = -3;
/** The peer speaks flannel's format, which has packets only. */
export const NOT_SENT_FORMAT = -4;

export class Letters {
  readonly slab: Slab;
  readonly #offset: number;
  readonly #capacity: number;
  readonly #put: number;
  readonly #taken: number;

  constructor(slab: Slab, which: 'errands' | 'mail') {
    const errands = which === 'errands';
    this.slab = slab;
    this.#offset = errands ? slab.errandsOffset : slab.mailsOffset;
    this.#capacity = errands ? ERRANDS : MAILS;
    this.#put = errands ? CONTROL_ERRANDS_PUT : CONTROL_MAIL_PUT;
    this.#taken = this.#put + 1;
  }

  get isEmpty(): boolean {
    const { control } = this.slab;
    return Atomics.load(control, this.#put) === Atomics.load(control, this.#taken);
  }

  /** The writer's next free record, cleared but for its body: a byte offset; -1 when the ring is full. */
  reserve(): number {
    const { control, words } = this.slab;
    const put = Atomics.load(control, this.#put);
    if (((put - Atomics.load(control, this.#taken)) | 0) >= this.#capacity) return -1;
    const at = this.#place(put);
    words.fill(0, at >> 2, (at + LETTER_BODY) >> 2);
    return at;
  }

  /** Gives the reserved record to the reader. */
  put(): void {
    Atomics.add(this.slab.control, this.#put, 1);
  }

  /** The reader's oldest record, or -1. It is the reader's until `taken`. */
  first(): number {
    if (this.isEmpty) return -1;
    return this.#place(Atomics.load(this.slab.control, this.#taken));
  }

  taken(): void {
    Atomics.add(this.slab.control, this.#taken, 1);
  }

  #place(count: number): number {
    return this.#offset + ((count >>> 0) % this.#capacity) * LETTER_BYTES;
  }
}

/** When it happened: milliseconds of lib/sys's monotonic clock. */
export function letterTime(slab: Slab, at: number): number {
  return slab.doubles[(at >> 3) + LETTER_TIME_DOUBLE];
}

export function setLetterTime(slab: Slab, at: number, ms: number): void {
  slab.doubles[(at >> 3) + LETTER_TIME_DOUBLE] = ms;
}

export function letterId(slab: Slab, at: number): number {
  return slab.doubles[(at >> 3) + LETTER_ID_DOUBLE];
}

export function setLetterId(slab: Slab, at: number, id: number): void {
  slab.doubles[(at >> 3) + LETTER_ID_DOUBLE] = id;
}
