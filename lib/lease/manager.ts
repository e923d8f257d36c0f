// The policy over a registry's verbs: what a node takes, when it renews, when it must stop.
//
// The deadline. A registry keeps a lease for TTL after it *processed* a renewal, so a node may trust its lease until TTL
// after it *sent* the last renewal that was acknowledged; counted by the monotonic clock, that moment can only be early,
// never late. Past it the node is fenced: it forwards nothing until a renewal succeeds again.
//
//   acquire ──► renewed ──► renewed ──► … every TTL − margin, or every TTL/3 where that is later
//                 │  ▲
//   deadline past ▼  │ the registry answers again and nobody took the subnet: 'renewed', or 'reacquired' (a new lease key)
//               fenced ──► somebody else holds it: 'lost', and run() ends
import { messageOf, TulleError } from '../util/errors.ts';
import { type Logger, silentLogger } from '../util/log.ts';
import { formatCidr4, formatCidr6 } from '../wire/cidr.ts';
import { type Choice, chooseLease, isOwn, type LeaseRequest } from './choose.ts';
import { type Clock, systemClock } from './clock.ts';
import { type Lease, mergeAttributes, nodeIdOf, printSubnets, subnetKey, subnetsOf } from './lease.ts';
import { createOverlapIndex } from './overlap.ts';
import { type Events, type Registry, registryCodeOf, type Snapshot } from './registry.ts';
import { createRetry } from './retry.ts';

export interface ManagerOptions {
  registry: Registry;
  clock?: Clock;
  /** 0 <= random() < 1 */
  random?: () => number;
  log?: Logger;
}

export interface AcquireRequest extends LeaseRequest {
  ttlSeconds: number;
}

export interface RunOptions {
  /** Renew this long before the lease ends, but not before a third of it is over. flannel: 3600. */
  marginSeconds: number;
}

export type ManagerEvent =
  | { kind: 'renewed'; lease: Lease }
  /** The deadline passed without an acknowledged renewal: stop forwarding. 'renewed' or 'reacquired' ends it. */
  | { kind: 'fenced'; lease: Lease }
  /** The key was gone and we made it again: the same subnet with a new lease key. */
  | { kind: 'reacquired'; lease: Lease; previous: Lease }
  /** Somebody else holds the subnet; `reason` is one line. */
  | { kind: 'lost'; lease: Lease; reason: string };

export class LeaseManager {
  readonly #registry: Registry;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #log: Logger;
  readonly #listeners = new Set<(event: ManagerEvent) => void>();
  #request: AcquireRequest | undefined;
  #lease: Lease | undefined;
  #deadline = Number.NEGATIVE_INFINITY;
  #due = false;
  /** Aborted and replaced whenever the loops of run() must look again. */
  #bell = new AbortController();

  constructor(options: ManagerOptions) {
    this.#registry = options.registry;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#log = options.log ?? silentLogger;
  }

  /** The lease as the registry last acknowledged it. */
  get lease(): Lease | undefined {
    return this.#lease;
  }

  /** Monotonic milliseconds (of the clock) until which the lease is proven; Infinity for a reservation. */
  get deadline(): number {
    return this.#deadline;
  }

  /** Whether forwarding must stop now. */
  get fenced(): boolean {
    return this.#clock.monotonicMs() >= this.#deadline;
  }

