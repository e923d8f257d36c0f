/**
 * A small seeded generator (mulberry32) for tests, so that a failure can be run again: print the seed, and set TULLE_SEED
 * to repeat it.
 */
export function prng(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/** The seed of this run: TULLE_SEED when it is set, else the clock. */
export function testSeed(): number {
  const given = process.env['TULLE_SEED'];
  return (given === undefined ? Date.now() : Number(given)) >>> 0;
}

/** 0..limit-1 */
export function below(next: () => number, limit: number): number {
  return Math.floor((next() / 0x1_0000_0000) * limit);
}

/** One of the choices. */
export function pick<T>(next: () => number, choices: readonly T[]): T {
  return choices[below(next, choices.length)];
}

/** Fills `length` bytes from `offset` on with random ones. */
export function fillRandom(next: () => number, bytes: Uint8Array, offset = 0, length = bytes.length - offset): void {
  for (let i = 0; i < length; i++) bytes[offset + i] = next();
}

export function randomBytes(next: () => number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  fillRandom(next, bytes);
  return bytes;
}
