/**
 * The registry as this node meets it: how long each verb takes, what it is refused with, and whether it is well. A
 * registry is well when the last answer to each verb was an answer (that a subnet is taken is one), no call has been
 * waiting for long, and its watch is attached.
 */
import type { Clock } from '../lease/clock.ts';
import { type Events, type Registry, registryCodeOf, type Snapshot, type WatchTrouble } from '../lease/registry.ts';
import { messageOf } from '../util/errors.ts';
import { Histogram } from './histogram.ts';

export const VERBS = ['config', 'list', 'create', 'update', 'remove'] as const;
export type Verb = (typeof VERBS)[number];

export interface RegistryHealth {
  healthy: boolean;
  /** One line; absent while it is well. */
  reason?: string;
  /** Since when it is not well. */
  forMs?: number;
}

interface Trouble {
  code: string;
  reason: string;
  sinceMs: number;
}

/** An answer to one of these says that the others would be answered, too. A registry that is read can still refuse writes. */
const READS: readonly Verb[] = ['config', 'list'];
const WRITES: readonly Verb[] = ['create', 'update', 'remove'];

/** What a refusal means for the one who asked, not for the registry. */
const ANSWERS = new Set(['taken', 'conflict', 'missing']);
/** Every verb has a deadline of its own beyond this; that it is late is worth saying before. */
const LATE_MS = 5_000;

export class RegistryMeter {
  readonly #clock: Clock;
  readonly latency = new Map<Verb, Histogram>(VERBS.map(verb => [verb, new Histogram()]));
  /** "update unavailable" → how often. */
  readonly errors = new Map<string, number>();
  /** How often the watch was interrupted. */
  watchInterruptions = 0;
  readonly #trouble = new Map<Verb | 'watch', Trouble>();
  readonly #waiting = new Map<symbol, { verb: Verb; sinceMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get health(): RegistryHealth {
    const now = this.#clock.monotonicMs();
    const late = [...this.#waiting.values()]
      .filter(({ sinceMs }) => now - sinceMs > LATE_MS)
      .map(({ verb, sinceMs }) => ({ code: 'late', reason: `it has not answered "${verb}" yet`, sinceMs }));
    const [oldest] = [...this.#trouble.values(), ...late].sort((a, b) => a.sinceMs - b.sinceMs);
    return oldest === undefined
      ? { healthy: true }
      : { healthy: false, reason: oldest.reason, forMs: now - oldest.sinceMs };
  }

  /** Runs a verb and remembers how it went. */
  async measure<T>(verb: Verb, call: () => Promise<T>): Promise<T> {
    const sinceMs = this.#clock.monotonicMs();
    const key = Symbol(verb);
    this.#waiting.set(key, { verb, sinceMs });
    try {
      const result = await call();
      this.#answered(verb);
      return result;
    } catch (error) {
      const code = registryCodeOf(error) ?? 'internal';
      const name = `${verb} ${code}`;
      this.errors.set(name, (this.errors.get(name) ?? 0) + 1);
      if (ANSWERS.has(code)) this.#answered(verb);
      else this.#fail(verb, code, messageOf(error));
      throw error;
    } finally {
      this.#waiting.delete(key);
      this.latency.get(verb)?.observe((this.#clock.monotonicMs() - sinceMs) / 1000);
    }
  }

  /** What a watch tells of itself. */
  readonly watched: WatchTrouble = reason => {
    if (reason === undefined) {
      this.#trouble.delete('watch');
      return;
    }
    if (!this.#trouble.has('watch')) this.watchInterruptions++;
    this.#fail('watch', 'unavailable', reason);
  };

  #answered(verb: Verb): void {
    this.#trouble.delete(verb);
    const reachable = WRITES.includes(verb) ? [...READS, ...WRITES] : READS;
    for (const other of reachable) if (this.#trouble.get(other)?.code === 'unavailable') this.#trouble.delete(other);
  }

  /** The reason is the newest, the beginning the oldest. */
  #fail(what: Verb | 'watch', code: string, reason: string): void {
    const sinceMs = this.#trouble.get(what)?.sinceMs ?? this.#clock.monotonicMs();
    this.#trouble.set(what, { code, reason, sinceMs });
  }
}

/** The same registry, measured. */
export function measureRegistry(registry: Registry, meter: RegistryMeter): Registry {
  const { thisNode, announceReady } = registry;
  return {
    kind: registry.kind,
    config: () => meter.measure('config', () => registry.config()),
    list: () => meter.measure('list', () => registry.list()),
    create: (...lease) => meter.measure('create', () => registry.create(...lease)),
    update: (...lease) => meter.measure('update', () => registry.update(...lease)),
    remove: lease => meter.measure('remove', () => registry.remove(lease)),
    watch: (signal, onTrouble) => watch(registry, meter, signal, onTrouble),
    close: () => registry.close(),
    ...(thisNode !== undefined && { thisNode: () => thisNode.call(registry) }),
    ...(announceReady !== undefined && { announceReady: () => announceReady.call(registry) }),
  };
}

async function* watch(
  registry: Registry,
  meter: RegistryMeter,
  signal: AbortSignal,
  onTrouble: WatchTrouble | undefined,
): AsyncGenerator<Snapshot | Events> {
  const tell: WatchTrouble = reason => {
    meter.watched(reason);
    onTrouble?.(reason);
  };
  try {
    for await (const message of registry.watch(signal, tell)) {
      tell(undefined);
      yield message;
    }
  } finally {
    meter.watched(undefined); // nobody watches: nothing is known of it
  }
}
