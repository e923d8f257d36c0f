// What etcd remembers: every write since its last compaction, by revision. A compaction keeps the state at its revision
// and forgets how it came to be, so the past is that state, and every change after it.
//
// etcd gives the changes only to a watch, and a watch does not say where the past ends. We know the revision R of the
// moment of asking: a change at R or after it ends the past for certain. Where the last change of a lease is older than
// R (somebody wrote other keys since), the past ends when what we replayed equals what etcd lists at R and the watch has
// been silent for several of its rounds of 100 ms (etcd, mvcc/watchable_store.go, syncWatchersLoop).
import {
  type Change,
  type Holding,
  holdingOf,
  keyOfHolding,
  type Past,
  type RegistryHistory,
  replay,
} from '../lib/lease/history.ts';
import { subnetKey } from '../lib/lease/lease.ts';
import { RegistryError } from '../lib/lease/registry.ts';
import { messageOf, TulleError } from '../lib/util/errors.ts';
import type { Logger } from '../lib/util/log.ts';
import { createEtcdClient, type EtcdClientOptions } from './client.ts';
import { createLeaseReader, defaultPrefix } from './lease-reader.ts';
import { type WatchBatch, WatchGap, watchRange } from './watch.ts';

export interface EtcdHistoryOptions extends EtcdClientOptions {
  /** flannel's is "/coreos.com/network". */
  prefix?: string;
  log: Logger;
}

const silenceMs = 500;
const longestMs = 60_000;
const attempts = 3;

/** Throws TulleError 'bad-config' as openEtcdRegistry does; speaks to etcd at the first verb. */
export function openEtcdHistory(options: EtcdHistoryOptions): RegistryHistory {
  const client = createEtcdClient(options);
  const reader = createLeaseReader(options.prefix ?? defaultPrefix, options.log);
  const { range } = reader;
  const nothing = (): number => 0; // when a lease of the past would have ended is not told by etcd

  /** The leases at a revision, 0: now. */
  async function listAt(revision: number): Promise<{ holdings: Holding[]; clusterId: string; revision: number }> {
    const { header, kvs } = await client.range({ ...range, revision: String(revision) }, client.deadline());
    const { leases } = reader.snapshotOf(kvs, revision, nothing);
    return { holdings: leases.map(holdingOf), clusterId: header.cluster_id, revision: Number(header.revision) };
  }

  /** The revision of the last compaction, 0 without one. */
  async function compactedAt(clusterId: string): Promise<number> {
    const stopper = new AbortController();
    const timer = setTimeout(() => stopper.abort(), silenceMs);
    try {
      // A watch from the beginning is refused with the number; one that is not refused tells the first change, or nothing.
      for await (const _ of watchRange(client, { range, from: 1, clusterId, signal: stopper.signal })) return 0;
      return 0;
    } catch (error) {
      if (error instanceof WatchGap && error.compacted !== undefined) return error.compacted;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  function changesOf({ events }: WatchBatch, state: Map<string, Holding>): Change[] {
    return events.flatMap(event => {
      const read = reader.eventOf(event, nothing);
      if (read === undefined) return [];
      const key = subnetKey(read.kind === 'put' ? read.lease : read);
      const holding = read.kind === 'put' ? holdingOf(read.lease) : state.get(key);
      const revision = Number(event.kv.mod_revision);
      const change: Change = { kind: read.kind, key, revision, ...(holding !== undefined && { holding }) };
      replay(state, [change]);
      return [change];
    });
  }

  /** Every change from a revision up to `now`. Throws WatchGap when it was compacted. */
  async function changesSince(
    from: number,
    base: readonly Holding[],
    now: Awaited<ReturnType<typeof listAt>>,
  ): Promise<Change[]> {
    const changes: Change[] = [];
    if (from > now.revision) return changes;
    const state = stateOf(base);
    const target = stateOf(now.holdings);
    const isThere = (): boolean =>
      state.size === target.size &&
      [...target].every(([key, { modRevision }]) => state.get(key)?.modRevision === modRevision);
    const stopper = new AbortController();
    let heardAt = performance.now();
    const end = heardAt + longestMs;
    const timer = setInterval(() => {
      const silent = performance.now() - heardAt > silenceMs;
      if ((silent && isThere()) || performance.now() > end) stopper.abort();
    }, silenceMs / 10);
    const onAttached = (): void => {
      heardAt = performance.now();
    };
    try {
      const { clusterId } = now;
      for await (const batch of watchRange(client, { range, from, clusterId, signal: stopper.signal, onAttached })) {
        heardAt = performance.now();
        changes.push(...changesOf(batch, state));
        if (batch.revision >= now.revision) break;
      }
    } finally {
      clearInterval(timer);
    }
    if (performance.now() > end) {
      throw new RegistryError(
        'unavailable',
        `etcd at ${client.endpoints} did not tell its history in ${longestMs / 1000} s`,
      );
    }
    return changes.filter(change => change.revision <= now.revision);
  }

  async function past(): Promise<Past> {
    let since = 0;
    for (let attempt = 1; ; attempt++) {
      try {
        const base = since === 0 ? [] : (await listAt(since)).holdings;
        const now = await listAt(0);
        const changes = await changesSince(since + 1, base, now);
        return { since, base, changes, revision: now.revision };
      } catch (error) {
        // Compacted, perhaps again while we read: begin at that revision.
        const compacted = error instanceof WatchGap ? error.compacted : undefined;
        if (compacted !== undefined && attempt < attempts) since = compacted;
        else if (isCompacted(error) && attempt < attempts) since = 0;
        else if (error instanceof WatchGap) throw new RegistryError('unavailable', messageOf(error));
        else throw error;
      }
    }
  }

  return {
    async at(revision) {
      try {
        return (await listAt(revision)).holdings;
      } catch (error) {
        const text = messageOf(error);
        const place = `etcd at ${client.endpoints}`;
        if (/future revision/.test(text)) {
          const now = (await listAt(0)).revision;
          throw new TulleError('future', `${place} is at revision ${now}: revision ${revision} is still to come`);
        }
        if (!isCompacted(error)) throw error;
        const since = await compactedAt((await listAt(0)).clusterId);
        throw new TulleError(
          'compacted',
          `revision ${revision} was compacted: ${place} has forgotten what was before revision ${since}`,
        );
      }
    },
    past,
    close: () => client.close(),
  };
}

const isCompacted = (error: unknown): boolean => /revision has been compacted/.test(messageOf(error));

const stateOf = (holdings: readonly Holding[]): Map<string, Holding> =>
  new Map(holdings.map(holding => [keyOfHolding(holding), holding]));
