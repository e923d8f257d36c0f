/**
 * Which address of a range set comes next, in constant time at any size and any fill:
 *
 *   start of the revolution                      frontier
 *   v                                            v
 *   | passed: taken, or waiting after a release  | never looked at in this revolution ...  | (and round)
 *
 * The frontier passes each address once; an address that is released goes to the end of a queue, whichever side of the
 * frontier it is on, and is used again only after everything that rests longer. So a freed address is the last to come
 * back (a peer that still has the old pod's MAC address or connections in mind has time to forget). The queue has a
 * bound, for pools whose frontier never ends (IPv6): past it the longest-rested address goes first.
 */
import { formatIp, type IpNumber, parseIp } from './address.ts';
import { type Range, type RangeSet, rangeFor } from './range.ts';

export interface Candidate {
  /** without a prefix length */
  address: string;
  range: Range;
}

/** Addresses that rest at most; as many as a /16 has. */
const MOST_RESTING = 65_536;

export class Pool {
  readonly set: RangeSet;
  readonly #isTaken: (address: string) => boolean;
  /** Addresses of all ranges, gateways too. */
  readonly #size: bigint;
  /** How many can be reserved when none is. */
  readonly #usable: bigint;
  #taken = 0n;
  /** The offset where the revolution began, and how many offsets the frontier has passed since. */
  #start = 0n;
  #passed = 0n;
  /** Released addresses by their ticket; `#queue` has them in order, and stale ones whose ticket is another by now. */
  readonly #resting = new Map<string, number>();
  #queue: { address: string; ticket: number }[] = [];
  #head = 0;
  #tickets = 0;

  /** @param taken the addresses that are reserved now, of this set or not; `isTaken` answers for the same and later ones */
  constructor(set: RangeSet, isTaken: (address: string) => boolean, taken: Iterable<string> = []) {
    this.set = set;
    this.#isTaken = isTaken;
    this.#size = set.ranges.reduce((sum, range) => sum + sizeOf(range), 0n);
    this.#usable = this.#size - BigInt(set.ranges.filter(hasGatewayInside).length);
    for (const address of taken) if (this.#counts(address)) this.#taken++;
  }

  /** How many addresses can still be reserved. */
  get free(): bigint {
    return this.#usable - this.#taken;
  }

  /** The revolution begins behind this address, as if it had been the last one given out. */
  startAfter(address: string): void {
    const ip = parseIp(address);
    const offset = ip === undefined ? undefined : this.#offsetOf(ip);
    if (offset === undefined) return;
    this.#start = (offset + 1n) % this.#size;
    this.#passed = 0n;
  }

  /** The address to reserve next; undefined when all are taken. It stays free until `noteTaken`. */
  next(): Candidate | undefined {
    if (this.free <= 0n) return undefined;
    if (this.#resting.size >= MOST_RESTING) return this.#rested();
    const found = this.#advance() ?? this.#rested();
    if (found !== undefined) return found;
    // What was released before a restart rests in no queue: look at all of them once more.
    this.#passed = 0n;
    return this.#advance();
  }

  /** A candidate that was not reserved after all. */
  giveBack(address: string): void {
    if (!this.#isTaken(address)) this.#rest(address);
  }

  noteTaken(address: string): void {
    if (!this.#counts(address)) return;
    this.#taken++;
    this.#resting.delete(address);
  }

  noteReleased(address: string): void {
    if (!this.#counts(address)) return;
    this.#taken--;
    this.#rest(address);
  }

  #advance(): Candidate | undefined {
    while (this.#passed < this.#size) {
      const { range, value } = this.#at((this.#start + this.#passed) % this.#size);
      this.#passed++;
      if (value === range.gateway) continue;
      const address = formatIp(range.family, value);
      if (!this.#resting.has(address) && !this.#isTaken(address)) return { address, range };
    }
    return undefined;
  }

  #rested(): Candidate | undefined {
    while (this.#head < this.#queue.length) {
      const { address, ticket } = this.#queue[this.#head++];
      if (this.#head > 1024 && this.#head * 2 > this.#queue.length) {
        this.#queue = this.#queue.slice(this.#head);
        this.#head = 0;
      }
      if (this.#resting.get(address) !== ticket) continue;
      this.#resting.delete(address);
      const ip = parseIp(address);
      const range = ip === undefined ? undefined : rangeFor(this.set, ip);
      if (range !== undefined && !this.#isTaken(address)) return { address, range };
    }
    return undefined;
  }

  #rest(address: string): void {
    const ticket = ++this.#tickets;
    this.#resting.set(address, ticket);
    this.#queue.push({ address, ticket });
    // An address that is asked for by name again and again leaves a stale entry each time.
    if (this.#queue.length - this.#head > 2 * this.#resting.size + 1024) {
      this.#queue = this.#queue.slice(this.#head).filter(entry => this.#resting.get(entry.address) === entry.ticket);
      this.#head = 0;
    }
  }

  #counts(address: string): boolean {
    const ip = parseIp(address);
    if (ip === undefined) return false;
    const range = rangeFor(this.set, ip);
    return range !== undefined && ip.value !== range.gateway;
  }

  #at(offset: bigint): { range: Range; value: bigint } {
    let left = offset;
    for (const range of this.set.ranges) {
      const size = sizeOf(range);
      if (left < size) return { range, value: range.first + left };
      left -= size;
    }
    throw new RangeError(`offset ${offset} of ${this.#size}`);
  }

  #offsetOf(ip: IpNumber): bigint | undefined {
    let before = 0n;
    for (const range of this.set.ranges) {
      if (range.family === ip.family && ip.value >= range.first && ip.value <= range.last) {
        return before + ip.value - range.first;
      }
      before += sizeOf(range);
    }
    return undefined;
  }
}

const sizeOf = ({ first, last }: Range): bigint => (last < first ? 0n : last - first + 1n);
const hasGatewayInside = ({ first, last, gateway }: Range): boolean => gateway >= first && gateway <= last;
