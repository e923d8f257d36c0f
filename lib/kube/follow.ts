// The nodes as they change, for ever: a list in pages, then a watch from its version, and again when the watch ends.
//
// What can go wrong with a watch, and what is done:
// - It stalls without an end (a load balancer that forgot the connection): bookmarks come every minute, and where nothing
//   came for `idleMs` the watch begins again, from the version that was seen last.
// - The server forgot that version (410 Gone, or an ERROR event that says so): list again; the table says what changed.
// - The server is away, busy (429, Retry-After) or does not know us any more: wait, longer each time, and go on from the
//   version that was seen last. What is known stays in force meanwhile.
// - It comes back and thousands of nodes come at once: every wait is drawn at random, also the one before a list.
// - It says yes to a watch and ends it at once, again and again: only a watch that brought something, or lived for a while, ends
//   the waiting that grows.
// - It lets us list and not watch: nothing is told before the first watch is allowed, or a node would be ready and never follow.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Events, LeaseEvent, Snapshot, WatchTrouble } from '../lease/registry.ts';
import { RegistryError } from '../lease/registry.ts';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { Api } from './api.ts';
import { ApiFailure } from './failure.ts';
import type { NodeFacts } from './node.ts';
import type { NodeTable } from './table.ts';
import type { Versions } from './versions.ts';

export interface FollowTimes {
  /** Without a byte for so long, the watch begins again. */
  idleMs: number;
  /** The server is asked to end a watch after this to twice this. */
  watchSeconds: number;
  /** Before a list that follows a gap: drawn from 0 to this, or to more in a large cluster. */
  spreadMs: number;
  /** Of waits that grow. */
  firstPauseMs: number;
  longestPauseMs: number;
  /** A watch that lived for so long counts as one that works, though no node changed and no bookmark came. */
  provenMs: number;
}

/** Bookmarks come once a minute; client-go, too, asks for five to ten minutes. */
export const usualTimes: FollowTimes = {
  idleMs: 150_000,
  watchSeconds: 300,
  spreadMs: 5000,
  firstPauseMs: 500,
  longestPauseMs: 30_000,
  provenMs: 60_000,
};

export interface FollowOptions {
  api: Api;
  table: NodeTable;
  versions: Versions;
  /** undefined: no Node at all. */
  read: (object: unknown) => NodeFacts | undefined;
  /** Sees every node that comes or changes. */
  onNode?: (facts: NodeFacts) => void;
  /** The table holds the nodes of this version already: go on from there. */
  from?: string | undefined;
  log: Logger;
  signal: AbortSignal;
  onTrouble?: WatchTrouble | undefined;
  times: FollowTimes;
  random: () => number;
}

const pageSize = 500;
/** A list whose later pages are gone begins anew: a cluster that compacts faster than we read. */
const mostListings = 3;
const reminderMs = 60_000;
const shortestWatchMs = 500;
/** A gap is one of all N nodes, and each lists N nodes: within a minute 5,000 ask for 800 pages a second. */
const spreadPerNodeMs = 12;

/** How long the wait before a list may be in a cluster of so many nodes; drawn at random below that. */
export const spreadOf = (nodes: number, spreadMs: number): number => Math.max(spreadMs, nodes * spreadPerNodeMs);

/** The server cannot tell what happened since the version that we know. */
class Gap extends Error {}

/** All nodes at one version, page by page: what is not needed of a page is dropped before the next one comes. */
export async function listNodes({
  api,
  read,
}: Pick<FollowOptions, 'api' | 'read'>): Promise<{ nodes: NodeFacts[]; version: string }> {
  for (let listing = 1; ; listing++) {
    try {
      return await listOnce(api, read);
    } catch (error) {
      if (!(error instanceof ApiFailure && error.status === 410) || listing === mostListings) throw error;
    }
  }
}

