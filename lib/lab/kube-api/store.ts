/**
 * What the lab's API server remembers: every version of every object back to the last compaction, under one counter, as
 * etcd keeps them for Kubernetes. So a list can be read in pages of one revision, and a watch can begin in the past.
 */
import { randomUUID } from 'node:crypto';
import { type ApiObject, alreadyExists, conflict, expired, notFound, type Resource } from './objects.ts';

export interface Change {
  revision: number;
  resource: Resource;
  /** The object after the change; of a deletion, its last state with the revision of the deletion. */
  object: ApiObject;
  /** The object before it; none when it was created. */
  previous?: ApiObject;
  deleted: boolean;
}

export interface Page {
  items: ApiObject[];
  revision: number;
  /** The key to go on from; none at the end. */
  next?: string;
  remaining: number;
}

export class ObjectStore {
  /** As in a real cluster, whose counter has seen much before the first node. */
  #revision: number;
  #compacted: number;
  readonly #versions = new Map<string, { revision: number; object: ApiObject | undefined }[]>();
  #changes: Change[] = [];
  readonly #listeners = new Set<(change: Change) => void>();

  constructor(firstRevision = 1000) {
    this.#revision = firstRevision;
    this.#compacted = firstRevision;
  }

  get revision(): number {
    return this.#revision;
  }

  /** Calls `listener` at each change; returns what stops that. */
  subscribe(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  get(resource: Resource, namespace: string, name: string): ApiObject {
    const object = this.#versions.get(keyOf(resource, namespace, name))?.at(-1)?.object;
    if (object === undefined) throw notFound(resource, name);
    return structuredClone(object);
  }

  /** `object` needs metadata.name; what the server assigns (uid, versions, time) is assigned. */
  create(resource: Resource, object: ApiObject): ApiObject {
    const { name, namespace = '' } = object.metadata;
    const key = keyOf(resource, namespace, name);
    if (this.#versions.get(key)?.at(-1)?.object !== undefined) throw alreadyExists(resource, name);
    const made: ApiObject = {
      ...structuredClone(object),
      apiVersion: 'v1',
      kind: resource.kind,
      metadata: {
        ...structuredClone(object.metadata),
        uid: randomUUID(),
        creationTimestamp: `${new Date().toISOString().slice(0, 19)}Z`,
        resourceVersion: '',
      },
    };
    return this.#write(resource, key, made, undefined);
  }

  /** Writes an object that was read before; a resourceVersion in it must be the present one ('Conflict'). */
  update(resource: Resource, object: ApiObject): ApiObject {
    const { name, namespace = '', resourceVersion } = object.metadata;
    const before = this.get(resource, namespace, name);
    if (resourceVersion !== '' && resourceVersion !== before.metadata.resourceVersion) throw conflict(resource, name);
    const { uid, creationTimestamp } = before.metadata;
    const next = structuredClone(object);
    next.metadata = { ...next.metadata, uid, creationTimestamp, resourceVersion: before.metadata.resourceVersion };
    if (JSON.stringify(next) === JSON.stringify(before)) return before; // nothing changes, so nothing is written
    return this.#write(resource, keyOf(resource, namespace, name), next, before);
  }

  remove(resource: Resource, namespace: string, name: string): ApiObject {
    const before = this.get(resource, namespace, name);
    const last = structuredClone(before);
    last.metadata.resourceVersion = String(++this.#revision);
    this.#versions.get(keyOf(resource, namespace, name))!.push({ revision: this.#revision, object: undefined });
    this.#tell({ revision: this.#revision, resource, object: last, previous: before, deleted: true });
    return last;
  }

  /** One page in the order of the keys, as it was at `revision` (default: now), from the key after `after`. */
  list(resource: Resource, namespace: string, page: { revision?: number; after?: string; limit?: number } = {}): Page {
    const { revision = this.#revision, after = '', limit = 0 } = page;
    if (revision < this.#compacted) throw expired('The provided continue parameter is too old.');
    const prefix = keyOf(resource, namespace, '');
    const items: ApiObject[] = [];
    let next: string | undefined;
    let remaining = 0;
    for (const key of [...this.#versions.keys()].sort()) {
      if (!key.startsWith(prefix) || key <= after) continue;
      const object = this.#versions.get(key)!.findLast(version => version.revision <= revision)?.object;
      if (object === undefined) continue;
      if (limit > 0 && items.length === limit) {
        remaining++;
        continue;
      }
      items.push(object);
      next = key;
    }
    return { items, revision, remaining, ...(remaining > 0 && next !== undefined && { next }) };
  }

  /** What happened after a revision, oldest first, or 'compacted'. */
  changesAfter(revision: number): Change[] | 'compacted' {
    if (revision < this.#compacted) return 'compacted';
    return this.#changes.filter(change => change.revision > revision);
  }

  /** Forgets what was before the revision (default: now). */
  compact(revision = this.#revision): void {
    this.#compacted = Math.max(this.#compacted, revision);
    this.#changes = this.#changes.filter(change => change.revision > revision);
    for (const [key, versions] of this.#versions) {
      const kept = versions.filter((version, i) => version.revision > revision || i === versions.length - 1);
      if (kept.length === 1 && kept[0].object === undefined) this.#versions.delete(key);
      else this.#versions.set(key, kept);
    }
  }

  /** Becomes what another store is, as a restore from its backup does: whoever watches is not told. */
  restore(backup: ObjectStore): void {
    this.#revision = backup.#revision;
    this.#compacted = backup.#revision;
    this.#changes = [];
    this.#versions.clear();
    for (const [key, versions] of backup.#versions) this.#versions.set(key, versions.slice(-1));
  }

  #write(resource: Resource, key: string, object: ApiObject, previous: ApiObject | undefined): ApiObject {
    object.metadata.resourceVersion = String(++this.#revision);
    const versions = this.#versions.get(key) ?? [];
    versions.push({ revision: this.#revision, object });
    this.#versions.set(key, versions);
    this.#tell({ revision: this.#revision, resource, object, ...(previous && { previous }), deleted: false });
    return structuredClone(object);
  }

  #tell(change: Change): void {
    this.#changes.push(change);
    for (const listener of this.#listeners) listener(change);
  }
}

/** A NUL sorts before every character of a name. */
const keyOf = ({ plural, namespaced }: Resource, namespace: string, name: string): string =>
  namespaced && (namespace !== '' || name !== '') ? `${plural}\0${namespace}\0${name}` : `${plural}\0${name}`;