  /** Calls `listener` at each event of run(); returns what stops that. */
  subscribe(listener: (event: ManagerEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Takes a lease in the order of choose.ts. Waits while the registry is unavailable (one warning a minute) until the
   * signal is aborted. Throws TulleError 'out-of-subnets', 'address-conflict' (another node's lease carries our address
   * and we have none yet), 'contention', 'aborted', or the registry's own error ('denied', 'corrupt').
   */
  async acquire(request: AcquireRequest, signal?: AbortSignal): Promise<Lease> {
    const retry = createRetry(this.#clock, this.#random, this.#log);
    for (let collisions = 0; collisions < maximumCollisions; ) {
      if (signal?.aborted) throw new TulleError('aborted', 'stopped before a lease was acquired');
      try {
        return await this.#tryAcquire(request, collisions);
      } catch (error) {
        const code = registryCodeOf(error);
        if (code === 'unavailable') {
          await retry.failed(error, 'the lease registry is unavailable, trying again', signal);
        } else if (isOneOf(code, 'taken', 'conflict', 'missing')) {
          // Somebody was faster. Look again soon, but not all losers at once.
          collisions++;
          this.#log.debug({ attempt: collisions, reason: messageOf(error) }, 'subnet was taken, choosing again');
          await this.#clock.sleep(this.#random() * collisionPauseMs * Math.min(collisions, 10), signal);
        } else {
          throw error;
        }
      }
    }
    throw new TulleError(
      'contention',
      `every one of ${maximumCollisions} chosen subnets was taken by another node first: start again in a moment`,
    );
  }

  async #tryAcquire(request: AcquireRequest, collisions: number): Promise<Lease> {
    const snapshot = await this.#registry.list();
    // Many nodes that start at once fill the first hundred quickly: each collision doubles the choice.
    const width = 100 * 2 ** Math.min(collisions, 14);
    const choice = chooseLease(snapshot, request, { random: this.#random, width });
    this.#report(choice, request);
    for (const lease of choice.discard) await this.#registry.remove(lease);

    const sent = this.#clock.monotonicMs();
    const { action } = choice;
    if (action.kind === 'full') throw outOfSubnets(request, snapshot);
    let lease: Lease;
    if (action.kind === 'keep') {
      const attributes = mergeAttributes(action.lease.attributes, request.attributes);
      const ttlSeconds = action.lease.expiresAtMs === null ? null : request.ttlSeconds;
      lease = await this.#registry.update(action.lease, attributes, ttlSeconds);
    } else {
      lease = await this.#registry.create({ ...action.subnets, attributes: request.attributes }, request.ttlSeconds);
    }
    this.#accept(lease, sent, request);
    return lease;
  }

  #report({ action, discard, unusable, conflict }: Choice, request: AcquireRequest): void {
    for (const lease of discard) {
      this.#log.warn({ lease: printSubnets(lease) }, 'own lease does not fit the network configuration, replacing it');
    }
    for (const lease of unusable) {
      this.#log.warn(
        { lease: printSubnets(lease) },
        'the reservation for this node does not fit the network configuration',
      );
    }
    if (conflict === undefined) return;
    const text =
      `${request.attributes.PublicIP} is also the PublicIP of ${holderOf(conflict)}: ` +
      'give each node its own address (-iface, -public-ip), or take that lease over with --node-id';
    if (action.kind !== 'keep') throw new TulleError('address-conflict', text);
    this.#log.warn({ lease: printSubnets(conflict), node: nodeIdOf(conflict) }, text);
  }

  /**
   * Keeps the acquired lease until the signal is aborted ('stopped') or somebody else holds it ('lost'). Never throws;
   * an unavailable registry is asked again after 1 s to 30 s, with one warning a minute.
   */
  async run(signal: AbortSignal, options: RunOptions): Promise<'stopped' | 'lost'> {
    if (this.#lease === undefined) throw new TulleError('no-lease', 'run() needs a lease: call acquire() first');
    const ended = new AbortController();
    const fence = this.#runFence(ended.signal);
    const { promise: stopped, stop } = stopOf(signal);
    signal.addEventListener('abort', stop);
    try {
      // A request that hangs must not delay the stop; what it still does cannot hurt.
      return await Promise.race([this.#runRenewal(signal, options), stopped]);
    } finally {
      signal.removeEventListener('abort', stop);
      ended.abort();
      this.#ring();
      await fence;
    }
  }

  /**
   * Tells the manager what a watch saw. Should our own key be gone or written by somebody else, it looks at once
   * instead of at the next renewal.
   */
  observe(message: Snapshot | Events): void {
    const lease = this.#lease;
    if (lease === undefined || message.revision < lease.modRevision) return;
    const request = this.#request!;
    const key = subnetKey(lease);
    // Our own writes come back through the watch, sometimes before their answer: a key that is ours is well.
    const isWell = (found: Lease | undefined): boolean => found !== undefined && isOwn(found, request);
    let well: boolean;
    if (message.kind === 'snapshot') {
      well = isWell(message.leases.find(other => subnetKey(other) === key));
    } else {
      const last = message.events.findLast(event => subnetKey(event.kind === 'put' ? event.lease : event) === key);
      well = last === undefined || (last.kind === 'put' && isWell(last.lease));
    }
    if (well) return;
    this.#due = true;
    this.#ring();
  }

  /** Gives the lease back; does nothing without one. A reservation stays: it is the operator's. */
  async release(): Promise<void> {
    const lease = this.#lease;
    this.#lease = undefined;
    this.#deadline = Number.NEGATIVE_INFINITY;
    if (lease !== undefined && lease.expiresAtMs !== null) await this.#registry.remove(lease);
  }

  // ---- the loops of run()

  async #runRenewal(signal: AbortSignal, { marginSeconds }: RunOptions): Promise<'stopped' | 'lost'> {
    const retry = createRetry(this.#clock, this.#random, this.#log, (this.#request!.ttlSeconds * 1000) / 3);
    while (!signal.aborted) {
      if (!this.#due && this.#clock.monotonicMs() < this.#renewAt(marginSeconds)) {
        await this.#sleepUntil(this.#renewAt(marginSeconds));
        continue;
      }
      this.#due = false;
      try {
        const reason = await this.#renew(signal);
        retry.succeeded('the lease registry is back');
        if (reason === undefined || signal.aborted) continue;
        this.#deadline = Number.NEGATIVE_INFINITY;
        this.#emit({ kind: 'lost', lease: this.#lease!, reason });
        return 'lost';
      } catch (error) {
        this.#due = true;
        if (signal.aborted) break;
        await retry.failed(error, 'the lease could not be renewed, trying again', signal);
      }
    }
    return 'stopped';
  }

  #renewAt(marginSeconds: number): number {
    if (this.#deadline === Number.POSITIVE_INFINITY) return this.#deadline;
    const ttl = this.#request!.ttlSeconds;
    return this.#deadline - 1000 * Math.min(marginSeconds, (ttl * 2) / 3);
  }

  /** Says 'fenced' once when the deadline passes, while the other loop may be waiting for an answer. */
  async #runFence(signal: AbortSignal): Promise<void> {
    let said = false;
    while (!signal.aborted) {
      if (!this.fenced) said = false;
      else if (!said) {
        said = true;
        if (this.#lease !== undefined) this.#emit({ kind: 'fenced', lease: this.#lease });
      }
      await this.#sleepUntil(said ? Number.POSITIVE_INFINITY : this.#deadline);
    }
  }

  /**
   * Renews by compare-and-swap. Where somebody removed or wrote our key meanwhile: adopts it when it is still ours, makes
   * it again when it is free. Returns why the lease is lost, or undefined.
   */
  async #renew(signal: AbortSignal): Promise<string | undefined> {
    const request = this.#request!;
    const previous = this.#lease!;
    const key = subnetKey(previous);
    let base = previous;
    for (let attempt = 0; !signal.aborted; attempt++) {
      const attributes = mergeAttributes(base.attributes, request.attributes);
      const sent = this.#clock.monotonicMs();
      try {
        const ttlSeconds = base.expiresAtMs === null ? null : request.ttlSeconds;
        this.#accept(await this.#registry.update(base, attributes, ttlSeconds), sent, request);
        break;
      } catch (error) {
        if (!isOneOf(registryCodeOf(error), 'missing', 'conflict') || attempt >= maximumCollisions) throw error;
      }

      const snapshot = await this.#registry.list();
      const found = snapshot.leases.find(other => subnetKey(other) === key);
      const lost = found === undefined ? whyTaken(snapshot, previous) : whyForeign(found, request);
      if (lost !== undefined) return lost;
      if (found !== undefined) {
        base = found; // ours, written by somebody or by a request whose answer got lost
        continue;
      }
      if (signal.aborted) break;
      const sentCreate = this.#clock.monotonicMs();
      try {
        const made = await this.#registry.create({ ...subnetsOf(previous), attributes }, request.ttlSeconds);
        this.#accept(made, sentCreate, request);
        break;
      } catch (error) {
        if (registryCodeOf(error) !== 'taken') throw error; // taken since the list: look again
      }
    }
    const lease = this.#lease!;
    if (lease === previous) return undefined;
    if (lease.createRevision === previous.createRevision) this.#emit({ kind: 'renewed', lease });
    else this.#emit({ kind: 'reacquired', lease, previous });
    return undefined;
  }

  #accept(lease: Lease, sentMs: number, request: AcquireRequest): void {
    this.#lease = lease;
    this.#request = request;
    this.#deadline = lease.expiresAtMs === null ? Number.POSITIVE_INFINITY : sentMs + request.ttlSeconds * 1000;
    this.#ring();
  }

  #emit(event: ManagerEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #ring(): void {
    const bell = this.#bell;
    this.#bell = new AbortController();
    bell.abort();
  }

  #sleepUntil(monotonicMs: number): Promise<void> {
    return this.#clock.sleep(monotonicMs - this.#clock.monotonicMs(), this.#bell.signal);
  }
}

/** Each collision means that another node got a subnet, so a node that loses so often meets something else. */
const maximumCollisions = 32;
const collisionPauseMs = 20;

const isOneOf = <T>(value: T | undefined, ...allowed: T[]): boolean => value !== undefined && allowed.includes(value);

/** A promise that a signal's 'abort' resolves. */
function stopOf(signal: AbortSignal): { promise: Promise<'stopped'>; stop: () => void } {
  let stop = (): void => {};
  const promise = new Promise<'stopped'>(resolve => {
    stop = () => resolve('stopped');
    if (signal.aborted) stop();
  });
  return { promise, stop };
}

function whyForeign(found: Lease, request: LeaseRequest): string | undefined {
  return isOwn(found, request) ? undefined : `the subnet is now in ${holderOf(found)}`;
}

/** Why a lease that is gone cannot be made again. */
function whyTaken({ leases, unreadable = [] }: Snapshot, lease: Lease): string | undefined {
  const index = createOverlapIndex<Lease>();
  for (const subnets of unreadable) index.add(subnets, undefined);
  for (const other of leases) index.add(other, other);
  const clash = index.find(lease);
  if (clash === undefined) return undefined;
  return clash.value === undefined
    ? 'its entry in the registry cannot be read'
    : `the subnet is now in ${holderOf(clash.value)}`;
}

/** "the lease 10.5.3.0/24 of node a (10.88.0.2)" */
function holderOf(lease: Lease): string {
  const nodeId = nodeIdOf(lease);
  const address = lease.attributes.PublicIP;
  return `the lease ${printSubnets(lease)} of ${nodeId === undefined ? `node ${address}` : `node ${nodeId} (${address})`}`;
}

function outOfSubnets({ config }: LeaseRequest, { leases, unreadable = [] }: Snapshot): TulleError {
  const network = config.enableIPv4 ? formatCidr4(config.network) : formatCidr6(config.network6!);
  const held = leases.length + unreadable.length;
  return new TulleError(
    'out-of-subnets',
    `out of subnets: no free one is left in ${network} (${held} leases): ` +
      'enlarge Network, raise SubnetLen, widen SubnetMin to SubnetMax, or remove the leases of nodes that are gone',
  );
}
