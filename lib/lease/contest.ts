// Another process that writes our lease with our own node id and address: a machine that was copied while it ran, or a
// second tulled. Compare-and-swap shows it to both, and both could write their own name back for ever. The rule that ends
// it: who holds the lease for longer writes it back, who took it up just now yields; and of two who have held it for long,
// one yields soon, whoever has lost more often.
import type { Clock } from './clock.ts';

/** Somebody who took the lease up less than this ago is the later one. */
const newcomerMs = 60_000;
/**
 * More often within one window than an operator edits a lease, or than a supervisor restarts the other process: one that
 * comes back every 2 s, as our systemd unit has it, writes five times in ten seconds and must not outlast us. Two who have
 * both held the lease for long answer each other within some round trips to the registry: below a second even far away.
 */
const enough = 10;
const windowMs = 10_000;

export interface Contest {
  /** We took up a lease that was there. */
  tookUp(): void;
  /** Our lease was written by somebody with our identity; whether we yield. */
  written(): boolean;
}

export function createContest(clock: Clock): Contest {
  let newcomerUntil = Number.NEGATIVE_INFINITY;
  let times: number[] = [];
  return {
    tookUp() {
      newcomerUntil = clock.monotonicMs() + newcomerMs;
    },
    written() {
      const now = clock.monotonicMs();
      times = times.filter(time => now - time < windowMs);
      times.push(now);
      return now < newcomerUntil || times.length >= enough;
    },
  };
}
