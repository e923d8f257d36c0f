/**
 * One machine of the simulation: its clocks, its process under a supervisor, and what would be its overlay. The process
 * runs the real LeaseManager, the real reconcile and the real watch of the net-conf; only what lies below them is made up.
 */
import { untilConfigChanges } from '../../lib/daemon/config-watch.ts';
import { type DaemonNetwork, readNetwork } from '../../lib/daemon/network.ts';
import type { Clock } from '../../lib/lease/clock.ts';
import { type Lease, type LeaseAttributes, nodeIdOf, subnetKey, subnetsOf } from '../../lib/lease/lease.ts';
import type { AcquireRequest, LeaseManager } from '../../lib/lease/manager.ts';
import { emptyView, type PeerView, reconcile, withOwn } from '../../lib/lease/reconcile.ts';
import type { Events, LeaseEvent, Snapshot } from '../../lib/lease/registry.ts';
import { codeOf } from '../../lib/util/errors.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { createSimRegistry, type Wire } from './sim-registry.ts';

/** deaf: what it sends arrives, answers do not; slow: answers come late, but mostly in time. */
export type Link = 'up' | 'down' | 'deaf' | 'slow';

/** What a node needs of the world around it. */
export interface NodeWorld {
  wire: Pick<Wire, 'timeline' | 'store' | 'request' | 'answer' | 'batchMs'>;
  registryIsUp(): boolean;
  random(): number;
  trace(text: string): void;
  violated(what: string): void;
  /** A node's overlay was told that it may forward until another moment. */
  onOwner(node: SimNode): void;
  ttlSeconds: number;
  marginSeconds: number;
  restartMs: number;
  eager: boolean;
  Manager: typeof LeaseManager;
}

interface Process {
  alive: boolean;
  manager: LeaseManager | undefined;
}

export class SimNode {
  readonly name: string;
  readonly address: string;
  readonly nodeId: string;
  readonly #world: NodeWorld;
  /** What its overlay was told: forward for this lease, until this time of its own clock. */
  forwarding: { lease: Lease; deadline: number } | undefined;
  link: Link = 'up';
  suspendedUntil = 0;
  wallOffset = 0;
  /** When something happened that may be the reason for a missed renewal. */
  troubledAt = 0;
  /** When its way to the registry, or the machine itself, last stopped or began to work. */
  disturbedAt = 0;
  /** When its lease was taken from it behind its back, which it cannot know at once; undefined when it knows. */
  robbedAt: number | undefined;
  view: PeerView | undefined;
  #follows: boolean;
  #previous: AcquireRequest['previousSubnet'];
  #process: Process | undefined;
  readonly #rate: number;
  readonly #bootMs: number;

  constructor(
    world: NodeWorld,
    options: { name: string; address: string; nodeId: string; rate: number; follows: boolean },
  ) {
    this.#world = world;
    this.name = options.name;
    this.address = options.address;
    this.nodeId = options.nodeId;
    this.#rate = options.rate;
    this.#bootMs = Math.floor(world.random() * 1e6);
    this.#follows = options.follows;
  }

  get running(): boolean {
    return this.#process !== undefined;
  }

  get manager(): LeaseManager | undefined {
    return this.#process?.manager;
  }

  monotonicMs(): number {
    return this.#bootMs + this.#world.wire.timeline.now * this.#rate;
  }

  /** Whether the data path would forward a packet now: the worker's own comparison. */
  get forwards(): boolean {
    return this.forwarding !== undefined && this.monotonicMs() <= this.forwarding.deadline;
  }

  start(): void {
    const process: Process = { alive: true, manager: undefined };
    this.#process = process;
    this.troubledAt = this.#world.wire.timeline.now;
    this.#say('starts');
    this.#supervise(process).catch(error => this.#world.violated(`${this.name} crashed: ${error?.stack ?? error}`));
  }

  /** Whether the registry has the lease that this node forwards for. */
  get isBacked(): boolean {
    if (this.forwarding === undefined) return false;
    const { lease } = this.forwarding;
    const held = this.#world.wire.store.leases.get(subnetKey(lease))?.lease;
    return held?.createRevision === lease.createRevision && held.attributes.PublicIP === this.address;
  }

