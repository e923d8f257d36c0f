// Parts of a daemon that record what is done to them and fail when told to.
import { offloadStates } from '../../lib/backend/offloads.ts';
import type { Overlay } from '../../lib/backend/overlay.ts';
import type { DaemonOptions } from '../../lib/daemon/options.ts';
import type { DaemonParts } from '../../lib/daemon/parts.ts';
import type { TrafficOptions } from '../../lib/host/rules.ts';
import { type Lease, subnetKey } from '../../lib/lease/lease.ts';
import { type Events, type Registry, RegistryError, type Snapshot } from '../../lib/lease/registry.ts';
import type { Logger } from '../../lib/util/log.ts';
import { createVirtualClock } from '../support/virtual-clock.ts';

export interface LogLine {
  level: string;
  message: string;
  fields: Record<string, unknown>;
}

export function recordingLogger(): { log: Logger; lines: LogLine[] } {
  const lines: LogLine[] = [];
  const at = (level: string) => (fields: object, message: string) => {
    lines.push({ level, message, fields: { ...fields } });
  };
  return { lines, log: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') } };
}

/** A registry in memory. `fail` names verbs that reject, with the error. */
export class FakeRegistry implements Registry {
  readonly kind = 'file';
  readonly leases = new Map<string, Lease>();
  readonly fail = new Map<string, Error>();
  readonly calls: string[];
  /** What a lease's maker waits for before it is answered. */
  answers: Promise<void> | undefined;
  conf: string | undefined = JSON.stringify({ Network: '10.5.0.0/16', Backend: { Type: 'tulle' } });
  #revision = 10;
  #watchers = new Set<(message: Snapshot | Events) => void>();

  constructor(calls: string[]) {
    this.calls = calls;
  }

  #enter(verb: string): void {
    this.calls.push(`registry.${verb}`);
    const error = this.fail.get(verb);
    if (error !== undefined) throw error;
  }

  async config(): Promise<{ text: string; revision: number }> {
    this.#enter('config');
    if (this.conf === undefined) throw new RegistryError('no-config', '/fake/config does not exist');
    return { text: this.conf, revision: 1 };
  }

  #snapshot(): Snapshot {
    return { kind: 'snapshot', leases: [...this.leases.values()], revision: this.#revision };
  }

  async list(): Promise<Snapshot> {
    this.#enter('list');
    return this.#snapshot();
  }

  async create(lease: Omit<Lease, 'expiresAtMs' | 'createRevision' | 'modRevision'>): Promise<Lease> {
    this.#enter('create');
    const key = subnetKey(lease);
    if (this.leases.has(key)) throw new RegistryError('taken', `${key} is taken`);
    this.#revision++;
    const made = { ...lease, expiresAtMs: 1, createRevision: this.#revision, modRevision: this.#revision };
    this.put(made);
    await this.answers;
    return made;
  }

  async update(lease: Lease, attributes: Lease['attributes']): Promise<Lease> {
    this.#enter('update');
    const found = this.leases.get(subnetKey(lease));
    if (found === undefined) throw new RegistryError('missing', 'it is gone');
    if (found.modRevision !== lease.modRevision) throw new RegistryError('conflict', 'it changed');
    const made = { ...found, attributes, modRevision: ++this.#revision };
    this.put(made);
    return made;
  }

  async remove(lease: Lease): Promise<void> {
    this.#enter('remove');
    this.drop(lease);
  }

  /** Writes as another node would. */
  put(lease: Lease): void {
    this.#revision = Math.max(this.#revision, lease.modRevision);
    this.leases.set(subnetKey(lease), lease);
    this.#send({ kind: 'events', events: [{ kind: 'put', lease }], revision: this.#revision });
  }

  drop(lease: Lease): void {
    this.leases.delete(subnetKey(lease));
    this.#send({ kind: 'events', events: [{ kind: 'removed', subnet: lease.subnet }], revision: ++this.#revision });
  }

  #send(message: Snapshot | Events): void {
    for (const watcher of this.#watchers) watcher(message);
  }

  async *watch(signal: AbortSignal): AsyncGenerator<Snapshot | Events> {
    this.#enter('watch');
    const queue: (Snapshot | Events)[] = [this.#snapshot()];
    let ring = (): void => {};
    const watcher = (message: Snapshot | Events): void => {
      queue.push(message);
      ring();
    };
    this.#watchers.add(watcher);
    signal.addEventListener('abort', () => ring());
    while (!signal.aborted) {
      const message = queue.shift();
      if (message !== undefined) yield message;
      else {
        await new Promise<void>(resolve => {
          ring = resolve;
        });
      }
    }
    this.#watchers.delete(watcher);
  }

  async close(): Promise<void> {
    this.#enter('close');
  }
}

/** All fakes of one daemon; `calls` is what was done, in order. `fail` names parts that throw. */
export function fakeParts() {
  const calls: string[] = [];
  const fail = new Map<string, Error>();
  const clock = createVirtualClock();
  const registry = new FakeRegistry(calls);
  const enter = (name: string) => {
    calls.push(name);
    const error = fail.get(name);
    if (error !== undefined) throw error;
  };
  const state = {
    peers: new Map<string, Lease>(),
    own: undefined as Lease | undefined,
    ready: 'closed',
    deadline: Infinity,
    formerNetworks: [] as readonly string[],
    rules: undefined as TrafficOptions | undefined,
  };
  const parts: DaemonParts = {
    clock,
    random: () => 0,
    checkMachine: () => enter('checkMachine'),
    openRegistry: async () => {
      enter('openRegistry');
      return registry;
    },
    openJournal: () => ({
      start() {},
      acquired() {},
      observe() {},
      event() {},
      released() {},
      stop() {},
    }),
    nodeId: given => given ?? 'machine',
    startHealth: async () => {
      enter('startHealth');
      return {
        port: 1,
        setReady: (ready: boolean, what?: string) => {
          state.ready = ready ? 'ready' : `waiting for ${what}`;
        },
        close: async () => enter('health.close'),
      };
    },
    chooseInterface: () => {
      enter('chooseInterface');
      return { name: 'eth0', index: 2, mtu: 1500, address4: '10.88.0.1' };
    },
    refuseOtherOverlay: () => {
      enter('refuseOtherOverlay');
      return [];
    },
    ensureForwarding: () => {
      enter('ensureForwarding');
      return () => enter('forwarding.undo');
    },
    previousSubnet: () => {
      enter('previousSubnet');
      return {};
    },
    formerNetworks: () => state.formerNetworks,
    startTrafficRules: async options => {
      enter('startTrafficRules');
      state.rules = options;
      return {
        state: () => ({ masquerade: 'off', forward: 'off' }),
        stop: async ({ remove }) => enter(remove ? 'rules.remove' : 'rules.stop'),
      };
    },
    writeSubnetFile: () => enter('writeSubnetFile'),
    startOverlay: async options => {
      enter('startOverlay');
      state.own = options.own;
      const overlay: Overlay = {
        device: options.deviceName.replace('%d', '0'),
        mtu: 1460,
        address: options.address,
        port: options.backend.port,
        capture: { set: () => {}, drain: () => 0, lost: () => 0 },
        apply: changes => {
          for (const { kind, lease } of changes) {
            calls.push(`overlay.${kind} ${subnetKey(lease)}`);
            if (kind === 'remove') state.peers.delete(subnetKey(lease));
            else state.peers.set(subnetKey(lease), lease);
          }
        },
        setLease: lease => {
          enter('overlay.setLease');
          state.own = lease;
        },
        setDeadline: monotonicMs => {
          state.deadline = monotonicMs;
        },
        side: { probe: () => true, message: () => true, trace: () => true, take: () => [] },
        wayTo: () => undefined,
        setPathLimit: () => {},
        peers: () => [],
        routeTo: () => undefined,
        counters: () => ({}),
        drops: () => ({}),
        facts: () => ({
          running: true,
          transport: options.transport,
          overhead: 40,
          offloads: offloadStates({
            transport: options.transport,
            without: [],
            tunBits: 0,
            socket: { trains: true, gro: true },
            alive: undefined,
          }),
          underlayError: undefined,
          peers: [],
        }),
        stop: async () => enter('overlay.stop'),
      };
      return overlay;
    },
    startCni: async ({ socket }) => {
      enter(`startCni ${socket}`);
      return { load: () => ({ running: 0, waiting: 0 }), close: async () => enter('cni.close') };
    },
    startPageServer: async ({ address, port }) => {
      enter(`startPageServer ${address} ${port}`);
      return {
        url: 'http://page/',
        port: port ?? 0,
        token: '',
        viewers: 0,
        close: async () => void calls.push('page closed'),
      };
    },
    serveControl: async path => {
      enter(`serveControl ${path}`);
      return { close: async () => enter('control.close') };
    },
  };
  return { parts, calls, fail, clock, registry, state };
}

export function daemonOptionsOf(changes: Partial<DaemonOptions> = {}): DaemonOptions {
  return {
    registry: { kind: 'file', directory: '/fake' },
    interface: { iface: [], ifaceRegex: [] },
    subnetFile: '/fake/subnet.env',
    journalFile: '/fake/subnet.journal',
    leaseTtlSeconds: 30,
    renewMarginSeconds: 20,
    releaseOnExit: false,
    nodeId: 'node1',
    transport: 'offload',
    withoutOffloads: [],
    probeIntervalMs: 0,
    cniOnly: false,
    rules: { masquerade: false, randomFully: true, forward: true, resyncSeconds: 5, removeOnExit: false },
    health: { address: '127.0.0.1', port: 8081 },
    log: { format: 'text', verbosity: 0, secrets: [] },
    ...changes,
  };
}

/** A lease of another node on 10.5.`third`.0/24. */
export function peerLease(third: number, revision: number): Lease {
  return {
    subnet: { address: (10 * 2 ** 24 + 5 * 65_536 + third * 256) >>> 0, prefixLength: 24 },
    attributes: {
      PublicIP: `10.88.0.${third}`,
      PublicIPv6: null,
      BackendType: 'tulle',
      BackendData: { Version: 1, Port: 8285, NodeID: `peer${third}` },
    },
    expiresAtMs: 1,
    createRevision: revision,
    modRevision: revision,
  };
}
