/**
 * The plain loop: one packet a time, through Node's dgram socket and event loop. Each packet costs a system call on the
 * TUN, one on the socket, an event and a copy. It needs nothing but a TUN descriptor, so it runs where batched calls do
 * not, and it is the baseline of the transport ladder. It speaks the same wire as the others, because it runs the same
 * Egress and Ingress over tables of one entry.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { constants } from 'node:os';
import {
  checksum,
  drain,
  encodeAddress,
  monotonicMs,
  pollReadable,
  readTun,
  registerArena,
  writeTun,
} from '../sys/sys.ts';
import { get16 } from '../wire/bytes.ts';
import { TapSwitch } from './capture-tap.ts';
import { countBatch, dropIndex, flowIndex } from './counters.ts';
import { Egress } from './egress.ts';
import type { Sum } from './flow-run.ts';
import type { WriteReplies } from './icmp-reply.ts';
import { Ingress } from './ingress.ts';
import { checkFault, type LoopContext, LoopFault } from './loop.ts';
import type { SendMessages } from './message-table.ts';
import type { WritePackets } from './packet-table.ts';
import { SideTraffic } from './side-traffic.ts';
import {
  CONTROL_CLOCK,
  CONTROL_EPOCH,
  CONTROL_STOP,
  IOV_WORDS,
  MESSAGE_WORDS,
  RECORD_WORDS,
  SLOT_BYTES,
  type Slab,
  TUN_READ_OFFSET,
} from './slab.ts';
import { addressText, pathLookup } from './underlay-path.ts';

/** Packets taken from the TUN before the event loop sees to the socket again. */
const TURN = 64;
/** The bytes that may wait inside the socket; beyond that the kernel is the bottleneck and packets are dropped and counted. */
const MAX_QUEUED_BYTES = 4 * 1024 * 1024;

/** Hears what became of one datagram. */
type SendDone = (error: Error | null) => void;

const DATAGRAMS = flowIndex('egress-datagrams');
const TOO_BIG = dropIndex('egress-too-big');
const SEND_FAILED = dropIndex('egress-send-failed');
const EGRESS_BATCHES = flowIndex('egress-batches');
const EGRESS_SIZES = flowIndex('egress-batches-1');
const INGRESS_BATCHES = flowIndex('ingress-batches');
const INGRESS_SIZES = flowIndex('ingress-batches-1');

