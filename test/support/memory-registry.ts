// A registry in memory with the same verbs, rules and error codes as the real ones. It can be told to fail, to answer
// late and to lose answers, and it records the verbs in order.
import type { Clock } from '../../lib/lease/clock.ts';
import {
  type Lease,
  type LeaseAttributes,
  type LeaseSubnets,
  parseSubnetKey,
  printSubnets,
  subnetKey,
  subnetsOf,
} from '../../lib/lease/lease.ts';
import { createOverlapIndex } from '../../lib/lease/overlap.ts';
import {
  type Events,
  type LeaseEvent,
  type Registry,
  RegistryError,
  type RegistryErrorCode,
  type Snapshot,
} from '../../lib/lease/registry.ts';

type Verb = 'config' | 'list' | 'create' | 'update' | 'remove';

export interface MemoryRegistry extends Registry {
  /** "update 10.5.1.0-24", "create 10.5.2.0-24: taken", … in the order in which they were answered. */
  readonly calls: string[];
  /** What every verb rejects with until it is set to undefined again. */
  failure: RegistryErrorCode | undefined;
  /** Makes the next call of a verb do its work but reject with 'unavailable': the answer got lost. */
  loseAnswerOf: Verb | undefined;
  /** Verbs answer after this time of the clock; half of it is the way there. */
  latencyMs: number;
  /** Verbs hang until this is false. */
  frozen: boolean;
  /** Writes a lease as an operator or another daemon would, without any rule. */
  put(key: string, attributes: Partial<LeaseAttributes>, ttlSeconds: number | null): Lease;
  /** Removes one in the same way. */
  drop(key: string): void;
  /** What is there now; the result puts it back, with its revision: watchers get a snapshot of another history. */
  backup(): () => void;
  /** A value that nobody can read. */
  corrupt(key: string): void;
  /** "10.5.1.0-24 10.88.0.1 create 1 mod 2", sorted. */
  print(): string[];
}

