// The policy over a registry's verbs: what a node takes, when it renews, when it must stop.
//
//   acquire ──► renewed ──► renewed ──► … every TTL − margin, or every TTL/3 where that is later
//                 │  ▲
//   deadline past ▼  │ the registry answers again and nobody took the subnet: 'renewed', or 'reacquired' (a new lease key)
//               fenced ──► somebody else holds it: 'lost', and run() ends
//
// deadline.ts says what the deadline is. Past it the node is fenced: it forwards nothing until a renewal succeeds again.
// A registry that is away moves no deadline. One that says that our key is gone, or somebody else's, ends it at once.
import { messageOf, TulleError } from '../util/errors.ts';
import { type Logger, silentLogger } from '../util/log.ts';
import { type AcquireRequest, acquireLease, checkAnswer, isOneOf, maximumCollisions } from './acquire.ts';
import { isOwn } from './choose.ts';
import { type Clock, systemClock } from './clock.ts';
import { createContest } from './contest.ts';
import { renewAfterMs, trustMs } from './deadline.ts';
import { holderOf, whyLost } from './holder.ts';
import { type Lease, mergeAttributes, nodeIdOf, printSubnets, sameSubnets, subnetsOf } from './lease.ts';
import type { LeaseStatus, ManagerEvent } from './manager-events.ts';
import { type Events, putsOf, type Registry, RegistryError, registryCodeOf, type Snapshot } from './registry.ts';
import { createRetry, longestPauseMs } from './retry.ts';
import { createSightings } from './sightings.ts';

export type { AcquireRequest } from './acquire.ts';
export type { LeaseStatus, ManagerEvent } from './manager-events.ts';

export interface ManagerOptions {
  registry: Registry;
  clock?: Clock;
  /** 0 <= random() < 1 */
  random?: () => number;
  log?: Logger;
  /** Told every new deadline at once, before any event: past it nothing may be forwarded. -Infinity: stop now. */
  onDeadline?: (monotonicMs: number) => void;
}

export interface RunOptions {
  /** Renew this long before the lease ends, but not before a third of it is over. flannel: 3600. */
  marginSeconds: number;
}

export class LeaseManager {
  readonly #registry: Registry;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #log: Logger;
  readonly #onDeadline: (monotonicMs: number) => void;
  readonly #contest;
  readonly #listeners = new Set<(event: ManagerEvent) => void>();
  #request: AcquireRequest | undefined;
  #lease: Lease | undefined;
  #deadline = Number.NEGATIVE_INFINITY;
  /** When the last acknowledged write of our lease was sent. */
  #sentMs = 0;
  readonly #sightings = createSightings();
  /** A write of ours was not answered: it may have been done. */
  #unanswered = false;
  #writing = false;
  #trouble: { reason: string; sinceMs: number } | undefined;
  /** Other leases of ours: requests that were done after we had given them up. */
  #surplus: Lease[] = [];
  #due = false;
  /** Aborted and replaced whenever the loops of run() must look again. */
  #bell = new AbortController();
  /** The same for what cannot wait for the end of a pause after a failure. */
  #alarm = new AbortController();

