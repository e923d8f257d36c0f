/**
 * Warming up. V8 interprets a function until it has run some thousand times, so the first seconds of a quiet node would
 * be slow: a round trip took half as long again until the compiler had seen enough packets. So the worker sends itself
 * some before it says that it is ready: an Egress and an Ingress over slabs of their own, whose datagrams go no further than
 * from the one to the other. It takes some 150 ms, in steps, so that it can be stopped. Done beside real packets it made
 * single ones wait for 20 ms.
 */
import { fold, sum } from '../wire/checksum.ts';
import {
  emitIp4,
  IP4_DONT_FRAGMENT,
  IP4_HEADER_BYTES,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../wire/ip4.ts';
import { finishL4Checksum4, l4ChecksumOffset, startL4Checksum4 } from '../wire/l4.ts';
import { emitTcp, TCP_ACK, TCP_HEADER_BYTES } from '../wire/tcp.ts';
import { emitUdp, UDP_HEADER_BYTES } from '../wire/udp.ts';
import { emitVnet, VNET_FLAG_NEEDS_CSUM, VNET_GSO_NONE, VNET_GSO_TCPV4, VNET_HEADER_BYTES } from '../wire/vnet.ts';
import { Egress } from './egress.ts';
import type { Sum } from './flow-run.ts';
import { Ingress } from './ingress.ts';
import { PeerTable, writeEndpoint } from './peers.ts';
import {
  CONTROL_KEY,
  CONTROL_MTU,
  IOV_WORDS,
  MESSAGE_WORDS,
  openSlab,
  RECORD_WORDS,
  SLOT_BYTES,
  SLOTS,
  type Slab,
  TUN_READ_OFFSET,
} from './slab.ts';

/** V8 11 to 14 had compiled all of it after about 1,000. */
const STEPS = 2_000;

/** RFC 2544's network for benchmarks, cut in two; the endpoints are of RFC 5737's documentation network. */
const NETWORK = { network: { address: 0xc612_0000, prefixLength: 23 }, subnetLength: 24 };
const SUBNETS = [0xc612_0000, 0xc612_0100].map(address => ({ address, prefixLength: 24 }));
const ENDPOINTS = [0xc000_0201, 0xc000_0202];
const PORT = 8285;
const KEYS = [1, 2];

/** What a TUN read gives, with the checksum left partial: protocol, bytes after the IP header, bytes a segment (0: none). */
const PACKETS: readonly (readonly [protocol: number, length: number, segmentSize: number])[] = [
  [PROTOCOL_ICMP, 64, 0],
  [PROTOCOL_TCP, TCP_HEADER_BYTES, 0],
  [PROTOCOL_UDP, 72, 0],
  [PROTOCOL_TCP, TCP_HEADER_BYTES + 600, 0],
  [PROTOCOL_UDP, UDP_HEADER_BYTES + 1200, 0],
  [PROTOCOL_UDP, UDP_HEADER_BYTES + 1200, 0],
  [PROTOCOL_TCP, TCP_HEADER_BYTES + 8 * 1000, 1000],
];

/** Sends packets of all common kinds through the code of a data path of this format, step by step. Returns both ends' slabs. */
export function* warmUp(format: number): Generator<void, [near: Slab, far: Slab]> {
  const [near, far] = [openEnd(0, format), openEnd(1, format)];
  const write = (count: number): number => count;
  let messages = 0;
  const send = (count: number): number => {
    for (let message = 0; message < count; message++) carry(near, far, message);
    messages = count;
    return count;
  };
  const options = { network: NETWORK, own: { subnet: SUBNETS[0] }, format, send, writeReplies: write };
  const egress = new Egress(near, { ...options, sum: sumOf(near), pathTo: () => 0, now: () => 0 });
  const ingress = new Ingress(far, NETWORK, { subnet: SUBNETS[1] }, write, sumOf(far));
  const reads = PACKETS.map(tunRead);
  const cross = (first: number, count: number): void => {
    for (let slot = 0; slot < count; slot++) {
      const read = reads[first + slot];
      near.bytes.set(read, near.tunSlotsOffset + slot * SLOT_BYTES + TUN_READ_OFFSET);
      near.words[(near.tunLengthsOffset >> 2) + slot] = read.length;
    }
    egress.take(count);
    ingress.take(messages);
  };
  for (let step = 0; step < STEPS; step++) {
    // Alone, as they come to an idle node, and all together.
    for (let kind = 0; kind < reads.length; kind++) cross(kind, 1);
    cross(0, reads.length);
    yield;
  }
  return [near, far];
}

/** The slab of one of two nodes that know each other. */
function openEnd(own: number, format: number): Slab {
  const other = 1 - own;
  const slab = openSlab(SUBNETS.length);
  slab.control[CONTROL_KEY] = KEYS[own];
  slab.control[CONTROL_MTU] = 1460;
  const table = new PeerTable(slab, NETWORK);
  table.own({ subnet: SUBNETS[own] });
  table.update([{ subnet: SUBNETS[other], address: ENDPOINTS[other], port: PORT, key: KEYS[other], format }], []);
  return slab;
}

const sumOf =
  ({ bytes }: Slab): Sum =>
  (offset, length, initial) =>
    fold(sum(bytes, offset, length, initial));

/** A vnet header and a packet from the first subnet to the second. */
function tunRead([protocol, length, segmentSize]: (typeof PACKETS)[number]): Uint8Array {
  const read = new Uint8Array(VNET_HEADER_BYTES + IP4_HEADER_BYTES + length);
  const total = IP4_HEADER_BYTES + length;
  const packet = read.subarray(VNET_HEADER_BYTES);
  const [from, to] = SUBNETS.map(({ address }) => address + 2);
  emitIp4(packet, 0, 0, total, 1, IP4_DONT_FRAGMENT, 64, protocol, from, to);
  if (protocol === PROTOCOL_TCP) emitTcp(packet, IP4_HEADER_BYTES, 1024, 80, 1, 1, TCP_HEADER_BYTES, TCP_ACK, 512);
  if (protocol === PROTOCOL_UDP) emitUdp(packet, IP4_HEADER_BYTES, 1024, 53, length);
  if (protocol === PROTOCOL_ICMP) {
    finishL4Checksum4(packet, 0);
    return read;
  }
  startL4Checksum4(packet, 0, IP4_HEADER_BYTES, length);
  const gsoType = segmentSize === 0 ? VNET_GSO_NONE : VNET_GSO_TCPV4;
  const field = l4ChecksumOffset(protocol);
  emitVnet(read, 0, VNET_FLAG_NEEDS_CSUM, gsoType, total, segmentSize, IP4_HEADER_BYTES, field);
  return read;
}

/** What the kernels would do with a message: its gather entries, one behind the other, in a slot of the far end. */
function carry(near: Slab, far: Slab, message: number): void {
  const slot = message % SLOTS;
  const at = (near.messagesOffset >> 2) + message * MESSAGE_WORDS;
  let length = 0;
  for (let i = 0; i < near.words[at + 1]; i++) {
    const iov = (near.egressIovsOffset >> 2) + (near.words[at] + i) * IOV_WORDS;
    const start = near.words[iov];
    far.bytes.set(
      near.bytes.subarray(start, start + near.words[iov + 1]),
      far.udpSlotsOffset + slot * SLOT_BYTES + length,
    );
    length += near.words[iov + 1];
  }
  const record = (far.recordsOffset >> 2) + slot * RECORD_WORDS;
  far.words[record] = length;
  far.words[record + 1] = near.words[at + 2];
  far.words[record + 2] = 0;
  writeEndpoint(far.bytes, (record + 4) * 4, ENDPOINTS[0], PORT);
}
