/** A histogram as Prometheus has them: how many observations lay at or below each bound, and their sum. */

/** From half a millisecond to ten seconds: a file registry answers in one, etcd in some, an overloaded one in seconds. */
export const LATENCY_BOUNDS: readonly number[] = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

export class Histogram {
  readonly bounds: readonly number[];
  /** Not cumulative; the last is for what lies above all bounds. */
  readonly #counts: number[];
  sum = 0;
  count = 0;

  constructor(bounds: readonly number[] = LATENCY_BOUNDS) {
    this.bounds = bounds;
    this.#counts = new Array(bounds.length + 1).fill(0);
  }

  /** What somebody else counted: a number for each bound, and the sum of what was observed. */
  static of(bounds: readonly number[], counts: readonly number[], sum: number): Histogram {
    const histogram = new Histogram(bounds);
    for (const [place, count] of counts.entries()) {
      histogram.#counts[place] = count;
      histogram.count += count;
    }
    histogram.sum = sum;
    return histogram;
  }

  observe(value: number): void {
    const place = this.bounds.findIndex(bound => value <= bound);
    this.#counts[place < 0 ? this.bounds.length : place]++;
    this.sum += value;
    this.count++;
  }

  /** One number a bound: the observations at or below it. */
  cumulative(): number[] {
    let total = 0;
    return this.bounds.map((_, place) => {
      total += this.#counts[place];
      return total;
    });
  }
}
