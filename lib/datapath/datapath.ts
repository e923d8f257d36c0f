/**
 * The main thread's face of a data path: it owns the slab and the peer table, starts the worker on descriptors that are
 * open already, and stops it. Packets never pass through this thread.
 */
import { Worker } from 'node:worker_threads';
import { close, monotonicMs, openEventFd, wake } from '../sys/sys.ts';
import { TulleError } from '../util/errors.ts';
import type { Subnet4 } from '../wire/cidr.ts';
import { type CaptureSource, RingSource } from './capture-source.ts';
import { type DropReason, type FlowName, readDrops, readFlows } from './counters.ts';
import type { Offload, Transport, WorkerInput, WorkerMessage } from './loop.ts';
import { type Network, type Own, type Peer, PeerTable, subnetCount6Of, subnetCountOf } from './peers.ts';
import { SideLink } from './side-link.ts';
import {
  CONTROL_COALESCE_OFF,
  CONTROL_KEY,
  CONTROL_MTU,
  CONTROL_STOP,
  CONTROL_TRAINS_OFF,
  CONTROL_UDP_COALESCE_OFF,
  openSlab,
} from './slab.ts';

export interface DatapathOptions {
  network: Network;
  own: Own;
  /** The lease key that our datagrams carry, 32 bits. */
  key: number;
  /** FORMAT_BARE or FORMAT_TULLE. */
  format: number;
  transport: Transport;
  /** Whether to send trains, and to coalesce. */
  trains: boolean;
  coalescing: boolean;
  /** Whether UDP may be coalesced, too. */
  udpCoalescing: boolean;
  /** The overlay's MTU. */
  mtu: number;
  /** Whom it knows, and until when it may forward, from its first packet on. */
  peers: readonly Peer[];
  deadline: number;
  /** Handles of lib/sys; they stay the caller's. `udp` is 0 for the dgram transport. */
  tun: number;
  udp: number;
  endpoint: { address: string; port: number };
  /** The worker ended by itself; the descriptors are still open. Called at most once, and never after `stop`. */
  onFault(fault: { where: 'tun' | 'underlay'; code: string; message: string }): void;
  /** The kernel refused an offload, which is off from now on; no packet was lost by it. */
  onLatch(offload: Offload): void;
  /** The underlay refuses all datagrams (the errno name), or takes them again (undefined). */
  onUnderlay(code: string | undefined): void;
  /** Side traffic came: take it from `side`. */
  onMail?(): void;
}

export interface Datapath {
  update(puts: readonly Peer[], removals: readonly Subnet4[]): void;
  setKey(key: number): void;
  /** The overlay's MTU is another now, because the underlay's is; what was learnt of paths is forgotten. */
  setMtu(mtu: number): void;
  peers(): Peer[];
  flows(): Record<FlowName, number>;
  drops(): Record<DropReason, number>;
  /** Until when the lease allows to forward: milliseconds of lib/sys's `monotonicMs`. */
  setDeadline(monotonicMs: number): void;
  /** Probes, messages and traced packets, to and from the peers. */
  readonly side: Pick<SideLink, 'probe' | 'message' | 'trace' | 'take'>;
  /** When the last valid datagram of this subnet's peer came (undefined: never), and the largest packet that crosses to it. */
  wayTo(subnet: Subnet4): { heardMs: number | undefined; limit: number } | undefined;
  /** Probes found how large a packet can be that crosses to this subnet's peer; NO_LIMIT: any. */
  setPathLimit(subnet: Subnet4, limit: number): void;
  /** Which offloads are in use: not those that the transport does without or that the kernel refused. */
  offloads(): Record<Offload, boolean>;
  /** What passes, for whoever wants to see it. */
  capture: CaptureSource;
  stop(): Promise<void>;
}

/** Longer than any start; a worker that says nothing for so long never will. */
const START_DEADLINE_MS = 10_000;

/** `./worker` beside this file, compiled or not. */
const workerUrl = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url);