export async function runDgramLoop({ slab, input, say }: LoopContext): Promise<void> {
  const { tun, wake, endpoint } = input;
  const { control, counters } = slab;
  const arena = registerArena(slab.bytes);
  const buffers = { recvBufferSize: 2 ** 22, sendBufferSize: 2 ** 22 };
  const six = endpoint.address.includes(':');
  const socket = createSocket(six ? { type: 'udp6', ipv6Only: true, ...buffers } : { type: 'udp4', ...buffers });
  socket.bind({ port: endpoint.port, address: endpoint.address, exclusive: true });
  await once(socket, 'listening');

  const sum: Sum = (offset, length, initial) => checksum(arena, offset, length, initial);
  const writeRows = (rows: number, count: number, iovs: number): number => {
    const taken = writeTun(tun, arena, rows, count, iovs);
    slab.tap?.written(rows, count, iovs);
    return taken;
  };
  const write: WritePackets = count => writeRows(slab.packetsOffset, count, slab.ingressIovsOffset);
  const { network, own, format } = input;
  const writeReplies: WriteReplies = count => writeRows(slab.replyPacketsOffset, count, slab.replyIovsOffset);
  const sender =
    (done: SendDone): SendMessages =>
    count => {
      const left = sendSingly(slab, socket, count, done);
      slab.tap?.sent(count);
      return left;
    };
  /** A packet was counted as one that left, before Node had tried. */
  const recount: SendDone = error => {
    if (error === null) return;
    counters[DATAGRAMS]--;
    counters[codeOf(error) === 'EMSGSIZE' ? TOO_BIG : SEND_FAILED]++;
  };
  const send = sender(recount);
  const pathTo = pathLookup(slab);
  const egress = new Egress(slab, { network, own, format, send, sum, writeReplies, pathTo, now: monotonicMs });
  const side = new SideTraffic(slab, {
    network,
    send: sender(() => {}),
    now: monotonicMs,
    tell: () => say({ kind: 'mail' }),
  });
  const ingress = new Ingress(slab, network, own, write, sum, side);

  const capture = new TapSwitch(slab, network, monotonicMs);
  const isFenced = (): boolean => {
    const now = monotonicMs();
    control[CONTROL_CLOCK] = now | 0 || 1;
    return now > slab.deadline[0];
  };

  await new Promise<void>((resolve, reject) => {
    const stops: (() => void)[] = [];
    const end = (fault?: LoopFault): void => {
      for (const stop of stops.splice(0)) stop();
      socket.close(() => (fault === undefined ? resolve() : reject(fault)));
    };
    stops.push(
      pollReadable(tun, () => {
        Atomics.add(control, CONTROL_EPOCH, 1);
        capture.look();
        for (let turn = 0; turn < TURN; turn++) {
          const offset = slab.tunSlotsOffset + TUN_READ_OFFSET;
          const count = readTun(tun, arena, offset, SLOT_BYTES, SLOT_BYTES - TUN_READ_OFFSET, 1, slab.tunLengthsOffset);
          if (count === 0) return;
          if (count < 0) {
            const fault = faultOf(count);
            if (fault !== undefined) end(fault);
            return;
          }
          countBatch(counters, EGRESS_BATCHES, EGRESS_SIZES, 1);
          slab.tap?.read(1);
          if (isFenced()) egress.fence(1);
          else egress.take(1);
        }
      }),
      pollReadable(wake, () => {
        drain(wake);
        Atomics.add(control, CONTROL_EPOCH, 1);
        if (Atomics.load(control, CONTROL_STOP) !== 0) end();
        else side.run(isFenced(), egress);
      }),
    );
    socket.on('message', (datagram, from) => {
      Atomics.add(control, CONTROL_EPOCH, 1);
      countBatch(counters, INGRESS_BATCHES, INGRESS_SIZES, 1);
      placeDatagram(slab, datagram, from);
      capture.look();
      slab.tap?.received(1);
      if (isFenced()) ingress.fence(1);
      else ingress.take(1);
    });
    socket.on('error', error => end(new LoopFault('underlay', codeOf(error))));
    say({ kind: 'ready' });
  });
}

/** The fault that a failed TUN read is; an error that passes (the device is down) is none. */
function faultOf(result: number): LoopFault | undefined {
  try {
    checkFault('tun', result);
    return undefined;
  } catch (error) {
    return error as LoopFault;
  }
}

const codeOf = (error: Error): string => ('code' in error ? String(error.code) : 'EIO');

/** Sends each message as one datagram; the socket keeps the bytes until it has sent them, so each is a copy. */
function sendSingly(slab: Slab, socket: Socket, count: number, done: SendDone): number {
  const { words, bytes } = slab;
  let left = 0;
  for (let message = 0; message < count; message++) {
    const at = (slab.messagesOffset >> 2) + message * MESSAGE_WORDS;
    if (socket.getSendQueueSize() > MAX_QUEUED_BYTES) {
      words[at + 4] = constants.errno.EAGAIN;
      continue;
    }
    const parts: Uint8Array[] = [];
    for (let iov = words[at]; iov < words[at] + words[at + 1]; iov++) {
      const entry = (slab.egressIovsOffset >> 2) + iov * IOV_WORDS;
      parts.push(bytes.subarray(words[entry], words[entry] + words[entry + 1]));
    }
    const endpoint = words[at + 3];
    // An error of one datagram (EMSGSIZE, EHOSTUNREACH) comes later, when the message is gone; it is not a fault of the loop.
    socket.send(Buffer.concat(parts), get16(bytes, endpoint + 2), addressText(slab, endpoint), done);
    left++;
  }
  return left;
}

/** Puts one received datagram where a batched receive would have put it: slot 0 and record 0. */
function placeDatagram(slab: Slab, datagram: Uint8Array, from: RemoteInfo): void {
  slab.bytes.set(datagram, slab.udpSlotsOffset);
  const record = slab.recordsOffset >> 2;
  slab.words.fill(0, record, record + RECORD_WORDS);
  slab.words[record] = datagram.length;
  encodeAddress(slab.bytes, slab.recordsOffset + 16, from.address, from.port);
}