async function listOnce(api: Api, read: FollowOptions['read']): Promise<{ nodes: NodeFacts[]; version: string }> {
  const nodes: NodeFacts[] = [];
  for (let token = ''; ; ) {
    const query = { limit: String(pageSize), ...(token !== '' && { continue: token }) };
    const page = await api.request({ purpose: { verb: 'list', resource: 'nodes' }, path: '/api/v1/nodes', query });
    const { items, metadata } = page as {
      items?: unknown;
      metadata?: { resourceVersion?: unknown; continue?: unknown };
    };
    if (!Array.isArray(items) || typeof metadata?.resourceVersion !== 'string') {
      throw new RegistryError('unavailable', `the API server at ${api.server} answers what is no list of nodes`);
    }
    for (const item of items) {
      const facts = read(item);
      if (facts !== undefined) nodes.push(facts);
    }
    token = typeof metadata.continue === 'string' ? metadata.continue : '';
    if (token === '') return { nodes, version: metadata.resourceVersion };
  }
}

/** Never throws because of the server; ends when the signal is aborted. */
export async function* followNodes(options: FollowOptions): AsyncGenerator<Snapshot | Events> {
  const { api, table, versions, read, onNode, log, signal, onTrouble, times, random } = options;
  const { firstPauseMs, longestPauseMs } = times;
  let version = options.from;
  let pauseMs = firstPauseMs;
  let doubtful = false;
  let awaySince: number | undefined;
  let saidAt = Number.NEGATIVE_INFINITY;
  let saidKind = 0;
  const pause = (ms: number): Promise<void> => sleep(ms, undefined, { signal }).catch(() => {}); // aborted: the loop sees it

  const isBack = (): void => {
    if (awaySince !== undefined) {
      const seconds = Math.round((performance.now() - awaySince) / 1000);
      log.info({ server: api.server, seconds, nodes: table.size }, 'the API server is back: watching nodes again');
    }
    awaySince = undefined;
    saidAt = Number.NEGATIVE_INFINITY;
    pauseMs = firstPauseMs;
  };

  // The first snapshot, until the first watch was tried: one that is refused must not look like one that works.
  let held = true;
  const snapshot = (): Snapshot => table.snapshot(versions.revisionOf(version!));
  while (!signal.aborted) {
    try {
      if (version === undefined) {
        const list = await listNodes({ api, read });
        if (signal.aborted) return;
        if (versions.atPresent(list.version)) {
          log.warn(
            { version: list.version },
            'the cluster counts from an older version: it was restored from a backup',
          );
        }
        table.replace(list.nodes);
        for (const facts of list.nodes) onNode?.(facts);
        version = list.version;
        if (!held) yield snapshot();
      }
      if (doubtful) await checkPresent(api, versions);
      doubtful = false;
      const startedAt = performance.now();
      for await (const batch of watchFrom(version, options, isBack)) {
        if (batch === 'open') {
          onTrouble?.(undefined);
          if (!held) continue;
          held = false;
          yield snapshot();
          continue;
        }
        isBack();
        version = batch.version;
        for (const facts of batch.seen) onNode?.(facts);
        if (batch.events.length > 0) {
          yield { kind: 'events', events: batch.events, revision: versions.revisionOf(version) };
        }
      }
      // It ended as it should, after its time; one that ends at once would begin again at once, for ever.
      if (performance.now() - startedAt < shortestWatchMs) throw new Error('the watch ended as soon as it began');
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Gap) {
        log.info({ reason: messageOf(error) }, 'the watch of nodes has a gap: listing them again');
        version = undefined;
        await pause(random() * spreadOf(table.size, times.spreadMs));
        continue;
      }
      onTrouble?.(messageOf(error));
      const isRefused = error instanceof ApiFailure && error.status === 403;
      if (held && version !== undefined && !isRefused) {
        held = false;
        yield snapshot(); // the server went away in between: what it listed is known
      }
      doubtful = true;
      const now = performance.now();
      awaySince ??= now;
      // Once a minute, and when it is something else: a server that is back and does not know us any more.
      const kind = error instanceof ApiFailure ? error.status : -1;
      if (now - saidAt >= reminderMs || kind !== saidKind) {
        saidAt = now;
        saidKind = kind;
        const effect = held ? 'nobody is followed, so this node is not ready' : 'going on with what is known';
        log.warn({ reason: messageOf(error) }, `the watch of nodes is interrupted: ${effect}`);
      }
      const asked = error instanceof ApiFailure ? (error.retryAfterMs ?? 0) : 0;
      await pause(asked + pauseMs * (0.5 + random()));
      pauseMs = Math.min(pauseMs * 2, longestPauseMs);
    }
  }
}

