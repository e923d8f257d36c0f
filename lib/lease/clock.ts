// Time as the lease rules need it. Deadlines are measured by the monotonic clock, which nobody can set; the wall clock
// is for people and for what several processes must agree on. Tests inject a virtual one.
import { monotonicMs } from '../sys/sys.ts';

export interface Clock {
  /** Wall clock, milliseconds since 1970. May jump. */
  nowMs(): number;
  /** Milliseconds since some fixed moment; never jumps, counts the time that the machine is suspended. */
  monotonicMs(): number;
  /** Resolves after `ms` (Infinity: never) or as soon as the signal is aborted, whichever is first; never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/**
 * The machine's clock. Timers stop while a machine is suspended but the monotonic clock does not, so a long sleep is cut
 * into pieces and looks at the clock after each: a node that wakes up notices within one piece that its lease is over.
 */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs,
  async sleep(ms, signal) {
    const end = monotonicMs() + ms;
    for (let left = ms; left > 0 && signal?.aborted !== true; left = end - monotonicMs()) {
      await pause(Math.min(left, longestPieceMs), signal);
    }
  },
};

const longestPieceMs = 10_000;

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, Math.ceil(ms));
    signal?.addEventListener('abort', done);
  });
}