  constructor(options: ManagerOptions) {
    this.#registry = options.registry;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#log = options.log ?? silentLogger;
    this.#onDeadline = options.onDeadline ?? (() => {});
    this.#contest = createContest(this.#clock);
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

  get status(): LeaseStatus {
    const now = this.#clock.monotonicMs();
    const trouble = this.#trouble && { reason: this.#trouble.reason, forMs: now - this.#trouble.sinceMs };
    const renewedForMs = this.#lease === undefined ? undefined : now - this.#sentMs;
    return { lease: this.#lease, fenced: this.fenced, deadlineInMs: this.#deadline - now, renewedForMs, trouble };
  }

  /** Calls `listener` at each event of run(); returns what stops that. */
  subscribe(listener: (event: ManagerEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Takes a lease; acquire.ts says how, and what it throws. */
  async acquire(request: AcquireRequest, signal?: AbortSignal): Promise<Lease> {
    const tools = { registry: this.#registry, clock: this.#clock, random: this.#random, log: this.#log };
    const { lease, sentMs, takenUp } = await acquireLease(tools, request, signal);
    if (takenUp) this.#contest.tookUp();
    this.#accept(lease, sentMs, request);
    return lease;
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
    if (lease === undefined) return;
    for (const other of putsOf(message)) if (this.#isSurplus(other)) this.#surplus.push(other);
    if (this.#surplus.length > 0) this.#ring();

    const sighting = this.#sightings.take(message, lease, this.#request!, this.#clock.monotonicMs());
    if (sighting !== undefined) {
      this.#due = true;
      // Where the registry gives out the subnets, ours is not who writes its value.
      if (sighting === 'foreign' && this.#registry.thisNode === undefined) this.#fence();
      const alarm = this.#alarm;
      this.#alarm = new AbortController();
      alarm.abort(rung);
    }
    this.#lookAtSeen();
  }

  /** A write of our lease that is newer than ours: our own come back too, sometimes before their answer. */
  #lookAtSeen(): void {
    if (!this.#writing && this.#lease !== undefined && this.#sightings.newerThan(this.#lease.modRevision)) {
      this.#due = true;
    }
    if (this.#due) this.#ring();
  }

  /** Gives the lease back; does nothing without one. A reservation stays: it is the operator's. */
  async release(): Promise<void> {
    const lease = this.#lease;
    this.#lease = undefined;
    this.#setDeadline(Number.NEGATIVE_INFINITY);
    if (lease === undefined || lease.expiresAtMs === null) return;
    try {
      await this.#registry.remove(lease);
    } catch (error) {
      if (registryCodeOf(error) !== 'conflict') throw error;
      // A renewal that was under way when run() ended wrote it: it is ours all the same.
      const { leases } = await this.#registry.list();
      const found = leases.find(other => sameSubnets(other, lease));
      if (found !== undefined && isOwn(found, this.#request!)) await this.#registry.remove(found);
    }
  }

  // ---- the loops of run()

  async #runRenewal(signal: AbortSignal, { marginSeconds }: RunOptions): Promise<'stopped' | 'lost'> {
    const { ttlSeconds } = this.#request!;
    const longest = Math.min(longestPauseMs, (ttlSeconds * 1000) / 3);
    const retry = createRetry(this.#clock, this.#random, this.#log, longest);
    while (!signal.aborted) {
      const renewAt = this.#sentMs + renewAfterMs(ttlSeconds, marginSeconds);
      await this.#removeSurplus();
      if (!this.#due && this.#clock.monotonicMs() < renewAt) {
        await this.#sleepUntil(renewAt);
        continue;
      }
      this.#due = false;
      try {
        this.#writing = true;
        const reason = await this.#renew(signal);
        this.#writing = false;
        this.#trouble = undefined;
        retry.succeeded('the lease registry is back');
        if (signal.aborted) continue;
        if (reason === undefined) {
          this.#lookAtSeen();
          continue;
        }
        this.#setDeadline(Number.NEGATIVE_INFINITY);
        this.#emit({ kind: 'lost', lease: this.#lease!, reason });
        return 'lost';
      } catch (error) {
        this.#writing = false;
        const isNews = this.#due; // seen since the attempt began
        this.#due = true;
        if (signal.aborted) break;
        if (this.#sightings.isDenied) this.#fence();
        this.#trouble = { reason: messageOf(error), sinceMs: this.#trouble?.sinceMs ?? this.#clock.monotonicMs() };
        const until = isNews ? AbortSignal.abort(rung) : AbortSignal.any([signal, this.#alarm.signal]);
        await retry.failed(error, 'the lease could not be renewed, trying again', until);
      }
    }
    return 'stopped';
  }

  /** Says 'fenced' once when the deadline passes, while the other loop may be waiting for an answer. */
  async #runFence(signal: AbortSignal): Promise<void> {
    let said = false;
    while (!signal.aborted) {
      if (!this.fenced) said = false;
      else if (!said) {
        said = true;
        const why = this.#deadline === Number.NEGATIVE_INFINITY ? 'gone' : 'late';
        if (this.#lease !== undefined) this.#emit({ kind: 'fenced', lease: this.#lease, why });
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
    let base = previous;
    for (let attempt = 0; !signal.aborted; attempt++) {
      const attributes = mergeAttributes(base.attributes, request.attributes);
      const ttlSeconds = base.expiresAtMs === null ? null : request.ttlSeconds;
      const code = await this.#write(request, previous, () => this.#registry.update(base, attributes, ttlSeconds));
      if (code === undefined) break;
      if (code.code === 'missing') this.#sightings.denied(this.#clock.monotonicMs());
      if (!isOneOf(code.code, 'missing', 'conflict') || attempt >= maximumCollisions) throw code;

      const snapshot = await this.#registry.list();
      const found = snapshot.assigned ?? snapshot.leases.find(other => sameSubnets(other, previous));
      const lost = whyLost(snapshot, found, previous, request);
      if (lost !== undefined) return lost;
      if (found !== undefined) {
        // An older one is of another history, and nobody's write.
        const rival = found.modRevision > base.modRevision && this.#whoWrote(found);
        if (rival) return rival;
        base = found; // ours, written by somebody or by a request whose answer got lost
        continue;
      }
      if (signal.aborted) break;
      this.#sightings.denied(this.#clock.monotonicMs());
      const wanted = { ...subnetsOf(previous), attributes };
      const taken = await this.#write(request, previous, () => this.#registry.create(wanted, request.ttlSeconds));
      if (taken === undefined) break;
      if (taken.code !== 'taken') throw taken;
      this.#fence(); // since the list: look again
    }
    const lease = this.#lease!;
    if (lease === previous) return undefined;
    if (lease.createRevision === previous.createRevision) this.#emit({ kind: 'renewed', lease });
    else this.#emit({ kind: 'reacquired', lease, previous });
    return undefined;
  }

  /** One write of our lease; returns what the registry rejected it with, if it did. */
  async #write(
    request: AcquireRequest,
    subnets: Lease,
    verb: () => Promise<Lease>,
  ): Promise<RegistryError | undefined> {
    const sent = this.#clock.monotonicMs();
    try {
      const lease = await verb();
      checkAnswer(lease, subnets);
      this.#unanswered = false;
      this.#accept(lease, sent, request);
      return undefined;
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error;
      if (error.code === 'unavailable') this.#unanswered = true;
      return error;
    }
  }

  /** Our key was written, with our identity: by a request of ours that was not answered, or why we yield to a rival. */
  #whoWrote(found: Lease): string | undefined {
    if (this.#unanswered) {
      this.#unanswered = false;
      return undefined;
    }
    if (this.#contest.written()) {
      const text = `another process with this node's id and address writes ${holderOf(found)}`;
      const isNodes = this.#registry.kind === 'kubernetes'; // who the node is, is not for us to choose there
      return `${text}: ${isNodes ? "stop it, flannel's DaemonSet perhaps" : 'stop it, or give each its own --node-id and address'}`;
    }
    const fields = { lease: printSubnets(found), revision: found.modRevision };
    this.#log.warn(fields, "somebody wrote this node's lease and left it to us, taking it back");
    return undefined;
  }

  #isSurplus(lease: Lease): boolean {
    const request = this.#request!;
    // Without a node id it may be anybody's on our address; what has no TTL is an operator's.
    const isOurs = nodeIdOf(lease) === request.nodeId && isOwn(lease, request) && lease.expiresAtMs !== null;
    return isOurs && !sameSubnets(lease, this.#lease!);
  }

  async #removeSurplus(): Promise<void> {
    for (const lease of this.#surplus.splice(0)) {
      if (sameSubnets(lease, this.#lease!)) continue;
      this.#log.info({ lease: printSubnets(lease) }, 'giving back a second lease of ours');
      await this.#registry.remove(lease).catch(() => {}); // then it ends with its TTL, or the next snapshot shows it
    }
  }

  #accept(lease: Lease, sentMs: number, request: AcquireRequest): void {
    this.#lease = lease;
    this.#request = request;
    this.#sentMs = sentMs;
    this.#sightings.acknowledged(lease, sentMs);
    if (!this.#sightings.isDenied) {
      this.#setDeadline(lease.expiresAtMs === null ? Number.POSITIVE_INFINITY : sentMs + trustMs(request.ttlSeconds));
    }
    this.#ring();
  }

  #setDeadline(monotonicMs: number): void {
    this.#deadline = monotonicMs;
    this.#onDeadline(monotonicMs);
  }

  /** It is known that our lease is not ours at present: what remained of its time counts no more. */
  #fence(): void {
    if (this.#deadline === Number.NEGATIVE_INFINITY) return;
    this.#setDeadline(Number.NEGATIVE_INFINITY);
    this.#ring();
  }

  #emit(event: ManagerEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #ring(): void {
    const bell = this.#bell;
    this.#bell = new AbortController();
    bell.abort(rung);
  }

  #sleepUntil(monotonicMs: number): Promise<void> {
    return this.#clock.sleep(monotonicMs - this.#clock.monotonicMs(), this.#bell.signal);
  }
}

/** A reason that is given costs nothing; the one that abort() makes up has a stack trace. */
const rung = 'rung';

/** A promise that a signal's 'abort' resolves. */
function stopOf(signal: AbortSignal): { promise: Promise<'stopped'>; stop: () => void } {
  let stop = (): void => {};
  const promise = new Promise<'stopped'>(resolve => {
    stop = () => resolve('stopped');
    if (signal.aborted) stop();
  });
  return { promise, stop };
}
