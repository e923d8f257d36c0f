/**
 * The table of packets for the TUN: gather entries, the packets over them, and what becomes of each. A refused coalesced
 * write turns coalescing off (one of UDP only that of UDP), and its segments are written one by one.
 */
import { constants } from 'node:os';
import { isIp6, l4DistanceOf, protocolOf, rewriteSegment } from '../wire/either.ts';
import { PROTOCOL_TCP } from '../wire/ip4.ts';
import { TCP_CHECKSUM, TCP_CWR, tcpFlags } from '../wire/tcp.ts';
import { UDP_CHECKSUM } from '../wire/udp.ts';
import {
  emitVnet,
  VNET_FLAG_NEEDS_CSUM,
  VNET_GSO_ECN,
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_UDP_L4,
  VNET_HEADER_BYTES,
  vnetChecksumOffset,
  vnetChecksumStart,
  vnetGsoSize,
  vnetGsoType,
} from '../wire/vnet.ts';
import { dropIndex, flowIndex } from './counters.ts';
import {
  CONTROL_COALESCE_OFF,
  CONTROL_UDP_COALESCE_OFF,
  IOV_WORDS,
  MAX_IOVS,
  MAX_PACKETS,
  PACKET_WORDS,
  type Slab,
} from './slab.ts';

/** Hands `packetCount` packets of the slab's table to the TUN, writes each one's status, returns how many it took. */
export type WritePackets = (packetCount: number) => number;

/** No run, or segments of one super-packet, each with a copy of its headers. */
export const RUN_OF_SEGMENTS = 0;
/** Whole packets of one flow whose checksums are finished, or partial. */
export const RUN_OF_PACKETS = 1;
export const RUN_OF_PARTIAL_PACKETS = 2;

const PACKETS = flowIndex('ingress-packets');
const BYTES = flowIndex('ingress-bytes');
const SUPER_PACKETS = flowIndex('ingress-super-packets');
const WRITE_FAILED = dropIndex('ingress-write-failed');

/** Rewrites a super-packet's headers at `ip` for `count` of its segments from `index` on, and puts their vnet header before. */
export function writeRunHeaders(
  bytes: Uint8Array,
  ip: number,
  inner: number,
  index: number,
  size: number,
  payload: number,
  isLast: boolean,
  count: number,
): void {
  rewriteSegment(bytes, ip, inner, index, size, payload, isLast);
  const ipLength = l4DistanceOf(bytes, ip);
  const vnet = ip - VNET_HEADER_BYTES;
  const tcp = protocolOf(bytes, ip) === PROTOCOL_TCP;
  const field = tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
  if (count === 1) {
    emitVnet(bytes, vnet, VNET_FLAG_NEEDS_CSUM, VNET_GSO_NONE, 0, 0, ipLength, field);
    return;
  }
  const ecn = tcp && (tcpFlags(bytes, ip + ipLength) & TCP_CWR) !== 0 ? VNET_GSO_ECN : 0;
  emitVnet(
    bytes,
    vnet,
    VNET_FLAG_NEEDS_CSUM,
    (tcp ? (isIp6(bytes, ip) ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4) : VNET_GSO_UDP_L4) | ecn,
    inner,
    size,
    ipLength,
    field,
  );
}

export class PacketTable {
  readonly #slab: Slab;
  readonly #write: WritePackets;
  #packets = 0;
  #iovs = 0;
  /** Datagrams in each packet of the table; 1 for what is no run. */
  readonly #segments = new Uint16Array(MAX_PACKETS);
  /** Each packet's kind of run. */
  readonly #kinds = new Uint8Array(MAX_PACKETS);

  constructor(slab: Slab, write: WritePackets) {
    this.#slab = slab;
    this.#write = write;
  }

