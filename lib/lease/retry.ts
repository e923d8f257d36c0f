// Waiting for a registry that does not answer: 1 s at first, doubled up to 30 s, with jitter so that a cluster's nodes do
// not come back all at once; and one warning a minute however often it fails.
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { Clock } from './clock.ts';

export interface Retry {
  /** Says what failed (not more than once a minute) and waits; ends early when the signal is aborted. */
  failed(error: unknown, message: string, signal?: AbortSignal): Promise<void>;
  /** Starts again at 1 s; says `message` if the failure had been said. */
  succeeded(message: string): void;
}

export const longestPauseMs = 30_000;

export function createRetry(clock: Clock, random: () => number, log: Logger, longestMs = longestPauseMs): Retry {
  let failures = 0;
  let saidAt = Number.NEGATIVE_INFINITY;
  return {
    async failed(error, message, signal) {
      const full = Math.min(1000 * 2 ** Math.min(failures, 10), longestMs);
      failures++;
      const now = clock.monotonicMs();
      if (now - saidAt >= 60_000) {
        saidAt = now;
        log.warn({ reason: messageOf(error), failures }, message);
      }
      await clock.sleep(full * (0.5 + random() / 2), signal);
    },
    succeeded(message) {
      if (failures > 0) log.info({ failures }, message);
      failures = 0;
      saidAt = Number.NEGATIVE_INFINITY;
    },
  };
}
