/**
 * A registry with etcd's behaviour, and the network between it and each process: messages are late, lost in either
 * direction, or done long after their sender has given them up. Here the registry never lies and the network always may.
 */
import {
  type Lease,
  type LeaseAttributes,
  type LeaseSubnets,
  parseSubnetKey,
  subnetKey,
  subnetsOf,
} from '../../lib/lease/lease.ts';
import { createOverlapIndex } from '../../lib/lease/overlap.ts';
import {
  type Events,
  type LeaseEvent,
  type NewLease,
  type Registry,
  RegistryError,
  type Snapshot,
} from '../../lib/lease/registry.ts';
import type { Timeline } from './timeline.ts';

/** What is stored; every verb happens at one moment. */
export class SimStore {
  readonly leases = new Map<string, { lease: Lease; endsAt: number }>();
  configText: string;
  revision = 1;
  /** Writes are refused: its disk is full, or we may only read. */
  readOnly = false;
  readonly #timeline: Timeline;
  /** Events of revisions above `compacted`, in order. */
  readonly #history: { revision: number; event: LeaseEvent }[] = [];
  #compacted = 0;
  /** How often it was restored: a history of its own each time. */
  epoch = 0;
  readonly listeners = new Set<(event?: LeaseEvent) => void>();

  constructor(timeline: Timeline, configText: string) {
    this.#timeline = timeline;
    this.configText = configText;
  }

  snapshot(): Snapshot {
    const leases = [...this.leases.values()].map(entry => entry.lease);
    return { kind: 'snapshot', leases, revision: this.revision };
  }

  /** What happened after a revision, or undefined where that was compacted or is of another history. */
  since(revision: number, epoch: number): Events | undefined {
    if (revision < this.#compacted || epoch !== this.epoch) return undefined;
    // The newest are few: look from the end.
    let first = this.#history.length;
    while (first > 0 && this.#history[first - 1].revision > revision) first--;
    return { kind: 'events', events: this.#history.slice(first).map(entry => entry.event), revision: this.revision };
  }

  compact(): void {
    this.#compacted = this.revision;
    this.#history.length = 0;
  }

  /** An operator's hand: a key is gone, or is another node's. */
  drop(key: string): void {
    if (this.leases.has(key)) this.#delete(key);
  }

  overwrite(subnets: LeaseSubnets, attributes: LeaseAttributes, ttlSeconds: number): void {
    this.drop(subnetKey(subnets));
    this.#put(subnets, attributes, ttlSeconds, undefined);
  }

  /** What is there now; the result puts it back, revision and all. Every lease has its whole TTL then. */
  backup(ttlSeconds: number): () => void {
    const saved = [...this.leases.values()].map(entry => entry.lease);
    const { revision } = this;
    return () => {
      this.leases.clear();
      this.#history.length = 0;
      this.#compacted = 0;
      this.revision = revision;
      this.epoch++;
      for (const lease of saved) {
        const entry = { lease, endsAt: Number.POSITIVE_INFINITY };
        this.leases.set(subnetKey(lease), entry);
        this.#arm(subnetKey(lease), entry, lease.expiresAtMs === null ? null : ttlSeconds);
      }
      for (const listener of this.listeners) listener();
    };
  }

  create(wanted: NewLease, ttlSeconds: number | null): Lease {
    this.#checkWritable();
    const index = createOverlapIndex<string>();
    for (const [key, { lease }] of this.leases) index.add(lease, key);
    const clash = index.find(wanted);
    if (clash !== undefined) throw new RegistryError('taken', `taken by ${clash.value}`);
    return this.#put(wanted, wanted.attributes, ttlSeconds, undefined);
  }

  /** `writes`: a renewal that changes nothing only starts the TTL again, as etcd's keep-alive does. */
  update(lease: Lease, attributes: LeaseAttributes, ttlSeconds: number | null, writes: boolean): Lease {
    this.#checkWritable();
    const entry = this.leases.get(subnetKey(lease));
    if (entry === undefined) throw new RegistryError('missing', 'no such lease');
    // As etcd/registry.ts: of what we wrote ourselves we know more than the revision, which another history may come to.
    if (entry.lease.modRevision !== lease.modRevision || entry.lease.attributes.PublicIP !== lease.attributes.PublicIP)
      throw new RegistryError('conflict', 'written by somebody else');
    if (writes) return this.#put(lease, attributes, ttlSeconds, entry.lease);
    this.#arm(subnetKey(lease), entry, ttlSeconds);
    return entry.lease;
  }

  remove(lease: Lease): void {
    this.#checkWritable();
    const entry = this.leases.get(subnetKey(lease));
    if (entry === undefined) return;
    if (entry.lease.modRevision !== lease.modRevision) throw new RegistryError('conflict', 'written by somebody else');
    this.#delete(subnetKey(lease));
  }

  /** A new leader of etcd gives every lease its whole TTL again. */
  extendAll(ttlSeconds: number): void {
    for (const [key, entry] of this.leases) {
      if (entry.lease.expiresAtMs !== null) this.#arm(key, entry, ttlSeconds);
    }
  }

  #checkWritable(): void {
    if (this.readOnly) throw new RegistryError('denied', 'the registry is read-only');
  }

  #put(subnets: LeaseSubnets, attributes: LeaseAttributes, ttlSeconds: number | null, old: Lease | undefined): Lease {
    this.revision++;
    const lease: Lease = {
      ...subnetsOf(subnets),
      attributes,
      expiresAtMs: ttlSeconds === null ? null : 1, // an estimate for people: nothing may depend on it
      createRevision: old?.createRevision ?? this.revision,
      modRevision: this.revision,
    };
    const entry = { lease, endsAt: Number.POSITIVE_INFINITY };
    this.leases.set(subnetKey(lease), entry);
    this.#arm(subnetKey(lease), entry, ttlSeconds);
    this.#happened({ kind: 'put', lease });
    return lease;
  }

  #arm(key: string, entry: { endsAt: number }, ttlSeconds: number | null): void {
    if (ttlSeconds === null) return;
    entry.endsAt = this.#timeline.now + ttlSeconds * 1000;
    this.#timeline.at(entry.endsAt, () => {
      if (this.leases.get(key) === entry && entry.endsAt <= this.#timeline.now) this.#delete(key);
    });
  }

  #delete(key: string): void {
    this.leases.delete(key);
    this.revision++;
    this.#happened({ kind: 'removed', ...parseSubnetKey(key)! });
  }

  #happened(event: LeaseEvent): void {
    this.#history.push({ revision: this.revision, event });
    for (const listener of this.listeners) listener(event);
  }
}

