/** Frames that wait for their time: a binary heap, earliest first, and first in first out among equals. Bounded. */

export interface Waiting {
  readonly frame: Uint8Array;
  /** Whatever clock the caller uses, in milliseconds. */
  readonly dueMs: number;
  /** 0 or 1: which way it leaves. */
  readonly side: number;
}

interface Entry extends Waiting {
  readonly order: number;
}

const before = (a: Entry, b: Entry): boolean => (a.dueMs === b.dueMs ? a.order < b.order : a.dueMs < b.dueMs);

export class FrameQueue {
  readonly #most: number;
  readonly #heap: Entry[] = [];
  #count = 0;

  /** @param most frames: what comes on top is refused */
  constructor(most: number) {
    this.#most = most;
  }

  get length(): number {
    return this.#heap.length;
  }

  /** When the first one is due; undefined when none waits. */
  get nextMs(): number | undefined {
    return this.#heap[0]?.dueMs;
  }

  /** False when the queue is full. */
  add(waiting: Waiting): boolean {
    const heap = this.#heap;
    if (heap.length >= this.#most) return false;
    const entry: Entry = { ...waiting, order: this.#count++ };
    let at = heap.length;
    heap.push(entry);
    for (let parent = (at - 1) >> 1; at > 0 && before(entry, heap[parent]); parent = (at - 1) >> 1) {
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = entry;
    return true;
  }

  /** The first one, when it is due at `nowMs`. */
  take(nowMs: number): Waiting | undefined {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined || first.dueMs > nowMs) return undefined;
    const last = heap.pop()!;
    if (heap.length > 0) this.#sink(last);
    return first;
  }

  #sink(entry: Entry): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1], heap[child])) child++;
      if (!before(heap[child], entry)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = entry;
  }
}
