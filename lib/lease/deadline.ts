// How long a lease is proven, and when to prove it again.
//
// A registry keeps a lease for TTL after it *processed* a renewal, so a node may trust its lease until TTL after it *sent*
// the last one that was acknowledged: however long question and answer were under way, that moment can only be early.
// Two clocks measure that time, the registry's and ours, and they may differ: hence the allowance.
//
// A reservation has no TTL. Its key cannot end by itself, so nobody can be given its subnet while it is there, and no time
// makes it less ours: its deadline is Infinity. It is asked about as often as a lease is renewed, so that a removal by an
// operator that no watch told of is found.

/**
 * What two clocks may drift apart within one TTL: NTP slews a clock by 500 ppm at most (adjtimex(2)), there are two of
 * them, in opposite directions, and as much again for safety. 173 s of a day.
 */
const driftAllowance = 1 / 500;

/** Milliseconds after sending a renewal that this node trusts it. */
export function trustMs(ttlSeconds: number): number {
  return Math.floor(ttlSeconds * 1000 * (1 - driftAllowance));
}

/**
 * Milliseconds after sending a renewal that the next one is due: a margin before the end, but not before TTL/3. The end is
 * that of our trust where the allowance is more than the margin: a renewal that begins when it is over is none.
 */
export function renewAfterMs(ttlSeconds: number, marginSeconds: number): number {
  const marginMs = 1000 * Math.min(marginSeconds, (ttlSeconds * 2) / 3);
  return Math.min(1000 * ttlSeconds - marginMs, trustMs(ttlSeconds) - Math.min(marginMs, ttlSeconds * 100));
}
