/** What the figures are condensed to. Values are one a round; null where a round has none (it failed, or time was up). */

export type Values = readonly (number | null)[];

export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Rounds that have a value. */
  readonly count: number;
}

/** The smallest value with at least the fraction `q` (0 to 1) of all values at or below it; null of none. */
export function quantile(values: readonly number[], q: number): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))];
}

/** The middle value, or the mean of the two in the middle; null of none. */
export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

export const present = (values: Values): number[] => values.filter(value => value !== null);

export function summarize(values: Values): Summary | null {
  const there = present(values);
  const middle = median(there);
  if (middle === null) return null;
  return { median: middle, min: Math.min(...there), max: Math.max(...there), count: there.length };
}

/** a / b round by round: what ran at the same time of day is compared, and only where both have a value. */
export function ratios(a: Values, b: Values): (number | null)[] {
  return a.map((value, round) => {
    const base = b[round] ?? null;
    return value === null || base === null || base === 0 ? null : value / base;
  });
}