/** What the network does to one message. Milliseconds until it arrives, or undefined: never. */
export type Fate = () => number | undefined;

export interface Wire {
  timeline: Timeline;
  store: SimStore;
  /** To the registry, and back. */
  request: Fate;
  answer: Fate;
  /** Whether a message that arrives now gets through. */
  reaches(direction: 'request' | 'answer'): boolean;
  /** Hands something to the process when it can take it: not when it is dead, not before its machine wakes up. */
  deliver(action: () => void): void;
  /** A call came to nothing, or will be answered late: until then the node has a reason to be late itself. */
  onTrouble(untilMs: number): void;
  trace(text: string): void;
  /** How long watch events wait for company. */
  batchMs(): number;
}

const callTimeoutMs = 5000;
const lateMs = 100;

/** One process's connection. */
export function createSimRegistry(wire: Wire): Registry {
  const { timeline, store } = wire;
  const written = new Map<string, number>(); // key → the revision of this process's last write

  function call<T>(text: string, verb: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      let open = true;
      const finish = (how: string, action: () => void): void => {
        if (!open) return;
        wire.deliver(() => {
          if (!open) return;
          open = false;
          timer.cancelled = true;
          wire.trace(`${text}: ${how}`);
          action();
        });
      };
      const timer = timeline.after(callTimeoutMs, () => {
        wire.onTrouble(timeline.now);
        finish('no answer', () => reject(new RegistryError('unavailable', 'no answer in time')));
      });
      const there = wire.request();
      if (there === undefined) return;
      wire.onTrouble(there < lateMs ? 0 : timeline.now + Math.min(there, callTimeoutMs));
      timeline.after(there, () => {
        if (!wire.reaches('request')) return;
        let settle: () => void;
        let how = 'ok';
        try {
          const result = verb();
          settle = () => resolve(result);
        } catch (error) {
          how = (error as RegistryError).code;
          if (how === 'denied') wire.onTrouble(timeline.now);
          settle = () => reject(error);
        }
        if (!open) wire.trace(`${text}: done late: ${how}`);
        const back = wire.answer();
        if (back === undefined) return;
        wire.onTrouble(back < lateMs ? 0 : timeline.now + Math.min(back, callTimeoutMs));
        timeline.after(back, () => {
          if (wire.reaches('answer')) finish(how, settle);
        });
      });
    });
  }

  return {
    kind: 'etcd',
    config: () => call('config', () => ({ text: store.configText, revision: 1 })),
    list: () => call('list', () => store.snapshot()),
    async create(lease, ttlSeconds) {
      const made = await call(`create ${subnetKey(lease)}`, () => store.create(lease, ttlSeconds));
      written.set(subnetKey(made), made.modRevision);
      return made;
    },
    async update(lease, attributes, ttlSeconds) {
      const key = subnetKey(lease);
      const unchanged = JSON.stringify(attributes) === JSON.stringify(lease.attributes);
      // As etcd/registry.ts: the first update of a process always writes.
      const writes = !unchanged || written.get(key) !== lease.modRevision;
      const made = await call(`update ${key}`, () => store.update(lease, attributes, ttlSeconds, writes));
      written.set(key, made.modRevision);
      return made;
    },
    remove: lease => call(`remove ${subnetKey(lease)}`, () => store.remove(lease)),
    watch: signal => watchStore(wire, signal),
    close: async () => {},
  };
}

/** A stream that continues where it was or, where that was compacted, lists again. */
async function* watchStore(wire: Wire, signal: AbortSignal): AsyncGenerator<Snapshot | Events> {
  const { timeline, store } = wire;
  const queue: (Snapshot | Events)[] = [];
  let position: number | undefined;
  let epoch = 0;
  let ring = (): void => {};
  let scheduled = false;

  const flush = (): void => {
    scheduled = false;
    if (signal.aborted) return;
    if (!wire.reaches('request') || !wire.reaches('answer')) {
      schedule(2000);
      return;
    }
    const message = (position === undefined ? undefined : store.since(position, epoch)) ?? store.snapshot();
    epoch = store.epoch;
    position = message.revision;
    if (message.kind === 'events' && message.events.length === 0) return;
    if (message.kind === 'snapshot') wire.trace('lists again');
    wire.deliver(() => {
      queue.push(message);
      ring();
    });
  };
  const schedule = (ms: number): void => {
    if (scheduled) return;
    scheduled = true;
    timeline.after(ms, flush);
  };
  const listener = (): void => schedule(wire.batchMs());
  const wake = (): void => ring();
  store.listeners.add(listener);
  signal.addEventListener('abort', wake);
  schedule(wire.batchMs());
  try {
    while (!signal.aborted) {
      const message = queue.shift();
      if (message !== undefined) yield message;
      else {
        await new Promise<void>(resolve => {
          ring = resolve;
        });
      }
    }
  } finally {
    store.listeners.delete(listener);
    signal.removeEventListener('abort', wake);
  }
}
