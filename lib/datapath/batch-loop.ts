/**
 * The fast loop. One thread serves both directions: on few cores that halves the round trip against a thread each
 * (docs/architecture.md, "One worker"). It drains a descriptor until EAGAIN and sleeps in poll only when both are empty.
 */
import { constants } from 'node:os';
import { checksum, drain, errnoName, poll, readTun, receiveUdp, registerArena, sendUdp, writeTun } from '../sys/sys.ts';
import { flowIndex } from './counters.ts';
import { Egress } from './egress.ts';
import type { Sum } from './flow-run.ts';
import { Ingress } from './ingress.ts';
import { type LoopContext, LoopFault } from './loop.ts';
import type { SendMessages } from './message-table.ts';
import type { WritePackets } from './packet-table.ts';
import { CONTROL_EPOCH, CONTROL_STOP, POLL_WORDS, SLOT_BYTES, SLOTS, TUN_READ_OFFSET } from './slab.ts';

const POLLIN = 1;
/** Longer than the addon sleeps at most: the loop has nothing to do by the clock. */
const FOREVER_MS = 60_000;
/** ENETDOWN and EHOSTUNREACH come and go with the underlay; only these mean that a descriptor is of no use any more. */
const { EBADF, EBADFD = 77, ENODEV } = { ...constants.errno, EBADFD: 77 };
const FATAL = new Set<number>([EBADF, EBADFD, ENODEV]);

const EGRESS_BATCHES = flowIndex('egress-batches');
const INGRESS_BATCHES = flowIndex('ingress-batches');

export function runBatchLoop({ slab, input, ready }: LoopContext): void {
  const { tun, udp, wake } = input;
  const { control, counters, words } = slab;
  const arena = registerArena(slab.bytes);
  const sum: Sum = (offset, length, initial) => checksum(arena, offset, length, initial);
  const send: SendMessages = count => sendUdp(udp, arena, slab.messagesOffset, count, slab.egressIovsOffset);
  const write: WritePackets = count => writeTun(tun, arena, slab.packetsOffset, count, slab.ingressIovsOffset);
  const egress = new Egress(slab, input.network, input.format, send, sum);
  const ingress = new Ingress(slab, input.network, input.own, write, sum);

  const table = slab.pollOffset >> 2;
  [tun, udp, wake].forEach((handle, row) => {
    words[table + row * POLL_WORDS] = handle;
    words[table + row * POLL_WORDS + 1] = POLLIN;
  });

  ready();
  let fromTun = true;
  let fromUdp = true;
  while (Atomics.load(control, CONTROL_STOP) === 0) {
    Atomics.add(control, CONTROL_EPOCH, 1);
    if (fromTun) {
      const start = slab.tunSlotsOffset + TUN_READ_OFFSET;
      const count = readTun(tun, arena, start, SLOT_BYTES, SLOT_BYTES - TUN_READ_OFFSET, SLOTS, slab.tunLengthsOffset);
      if (count > 0) {
        counters[EGRESS_BATCHES]++;
        egress.take(count);
      } else if (count < 0 && FATAL.has(-count)) throw new LoopFault('tun', errnoName(-count));
      fromTun = count === SLOTS;
    }
    if (fromUdp) {
      const count = receiveUdp(udp, arena, slab.udpSlotsOffset, SLOT_BYTES, SLOT_BYTES, SLOTS, slab.recordsOffset);
      if (count > 0) {
        counters[INGRESS_BATCHES]++;
        ingress.take(count);
      } else if (count < 0 && FATAL.has(-count)) throw new LoopFault('underlay', errnoName(-count));
      fromUdp = count === SLOTS;
    }
    if (fromTun || fromUdp) continue;
    if (poll(arena, slab.pollOffset, 3, FOREVER_MS) <= 0) continue;
    // Errors and hang-ups are looked at by the call that meets them.
    fromTun = words[table + 2] !== 0;
    fromUdp = words[table + POLL_WORDS + 2] !== 0;
    if (words[table + 2 * POLL_WORDS + 2] !== 0) drain(wake);
  }
}
