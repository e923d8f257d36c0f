/** Waiting for a registry that is not there, or not filled, yet: quiet, patient and easy to stop. */
import type { Clock } from '../lease/clock.ts';
import { registryCodeOf } from '../lease/registry.ts';
import { createRetry } from '../lease/retry.ts';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';

export interface RetryContext {
  log: Logger;
  clock: Clock;
  /** Aborted: stop waiting; the call rejects with `Stopped`. */
  stop: AbortSignal;
  /** A number from 0 to 1, for jitter. */
  random(): number;
}

/** The daemon was asked to stop while it waited. */
export class Stopped extends Error {}

const LONGEST_PAUSE_MS = 10_000;

/**
 * `action`'s result, tried again for as long as the registry is out of reach ('unavailable') or holds no configuration
 * ('no-config'), with one line a minute; every other error ends the waiting. `advice`: what a
 * person can do when the registry is out of reach.
 */
export async function untilAvailable<T>(context: RetryContext, action: () => Promise<T>, advice: string): Promise<T> {
  const { log, clock, stop, random } = context;
  const retry = createRetry(clock, random, log, LONGEST_PAUSE_MS);
  while (true) {
    try {
      const result = await orStopped(action(), stop);
      retry.succeeded('the registry is there');
      return result;
    } catch (error) {
      const code = registryCodeOf(error);
      if (code !== 'unavailable' && code !== 'no-config') throw error;
      const text = code === 'unavailable' ? `${messageOf(error)}: ${advice}` : messageOf(error);
      await retry.failed(new Error(text), 'waiting for the registry', stop);
    }
  }
}

/** The promise, or `Stopped` as soon as the signal is aborted; what the promise brings later is ignored. */
export function orStopped<T>(promise: Promise<T>, stop: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(new Stopped());
    const done = () => stop.removeEventListener('abort', abort);
    if (stop.aborted) abort();
    else stop.addEventListener('abort', abort);
    promise.then(resolve, reject).finally(done);
  });
}
