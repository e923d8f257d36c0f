/**
 * The ring between the worker, which captures, and the main thread, which reads. One writes and one reads, without a lock:
 * `head` belongs to the writer, `tail` to the reader, both count bytes and wrap at 2^32, and the ring's size divides that. A
 * record that does not fit is lost and counted: a packet never waits for its picture. The ring is a part of the slab; until
 * somebody captures no byte of it is touched, and memory that is not touched costs nothing.
 *
 * A record lies in one piece: a header of RECORD_BYTES, then the bytes, and a gap up to a multiple of 8. What is left at the
 * end of the ring, too small for the next record, is skipped by a record whose point is SKIP.
 */

/** Words of the control region. */
export const RING_HEAD = 0;
export const RING_TAIL = 1;
/** Records that did not fit, counted modulo 2^32. */
export const RING_LOST = 2;
/** 0 while nobody captures; another number for every change of the settings. */
export const RING_GENERATION = 3;
/** Bytes of a packet that are kept. */
export const RING_SNAPLEN = 4;
/** 1: every peer. Else those whose subnets are marked. */
export const RING_ALL_PEERS = 5;
/** 1: what is dropped, and nothing else. */
export const RING_DROPS_ONLY = 6;
export const RING_WORDS = 16;

/** 16,000 records of the default length: what a worker under full load makes while the main thread is away for 20 ms. */
export const RING_BYTES = 8 * 1024 * 1024;

/** Where a packet was met. A record with a drop reason is what was lost there. */
export const POINT_TUN_READ = 0;
export const POINT_UDP_SENT = 1;
export const POINT_UDP_RECEIVED = 2;
export const POINT_TUN_WRITTEN = 3;
const SKIP = 0xff;

/** Flags of a record. */
export const RECORD_HAS_PEER = 1;
/** The inner L4 checksum is the pseudo-header sum only: the kernel finishes it. */
export const RECORD_PARTIAL = 2;
/** An ICMP error that this node made. */
export const RECORD_REPLY = 4;

/** Words of a record's header; the time is a Float64 in words 4 and 5, the remote sockaddr in words 12 to 19. */
const TOTAL = 0;
const POINT = 1;
const CAPTURED = 2;
const LENGTH = 3;
const TIME = 4;
const TRAIN = 6;
const INDEX = 7;
const COUNT = 8;
const SEGMENT = 9;
const REASON = 10;
const LOST = 11;
const REMOTE = 12;
const SUBNET = 20;
const MASK = 21;
const RECORD_WORDS = 22;
export const RECORD_BYTES = RECORD_WORDS * 4;
export const REMOTE_BYTES = 32;

/** Views on the ring of a slab. */
export interface Ring {
  bytes: Uint8Array;
  words: Int32Array;
  times: Float64Array;
  control: Int32Array;
  /** One byte a subnet of the network: whether its peer is captured. */
  wanted: Uint8Array;
  /** Where the ring begins in `bytes`, a multiple of 8; and its size, a power of two. */
  offset: number;
  size: number;
}

/** A record as the reader sees it. borrowed: until the callback returns; one object serves all of them. */
export interface CaptureRecord {
  point: number;
  /** RECORD_… */
  flags: number;
  /** The drop's place in DROP_REASONS, or -1. */
  reason: number;
  /** Milliseconds of lib/sys's `monotonicMs`, with a fraction. */
  time: number;
  /** What is kept: `captured` bytes of `length`, at `offset` of `bytes`. */
  bytes: Uint8Array;
  offset: number;
  captured: number;
  length: number;
  /** The train's number, and which of its `count` datagrams this is; 0 when it left or came alone. */
  train: number;
  index: number;
  count: number;
  /** Bytes of a datagram of the train; of a super-packet the payload of each segment; else 0. */
  segmentSize: number;
  /** Where in `bytes` the peer's struct sockaddr stands; family 0 when there is none. */
  remote: number;
  /** The peer's IPv4 subnet: address and mask. Only with RECORD_HAS_PEER. */
  subnet: number;
  mask: number;
  /** Records lost so far when this one was made. */
  lost: number;
}

export class RingWriter {
  readonly #ring: Ring;
  /** Our own head; others see it after `publish`. */
  #head: number;
  /** The first word of the record in the making. */
  #word = 0;

  constructor(ring: Ring) {
    this.#ring = ring;
    this.#head = ring.control[RING_HEAD];
  }

