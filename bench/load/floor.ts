/**
 * The floor under every user-space tunnel with TUN offloads: the four copies and the system calls that nobody can leave out,
 * and as little else as possible. A super-packet crosses as one train in one gather entry, with 4 bytes in front, cut where it
 * happens to be cut; the receiver hands the bytes on as they came. No header a segment, no look-up, no check, no sender
 * refused; a lost datagram spoils its super-packet. So it is no tunnel for anybody: it is what a tunnel is compared with.
 *
 *   floor.js DEVICE LOCAL PEER PORT
 */

import { writeEndpoint } from '../../lib/datapath/peers.ts';
import { SLOT_BYTES, SLOTS } from '../../lib/datapath/slab.ts';
import {
  close,
  openTun,
  openUdp,
  poll,
  readTun,
  receiveUdp,
  registerArena,
  sendUdp,
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_USO4,
  TUN_F_USO6,
  writeTun,
} from '../../lib/sys/sys.ts';
import { get16, set16 } from '../../lib/wire/bytes.ts';
import { parseAddress4 } from '../../lib/wire/ip4.ts';
import { VNET_HEADER_BYTES } from '../../lib/wire/vnet.ts';

/** What stands before a packet: a mark, by which the receiver finds the next one after a loss, and its length. */
const MARK = 0x7e11;
const PREFIX_BYTES = 4;
/** The largest datagrams over 1500 bytes, and the longest train (udp(7)). */
const DATAGRAM_BYTES = 1472;
const TRAIN_BYTES = 65_507;
const BUFFER_BYTES = 8 * 1024 * 1024;
const MOST = 1024;

const [device, local, peer, port] = process.argv.slice(2);
const tun = openTun({ name: device, vnetHeader: true, offloads: TUN_F_CSUM | TUN_F_TSO4 | TUN_F_USO4 | TUN_F_USO6 });
const socket = { address: local, port: Number(port), receiveBuffer: BUFFER_BYTES, sendBuffer: BUFFER_BYTES };
const udp = openUdp({ ...socket, gro: true, dontFragment: true });

let end = 0;
const place = (bytes: number): number => {
  const at = end;
  end += Math.ceil(bytes / 64) * 64;
  return at;
};
const polls = place(24);
const address = place(32);
const lengths = place(SLOTS * 4);
const messages = place(SLOTS * 20);
const records = place(SLOTS * 48);
const packets = place(MOST * 12);
const iovs = place(MOST * 8);
const carry = place(SLOT_BYTES);
const slots = place(2 * SLOTS * SLOT_BYTES);
const received = slots + SLOTS * SLOT_BYTES;
const bytes = new Uint8Array(new SharedArrayBuffer(end));
const words = new Int32Array(bytes.buffer);
const arena = registerArena(bytes);
writeEndpoint(bytes, address, parseAddress4(peer) ?? 0, Number(port));

/** TUN to underlay. Returns the packets read. */
function egress(): number {
  const offset = slots + PREFIX_BYTES;
  const count = readTun(tun.handle, arena, offset, SLOT_BYTES, SLOT_BYTES - PREFIX_BYTES, SLOTS, lengths);
  let sent = 0;
  for (let slot = 0; slot < count; slot++) {
    const at = slots + slot * SLOT_BYTES;
    const length = words[(lengths >> 2) + slot] + PREFIX_BYTES;
    if (length > TRAIN_BYTES) continue;
    set16(bytes, at, MARK);
    set16(bytes, at + 2, length - PREFIX_BYTES - VNET_HEADER_BYTES);
    words.set([at, length], (iovs >> 2) + sent * 2);
    words.set([sent, 1, length > DATAGRAM_BYTES ? DATAGRAM_BYTES : 0, address, 0], (messages >> 2) + sent * 5);
    sent++;
  }
  if (sent > 0) sendUdp(udp.handle, arena, messages, sent, iovs);
  return count;
}

/** Bytes of the packet in hand that have not come yet; the part that came in an earlier batch is in `carry`. */
let missing = 0;
let carried = 0;

/** Underlay to TUN. Returns the trains received. */
function ingress(): number {
  const count = receiveUdp(udp.handle, arena, received, SLOT_BYTES, SLOT_BYTES, SLOTS, records);
  let written = 0;
  let used = 0;
  let first = 0;
  const piece = (at: number, length: number): void => {
    words.set([at, length], (iovs >> 2) + used * 2);
    used++;
  };
  const finish = (): void => {
    words.set([first, used - first, 0], (packets >> 2) + written * 3);
    written++;
    first = used;
  };
  if (carried > 0) piece(carry, carried);
  for (let slot = 0; slot < count && used < MOST - 2; slot++) {
    let at = received + slot * SLOT_BYTES;
    const last = at + words[(records >> 2) + slot * 12];
    while (at < last && used < MOST - 2) {
      if (missing === 0) {
        if (last - at <= PREFIX_BYTES || get16(bytes, at) !== MARK) break;
        missing = get16(bytes, at + 2) + VNET_HEADER_BYTES;
        at += PREFIX_BYTES;
      }
      const length = Math.min(missing, last - at);
      piece(at, length);
      at += length;
      missing -= length;
      if (missing === 0) finish();
    }
  }
  if (written > 0) writeTun(tun.handle, arena, packets, written, iovs);
  keep(first, used);
  return count;
}

/** Copies the pieces of a packet that is not whole yet to where the next batch finds them. */
function keep(first: number, used: number): void {
  let length = 0;
  for (let i = first; i < used; i++) {
    const [at, size] = words.subarray((iovs >> 2) + i * 2, (iovs >> 2) + i * 2 + 2);
    if (at !== carry) bytes.copyWithin(carry + length, at, at + size);
    length += size;
  }
  carried = missing > 0 ? length : 0;
}

process.once('SIGTERM', () => {
  close(tun.handle);
  process.exit(0);
});
words.set([tun.handle, 1, 0, udp.handle, 1, 0], polls >> 2);
/** The event loop gets a turn after so many of ours, for the signal. */
const TURNS = 1000;
function run(): void {
  for (let turn = 0; turn < TURNS; turn++) {
    if (poll(arena, polls, 2, 100) <= 0) break;
    if (words[(polls >> 2) + 2] !== 0) while (egress() === SLOTS);
    if (words[(polls >> 2) + 5] !== 0) while (ingress() === SLOTS);
  }
  setImmediate(run);
}
run();