/**
 * A server that was away may be another one when it is back, with a store from a backup. It would let us watch from a version
 * that it does not have, and say nothing until it has. Throws Gap.
 */
async function checkPresent(api: Api, versions: Versions): Promise<void> {
  const query = { limit: '1' };
  const page = await api.request({ purpose: { verb: 'list', resource: 'nodes' }, path: '/api/v1/nodes', query });
  const version = versionOf(page);
  if (version !== undefined && versions.isOlder(version)) throw new Gap(`its version is ${version} now, an older one`);
}

interface Batch {
  events: LeaseEvent[];
  seen: NodeFacts[];
  version: string;
}

/** One watch, until the server ends it; `onProven` when it has lived for a while. Throws Gap, and what `lines` throws. */
async function* watchFrom(from: string, options: FollowOptions, onProven: () => void): AsyncGenerator<Batch | 'open'> {
  const { api, table, read, signal, times, random } = options;
  const query = {
    watch: 'true',
    resourceVersion: from,
    allowWatchBookmarks: 'true',
    timeoutSeconds: String(Math.ceil(times.watchSeconds * (1 + random()))),
  };
  const call = { purpose: { verb: 'watch', resource: 'nodes' } as const, path: '/api/v1/nodes', query, signal };
  let timer: NodeJS.Timeout | undefined;
  try {
    for await (const line of api.lines(call, times.idleMs)) {
      if (line === '') {
        timer = setTimeout(onProven, times.provenMs);
        yield 'open';
        continue;
      }
      const { type, object } = eventOf(line, api.server);
      if (type === 'ERROR') throw errorOf(object, api.server);
      const version = versionOf(object);
      if (version === undefined) throw nonsense(api.server, line);
      if (type === 'BOOKMARK') yield { events: [], seen: [], version };
      const facts = read(object);
      if (facts === undefined) continue;
      if (type === 'DELETED') yield { events: table.remove(facts.name), seen: [], version };
      else if (type === 'ADDED' || type === 'MODIFIED') yield { events: table.put(facts), seen: [facts], version };
    }
  } catch (error) {
    if (error instanceof ApiFailure && isGone(error.status, error.message)) throw new Gap(error.message);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function eventOf(line: string, server: string): { type: unknown; object: unknown } {
  try {
    const event = JSON.parse(line) as { type?: unknown; object?: unknown } | null;
    if (typeof event === 'object' && event !== null) return { type: event.type, object: event.object };
  } catch {
    // said below
  }
  throw nonsense(server, line);
}

function versionOf(object: unknown): string | undefined {
  const version = (object as { metadata?: { resourceVersion?: unknown } } | null)?.metadata?.resourceVersion;
  return typeof version === 'string' && version !== '' ? version : undefined;
}

function errorOf(object: unknown, server: string): Error {
  const { code, message } = (object ?? {}) as { code?: unknown; message?: unknown };
  const text = typeof message === 'string' ? message.slice(0, 300) : 'no reason given';
  if (isGone(Number(code), text)) return new Gap(text);
  return new ApiFailure('unavailable', `the API server at ${server} ends the watch: ${text}`, { status: Number(code) });
}

/** The past was compacted, or is not there yet: the store was restored from a backup (storage.NewTooLargeResourceVersionError). */
const isGone = (status: number, text: string): boolean => status === 410 || text.includes('Too large resource version');

const nonsense = (server: string, line: string): RegistryError =>
  new RegistryError('unavailable', `the API server at ${server} sends no watch event: ${line.slice(0, 80)}`);
