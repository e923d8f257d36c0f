// A watch on etcd's raw stream. etcd3's own watcher hides the compacted revision, never notices a server that is frozen
// but connected, and reconnects on a clock of its own; none of that can be mended from outside.
import type { EtcdClient, KeyValue, WatchResponse } from './client.ts';
import { registryErrorOf } from './failure.ts';

/** What happened to one key; a deleted key has no value. */
export interface KeyEvent {
  kind: 'put' | 'delete';
  kv: KeyValue;
}

/** Changes in order, of one answer or of several that came while nobody asked; `revision` is the last of theirs. */
export interface WatchBatch {
  events: KeyEvent[];
  revision: number;
}

/** The stream cannot tell what happened since `from`: list again and watch from there. */
export class WatchGap extends Error {
  /** The revision of the compaction that made the gap: its state can be read, nothing before it. */
  readonly compacted: number | undefined;

  constructor(message: string, compacted?: number) {
    super(message);
    this.compacted = compacted;
  }
}

export interface WatchOptions {
  range: { key: Buffer; range_end: Buffer };
  /** The first revision of interest. */
  from: number;
  /** The cluster that `from` belongs to. */
  clusterId: string;
  signal: AbortSignal;
  /** The stream is attached: etcd has told so. */
  onAttached?: () => void;
}

// A frozen server is noticed within probeAfter + answerWithin + tick = 9 s at most. 4 s keeps etcd's work small.
const probeAfterMs = 4_000;
const answerWithinMs = 4_000;
const tickMs = 500;

/**
 * Yields batches of changes until the signal is aborted. Throws WatchGap, or a RegistryError when the stream breaks;
 * then watching again from the last batch's revision + 1 misses nothing.
 */
export async function* watchRange(client: EtcdClient, options: WatchOptions): AsyncGenerator<WatchBatch> {
  const { range, from, clusterId, signal } = options;
  if (signal.aborted) return;
  const { stream, abandoned, giveUp } = await client.openWatch();

  let waiting: KeyEvent[] = [];
  let failure: unknown;
  let ended = false;
  let wake = (): void => {};
  const fail = (error: unknown): void => {
    failure ??= error;
    wake();
  };
  const end = (): void => {
    ended = true;
    wake();
  };

  let heardAt = performance.now();
  let probedAt: number | undefined = heardAt; // the create request counts as a probe: it must be answered in time
  const timer = setInterval(() => {
    const now = performance.now();
    if (probedAt !== undefined && now - probedAt > answerWithinMs) {
      const silence = new Error('the watch got no answer in time');
      giveUp(silence);
      fail(silence);
    } else if (probedAt === undefined && now - heardAt > probeAfterMs) {
      probedAt = now;
      stream.write({ progress_request: {} });
    }
  }, tickMs);

  const receive = (answer: WatchResponse): void => {
    heardAt = performance.now();
    probedAt = undefined;
    const problem = problemOf(answer, from, clusterId);
    if (problem !== undefined) fail(problem);
    else if (answer.created) options.onAttached?.();
    const last = answer.events.at(-1);
    if (problem !== undefined || last === undefined) return; // undefined: created, or a sign of life
    const events = answer.events.map(({ type, kv }): KeyEvent => ({ kind: type === 'Delete' ? 'delete' : 'put', kv }));
    waiting.push(...events);
    wake();
  };

  stream.on('data', receive);
  stream.on('error', fail);
  stream.on('end', () => fail(new Error('etcd ended the watch')));
  const onAbandoned = (): void => fail(abandoned.reason);
  abandoned.addEventListener('abort', onAbandoned);
  signal.addEventListener('abort', end);
  try {
    stream.write({ create_request: { ...range, start_revision: from, progress_notify: true } });
    while (!ended) {
      if (waiting.length > 0) {
        // Each batch costs its reader as much as the whole list, whatever is in it. So one holds all that is there; and the
        // process gets a turn of its loop between two, for what else it has to do.
        await new Promise(resolve => setImmediate(resolve));
        const events = waiting;
        waiting = [];
        yield { events, revision: Number(events[events.length - 1].kv.mod_revision) };
      } else if (failure instanceof WatchGap) throw failure;
      else if (failure !== undefined) {
        giveUp(failure);
        throw registryErrorOf(failure, client.endpoints);
      } else {
        await new Promise<void>(resolve => {
          wake = resolve;
        });
      }
    }
  } finally {
    clearInterval(timer);
    abandoned.removeEventListener('abort', onAbandoned);
    signal.removeEventListener('abort', end);
    stream.end(); // before cancel, see keepAliveOnce in client.ts
    stream.cancel();
  }
}

/** Why this answer ends the watch, or undefined. */
function problemOf(answer: WatchResponse, from: number, clusterId: string): Error | undefined {
  if (answer.compact_revision !== '0') {
    return new WatchGap(`revision ${from} was compacted`, Number(answer.compact_revision));
  }
  if (answer.canceled) return new Error(answer.cancel_reason || 'etcd cancelled the watch');
  const { cluster_id: cluster, revision } = answer.header;
  // A store that was restored from a backup counts from an earlier revision: waiting for `from` would miss everything.
  if (cluster !== clusterId || Number(revision) < from - 1)
    return new WatchGap('etcd holds another history than before');
  return undefined;
}
