/**
 * What a loop is: the driver that moves packets between the TUN, the pure code (Egress, Ingress) and the underlay.
 * There are two behind this one interface: `runBatchLoop` blocks in the addon and moves batches; `runDgramLoop` is the
 * plain way, one packet a time through Node's event loop: portable, slow, and the baseline that teaches what batches buy.
 */

import { constants } from 'node:os';
import { errnoName } from '../sys/sys.ts';
import type { Network, Own } from './peers.ts';
import {
  CONTROL_COALESCE_OFF,
  CONTROL_TRAINS_OFF,
  CONTROL_UDP_COALESCE_OFF,
  CONTROL_UNDERLAY_ERROR,
  type Slab,
} from './slab.ts';

/** How datagrams cross: one at a time; batched system calls; or batches, trains and the TUN's offloads. */
export type Transport = 'dgram' | 'batch' | 'offload';

/** What the worker is started with: plain data that survives postMessage. */
export interface WorkerInput {
  buffer: SharedArrayBuffer;
  subnetCount: number;
  subnetCount6: number;
  network: Network;
  own: Own;
  /** FORMAT_BARE or FORMAT_TULLE. */
  format: number;
  transport: Transport;
  /** Handles of lib/sys. `udp` is 0 for the dgram transport, which opens its own socket on the endpoint. */
  tun: number;
  udp: number;
  wake: number;
  endpoint: { address: string; port: number };
}

/** UDP_SEGMENT trains to the underlay; coalesced (GSO) writes to the TUN, and those of UDP among them. */
export type Offload = 'trains' | 'coalescing' | 'udp-coalescing';

/** What the worker says. */
export type WorkerMessage =
  | { kind: 'ready' }
  /** The kernel refused an offload: it is off from now on. */
  | { kind: 'latched'; offload: Offload }
  /** The underlay refuses all datagrams (the errno name), or takes them again (undefined). */
  | { kind: 'underlay'; code: string | undefined }
  /** There are letters for the main thread (mailbox.ts). */
  | { kind: 'mail' }
  /** The loop cannot go on: which descriptor, and the errno name. */
  | { kind: 'fault'; where: 'tun' | 'underlay'; code: string; message: string };

export interface LoopContext {
  slab: Slab;
  input: WorkerInput;
  say(message: WorkerMessage): void;
}

/** Why a loop ended by itself. */
export class LoopFault extends Error {
  readonly where: 'tun' | 'underlay';
  readonly code: string;

  constructor(where: 'tun' | 'underlay', code: string) {
    super(where === 'tun' ? `the TUN device is gone (${code})` : `the underlay socket failed (${code})`);
    this.where = where;
    this.code = code;
  }
}

/**
 * Errors of a descriptor that is of no use any more: closed, or its device is gone (tun.c gives EBADFD, which node:os does not name).
 * ENETDOWN and EHOSTUNREACH come and go with the underlay.
 */
const FATAL = new Set<number>([constants.errno.EBADF, constants.errno.ENODEV, 77]);

/** Throws when `result` of a hot call is such an error. */
export function checkFault(where: 'tun' | 'underlay', result: number): void {
  if (result < 0 && FATAL.has(-result)) throw new LoopFault(where, errnoName(-result));
}

/** Tells the main thread what changed since the last look: an offload that latched off, the underlay closed or open. */
export class LoopNews {
  readonly #context: LoopContext;
  readonly #known: [number, number, number, number];

  constructor(context: LoopContext) {
    const { control } = context.slab;
    this.#context = context;
    this.#known = [
      control[CONTROL_TRAINS_OFF],
      control[CONTROL_COALESCE_OFF],
      control[CONTROL_UNDERLAY_ERROR],
      control[CONTROL_UDP_COALESCE_OFF],
    ];
  }

  /** Cheap enough for every turn. */
  look(): void {
    const { control } = this.#context.slab;
    const known = this.#known;
    const trains = control[CONTROL_TRAINS_OFF];
    const coalescing = control[CONTROL_COALESCE_OFF];
    const error = control[CONTROL_UNDERLAY_ERROR];
    const udpCoalescing = control[CONTROL_UDP_COALESCE_OFF];
    if (trains === known[0] && coalescing === known[1] && error === known[2] && udpCoalescing === known[3]) return;
    const { say } = this.#context;
    if (trains !== known[0]) say({ kind: 'latched', offload: 'trains' });
    if (coalescing !== known[1]) say({ kind: 'latched', offload: 'coalescing' });
    if (udpCoalescing !== known[3]) say({ kind: 'latched', offload: 'udp-coalescing' });
    if (error !== known[2]) say({ kind: 'underlay', code: error === 0 ? undefined : errnoName(error) });
    known[0] = trains;
    known[1] = coalescing;
    known[2] = error;
    known[3] = udpCoalescing;
  }
}
