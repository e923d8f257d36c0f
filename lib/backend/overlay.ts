/**
 * A node's overlay: the TUN device with its address, MTU and route, the underlay socket, and the data path between them.
 * Peers come in as changes (lease/reconcile.ts) and are kept, so that a data path that had to end — the device was
 * deleted, the worker crashed — is made again with all of them.
 */
import type { CaptureSettings, CaptureSource } from '../datapath/capture-source.ts';
import { type Datapath, startDatapath } from '../datapath/datapath.ts';
import type { Transport } from '../datapath/loop.ts';
import type { Peer } from '../datapath/peers.ts';
import { indexOf6 } from '../datapath/route6.ts';
import {
  type Lease,
  leaseKeyOf,
  printSubnets,
  type Subnet4,
  type Subnet6,
  subnetKey,
  subnetsOf,
} from '../lease/lease.ts';
import type { PeerChange } from '../lease/reconcile.ts';
import { close } from '../sys/sys.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { type Backend, formatOf, overheadOf, overlayMtu, peerOf } from './backend.ts';
import { openDevice } from './device.ts';
import {
  type OffloadName,
  type OffloadState,
  offloadStates,
  offloadsOf,
  type SocketOffloads,
  takesUdpRuns,
  tunOffloadLadder,
} from './offloads.ts';
import { openSocket, socketOffloads } from './socket.ts';
import { type KernelRoute, watchUnderlayMtu } from './underlay-mtu.ts';

export interface OverlayOptions {
  backend: Backend;
  network: Subnet4;
  subnetLength: number;
  /** The same for IPv6, in a dual-stack network. */
  network6?: Subnet6;
  subnetLength6?: number;
  own: Lease;
  /** The underlay address that the socket is bound to. */
  address: string;
  underlayMtu: number;
  transport: Transport;
  /** Offloads to do without, by name (offloads.ts). */
  withoutOffloads?: readonly string[];
  /** The TUN's name; "%d" in it is the first free number. */
  deviceName: string;
  /** The underlay's MTU changed, and the overlay's with it. */
  onMtu?(mtu: number): void;
  /** Side traffic came: take it from the overlay's `side`. */
  onMail?(): void;
  log: Logger;
}

export interface Overlay {
  readonly device: string;
  /** It follows the underlay's. */
  readonly mtu: number;
  /** The underlay address and port that datagrams leave from and come to. */
  readonly address: string;
  readonly port: number;
  apply(changes: readonly PeerChange[]): void;
  /** Our lease got a new key: the subnet is the same. */
  setLease(lease: Lease): void;
  counters(): Record<string, number>;
  drops(): Record<string, number>;
  /** What there is to be seen of it now. */
  facts(): OverlayFacts;
  /** What passes, for whoever wants to see it; it goes on when the data path was made again. */
  capture: CaptureSource;
  /** Probes, messages and traced packets; they go nowhere while there is no data path. */
  readonly side: Datapath['side'];
  /** As Datapath's. */
  wayTo: Datapath['wayTo'];
  setPathLimit: Datapath['setPathLimit'];
  /** Those that packets may go to now. */
  peers(): Peer[];
  /** Which way this node's kernel would send to an address; undefined when it knows none. */
  routeTo(address: string): KernelRoute | undefined;
  /** Past this time of lib/sys's `monotonicMs` nothing is forwarded: the lease can no longer be proven. */
  setDeadline(monotonicMs: number): void;
  /** Takes the device and everything on it away. */
  stop(): Promise<void>;
}

/** For status and metrics. */
export interface OverlayFacts {
  /** False while a data path that was lost is made again. */
  running: boolean;
  transport: Transport;
  /** Bytes that each inner packet gets around it on the underlay. */
  overhead: number;
  offloads: Record<OffloadName, OffloadState>;
  /** The errno with which the underlay refuses all datagrams. */
  underlayError: string | undefined;
  peers: readonly PeerFacts[];
}

export interface PeerFacts {
  peer: Peer;
  /** The MTU of the underlay's path to it, as far as is known: bytes of an outer IP packet. */
  pathMtu: number;
}

/** How long the next attempt to make a lost data path again waits. */
const RESTART_DELAY_MS = 500;

interface Running {
  device: string;
  /** The TUN_F_ bits that the kernel accepted. */
  tunBits: number;
  socket: SocketOffloads;
  datapath: Datapath;
  /** Ends the data path and closes what it ran on; calling it again changes nothing. */
  end(): Promise<void>;
}

