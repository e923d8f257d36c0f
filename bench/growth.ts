/** Whether a series of memory samples grows. Pure. */
import { median } from './statistics.ts';

export interface Sample {
  readonly seconds: number;
  readonly mb: number;
}

export interface Growth {
  /** Median of the second quarter: the first is start-up, the JIT and the first buffers. */
  readonly earlyMb: number;
  /** Median of the last quarter. */
  readonly lateMb: number;
  readonly mostMb: number;
  readonly grows: boolean;
}

/**
 * V8 collects when it likes, so memory moves by some megabytes without growing: more than this, and more than a tenth of
 * what it was, between two medians of many samples is growth.
 */
const NOISE_MB = 5;
const NOISE_PART = 0.1;

/** undefined of too few samples to say. */
export function growthOf(samples: readonly Sample[]): Growth | undefined {
  const quarter = Math.floor(samples.length / 4);
  if (quarter < 2) return undefined;
  const mbs = samples.map(sample => sample.mb);
  const earlyMb = median(mbs.slice(quarter, 2 * quarter))!;
  const lateMb = median(mbs.slice(-quarter))!;
  const grows = lateMb - earlyMb > Math.max(NOISE_MB, earlyMb * NOISE_PART);
  return { earlyMb, lateMb, mostMb: Math.max(...mbs), grows };
}
