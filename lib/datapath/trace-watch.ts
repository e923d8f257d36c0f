/**
 * Looks for the answer to a traced packet among what is written to the TUN: a packet from its destination to its source, or an
 * ICMP error to its source. It listens where a capture listens, for some seconds, in front of whoever listens already; while
 * nobody traces it does not exist.
 */
import { isIp6, protocolOf } from '../wire/either.ts';
import { IP4_DESTINATION, IP4_SOURCE, PROTOCOL_ICMP, PROTOCOL_ICMP6 } from '../wire/ip4.ts';
import { IP6_DESTINATION, IP6_SOURCE } from '../wire/ip6.ts';
import { VNET_HEADER_BYTES } from '../wire/vnet.ts';
import { IOV_WORDS, PACKET_WORDS, type Slab } from './slab.ts';
import type { Tap } from './tap.ts';

/** As long as anybody waits for an answer. */
export const WATCH_MS = 3_000;
/** Answers of one packet: a TCP repeats its own. */
const MOST = 4;

export class TraceWatch implements Tap {
  readonly #slab: Slab;
  readonly #next: Tap | undefined;
  readonly #until: number;
  readonly #now: () => number;
  readonly #found: (ip: number, length: number) => void;
  readonly #source: Uint8Array;
  readonly #destination: Uint8Array;
  #left = MOST;

  /** For the packet at `ip`; it sets itself before the tap that is there. `found` gets a place in the slab. */
  constructor(slab: Slab, ip: number, now: () => number, found: (ip: number, length: number) => void) {
    this.#slab = slab;
    this.#now = now;
    this.#until = now() + WATCH_MS;
    this.#found = found;
    const [source, destination, length] = addressesAt(slab.bytes, ip);
    this.#source = slab.bytes.slice(source, source + length);
    this.#destination = slab.bytes.slice(destination, destination + length);
    let next = slab.tap;
    while (next instanceof TraceWatch && next.isOver) next = next.#next;
    this.#next = next;
  }

  get isOver(): boolean {
    return this.#left === 0 || this.#now() > this.#until;
  }

  written(packetsOffset: number, count: number, iovsOffset: number): void {
    this.#next?.written(packetsOffset, count, iovsOffset);
    if (this.isOver) {
      if (this.#slab.tap === this) this.#slab.tap = this.#next;
      return;
    }
    const { words } = this.#slab;
    for (let packet = 0; packet < count && this.#left > 0; packet++) {
      const row = (packetsOffset >> 2) + packet * PACKET_WORDS;
      if (words[row + 2] !== 0) continue;
      const iov = (iovsOffset >> 2) + words[row] * IOV_WORDS;
      // The vnet header stands before its packet, or elsewhere.
      const apart = words[iov + 1] === VNET_HEADER_BYTES && words[row + 1] > 1;
      const ip = apart ? words[iov + IOV_WORDS] : words[iov] + VNET_HEADER_BYTES;
      const length = apart ? words[iov + IOV_WORDS + 1] : words[iov + 1] - VNET_HEADER_BYTES;
      if (!this.#isAnswer(ip)) continue;
      this.#left--;
      this.#found(ip, length);
    }
  }

  read(count: number): void {
    this.#next?.read(count);
  }

  sent(count: number): void {
    this.#next?.sent(count);
  }

  received(count: number): void {
    this.#next?.received(count);
  }

  droppedRead(slot: number, reason: number): void {
    this.#next?.droppedRead(slot, reason);
  }

  droppedMessage(row: number, reason: number): void {
    this.#next?.droppedMessage(row, reason);
  }

  droppedRecord(slot: number, reason: number): void {
    this.#next?.droppedRecord(slot, reason);
  }

  droppedDatagram(offset: number, length: number, reason: number): void {
    this.#next?.droppedDatagram(offset, length, reason);
  }

  droppedInner(offset: number, length: number, reason: number): void {
    this.#next?.droppedInner(offset, length, reason);
  }

  droppedWrite(row: number, reason: number): void {
    this.#next?.droppedWrite(row, reason);
  }

  /** What is written to the TUN has been checked: its headers are there. */
  #isAnswer(ip: number): boolean {
    const { bytes } = this.#slab;
    const [source, destination, length] = addressesAt(bytes, ip);
    if (length !== this.#source.length || !equals(bytes, destination, this.#source)) return false;
    const protocol = protocolOf(bytes, ip);
    return equals(bytes, source, this.#destination) || protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMP6;
  }
}

function addressesAt(bytes: Uint8Array, ip: number): [source: number, destination: number, length: number] {
  return isIp6(bytes, ip) ? [ip + IP6_SOURCE, ip + IP6_DESTINATION, 16] : [ip + IP4_SOURCE, ip + IP4_DESTINATION, 4];
}

function equals(bytes: Uint8Array, offset: number, wanted: Uint8Array): boolean {
  for (let i = 0; i < wanted.length; i++) if (bytes[offset + i] !== wanted[i]) return false;
  return true;
}
