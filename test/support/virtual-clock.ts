// A clock that stands still until a test moves it, so that a day of renewals takes no time and is the same every time.
import type { Clock } from '../../lib/lease/clock.ts';

export interface VirtualClock extends Clock {
  /**
   * Moves both clocks forward and wakes every sleeper at its moment, in order; what a sleeper starts is finished (as far
   * as it needs no further time) before the next one wakes.
   */
  advance(ms: number): Promise<void>;
  /** Lets everything run that is ready now. */
  settle(): Promise<void>;
  /** Somebody sets the wall clock. */
  jump(ms: number): void;
  /** How many sleep. */
  sleepers(): number;
}

interface Sleeper {
  at: number;
  wake(): void;
}

/** `startMs` is the wall clock at the beginning; the monotonic clock begins at 0. */
export function createVirtualClock(startMs = Date.UTC(2026, 7, 1)): VirtualClock {
  let monotonic = 0;
  let wall = startMs;
  const sleepers = new Set<Sleeper>();

  // An immediate runs after all promises that are ready, also those that ready ones make ready.
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 3; i++) await new Promise(resolve => setImmediate(resolve));
  };

  return {
    nowMs: () => wall + monotonic,
    monotonicMs: () => monotonic,
    sleep(ms, signal) {
      if (ms <= 0 || signal?.aborted === true) return Promise.resolve();
      return new Promise(resolve => {
        const sleeper: Sleeper = {
          at: monotonic + ms,
          wake() {
            sleepers.delete(sleeper);
            signal?.removeEventListener('abort', sleeper.wake);
            resolve();
          },
        };
        sleepers.add(sleeper);
        signal?.addEventListener('abort', sleeper.wake);
      });
    },
    async advance(ms) {
      const end = monotonic + ms;
      await settle();
      for (;;) {
        const next = Math.min(...[...sleepers].map(sleeper => sleeper.at));
        if (next > end) break;
        monotonic = Math.max(monotonic, next);
        for (const sleeper of [...sleepers]) if (sleeper.at <= monotonic) sleeper.wake();
        await settle();
      }
      monotonic = end;
      await settle();
    },
    settle,
    jump(ms) {
      wall += ms;
    },
    sleepers: () => sleepers.size,
  };
}
