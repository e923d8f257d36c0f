/**
 * How wide is the way to one peer? Datagram path MTU discovery after RFC 8899, with probes that are answered: a padded probe
 * that comes back proves its size, one that is lost while small ones come back speaks against it. Sizes are bytes of the outer
 * IP packet. No clock, no I/O: the caller asks for the next size, and says what became of it.
 *
 *   unknown ──► try the widest ──crossed──► settled ◄───────────┐
 *                    │ lost 3 times            │ it is lost now  │ low = high
 *                    ▼                         ▼                 │
 *                 try the base, then halve between low and high ─┘
 *
 * Routers' ICMP is not needed, so a path that swallows long packets in silence (an MTU black hole) is found as well.
 */

/** RFC 8899 §5.1.2: BASE_PLPMTU for what may be 1280 bytes everywhere (RFC 8200 §5). */
const BASE = 1_280;
/** RFC 8899 §5.1.1: PMTU_RAISE_TIMER. */
const RAISE_AFTER_MS = 600_000;
/** RFC 8899 §5.1.2: MAX_PROBES. */
export const ATTEMPTS = 3;

export interface SearchOptions {
  /** No path is narrower: 576 for IPv4 (RFC 791), 1280 for IPv6. */
  least: number;
  /** No datagram is longer: the underlay's MTU. */
  most: number;
  /** How often a settled size is looked at again. */
  confirmMs: number;
}

export class PathSearch {
  readonly #options: SearchOptions;
  /** Proven, or assumed at the beginning. */
  #low: number;
  /** Not yet excluded. */
  #high: number;
  #failures = 0;
  #failedSize = 0;
  #settledAt: number | undefined;
  #confirmAt = 0;
  #raiseAt = Number.POSITIVE_INFINITY;
  #settled: number | undefined;

  constructor(options: SearchOptions) {
    this.#options = options;
    this.#low = options.least;
    this.#high = Math.max(options.least, options.most);
  }

  /** The width that was found; undefined before the first search has ended. While it searches again it is the last one found. */
  get pathMtu(): number | undefined {
    return this.#settled;
  }

  get isNarrow(): boolean {
    return this.#settled !== undefined && this.#settled < this.#options.most;
  }

  get isSettled(): boolean {
    return this.#settledAt !== undefined;
  }

  /** What to probe now; undefined when nothing is due. */
  next(now: number): number | undefined {
    if (this.#settledAt === undefined) return this.#candidate();
    // What is built upon must be true first.
    if (now >= this.#confirmAt || this.#failures > 0) return this.#low;
    if (now < this.#raiseAt) return undefined;
    this.#search(this.#low, this.#options.most);
    return this.#candidate();
  }

  /** A probe of this size came back. */
  crossed(size: number, now: number): void {
    if (size < this.#low) return;
    this.#failures = 0;
    this.#low = size;
    if (this.#settledAt !== undefined) {
      this.#confirmAt = now + this.#options.confirmMs;
      if (size > (this.#settled ?? 0)) this.#settle(now);
      return;
    }
    if (size > this.#high) this.#high = size; // a late answer to what was given up: it does cross
    this.#settleIfDone(now);
  }

  /** A probe of this size is lost, and a small one that was sent with it is not. `attempts`: how many times make it a fact. */
  lost(size: number, now: number, attempts = ATTEMPTS): void {
    if (size !== this.#failedSize) this.#failures = 0;
    this.#failedSize = size;
    this.#failures++;
    if (this.#failures < attempts) return;
    this.#tooWide(size, now);
  }

  /** The kernel refused to send one of this size. */
  refused(size: number, now: number): void {
    this.#tooWide(size, now);
  }

  #tooWide(size: number, now: number): void {
    this.#failures = 0;
    if (size > this.#high) return;
    if (size <= this.#low) {
      // What had been proven is no longer true.
      if (size <= this.#options.least) return;
      this.#search(this.#options.least, size - 1);
    } else this.#high = size - 1;
    this.#settleIfDone(now);
  }

  #candidate(): number {
    const { least, most } = this.#options;
    if (this.#high === most) return this.#high;
    if (this.#low === least && this.#low < BASE && BASE < this.#high) return BASE;
    return Math.ceil((this.#low + this.#high) / 2);
  }

  #search(low: number, high: number): void {
    this.#settledAt = undefined;
    this.#failures = 0;
    this.#low = low;
    this.#high = high;
  }

  #settleIfDone(now: number): void {
    if (this.#low >= this.#high) this.#settle(now);
  }

  #settle(now: number): void {
    this.#settled = this.#low;
    this.#high = this.#low;
    this.#settledAt = now;
    this.#confirmAt = now + this.#options.confirmMs;
    this.#raiseAt = this.#low < this.#options.most ? now + RAISE_AFTER_MS : Number.POSITIVE_INFINITY;
  }
}