  /** Ends at any instant, without a word to anybody; what is under way on the network stays under way. */
  crash(losesFile: boolean): void {
    if (this.#process === undefined) return;
    this.#process.alive = false;
    this.#process = undefined;
    this.forwarding = undefined;
    this.robbedAt = undefined;
    this.view = undefined;
    if (losesFile) this.#previous = undefined;
    this.#say(losesFile ? 'crashes and loses subnet.env' : 'crashes');
  }

  #say(text: string): void {
    this.#world.trace(`${this.name} ${text}`);
  }

  async #supervise(process: Process): Promise<void> {
    const clock = this.#clockOf(process);
    for (;;) {
      await this.#live(process, clock);
      this.forwarding = undefined;
      this.robbedAt = undefined;
      this.view = undefined;
      await this.#pause(process, clock);
      this.troubledAt = this.#world.wire.timeline.now;
    }
  }

  /** The supervisor's pause; where subnets are few, everybody who has none comes running as soon as one is free. */
  async #pause(process: Process, clock: Clock): Promise<void> {
    const { wire, eager, restartMs, random } = this.#world;
    const freed = new AbortController();
    const listener = (event?: LeaseEvent): void => {
      if (!process.alive || event?.kind !== 'put') freed.abort('freed');
    };
    if (eager) wire.store.listeners.add(listener);
    await clock.sleep(restartMs * (0.5 + random()), freed.signal);
    wire.store.listeners.delete(listener);
  }

  /** One life of tulled, as lib/daemon/daemon.ts has it: rounds, until the lease is lost or cannot be had. */
  async #live(process: Process, clock: Clock): Promise<void> {
    const { Manager, random } = this.#world;
    const registry = createSimRegistry(this.#wireOf(process));
    for (;;) {
      let network: DaemonNetwork;
      try {
        network = readNetwork((await registry.config()).text, 'sim');
      } catch {
        return;
      }
      const manager = new Manager({
        registry,
        clock,
        random,
        onDeadline: deadline => {
          this.forwarding = manager.lease && { lease: manager.lease, deadline };
          if (!this.forwards || this.isBacked) this.robbedAt = undefined;
          this.#world.onOwner(this);
        },
      });
      process.manager = manager;
      const attributes = attributesOf(this.address, this.nodeId);
      const { ttlSeconds, marginSeconds } = this.#world;
      try {
        const request = { config: network.config, nodeId: this.nodeId, attributes, ttlSeconds };
        await manager.acquire(this.#previous === undefined ? request : { ...request, previousSubnet: this.#previous });
      } catch (error) {
        this.#say(`has no lease: ${codeOf(error) ?? String(error)}`);
        return;
      }
      const lease = manager.lease!;
      this.#previous = subnetsOf(lease);
      this.#say(`holds ${subnetKey(lease)}`);
      manager.subscribe(event => {
        this.#say(`${event.kind} ${subnetKey(event.lease)}`);
        if (event.kind === 'fenced') this.#checkFence();
        if (event.kind === 'reacquired') this.#setOwn(event.lease);
      });

      const stop = new AbortController();
      void this.#follow(registry.watch(stop.signal), manager, lease);
      const running = manager.run(stop.signal, { marginSeconds });
      const context = { options: { registry: { kind: 'file' as const, directory: 'sim' } }, parts: { clock } };
      const changed = untilConfigChanges(
        { ...context, registry, log: silentLogger, stop: stop.signal },
        network,
        lease,
      );
      const end = await Promise.race([running, changed.then(() => 'changed')]);
      stop.abort();
      await running;
      this.forwarding = undefined;
      this.#say(`ends its round: ${end}`);
      if (end !== 'changed') return;
    }
  }

  async #follow(messages: AsyncIterable<Snapshot | Events>, manager: LeaseManager, own: Lease): Promise<void> {
    this.view = emptyView({ nodeId: this.nodeId, publicIp: this.address, lease: own });
    const table = new Map<string, Lease>();
    for await (const message of messages) {
      manager.observe(message);
      if (!this.#follows || this.view === undefined || manager !== this.#process?.manager) continue;
      const { view, changes } = reconcile(this.view, message);
      // What a route table makes of the changes must be what the view says.
      for (const { kind, lease } of changes) {
        const key = subnetKey(lease);
        if (table.has(key) === (kind === 'add')) this.#world.violated(`${this.name}: ${kind} of ${key} makes no sense`);
        if (key === subnetKey(manager.lease!))
          this.#world.violated(`${this.name}: our own lease as a peer: ${kind} ${key}`);
        if (kind === 'remove') table.delete(key);
        else table.set(key, lease);
      }
      if (table.size !== view.peers.size) this.#world.violated(`${this.name}: the changes do not add up`);
      this.view = view;
    }
  }

  #setOwn(lease: Lease): void {
    if (this.view === undefined) return;
    this.view = withOwn(this.view, { nodeId: this.nodeId, publicIp: this.address, lease }).view;
  }

  /** A node whose registry could be reached for long enough must not miss its renewal. */
  #checkFence(): void {
    const { wire, ttlSeconds } = this.#world;
    // The longest pause between two attempts, and a call whose 5 s are not over yet.
    const enoughMs = Math.min(30_000, (ttlSeconds * 1000) / 3) + 6000;
    const quietMs = wire.timeline.now - Math.max(this.troubledAt, this.suspendedUntil);
    if (quietMs > enoughMs) this.#world.violated(`${this.name} missed its renewal with ${quietMs} ms of peace`);
  }

  /** Peers as a naive reader of the registry would count them. */
  expectedPeers(leases: Iterable<Lease>): Map<string, number> {
    const own = this.forwarding && subnetKey(this.forwarding.lease);
    const others = [...leases].filter(
      lease =>
        subnetKey(lease) !== own && !(nodeIdOf(lease) === this.nodeId && lease.attributes.PublicIP === this.address),
    );
    return new Map(others.map(lease => [subnetKey(lease), lease.createRevision]));
  }

  // ---- what lies below a process

  #clockOf(process: Process): Clock {
    const { timeline } = this.#world.wire;
    return {
      nowMs: () => Date.UTC(2026, 7, 1) + timeline.now + this.wallOffset,
      monotonicMs: () => this.monotonicMs(),
      sleep: (ms, signal) => {
        if (ms <= 0 || signal?.aborted === true) return Promise.resolve();
        return new Promise(resolve => {
          const done = (): void => {
            if (timer !== undefined) timer.cancelled = true;
            signal?.removeEventListener('abort', done);
            this.#deliver(process, resolve);
          };
          const fire = (): void => {
            // A timer stands still while the machine sleeps; a long one looks at the clock every 10 s (clock.ts).
            if (this.suspendedUntil > timeline.now) {
              timer = timeline.at(this.suspendedUntil + this.#world.random() * 10_000, done);
            } else done();
          };
          let timer = ms === Number.POSITIVE_INFINITY ? undefined : timeline.after(ms / this.#rate, fire);
          signal?.addEventListener('abort', done);
        });
      },
    };
  }

  #deliver(process: Process, action: () => void): void {
    const { timeline } = this.#world.wire;
    if (!process.alive) return;
    if (this.suspendedUntil > timeline.now) timeline.at(this.suspendedUntil, () => this.#deliver(process, action));
    else action();
  }

  #wireOf(process: Process): Wire {
    return {
      ...this.#world.wire,
      reaches: direction => {
        if (!this.#world.registryIsUp() || this.link === 'down') return false;
        return direction === 'request' || this.link !== 'deaf';
      },
      answer: () => (this.link === 'slow' ? 1000 + this.#world.random() * 3900 : this.#world.wire.answer()),
      deliver: action => this.#deliver(process, action),
      onTrouble: untilMs => {
        this.troubledAt = Math.max(this.troubledAt, untilMs);
      },
      trace: text => this.#say(text),
    };
  }
}

export function attributesOf(address: string, nodeId: string): LeaseAttributes {
  const BackendData = { Version: 1, Port: 8285, NodeID: nodeId };
  return { PublicIP: address, PublicIPv6: null, BackendType: 'tulle', BackendData };
}