export async function startOverlay(options: OverlayOptions): Promise<Overlay> {
  const { backend, network, subnetLength, network6, subnetLength6, log } = options;
  const ip6 = network6 !== undefined && subnetLength6 !== undefined;
  const networks = { network, subnetLength, ...(ip6 && { network6, subnetLength6 }) };
  let mtu = overlayMtu(backend, options.underlayMtu, { ip6 });
  const overhead = overheadOf(backend);
  const offloads = offloadsOf(options.transport, options.withoutOffloads);
  const peers = new Map<string, Peer>();
  let lease = options.own;
  let stopped = false;
  let retry: NodeJS.Timeout | undefined;
  let deadline = Number.POSITIVE_INFINITY;
  let captured: CaptureSettings | undefined;
  let underlayError: string | undefined;
  /** What data paths counted that are gone. */
  const past: Record<string, number> = {};

  let running: Running;
  /** True while no data path runs; what the last one counted is in `past` then. */
  let gone = true;

  const start = async (): Promise<Running> => {
    const atStart = { mtu, peers: new Map(peers) };
    const opened: number[] = [];
    const closeAll = (): void => {
      for (const handle of opened.splice(0).reverse()) close(handle);
    };
    try {
      const device = openDevice({
        name: options.deviceName,
        address: lease.subnet.address,
        network,
        ...(ip6 && lease.subnet6 && { ip6: { address: lease.subnet6.address, network: network6 } }),
        mtu,
        offloadLadder: tunOffloadLadder(offloads),
        log,
      });
      opened.push(device.handle);
      const udp = options.transport === 'dgram' ? 0 : openSocket(options.address, backend.port);
      if (udp !== 0) opened.push(udp);
      const socket = socketOffloads(udp, offloads, log);
      const datapath = await startDatapath({
        network: networks,
        own: subnetsOf(lease),
        key: leaseKeyOf(lease),
        format: formatOf(backend.type),
        transport: options.transport,
        trains: socket.trains,
        coalescing: offloads.coalescing,
        udpCoalescing: takesUdpRuns(offloads, device.offloads),
        mtu,
        peers: [...peers.values()],
        deadline,
        tun: device.handle,
        udp,
        endpoint: { address: options.address, port: backend.port },
        onLatch: offload => {
          log.warn(
            { device: device.name, offload },
            'the kernel refused an offload: it is off from now on, no packet was lost',
          );
        },
        onUnderlay: code => {
          underlayError = code;
          if (code === undefined) log.info({ address: options.address }, 'the underlay takes datagrams again');
          else
            log.warn(
              { address: options.address, code },
              'the underlay refuses all datagrams: is its link up, its address there?',
            );
        },
        onMail: () => options.onMail?.(),
        onFault: fault => {
          log.error({ device: device.name, code: fault.code }, `${fault.message}: making the data path again`);
          restarting = restart();
        },
      });
      // What changed meanwhile.
      if (mtu !== atStart.mtu) applyMtu(device.name, datapath);
      datapath.setDeadline(deadline);
      datapath.setKey(leaseKeyOf(lease));
      if (captured !== undefined) datapath.capture.set(captured);
      const puts = [...peers].filter(([subnet, peer]) => atStart.peers.get(subnet) !== peer).map(([, peer]) => peer);
      const removed = [...atStart.peers].filter(([subnet]) => !peers.has(subnet));
      datapath.update(
        puts,
        removed.map(([, { subnet }]) => subnet),
      );
      let ended: Promise<void> | undefined;
      return {
        device: device.name,
        tunBits: device.offloads,
        socket,
        datapath,
        end: () => {
          ended ??= datapath.stop().finally(closeAll);
          return ended;
        },
      };
    } catch (error) {
      closeAll();
      throw error;
    }
  };

  /** Before anything is waited for, so that it belongs to the namespace that this was called in. */
  const underlay = watchUnderlayMtu(options.address, underlayMtu => {
    try {
      followMtu(overlayMtu(backend, underlayMtu, { ip6 }));
    } catch (error) {
      log.warn({ underlayMtu, mtu }, `the overlay keeps its MTU: ${messageOf(error)}`);
    }
  });
  const followMtu = (next: number): void => {
    if (next === mtu || stopped) return;
    mtu = next;
    log.info({ mtu }, "the underlay's MTU changed, and the overlay's with it");
    if (!gone) applyMtu(running.device, running.datapath);
    options.onMtu?.(mtu);
  };
  const applyMtu = (device: string, datapath: Datapath): void => {
    underlay.setLinkMtu(device, mtu);
    datapath.setMtu(mtu);
  };

  /** Why a lease has no place in our route tables; undefined when it has. */
  const misfit = ({ subnet, subnet6 }: Lease): string | undefined => {
    if (subnet.prefixLength !== subnetLength) return `its subnet is no /${subnetLength}`;
    if (subnet6 === undefined) return undefined;
    if (!ip6) return 'it has an IPv6 subnet and this network has none';
    return indexOf6(subnet6, networks) < 0 ? `its IPv6 subnet is no /${subnetLength6} of the network` : undefined;
  };

  running = await start().catch(error => {
    underlay.stop();
    throw error;
  });
  gone = false;
  const sinceStart = <Name extends string>(counts: Record<Name, number>): Record<Name, number> => {
    const names = Object.keys(counts) as Name[];
    const sums = names.map(name => [name, (past[name] ?? 0) + (gone ? 0 : counts[name])]);
    return Object.fromEntries(sums) as Record<Name, number>;
  };
  let restarting: Promise<void> = Promise.resolve();

  const restart = async (): Promise<void> => {
    try {
      await running.end();
    } catch (error) {
      log.warn({ reason: messageOf(error) }, 'the lost data path did not end cleanly');
    }
    const counted = { ...running.datapath.flows(), ...running.datapath.drops() };
    for (const [name, count] of Object.entries(counted)) past[name] = (past[name] ?? 0) + count;
    gone = true;
    const again = async (): Promise<void> => {
      if (stopped) return;
      try {
        const next = await start();
        if (stopped) return await next.end();
        running = next;
        gone = false;
        log.info({ device: running.device, peers: peers.size }, 'data path is back');
      } catch (error) {
        log.warn({ reason: messageOf(error) }, 'data path cannot be made again yet');
        retry = setTimeout(() => {
          restarting = again();
        }, RESTART_DELAY_MS);
      }
    };
    await again();
  };

  return {
    get device() {
      return running.device;
    },
    get mtu() {
      return mtu;
    },
    address: options.address,
    port: backend.port,
    apply(changes) {
      const puts: Peer[] = [];
      const removals: Subnet4[] = [];
      for (const { kind, lease: changed } of changes) {
        const peer = kind === 'remove' ? undefined : peerOf(changed, backend);
        const why = typeof peer === 'object' ? misfit(changed) : peer;
        if (typeof peer === 'object' && why === undefined) {
          peers.set(subnetKey(changed), peer);
          puts.push(peer);
          continue;
        }
        if (kind !== 'remove') {
          log.warn({ subnet: printSubnets(changed), why }, 'a lease is of no use to this node');
        }
        if (peers.delete(subnetKey(changed))) removals.push(changed.subnet);
      }
      if (!gone) running.datapath.update(puts, removals);
    },
    setLease(next) {
      if (subnetKey(next) !== subnetKey(lease)) {
        throw new TulleError(
          'bad-subnet',
          `the overlay runs on ${printSubnets(lease)} and cannot move to ${printSubnets(next)}`,
        );
      }
      lease = next;
      if (!gone) running.datapath.setKey(leaseKeyOf(next));
    },
    side: {
      probe: (subnet, errand) => !gone && running.datapath.side.probe(subnet, errand),
      message: (...message) => !gone && running.datapath.side.message(...message),
      trace: (...packet) => !gone && running.datapath.side.trace(...packet),
      take: () => (gone ? [] : running.datapath.side.take()),
    },
    wayTo: subnet => (gone ? undefined : running.datapath.wayTo(subnet)),
    setPathLimit(subnet, limit) {
      if (!gone) running.datapath.setPathLimit(subnet, limit);
    },
    peers: () => [...peers.values()],
    routeTo: to => (stopped ? undefined : underlay.routeTo(to)),
    counters: () => sinceStart(running.datapath.flows()),
    drops: () => sinceStart(running.datapath.drops()),
    facts: () => ({
      running: !gone,
      transport: options.transport,
      overhead,
      offloads: offloadStates({
        transport: options.transport,
        without: options.withoutOffloads ?? [],
        tunBits: running.tunBits,
        socket: running.socket,
        alive: gone ? undefined : running.datapath.offloads(),
      }),
      underlayError,
      peers: [...peers.values()].map(peer => {
        const limit = gone ? mtu : (running.datapath.wayTo(peer.subnet)?.limit ?? mtu);
        return { peer, pathMtu: Math.min(limit, mtu) + overhead };
      }),
    }),
    capture: {
      set(settings) {
        captured = settings;
        running.datapath.capture.set(settings);
      },
      // What a data path that is gone has captured can still be read.
      drain: (take, most) => running.datapath.capture.drain(take, most),
      lost: () => running.datapath.capture.lost(),
    },
    setDeadline(monotonicMs) {
      deadline = monotonicMs;
      if (!gone) running.datapath.setDeadline(monotonicMs);
    },
    async stop() {
      stopped = true;
      underlay.stop();
      clearTimeout(retry);
      await restarting;
      clearTimeout(retry);
      await running.end();
    },
  };
}
