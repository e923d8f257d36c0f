/**
 * One link of the lab, taken from the switch's bridge and joined to it again through this process:
 *
 *   node1          │ switch
 *     eth0 ═ veth ═│═ node1 ─── packet socket ─── rules ─── TAP "f-node1" ─── br0
 *
 * The node's own interface hands over one frame at a time (gsoMaxSegments 1), the TAP takes no offloads, and a checksum
 * that the kernel left open is finished here: so every frame is one that a wire would carry. Should this process die,
 * the TAP goes with it and the link hangs in the air: mendLinks puts it back.
 */
import { getSysctl, setSysctl } from '../host/sysctl.ts';
import { withRtnetlink } from '../netlink/netlink.ts';
import * as sys from '../sys/sys.ts';
import { finishPartial } from '../wire/checksum.ts';
import {
  VNET_FLAG_NEEDS_CSUM,
  VNET_GSO_NONE,
  VNET_HEADER_BYTES,
  vnetChecksumOffset,
  vnetChecksumStart,
  vnetFlags,
  vnetGsoType,
} from '../wire/vnet.ts';
import { FaultChain } from './fault-chain.ts';
import type { Station } from './fault-frame.ts';
import { FrameQueue } from './fault-queue.ts';
import { SWITCH_BRIDGE, UNDERLAY } from './plan.ts';

/** Linux's own limit, what a link has when nobody says anything (GSO_MAX_SEGS). */
const ALL_SEGMENTS = 65_535;
/** A second of 1500-byte frames at 100 Mb/s and more; a full queue drops, as a router's does. */
const MOST_WAITING = 20_000;
const RECEIVE_BUFFER = 16 * 1024 * 1024;
const TAP_QUEUE = 4096;
const SLOTS = 64;
const SLOT_BYTES = 4096;
/** Turns of one readiness call, so that the other side and the timers have their turn, too. */
const ROUNDS = 8;
/** A frame that is due this soon leaves at once: a timer is no finer. */
const SOON_MS = 0.3;
/** arp_ignore 8: the switch does not answer for its own addresses here, the bridge does. */
const ARP_SILENT = 8;

export const tapName = (node: string): string => `f-${node}`;

/** Memory for one batch of frames: slots, their lengths, and the tables of writeTun. */
class Batch {
  readonly bytes = new Uint8Array(new SharedArrayBuffer(SLOTS * SLOT_BYTES + SLOTS * 4 * 6));
  readonly arena = sys.registerArena(this.bytes);
  readonly lengthsAt = SLOTS * SLOT_BYTES;
  readonly lengths = new Int32Array(this.bytes.buffer, this.lengthsAt, SLOTS);
  readonly packetsAt = this.lengthsAt + SLOTS * 4;
  readonly packets = new Int32Array(this.bytes.buffer, this.packetsAt, SLOTS * 3);
  readonly iovsAt = this.packetsAt + SLOTS * 12;
  readonly iovs = new Int32Array(this.bytes.buffer, this.iovsAt, SLOTS * 2);
  count = 0;

  /** Notes that the next write sends what lies at `offset`. */
  push(offset: number, bytes: number): void {
    this.packets.set([this.count, 1, 0], this.count * 3);
    this.iovs.set([offset, bytes], this.count * 2);
    this.count++;
  }

  /** Frames that the kernel took. */
  write(handle: number): number {
    const { count } = this;
    this.count = 0;
    return count === 0 ? 0 : sys.writeTun(handle, this.arena, this.packetsAt, count, this.iovsAt);
  }

  close(): void {
    sys.unregisterArena(this.arena);
  }
}

export interface LinkCounts {
  /** Frames that came from the node, and to it. */
  out: number;
  in: number;
  /** Frames that found the queue of waiting ones, or a buffer of the kernel's, full. */
  overflow: number;
}

export class FaultLink {
  readonly chain: FaultChain;
  readonly counts: LinkCounts = { out: 0, in: 0, overflow: 0 };
  readonly #node: string;
  readonly #namespace: string;
  readonly #reading = new Batch();
  readonly #writing = new Batch();
  readonly #queue = new FrameQueue(MOST_WAITING);
  /** Where frames from the node leave (0), where frames to it (1). */
  readonly #exits: number[] = [];
  readonly #lastDue = [0, 0];
  readonly #undo: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;

