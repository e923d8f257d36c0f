/**
 * What a loop is: the driver that moves packets between the TUN, the pure code (Egress, Ingress) and the underlay.
 * There are two behind this one interface: `runBatchLoop` blocks in the addon and moves batches; `runDgramLoop` is the
 * plain way, one packet a time through Node's event loop: portable, slow, and the baseline that teaches what batches buy.
 */

import type { Subnet4 } from '../wire/cidr.ts';
import type { Network } from './peers.ts';
import type { Slab } from './slab.ts';

/** How datagrams cross: one at a time; batched system calls; or batches, trains and the TUN's offloads. */
export type Transport = 'dgram' | 'batch' | 'offload';

/** What the worker is started with: plain data that survives postMessage. */
export interface WorkerInput {
  buffer: SharedArrayBuffer;
  subnetCount: number;
  network: Network;
  own: Subnet4;
  /** FORMAT_BARE or FORMAT_TULLE. */
  format: number;
  transport: Transport;
  /** Handles of lib/sys. `udp` is 0 for the dgram transport, which opens its own socket on the endpoint. */
  tun: number;
  udp: number;
  wake: number;
  endpoint: { address: string; port: number };
}

/** What the worker says. */
export type WorkerMessage =
  | { kind: 'ready' }
  /** The loop cannot go on: which descriptor, and the errno name. */
  | { kind: 'fault'; where: 'tun' | 'underlay'; code: string; message: string };

export interface LoopContext {
  slab: Slab;
  input: WorkerInput;
  /** Tells the main thread that packets move from now on. */
  ready(): void;
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