  /**
   * Makes room for a record of `length` bytes of which `captured` are kept. Returns where those bytes go (in `ring.bytes`), or -1:
   * it is lost. The functions below then describe it; `publish` shows it.
   */
  begin(point: number, flags: number, captured: number, length: number, time: number): number {
    const { control, words, times, offset, size } = this.#ring;
    const total = (RECORD_BYTES + captured + 7) & ~7;
    const place = this.#head & (size - 1);
    const toEnd = size - place;
    const needed = total <= toEnd ? total : toEnd + total;
    const used = (this.#head - Atomics.load(control, RING_TAIL)) >>> 0;
    if (used + needed > size) {
      control[RING_LOST] = (control[RING_LOST] + 1) | 0;
      return -1;
    }
    let word = (offset + place) >> 2;
    if (total > toEnd) {
      words[word + TOTAL] = toEnd;
      words[word + POINT] = SKIP;
      this.#head = (this.#head + toEnd) | 0;
      word = offset >> 2;
    }
    this.#word = word;
    words[word + TOTAL] = total;
    words[word + POINT] = point | (flags << 8);
    words[word + CAPTURED] = captured;
    words[word + LENGTH] = length;
    times[(word + TIME) >> 1] = time;
    words[word + TRAIN] = 0;
    words[word + INDEX] = 0;
    words[word + COUNT] = 0;
    words[word + SEGMENT] = 0;
    words[word + REASON] = -1;
    words[word + LOST] = control[RING_LOST];
    words[word + REMOTE] = 0;
    this.#head = (this.#head + total) | 0;
    return (word << 2) + RECORD_BYTES;
  }

  train(train: number, index: number, count: number): void {
    const { words } = this.#ring;
    words[this.#word + TRAIN] = train;
    words[this.#word + INDEX] = index;
    words[this.#word + COUNT] = count;
  }

  segments(size: number): void {
    this.#ring.words[this.#word + SEGMENT] = size;
  }

  reason(reason: number): void {
    this.#ring.words[this.#word + REASON] = reason;
  }

  /** The struct sockaddr at this offset of the slab. */
  remote(sockaddr: number): void {
    this.#ring.bytes.copyWithin((this.#word + REMOTE) << 2, sockaddr, sockaddr + REMOTE_BYTES);
  }

  peer(subnet: number, mask: number): void {
    const { words } = this.#ring;
    words[this.#word + POINT] |= RECORD_HAS_PEER << 8;
    words[this.#word + SUBNET] = subnet;
    words[this.#word + MASK] = mask;
  }

  /** Shows the reader all records since the last time. */
  publish(): void {
    Atomics.store(this.#ring.control, RING_HEAD, this.#head);
  }
}

export class RingReader {
  readonly #ring: Ring;
  readonly #record: CaptureRecord;

  constructor(ring: Ring) {
    this.#ring = ring;
    const none = { point: 0, flags: 0, reason: -1, time: 0, offset: 0, captured: 0, length: 0, train: 0, index: 0 };
    this.#record = { ...none, count: 0, segmentSize: 0, remote: 0, subnet: 0, mask: 0, lost: 0, bytes: ring.bytes };
  }

  /** Gives up to `most` records to `take`, oldest first, and their room back to the writer. Returns how many there were. */
  drain(take: (record: CaptureRecord) => void, most: number): number {
    const { control, words, times, offset, size } = this.#ring;
    const head = Atomics.load(control, RING_HEAD);
    let tail = control[RING_TAIL];
    let count = 0;
    const record = this.#record;
    while (tail !== head && count < most) {
      const word = (offset + (tail & (size - 1))) >> 2;
      tail = (tail + words[word + TOTAL]) | 0;
      if ((words[word + POINT] & 0xff) !== SKIP) {
        record.point = words[word + POINT] & 0xff;
        record.flags = words[word + POINT] >>> 8;
        record.captured = words[word + CAPTURED];
        record.length = words[word + LENGTH];
        record.time = times[(word + TIME) >> 1];
        record.train = words[word + TRAIN];
        record.index = words[word + INDEX];
        record.count = words[word + COUNT];
        record.segmentSize = words[word + SEGMENT];
        record.reason = words[word + REASON];
        record.lost = words[word + LOST] >>> 0;
        record.remote = (word + REMOTE) << 2;
        record.subnet = words[word + SUBNET] >>> 0;
        record.mask = words[word + MASK] >>> 0;
        record.offset = (word << 2) + RECORD_BYTES;
        count++;
        try {
          take(record);
        } finally {
          Atomics.store(control, RING_TAIL, tail);
        }
      } else Atomics.store(control, RING_TAIL, tail);
    }
    return count;
  }

  /** Forgets what is in the ring: it belongs to a capture that has ended. */
  clear(): void {
    Atomics.store(this.#ring.control, RING_TAIL, Atomics.load(this.#ring.control, RING_HEAD));
  }

  /** Records that did not fit, modulo 2^32. */
  get lost(): number {
    return this.#ring.control[RING_LOST] >>> 0;
  }
}
