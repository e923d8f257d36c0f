// Watching the file registry. The truth is reading the directory again, at least once a second and at the moment when
// the next lease expires; inotify (fs.watch) only says when to look sooner. What is new is found by difference, so
// renames that overtake each other or a lost notification can delay a change but never lose one.
import { type FSWatcher, watch } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from './clock.ts';
import { type Contents, type FileStore, isExpired } from './file-store.ts';
import { type Lease, subnetsOf } from './lease.ts';
import type { Events, LeaseEvent, Snapshot } from './registry.ts';

export interface FileWatchOptions {
  store: FileStore;
  folder: string;
  clock: Clock;
  pollMs: number;
  /** Called when the directory cannot be read; the watch goes on. */
  onError(error: unknown): void;
  /** Called when it could be read. */
  onSuccess(): void;
}

export function snapshotOf({ leases, unreadable, revision }: Contents): Snapshot {
  const broken = unreadable.size === 0 ? {} : { unreadable: [...unreadable.values()] };
  return { kind: 'snapshot', leases: [...leases.values()], revision, ...broken };
}

/** First a snapshot, then events; ends when the signal is aborted. */
export async function* watchFiles(options: FileWatchOptions, signal: AbortSignal): AsyncGenerator<Snapshot | Events> {
  const { store, folder, clock, pollMs, onError, onSuccess } = options;
  const hint = createHint(folder);
  let known: Map<string, Lease> | undefined;
  signal.addEventListener('abort', hint.ring);
  try {
    while (!signal.aborted) {
      const bell = hint.listen(); // before reading: what changes from here on rings it
      let waitMs = pollMs;
      let message: Snapshot | Events | undefined;
      try {
        const contents = store.read();
        waitMs = Math.min(pollMs, untilNextExpiry(contents, clock.nowMs()));
        if (known === undefined) {
          known = contents.leases;
          message = snapshotOf(contents);
        } else {
          const events = applyDifference(known, contents, store, clock.nowMs());
          if (events.length > 0) message = { kind: 'events', events, revision: contents.revision };
        }
        onSuccess();
      } catch (error) {
        onError(error);
      }
      if (message !== undefined) yield message;
      if (!signal.aborted) await clock.sleep(waitMs, bell);
    }
  } finally {
    signal.removeEventListener('abort', hint.ring);
    hint.close();
  }
}

/** Makes `known` equal to what was read and returns what that took. */
function applyDifference(known: Map<string, Lease>, contents: Contents, store: FileStore, nowMs: number): LeaseEvent[] {
  const events: LeaseEvent[] = [];
  const put = (key: string, lease: Lease): void => {
    if (isDeepStrictEqual(known.get(key), lease)) return;
    known.set(key, lease);
    contents.revision = Math.max(contents.revision, lease.modRevision);
    events.push({ kind: 'put', lease });
  };
  for (const [key, before] of known) {
    if (contents.leases.has(key)) continue;
    // A directory that is renamed into while it is listed may leave a name out: only opening the file is proof.
    const now = store.readLease(key, subnetsOf(before));
    if (now === 'unreadable') continue; // reported by the store; what we knew stays
    if (now !== undefined && !isExpired(now, nowMs)) put(key, now);
    else {
      known.delete(key);
      events.push({ kind: 'removed', ...subnetsOf(before) });
    }
  }
  for (const [key, lease] of contents.leases) put(key, lease);
  return events;
}

function untilNextExpiry({ leases }: Contents, nowMs: number): number {
  let next = Number.POSITIVE_INFINITY;
  for (const { expiresAtMs } of leases.values()) if (expiresAtMs !== null) next = Math.min(next, expiresAtMs);
  return Math.max(1, next - nowMs);
}

/** A bell that inotify rings. Without inotify (no such folder yet, no watches left) it stays silent: the poll is enough. */
function createHint(folder: string): { listen(): AbortSignal; ring(): void; close(): void } {
  let watcher: FSWatcher | undefined;
  let bell = new AbortController();
  const ring = (): void => bell.abort();
  const close = (): void => {
    watcher?.close();
    watcher = undefined;
  };
  return {
    listen() {
      bell = new AbortController();
      try {
        watcher ??= watch(folder, { persistent: false }, ring).on('error', close);
      } catch {
        watcher = undefined;
      }
      return bell.signal;
    },
    ring,
    close,
  };
}
