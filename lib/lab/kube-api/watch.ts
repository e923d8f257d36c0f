/**
 * One watch of the lab's API server: the changes after a revision as lines of JSON, for as long as the client listens.
 *
 *   200, chunked: {"type":"ADDED","object":{…}}  MODIFIED  DELETED  BOOKMARK  and, where the past is gone, ERROR with a 410
 */
import type { ServerResponse } from 'node:http';
import { type ApiObject, expired, type Resource } from './objects.ts';
import type { Change, ObjectStore } from './store.ts';

export interface WatchOptions {
  resource: Resource;
  namespace: string;
  /** undefined: everything that exists first, then what happens. */
  from: number | undefined;
  matches: (object: ApiObject) => boolean;
  bookmarks: boolean;
  bookmarkMs: number;
  timeoutMs: number;
  /** Writes are cut into pieces of this many bytes, each on its own; 0 is whole lines. */
  chunkBytes: number;
}

/** An open watch, for tests that make it misbehave. */
export interface OpenWatch {
  /** From now on nothing is written though the connection stays. */
  freeze(): void;
  /** Writes this text as it is. */
  send(text: string): void;
  /** Closes the connection in the middle. */
  drop(): void;
}

export function serveWatch(store: ObjectStore, response: ServerResponse, options: WatchOptions): OpenWatch {
  const { resource, namespace, from, matches, bookmarks, bookmarkMs, timeoutMs, chunkBytes } = options;
  let frozen = false;
  let sent = from ?? store.revision;
  const write = (type: string, object: object): void => {
    if (frozen) return;
    const line = Buffer.from(`${JSON.stringify({ type, object })}\n`);
    const step = chunkBytes === 0 ? line.length : chunkBytes;
    for (let offset = 0; offset < line.length; offset += step) response.write(line.subarray(offset, offset + step));
  };
  const bookmark = (): void => {
    if (!bookmarks) return;
    const metadata = { resourceVersion: String(sent), creationTimestamp: null };
    write('BOOKMARK', { kind: resource.kind, apiVersion: 'v1', metadata });
  };
  const tell = (change: Change): void => {
    // As the real one: who asks from a version that is not there yet hears nothing until it has come and gone.
    if (from !== undefined && change.revision <= from) return;
    sent = change.revision;
    if (change.resource !== resource) return;
    if (namespace !== '' && change.object.metadata.namespace !== namespace) return;
    const type = typeOf(change, matches);
    if (type !== undefined) write(type, type === 'DELETED' ? lastState(change) : change.object);
  };

  response.writeHead(200, { 'content-type': 'application/json', 'transfer-encoding': 'chunked' });
  response.flushHeaders();
  const past = from === undefined ? [] : store.changesAfter(from);
  if (past === 'compacted') {
    write('ERROR', expired(`too old resource version: ${from} (${store.revision})`).status);
    response.end();
    return { freeze() {}, send() {}, drop: () => response.destroy() };
  }
  if (from === undefined) {
    for (const object of store.list(resource, namespace).items) if (matches(object)) write('ADDED', object);
  }
  for (const change of past) tell(change);

  const unsubscribe = store.subscribe(tell);
  const tick = setInterval(bookmark, bookmarkMs);
  const end = setTimeout(() => {
    bookmark();
    if (!frozen) response.end();
  }, timeoutMs);
  response.on('close', () => {
    unsubscribe();
    clearInterval(tick);
    clearTimeout(end);
  });
  return {
    freeze() {
      frozen = true;
    },
    send: text => void response.write(text),
    drop: () => response.destroy(),
  };
}

/** An object that begins to match is added, one that ceases to is deleted, for who looks through a selector. */
function typeOf(change: Change, matches: (object: ApiObject) => boolean): string | undefined {
  const before = change.previous !== undefined && matches(change.previous);
  const after = !change.deleted && matches(change.object);
  if (before && after) return 'MODIFIED';
  if (after) return 'ADDED';
  return before ? 'DELETED' : undefined;
}

function lastState({ object, previous, deleted, revision }: Change): ApiObject {
  if (deleted) return object;
  const last = structuredClone(previous!);
  last.metadata.resourceVersion = String(revision);
  return last;
}
