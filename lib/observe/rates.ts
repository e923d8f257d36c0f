/** Rates out of counters: what was counted in the last second or so, by a daemon that looks once a second. */

/** Counters by name, as at one moment. */
export type Counts = Readonly<Record<string, number>>;

interface Sample {
  atMs: number;
  counts: Counts;
}

/** A machine that slept, or a main thread that was busy, makes a window longer; beyond this it says nothing of now. */
const LONGEST_WINDOW_MS = 30_000;

export class RateWindow {
  #before: Sample | undefined;
  #last: Sample | undefined;

  /** `atMs`: of a clock that never jumps. */
  add(atMs: number, counts: Counts): void {
    this.#before = this.#last;
    this.#last = { atMs, counts };
  }

  /** What was counted a second between the last two samples; undefined until there are two. */
  get(): Record<string, number> | undefined {
    const [before, last] = [this.#before, this.#last];
    if (before === undefined || last === undefined) return undefined;
    const seconds = (last.atMs - before.atMs) / 1000;
    if (seconds <= 0 || seconds > LONGEST_WINDOW_MS / 1000) return undefined;
    // A data path that was made anew begins its counters where the old one ended; a counter that fell is a new one.
    const rate = (name: string): number => Math.max(0, last.counts[name] - (before.counts[name] ?? 0)) / seconds;
    return Object.fromEntries(Object.keys(last.counts).map(name => [name, rate(name)]));
  }
}
