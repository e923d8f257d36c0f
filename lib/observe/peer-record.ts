/** What the probes of one peer told: which are on the way, round trips (RFC 6298), loss over a window. No clock of its own. */
import { PROBE_BYTES } from '../wire/tulle.ts';
import { ATTEMPTS } from './path-search.ts';

/** Probes of which the loss is told. */
export const WINDOW = 20;
/** RFC 6298 §2.4: a retransmission timer, and so the wait for an answer, is never shorter. */
const LEAST_WAIT_MS = 1_000;
/** A padded one has a small one right behind it, whose answer says how long it may take; and its loss is tried again. */
const LEAST_LONG_WAIT_MS = 250;
const FIRST_WAIT_MS = 1_000;
/** An answer that comes later than this many intervals is nobody's. */
const FORGET_AFTER = 3;
/** A verdict about a size may be wrong by chance once in a thousand times. */
const CHANCE = 0.001;
const MOST_ATTEMPTS = 10;

export interface Pending {
  sequence: number;
  tokenHigh: number;
  tokenLow: number;
  /** Of the datagram. */
  length: number;
  /** When the worker sent it; until its receipt is here, when it was given to the worker. */
  sentAt: number;
  /** Its place in the window of outcomes once it counts as lost; a late answer mends it. */
  lostAs?: number;
}

export class PeerRecord {
  smoothed: number | undefined;
  last: number | undefined;
  least: number | undefined;
  heardAt: number | undefined;
  #variation = 0;
  #sequence: number;
  #pending: Pending[] = [];
  /** Of the last probes: true came back. */
  #outcomes: boolean[] = [];
  #outcomeCount = 0;
  #answeredAt: number | undefined;

  constructor(firstSequence: number) {
    this.#sequence = firstSequence;
  }

  /** Whether it has ever answered. */
  get answers(): boolean {
    return this.#answeredAt !== undefined;
  }

  /** Whether a padded probe is on the way. */
  get hasLong(): boolean {
    return this.#pending.some(pending => pending.length > PROBE_BYTES && pending.lostAs === undefined);
  }

  get lossPct(): number | undefined {
    if (this.#outcomes.length === 0) return undefined;
    return (100 * this.#outcomes.filter(came => !came).length) / this.#outcomes.length;
  }

  next(length: number, tokenHigh: number, tokenLow: number, now: number): Pending {
    this.#sequence = (this.#sequence + 1) & 0xffff;
    const pending = { sequence: this.#sequence, tokenHigh, tokenLow, length, sentAt: now };
    this.#pending.push(pending);
    return pending;
  }

  find(sequence: number, tokenHigh: number, tokenLow: number): Pending | undefined {
    return this.#pending.find(
      one => one.sequence === sequence && one.tokenHigh === tokenHigh && one.tokenLow === tokenLow,
    );
  }

  /** Its answer came at this time. */
  answered(pending: Pending, at: number): void {
    this.#remove(pending);
    this.#answeredAt = Math.max(this.#answeredAt ?? 0, at);
    if (pending.length !== PROBE_BYTES) return;
    this.#count(pending, true);
    this.#sample(Math.max(0, at - pending.sentAt));
  }

  /** It was not sent; that counts as a loss or not at all. */
  refused(pending: Pending, isLoss: boolean): void {
    this.#remove(pending);
    if (isLoss) this.#count(pending, false);
  }

  forgetPending(): void {
    this.#pending = [];
  }

  /** Those whose answer is overdue since the last call. */
  expire(now: number, intervalMs: number): Pending[] {
    const wait = this.smoothed === undefined ? FIRST_WAIT_MS : this.smoothed + 4 * this.#variation;
    const overdue = this.#pending.filter(({ lostAs, length, sentAt }) => {
      const least = length > PROBE_BYTES && this.answers ? LEAST_LONG_WAIT_MS : LEAST_WAIT_MS;
      return lostAs === undefined && now - sentAt > Math.max(wait, least);
    });
    for (const pending of overdue) {
      pending.lostAs = -1;
      if (pending.length === PROBE_BYTES) this.#count(pending, false);
    }
    const forget = Math.max(FORGET_AFTER * intervalMs, 2 * LEAST_WAIT_MS, 2 * wait);
    this.#pending = this.#pending.filter(pending => now - pending.sentAt <= forget);
    return overdue;
  }

  /** Whether an answer came after this time. */
  heardSince(at: number): boolean {
    return this.#answeredAt !== undefined && this.#answeredAt >= at;
  }

  /** Something valid came at this time. True when that is news. */
  hear(at: number): boolean {
    if (this.heardAt !== undefined && at <= this.heardAt) return false;
    this.heardAt = at;
    return true;
  }

  /** How many losses of one size in a row are no accident, with the loss that small probes have. */
  attempts(): number {
    const loss = (this.lossPct ?? 0) / 100;
    if (loss === 0) return ATTEMPTS;
    if (loss >= 1) return MOST_ATTEMPTS;
    return Math.min(MOST_ATTEMPTS, Math.max(ATTEMPTS, Math.ceil(Math.log(CHANCE) / Math.log(loss))));
  }

  /** RFC 6298 §2.2 and §2.3. */
  #sample(rtt: number): void {
    this.last = rtt;
    this.least = Math.min(this.least ?? rtt, rtt);
    if (this.smoothed === undefined) {
      this.smoothed = rtt;
      this.#variation = rtt / 2;
      return;
    }
    this.#variation += (Math.abs(this.smoothed - rtt) - this.#variation) / 4;
    this.smoothed += (rtt - this.smoothed) / 8;
  }

  #count(pending: Pending, came: boolean): void {
    const place = pending.lostAs ?? -1;
    if (place >= 0) {
      // It was given up too early.
      if (this.#outcomeCount - place <= WINDOW) this.#outcomes[place % WINDOW] = came;
      return;
    }
    pending.lostAs = this.#outcomeCount;
    this.#outcomes[this.#outcomeCount % WINDOW] = came;
    this.#outcomeCount++;
  }

  #remove(pending: Pending): void {
    this.#pending = this.#pending.filter(one => one !== pending);
  }
}