export function createMemoryRegistry(clock: Clock, configText?: string): MemoryRegistry {
  const leases = new Map<string, Lease>();
  const unreadable = new Map<string, LeaseSubnets>();
  const closed = new AbortController();
  const history: LeaseEvent[] = []; // all that happened; watchers keep their place in it
  let revision = 0;
  let restored = 0; // how often
  let bell = new AbortController();

  const happened = (event: LeaseEvent): void => {
    history.push(event);
    const rung = bell;
    bell = new AbortController();
    rung.abort();
  };

  function expire(): void {
    for (const [key, lease] of leases) {
      if (lease.expiresAtMs === null || lease.expiresAtMs > clock.nowMs()) continue;
      leases.delete(key);
      revision++;
      happened({ kind: 'removed', ...subnetsOf(lease) });
    }
  }

  function write(subnets: LeaseSubnets, attributes: LeaseAttributes, ttlSeconds: number | null, old?: Lease): Lease {
    revision++;
    const lease: Lease = {
      ...subnetsOf(subnets),
      attributes: structuredClone(attributes),
      expiresAtMs: ttlSeconds === null ? null : clock.nowMs() + ttlSeconds * 1000,
      createRevision: old?.createRevision ?? revision,
      modRevision: revision,
    };
    leases.set(subnetKey(lease), lease);
    happened({ kind: 'put', lease });
    return lease;
  }

  function current(lease: Lease): Lease | undefined {
    const key = subnetKey(lease);
    if (unreadable.has(key)) throw new RegistryError('corrupt', `${key} cannot be read`);
    const found = leases.get(key);
    if (found !== undefined && found.modRevision !== lease.modRevision) {
      throw new RegistryError('conflict', `${key} is at revision ${found.modRevision}, not ${lease.modRevision}`);
    }
    return found;
  }

  async function call<T>(verb: Verb, subject: string, work: () => T): Promise<T> {
    while (registry.frozen) await clock.sleep(10);
    await clock.sleep(registry.latencyMs / 2);
    const text = subject === '' ? verb : `${verb} ${subject}`;
    try {
      if (registry.failure !== undefined) throw new RegistryError(registry.failure, 'as the test wants it');
      expire();
      const answer = structuredClone(work());
      if (registry.loseAnswerOf === verb) {
        registry.loseAnswerOf = undefined;
        throw new RegistryError('unavailable', 'the answer got lost');
      }
      registry.calls.push(text);
      await clock.sleep(registry.latencyMs / 2);
      return answer;
    } catch (error) {
      registry.calls.push(`${text}: ${error instanceof RegistryError ? error.code : String(error)}`);
      await clock.sleep(registry.latencyMs / 2);
      throw error;
    }
  }

  function snapshot(): Snapshot {
    const broken = unreadable.size === 0 ? {} : { unreadable: [...unreadable.values()] };
    return { kind: 'snapshot', leases: [...leases.values()], revision, ...broken };
  }

  async function* watch(signal: AbortSignal): AsyncGenerator<Snapshot | Events> {
    const ended = (): boolean => signal.aborted || closed.signal.aborted;
    if (ended()) return;
    expire();
    let seen = history.length;
    let world = restored;
    yield structuredClone(snapshot());
    while (!ended()) {
      expire();
      if (world !== restored) {
        world = restored;
        seen = history.length;
        yield structuredClone(snapshot());
        continue;
      }
      if (seen < history.length) {
        const events = structuredClone(history.slice(seen));
        seen = history.length;
        yield { kind: 'events', events, revision };
        continue;
      }
      const next = Math.min(...[...leases.values()].map(lease => lease.expiresAtMs ?? Number.POSITIVE_INFINITY));
      await clock.sleep(next - clock.nowMs(), AbortSignal.any([bell.signal, signal, closed.signal]));
    }
  }

  const registry: MemoryRegistry = {
    kind: 'file',
    calls: [],
    failure: undefined,
    loseAnswerOf: undefined,
    latencyMs: 0,
    frozen: false,

    config: () =>
      call('config', '', () => {
        if (configText === undefined) throw new RegistryError('no-config', 'there is no configuration');
        return { text: configText, revision: 1 };
      }),
    list: () => call('list', '', snapshot),
    create: (wanted, ttlSeconds) =>
      call('create', subnetKey(wanted), () => {
        const index = createOverlapIndex<string>();
        for (const [key, lease] of leases) index.add(lease, key);
        for (const [key, subnets] of unreadable) index.add(subnets, key);
        const clash = index.find(wanted);
        if (clash !== undefined) throw new RegistryError('taken', `${printSubnets(wanted)} is taken by ${clash.value}`);
        return write(wanted, wanted.attributes, ttlSeconds);
      }),
    update: (lease, attributes, ttlSeconds) =>
      call('update', subnetKey(lease), () => {
        const found = current(lease);
        if (found === undefined) throw new RegistryError('missing', `${subnetKey(lease)} does not exist`);
        return write(found, attributes, ttlSeconds, found);
      }),
    remove: lease =>
      call('remove', subnetKey(lease), () => {
        const found = current(lease);
        if (found !== undefined) registry.drop(subnetKey(found));
      }),
    watch,
    async close() {
      closed.abort();
    },

    put(key, attributes, ttlSeconds) {
      const subnets = parseSubnetKey(key);
      if (subnets === undefined) throw new Error(`${key} is not a subnet's key`);
      unreadable.delete(key);
      return structuredClone(
        write(subnets, { PublicIP: '10.88.0.250', PublicIPv6: null, ...attributes }, ttlSeconds, leases.get(key)),
      );
    },
    drop(key) {
      const lease = leases.get(key);
      unreadable.delete(key);
      if (lease === undefined) return;
      leases.delete(key);
      revision++;
      happened({ kind: 'removed', ...subnetsOf(lease) });
    },
    backup() {
      const saved = structuredClone({ leases: [...leases], revision });
      return () => {
        leases.clear();
        for (const [key, lease] of structuredClone(saved.leases)) leases.set(key, lease);
        revision = saved.revision;
        restored++;
        const rung = bell;
        bell = new AbortController();
        rung.abort();
      };
    },
    corrupt(key) {
      const subnets = parseSubnetKey(key);
      if (subnets === undefined) throw new Error(`${key} is not a subnet's key`);
      leases.delete(key);
      unreadable.set(key, subnets);
      revision++;
    },
    print() {
      expire();
      return [...leases]
        .map(([key, { attributes, createRevision, modRevision, expiresAtMs }]) => {
          const ttl = expiresAtMs === null ? ' reserved' : '';
          return `${key} ${attributes.PublicIP} create ${createRevision} mod ${modRevision}${ttl}`;
        })
        .sort();
    },
  };
  return registry;
}
