/**
 * What waits for a reader who may be slow: bounded in bytes. A full queue refuses the newest (a file must not have holes that
 * nobody notices, so the caller counts it) or forgets the oldest (a live view wants what is new).
 */
export class BoundedQueue {
  readonly #limit: number;
  readonly #full: 'refuse' | 'forget';
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #ended = false;
  #onMore: (() => void) | undefined;

  constructor(limitBytes: number, full: 'refuse' | 'forget') {
    this.#limit = limitBytes;
    this.#full = full;
  }

  /** False: it was refused. `must`: it goes in all the same; for what ends a stream. */
  push(chunk: Uint8Array, must = false): boolean {
    if (this.#ended) return false;
    if (!must && this.#bytes + chunk.length > this.#limit) {
      if (this.#full === 'refuse') return false;
      while (this.#chunks.length > 0 && this.#bytes + chunk.length > this.#limit) {
        this.#bytes -= this.#chunks.shift()?.length ?? 0;
      }
    }
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    this.#wake();
    return true;
  }

  /** What is inside still goes out; nothing more comes in. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** Writes until the queue has ended and is empty, or the signal is aborted. */
  async pump(write: (chunk: Uint8Array) => Promise<void>, signal: AbortSignal): Promise<void> {
    const onAbort = (): void => this.#wake();
    signal.addEventListener('abort', onAbort);
    try {
      while (!signal.aborted) {
        if (this.#chunks.length > 0) {
          const all = Buffer.concat(this.#chunks);
          this.#chunks = [];
          this.#bytes = 0;
          await write(all);
        } else if (this.#ended) return;
        else
          await new Promise<void>(resolve => {
            this.#onMore = resolve;
          });
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #wake(): void {
    this.#onMore?.();
    this.#onMore = undefined;
  }
}
