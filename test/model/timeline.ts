/**
 * Virtual time: events in the order of their moments, one after the other. Between two events everything that promises
 * made ready runs to its end, so that a run depends on nothing but its seed.
 */

export interface Timer {
  cancelled: boolean;
}

interface Entry extends Timer {
  at: number;
  order: number;
  run(): void;
}

export class Timeline {
  /** Milliseconds since the beginning: the true time, which no node knows. */
  now = 0;
  events = 0;
  #order = 0;
  /** A binary heap: the earliest first, of one moment the one that was asked for first. */
  readonly #heap: Entry[] = [];

  at(moment: number, run: () => void): Timer {
    const entry: Entry = { at: Math.max(moment, this.now), order: this.#order++, run, cancelled: false };
    const heap = this.#heap;
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isBefore(entry, heap[parent])) break;
      heap[i] = heap[parent];
      i = parent;
    }
    heap[i] = entry;
    return entry;
  }

  after(ms: number, run: () => void): Timer {
    return this.at(this.now + ms, run);
  }

  /** Runs everything up to `end`; `check` may end it by throwing after any event. */
  async runUntil(end: number, check: () => void): Promise<void> {
    await settle();
    for (let entry = this.#heap[0]; entry !== undefined && entry.at <= end; entry = this.#heap[0]) {
      this.#pop();
      if (entry.cancelled) continue;
      this.now = entry.at;
      this.events++;
      entry.run();
      await settle();
      check();
    }
    this.now = end;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], last)) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = last;
  }
}

const isBefore = (a: Entry, b: Entry): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

/** An immediate runs when no promise is ready any more. */
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve));