export async function startDatapath(options: DatapathOptions): Promise<Datapath> {
  const subnetCount = subnetCountOf(options.network);
  const subnetCount6 = subnetCount6Of(options.network);
  const slab = openSlab(subnetCount, subnetCount6);
  const table = new PeerTable(slab, options.network);
  table.own(options.own);
  table.update(options.peers, []);
  slab.deadline[0] = options.deadline;
  slab.control[CONTROL_KEY] = options.key;
  slab.control[CONTROL_MTU] = options.mtu;
  slab.control[CONTROL_TRAINS_OFF] = options.trains ? 0 : 1;
  slab.control[CONTROL_COALESCE_OFF] = options.coalescing ? 0 : 1;
  slab.control[CONTROL_UDP_COALESCE_OFF] = options.udpCoalescing ? 0 : 1;

  const wakeHandle = openEventFd();
  const { network, own, format, transport, tun, udp, endpoint } = options;
  const input: WorkerInput = {
    buffer: slab.buffer,
    subnetCount,
    subnetCount6,
    network,
    own,
    format,
    transport,
    tun,
    udp,
    wake: wakeHandle,
    endpoint,
  };
  const worker = new Worker(workerUrl, { workerData: input, name: 'tulle-datapath' });
  // Not events.once: that rejects when the worker crashes, and a crashed worker has ended as well.
  const ended = new Promise<void>(resolve => worker.once('exit', () => resolve()));

  let stopping = false;
  const stop = async (): Promise<void> => {
    stopping = true;
    Atomics.store(slab.control, CONTROL_STOP, 1);
    wake(wakeHandle);
    await ended;
    close(wakeHandle);
  };

  const fault = await firstWord(worker);
  if (fault !== undefined) {
    // It may hang where no word reaches it.
    await Promise.all([worker.terminate(), stop()]);
    throw new TulleError(fault.code, fault.message);
  }
  let told = false;
  const report = (reason: { where: 'tun' | 'underlay'; code: string; message: string }): void => {
    if (stopping || told) return;
    told = true;
    options.onFault(reason);
  };
  worker.on('message', (message: WorkerMessage) => {
    if (message.kind === 'fault') report(message);
    if (message.kind === 'latched') options.onLatch(message.offload);
    if (message.kind === 'underlay') options.onUnderlay(message.code);
    if (message.kind === 'mail' && !stopping) options.onMail?.();
  });
  worker.on('error', error =>
    report({ where: 'underlay', code: 'EWORKER', message: `the data path crashed: ${error.message}` }),
  );
  worker.on('exit', code => report({ where: 'underlay', code: 'EWORKER', message: `the data path ended (${code})` }));

  const side = new SideLink(slab, () => {
    if (!stopping) wake(wakeHandle);
  });
  return {
    side,
    wayTo(subnet) {
      const way = table.wayTo(subnet);
      if (way === undefined) return undefined;
      const now = monotonicMs();
      // The clock's low 32 bits come round after 49 days; nobody asks about a peer that was silent for so long.
      return { limit: way.limit, heardMs: way.heard === 0 ? undefined : now - (((now | 0) - way.heard) >>> 0) };
    },
    setPathLimit: (subnet, limit) => table.setProven(subnet, limit),
    update(puts, removals) {
      table.update(puts, removals);
      // A sleeping worker begins a new turn, so that places of removed peers become free. One that is ending needs none.
      if (!stopping) wake(wakeHandle);
    },
    setKey(key) {
      Atomics.store(slab.control, CONTROL_KEY, key | 0);
    },
    setMtu(mtu) {
      Atomics.store(slab.control, CONTROL_MTU, mtu);
      table.forgetLimits();
    },
    peers: () => table.peers(),
    flows: () => readFlows(slab.counters),
    drops: () => readDrops(slab.counters),
    setDeadline(monotonicMs) {
      slab.deadline[0] = monotonicMs;
    },
    offloads: () => ({
      trains: slab.control[CONTROL_TRAINS_OFF] === 0,
      coalescing: slab.control[CONTROL_COALESCE_OFF] === 0,
      'udp-coalescing': slab.control[CONTROL_UDP_COALESCE_OFF] === 0,
    }),
    capture: new RingSource(slab.ring, options.network, () => {
      if (!stopping) wake(wakeHandle);
    }),
    stop,
  };
}

/** Waits until the worker is ready (undefined) or says why it will never be. */
async function firstWord(worker: Worker): Promise<{ code: string; message: string } | undefined> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise(resolve => {
      timer = setTimeout(
        () => resolve({ code: 'ETIME', message: 'the data path did not start in time' }),
        START_DEADLINE_MS,
      );
      worker.once('message', (message: WorkerMessage) => resolve(message.kind === 'fault' ? message : undefined));
      worker.once('error', error =>
        resolve({ code: 'EWORKER', message: `the data path did not start: ${error.message}` }),
      );
    });
  } finally {
    clearTimeout(timer);
  }
}
