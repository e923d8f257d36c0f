import { messageOf } from './errors.ts';
import type { Logger } from './log.ts';

/**
 * What has been made so far and how each of it is unmade, last made first. A failing path runs it; a path that
 * succeeded either disarms it or keeps it for its own end.
 */
export class Undo {
  #steps: { what: string; action: () => void | Promise<void> }[] = [];

  /** `what` names the thing that `action` removes, for the log. Removing what is already gone must succeed. */
  push(what: string, action: () => void | Promise<void>): void {
    this.#steps.push({ what, action });
  }

  /** What `run` would remove, last made first. */
  get pending(): string[] {
    return this.#steps.map(step => step.what).reverse();
  }

  /**
   * Runs every step once; a step that fails, or that has not ended `limitMs` after the start of the run, is one warning
   * and does not keep the others from running.
   * @returns whether all went well
   */
  async run(log: Logger, limitMs = Number.POSITIVE_INFINITY): Promise<boolean> {
    const endsAt = performance.now() + limitMs;
    let clean = true;
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      const { what, action } = step;
      log.debug({ what }, 'undo');
      try {
        await within(Promise.resolve(action()), endsAt - performance.now());
      } catch (error) {
        clean = false;
        log.warn({ what, error: messageOf(error) }, 'not undone');
      }
    }
    return clean;
  }

  /** Forgets every step: what was made stays. */
  disarm(): void {
    this.#steps = [];
  }
}

/** `promise`, or an error once `limitMs` have passed; a promise that already has its value always wins. */
async function within(promise: Promise<void>, limitMs: number): Promise<void> {
  if (limitMs === Number.POSITIVE_INFINITY) return promise;
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error('it took too long')), Math.max(0, limitMs));
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