  /**
   * Takes the link over. This thread must be in the switch's namespace.
   * @param namespace the file of the node's
   */
  constructor(node: string, namespace: string, self: Station, router: number) {
    this.#node = node;
    this.#namespace = namespace;
    this.chain = new FaultChain(self, router);
    try {
      this.#engage();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #engage(): void {
    const tap = tapName(this.#node);
    const { handle: tapHandle } = sys.openTun({ name: tap, vnetHeader: true, offloads: 0, frames: true });
    this.#undo.push(() => sys.close(tapHandle));
    withRtnetlink(undefined, netlink =>
      netlink.setLink(tap, { mtu: UNDERLAY.mtu, txQueueLength: TAP_QUEUE, alias: `faults of ${this.#node}` }),
    );
    setSysctl(undefined, `net.ipv4.conf.${this.#node}.arp_ignore`, ARP_SILENT);
    withRtnetlink(this.#namespace, netlink => netlink.setLink('eth0', { gsoMaxSegments: 1 }));
    const socket = sys.openPacket({ link: this.#node, receiveBuffer: RECEIVE_BUFFER });
    this.#undo.push(() => sys.close(socket));
    this.#undo.push(() => mendLink(this.#node, this.#namespace));
    withRtnetlink(undefined, netlink => {
      netlink.setLink(this.#node, { master: null });
      netlink.setLink(tap, { master: SWITCH_BRIDGE, up: true });
    });
    this.#exits.push(tapHandle, socket);
    this.#undo.push(sys.pollReadable(socket, () => this.#read(socket, true)));
    this.#undo.push(sys.pollReadable(tapHandle, () => this.#read(tapHandle, false)));
  }

  /** Reads what is there, decides about each frame, and sends what leaves at once. */
  #read(handle: number, out: boolean): void {
    const batch = this.#reading;
    for (let round = 0; round < ROUNDS; round++) {
      const count = sys.readTun(handle, batch.arena, 0, SLOT_BYTES, SLOT_BYTES, SLOTS, batch.lengthsAt);
      if (count <= 0) break; // a link that is down (-ENETDOWN) is read again when it is up
      const nowMs = performance.now();
      for (let i = 0; i < count; i++) this.#take(i * SLOT_BYTES, batch.lengths[i], out, nowMs);
      const due = batch.count;
      this.counts.overflow += due - batch.write(this.#exits[out ? 0 : 1]);
      if (count < SLOTS) break;
    }
    this.#release();
  }

  #take(at: number, bytes: number, out: boolean, nowMs: number): void {
    const { bytes: memory } = this.#reading;
    this.counts[out ? 'out' : 'in']++;
    const length = bytes - VNET_HEADER_BYTES;
    if (length <= 0 || vnetGsoType(memory, at) !== VNET_GSO_NONE) {
      this.counts.overflow++; // cut off before gsoMaxSegments took effect: a super-packet is no frame
      return;
    }
    const frame = memory.subarray(at + VNET_HEADER_BYTES, at + bytes);
    if ((vnetFlags(memory, at) & VNET_FLAG_NEEDS_CSUM) !== 0) finishChecksum(memory, at, frame);
    memory.fill(0, at, at + VNET_HEADER_BYTES);

    const verdict = this.chain.decide(frame, length, out);
    for (const back of verdict.back) this.#wait(back, nowMs, out ? 1 : 0);
    const side = out ? 0 : 1;
    if (verdict.copies === 0 && verdict.pieces.length === 0) return;
    const dueMs = this.#dueOf(nowMs + verdict.delayMs, side, verdict.heldBack);
    for (const piece of verdict.pieces) this.#wait(piece, dueMs, side);
    // At once only when nobody waits: what is due but not sent yet must not be overtaken.
    if (verdict.copies === 1 && dueMs <= nowMs && this.#queue.length === 0) this.#reading.push(at, bytes);
    else for (let copy = 0; copy < verdict.copies; copy++) this.#wait(frame.slice(), dueMs, side);
  }

  /** Only a frame that is held back may be overtaken. */
  #dueOf(dueMs: number, side: number, heldBack: boolean): number {
    if (heldBack) return dueMs;
    this.#lastDue[side] = Math.max(this.#lastDue[side], dueMs);
    return this.#lastDue[side];
  }

  #wait(frame: Uint8Array, dueMs: number, side: number): void {
    if (!this.#queue.add({ frame, dueMs, side })) this.counts.overflow++;
  }

  /** Sends what is due, and sets the timer for the next. `all` sends everything. */
  #release(all = false): void {
    const nowMs = all ? Number.POSITIVE_INFINITY : performance.now() + SOON_MS;
    const batch = this.#writing;
    let side = 0;
    const write = (): void => {
      const due = batch.count;
      this.counts.overflow += due - batch.write(this.#exits[side]);
    };
    for (let next = this.#queue.take(nowMs); next !== undefined; next = this.#queue.take(nowMs)) {
      if (next.side !== side || batch.count === SLOTS) write();
      side = next.side;
      const at = batch.count * SLOT_BYTES;
      batch.bytes.fill(0, at, at + VNET_HEADER_BYTES);
      batch.bytes.set(next.frame, at + VNET_HEADER_BYTES);
      batch.push(at, VNET_HEADER_BYTES + next.frame.length);
    }
    write();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const nextMs = this.#queue.nextMs;
    if (nextMs !== undefined) this.#timer = setTimeout(() => this.#release(), Math.max(0, nextMs - performance.now()));
  }

  /** After the rules changed: what waits by the old ones goes now. */
  flush(): void {
    this.#release(true);
    this.#lastDue.fill(0);
  }

  /** Gives the link back to the bridge; what waits is sent first. */
  close(): void {
    if (this.#exits.length === 2) this.#release(true);
    clearTimeout(this.#timer);
    this.#exits.length = 0;
    for (const undo of this.#undo.splice(0).reverse()) undo();
    this.#reading.close();
    this.#writing.close();
  }
}

/** The kernel left a checksum open: its place is counted from the frame's start. */
function finishChecksum(memory: Uint8Array, at: number, frame: Uint8Array): void {
  const start = vnetChecksumStart(memory, at);
  const offset = vnetChecksumOffset(memory, at);
  if (start + offset + 2 <= frame.length) finishPartial(frame, start, offset, frame.length);
}

/** Puts a link back on the bridge as if nothing had been. This thread must be in the switch's namespace. */
export function mendLink(node: string, namespace: string): void {
  withRtnetlink(undefined, netlink => {
    netlink.deleteLink(tapName(node));
    netlink.setLink(node, { master: SWITCH_BRIDGE, up: true });
  });
  const key = `net.ipv4.conf.${node}.arp_ignore`;
  if (getSysctl(undefined, key) !== '0') setSysctl(undefined, key, '0');
  withRtnetlink(namespace, inside => inside.setLink('eth0', { gsoMaxSegments: ALL_SEGMENTS }));
}
