/**
 * Which calls may run beside each other: one at a time for a container of a network, GC alone in its network, everything
 * else at once up to a bound. First come, first served: a GC that waits lets nobody of its network overtake it.
 */
import { CNI_ERROR, CniError } from './plugin.ts';

export interface ScheduleLimits {
  /** Calls that run at the same time. */
  running: number;
  /** Calls that wait; one more is refused with code 11. */
  waiting: number;
}

interface Job {
  network: string;
  /** Undefined: alone in the network. */
  container: string | undefined;
  start(): void;
}

export class Schedule {
  readonly #limits: ScheduleLimits;
  readonly #running = new Set<Job>();
  #waiting: Job[] = [];

  constructor(limits: ScheduleLimits) {
    this.#limits = limits;
  }

  get running(): number {
    return this.#running.size;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Runs `action` when its turn comes.
   * @param container undefined for what must be alone in its network
   * @throws CniError 11 when too many wait already, and whatever `action` throws
   */
  async run<T>(network: string, container: string | undefined, action: () => Promise<T>): Promise<T> {
    if (this.#waiting.length >= this.#limits.waiting) {
      throw new CniError(
        CNI_ERROR.tryLater,
        `${this.#waiting.length} CNI calls wait for their turn already; try again later`,
      );
    }
    const job: Job = { network, container, start: () => {} };
    const turn = new Promise<void>(resolve => {
      job.start = resolve;
    });
    this.#waiting.push(job);
    this.#startAll();
    await turn;
    try {
      return await action();
    } finally {
      this.#running.delete(job);
      this.#startAll();
    }
  }

  #startAll(): void {
    const ahead: Job[] = [...this.#running];
    const left: Job[] = [];
    for (const job of this.#waiting) {
      const free = this.#running.size < this.#limits.running;
      if (free && !ahead.some(other => excludes(other, job))) {
        this.#running.add(job);
        job.start();
      } else {
        left.push(job);
      }
      ahead.push(job);
    }
    this.#waiting = left;
  }
}

function excludes(a: Job, b: Job): boolean {
  if (a.network !== b.network) return false;
  return a.container === undefined || b.container === undefined || a.container === b.container;
}