  /** Adds a gather entry. */
  iov(offset: number, length: number): void {
    const at = (this.#slab.ingressIovsOffset >> 2) + this.#iovs++ * IOV_WORDS;
    this.#slab.words[at] = offset;
    this.#slab.words[at + 1] = length;
  }

  /** A place for the vnet header of the packet that is closed next, for one that cannot stand right before its packet. */
  vnetOffset(): number {
    return this.#slab.vnetsOffset + this.#packets * 16;
  }

  /** Closes a packet of `total` bytes over the last `iovs` gather entries: one of RUN_… and the number of its datagrams. */
  packet(iovs: number, kind: number, segments: number, total: number): void {
    const at = (this.#slab.packetsOffset >> 2) + this.#packets * PACKET_WORDS;
    this.#slab.words[at] = this.#iovs - iovs;
    this.#slab.words[at + 1] = iovs;
    this.#slab.words[at + 2] = 0;
    this.#kinds[this.#packets] = kind;
    this.#segments[this.#packets++] = segments;
    this.#slab.counters[BYTES] += total;
  }

  /** Whether that many more packets and gather entries fit. */
  hasRoom(packets: number, iovs: number): boolean {
    return this.#packets + packets <= MAX_PACKETS && this.#iovs + iovs <= MAX_IOVS;
  }

  /** Hands all to the TUN and accounts for each. */
  flush(): void {
    const count = this.#packets;
    if (count > 0) {
      const taken = this.#write(count);
      this.#account(count, taken === count);
    }
    this.#packets = 0;
    this.#iovs = 0;
  }

  #account(count: number, allTaken: boolean): void {
    const { words, counters, control } = this.#slab;
    const table = this.#slab.packetsOffset >> 2;
    for (let packet = 0; packet < count; packet++) {
      const at = table + packet * PACKET_WORDS;
      const status = allTaken ? 0 : words[at + 2];
      const segments = this.#segments[packet];
      if (status === 0) {
        counters[PACKETS]++;
        if (segments > 1) counters[SUPER_PACKETS]++;
      } else if (segments > 1 && status === constants.errno.EINVAL) {
        // This kernel does not take such GSO writes after all: never again, and these segments are written one by one.
        control[this.#isUdp(at) ? CONTROL_UDP_COALESCE_OFF : CONTROL_COALESCE_OFF] = 1;
        if (this.#kinds[packet] === RUN_OF_SEGMENTS) this.#writeSegments(at, segments);
        else this.#writePackets(at, segments, this.#kinds[packet] === RUN_OF_PARTIAL_PACKETS);
      } else {
        counters[WRITE_FAILED] += segments;
        this.#slab.tap?.droppedWrite(at, WRITE_FAILED);
      }
    }
  }

  /** Whether the run whose row begins at this word is one of UDP: its first gather entry begins with the vnet header. */
  #isUdp(packet: number): boolean {
    const { words, bytes } = this.#slab;
    const vnet = words[(this.#slab.ingressIovsOffset >> 2) + words[packet] * IOV_WORDS];
    return vnetGsoType(bytes, vnet) === VNET_GSO_UDP_L4;
  }

  /**
   * Writes the segments of one refused run as packets of their own. In each datagram there is room for the headers, but of what
   * came there only the first segment's were checked: all are made from those.
   */
  #writeSegments(packet: number, segments: number): void {
    const { words, bytes } = this.#slab;
    const iovs = (this.#slab.ingressIovsOffset >> 2) + words[packet] * IOV_WORDS;
    const table = this.#slab.packetsOffset >> 2;
    const saved = words.slice(table, table + PACKET_WORDS);
    const first = words[packet];
    const firstIp = words[iovs] + VNET_HEADER_BYTES;
    const size = vnetGsoSize(bytes, firstIp - VNET_HEADER_BYTES);
    const inner = words[iovs + 1] - VNET_HEADER_BYTES - size;
    for (let i = 1; i < segments; i++) bytes.copyWithin(words[iovs + i * IOV_WORDS] - inner, firstIp, firstIp + inner);
    for (let i = 0; i < segments; i++) {
      const iov = iovs + i * IOV_WORDS;
      const slice = i === 0 ? size : words[iov + 1];
      const ip = i === 0 ? firstIp : words[iov] - inner;
      // The headers are the run's, which has FIN and PSH only when it holds the super-packet's last byte.
      writeRunHeaders(bytes, ip, inner, i, size, slice, i === segments - 1, 1);
      words[iov] = ip - VNET_HEADER_BYTES;
      words[iov + 1] = VNET_HEADER_BYTES + inner + slice;
      this.#writeOne(first + i, 1);
    }
    words.set(saved, table);
  }

  /**
   * Writes the packets of one refused run one by one: all but the first are still as they came. Gather entry 0 is the
   * run's vnet header, entry 1 the first packet, the others payloads.
   */
  #writePackets(packet: number, count: number, partial: boolean): void {
    const { words, bytes } = this.#slab;
    const table = this.#slab.packetsOffset >> 2;
    const saved = words.slice(table, table + PACKET_WORDS);
    const first = words[packet];
    const iovs = (this.#slab.ingressIovsOffset >> 2) + first * IOV_WORDS;
    const vnet = words[iovs];
    const firstIp = words[iovs + IOV_WORDS];
    const headers = words[iovs + IOV_WORDS + 1] - vnetGsoSize(bytes, vnet);
    const [start, field] = [vnetChecksumStart(bytes, vnet), vnetChecksumOffset(bytes, vnet)];
    const size = vnetGsoSize(bytes, vnet);
    rewriteSegment(bytes, firstIp, headers, 0, size, size, false);
    for (let i = 0; i < count; i++) {
      // The entry before this packet's was written already: it becomes the vnet header's.
      const at = iovs + i * IOV_WORDS;
      const needsChecksum = i === 0 || partial;
      emitVnet(
        bytes,
        vnet,
        needsChecksum ? VNET_FLAG_NEEDS_CSUM : 0,
        VNET_GSO_NONE,
        0,
        0,
        needsChecksum ? start : 0,
        needsChecksum ? field : 0,
      );
      words[at] = vnet;
      words[at + 1] = VNET_HEADER_BYTES;
      if (i > 0) {
        words[at + IOV_WORDS] -= headers;
        words[at + IOV_WORDS + 1] += headers;
      }
      this.#writeOne(first + i, 2);
    }
    words.set(saved, table);
  }

  /** Writes one packet over the given gather entries; the table's first place serves, so that the TUN gets one packet. */
  #writeOne(firstIov: number, iovs: number): void {
    const { words, counters } = this.#slab;
    const table = this.#slab.packetsOffset >> 2;
    words[table] = firstIov;
    words[table + 1] = iovs;
    words[table + 2] = 0;
    const isWritten = this.#write(1) === 1;
    counters[isWritten ? PACKETS : WRITE_FAILED]++;
    if (!isWritten) this.#slab.tap?.droppedWrite(table, WRITE_FAILED);
  }
}
