// Leases as they change, for ever: a snapshot, then events; a new snapshot whenever etcd cannot tell what happened.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Events, LeaseEvent, Snapshot, WatchTrouble } from '../lib/lease/registry.ts';
import { messageOf } from '../lib/util/errors.ts';
import type { Logger } from '../lib/util/log.ts';
import { type EtcdClient, jitter } from './client.ts';
import { type KeyEvent, WatchGap, watchRange } from './watch.ts';

export interface FollowOptions {
  range: { key: Buffer; range_end: Buffer };
  readAll: () => Promise<{ snapshot: Snapshot; clusterId: string }>;
  /** undefined: a key or value that cannot be read; it is skipped, and whoever is known under it stays as he was. */
  eventOf: (event: KeyEvent) => LeaseEvent | undefined;
  log: Logger;
  signal: AbortSignal;
  onTrouble?: WatchTrouble;
}

const firstPauseMs = 100;
const longestPauseMs = 3_000;
const reminderMs = 60_000;

/** Never throws because of etcd; ends when the signal is aborted. */
export async function* followLeases(client: EtcdClient, options: FollowOptions): AsyncGenerator<Snapshot | Events> {
  const { range, readAll, eventOf, log, signal, onTrouble } = options;
  let clusterId = '';
  let next: number | undefined; // the revision to watch from; undefined: list first
  let pauseMs = firstPauseMs;
  let awaySince: number | undefined;
  let saidAt = Number.NEGATIVE_INFINITY;

  const isBack = (): void => {
    if (awaySince !== undefined) {
      const seconds = Math.round((performance.now() - awaySince) / 1000);
      log.info({ endpoints: client.endpoints, seconds }, 'etcd is back: watching leases again');
    }
    onTrouble?.(undefined);
    awaySince = undefined;
    saidAt = Number.NEGATIVE_INFINITY;
    pauseMs = firstPauseMs;
  };

  while (!signal.aborted) {
    try {
      if (next === undefined) {
        const { snapshot, clusterId: id } = await readAll();
        if (signal.aborted) return;
        clusterId = id;
        next = snapshot.revision + 1;
        yield snapshot;
      }
      for await (const batch of watchRange(client, { range, from: next, clusterId, signal, onAttached: isBack })) {
        next = batch.revision + 1;
        const events = batch.events.map(eventOf).filter(event => event !== undefined);
        if (events.length > 0) yield { kind: 'events', events, revision: batch.revision };
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof WatchGap) {
        log.info({ reason: messageOf(error) }, 'the watch of leases has a gap: listing them again');
        next = undefined;
      } else {
        const now = performance.now();
        onTrouble?.(messageOf(error));
        awaySince ??= now;
        if (now - saidAt >= reminderMs) {
          saidAt = now;
          log.warn({ reason: messageOf(error) }, 'the watch of leases is interrupted: trying again until etcd is back');
        }
      }
      await sleep(jitter(pauseMs), undefined, { signal }).catch(() => {}); // aborted: the loop sees it
      pauseMs = Math.min(pauseMs * 2, longestPauseMs);
    }
  }
}
