/**
 * The fast loop. One thread serves both directions: on few cores that shortens the round trip by a third
 * against a thread each (docs/decisions/0001). It drains a descriptor until EAGAIN and sleeps in poll only when both are empty.
 */
import {
  checksum,
  drain,
  monotonicMs,
  poll,
  readTun,
  receiveUdp,
  registerArena,
  sendUdp,
  writeTun,
} from '../sys/sys.ts';
import { TapSwitch } from './capture-tap.ts';
import { countBatch, flowIndex } from './counters.ts';
import { Egress } from './egress.ts';
import type { Sum } from './flow-run.ts';
import type { WriteReplies } from './icmp-reply.ts';
import { Ingress } from './ingress.ts';
import { checkFault, type LoopContext, LoopNews } from './loop.ts';
import type { SendMessages } from './message-table.ts';
import type { WritePackets } from './packet-table.ts';
import { SideTraffic } from './side-traffic.ts';
import { CONTROL_CLOCK, CONTROL_EPOCH, CONTROL_STOP, POLL_WORDS, SLOT_BYTES, SLOTS, TUN_READ_OFFSET } from './slab.ts';
import { pathLookup } from './underlay-path.ts';
import { warmUp } from './warm-up.ts';

const POLLIN = 1;
/** Longer than the addon sleeps at most: the loop has nothing to do by the clock. */
const FOREVER_MS = 60_000;
const EGRESS_BATCHES = flowIndex('egress-batches');
const EGRESS_SIZES = flowIndex('egress-batches-1');
const INGRESS_BATCHES = flowIndex('ingress-batches');
const INGRESS_SIZES = flowIndex('ingress-batches-1');

export function runBatchLoop(context: LoopContext): void {
  const { slab, input } = context;
  const { tun, udp, wake } = input;
  const { control, counters, words } = slab;
  const arena = registerArena(slab.bytes);
  const sum: Sum = (offset, length, initial) => checksum(arena, offset, length, initial);
  const send: SendMessages = count => {
    const left = sendUdp(udp, arena, slab.messagesOffset, count, slab.egressIovsOffset);
    slab.tap?.sent(count);
    return left;
  };
  const writeRows = (rows: number, count: number, iovs: number): number => {
    const taken = writeTun(tun, arena, rows, count, iovs);
    slab.tap?.written(rows, count, iovs);
    return taken;
  };
  const write: WritePackets = count => writeRows(slab.packetsOffset, count, slab.ingressIovsOffset);
  const { network, own, format } = input;
  const writeReplies: WriteReplies = count => writeRows(slab.replyPacketsOffset, count, slab.replyIovsOffset);
  const pathTo = pathLookup(slab);
  const egress = new Egress(slab, { network, own, format, send, sum, writeReplies, pathTo, now: monotonicMs });
  const tell = (): void => context.say({ kind: 'mail' });
  const side = new SideTraffic(slab, { network, send, now: monotonicMs, tell });
  const ingress = new Ingress(slab, network, own, write, sum, side);

  const table = slab.pollOffset >> 2;
  [tun, udp, wake].forEach((handle, row) => {
    words[table + row * POLL_WORDS] = handle;
    words[table + row * POLL_WORDS + 1] = POLLIN;
  });

  const news = new LoopNews(context);
  const capture = new TapSwitch(slab, network, monotonicMs);
  for (const _ of warmUp(format)) if (Atomics.load(control, CONTROL_STOP) !== 0) return;
  context.say({ kind: 'ready' });
  // A packet alone is on its way before the TUN is asked for a second one; where there are more, they come in batches.
  let wanted = SLOTS;
  let fromTun = true;
  let fromUdp = true;
  while (Atomics.load(control, CONTROL_STOP) === 0) {
    Atomics.add(control, CONTROL_EPOCH, 1);
    const now = monotonicMs();
    control[CONTROL_CLOCK] = now | 0 || 1;
    const fenced = now > slab.deadline[0];
    capture.look();
    if (side.isWanted) side.run(fenced, egress);
    if (fromTun) {
      const start = slab.tunSlotsOffset + TUN_READ_OFFSET;
      const count = readTun(tun, arena, start, SLOT_BYTES, SLOT_BYTES - TUN_READ_OFFSET, wanted, slab.tunLengthsOffset);
      if (count > 0) {
        countBatch(counters, EGRESS_BATCHES, EGRESS_SIZES, count);
        slab.tap?.read(count);
        if (fenced) egress.fence(count);
        else egress.take(count);
      } else checkFault('tun', count);
      fromTun = count === wanted;
      wanted = count > 1 || (count === 1 && wanted === 1) ? SLOTS : 1;
    }
    if (fromUdp) {
      const count = receiveUdp(udp, arena, slab.udpSlotsOffset, SLOT_BYTES, SLOT_BYTES, SLOTS, slab.recordsOffset);
      if (count > 0) {
        countBatch(counters, INGRESS_BATCHES, INGRESS_SIZES, count);
        slab.tap?.received(count);
        if (fenced) ingress.fence(count);
        else ingress.take(count);
      } else checkFault('underlay', count);
      fromUdp = count === SLOTS;
    }
    if (fromTun || fromUdp) continue;
    news.look();
    if (poll(arena, slab.pollOffset, 3, FOREVER_MS) <= 0) continue;
    // Errors and hang-ups are looked at by the call that meets them.
    fromTun = words[table + 2] !== 0;
    fromUdp = words[table + POLL_WORDS + 2] !== 0;
    if (words[table + 2 * POLL_WORDS + 2] !== 0) drain(wake);
  }
}
