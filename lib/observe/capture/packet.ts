/**
 * One captured packet, out of the ring: a copy that may be kept, with everything that is known about it. Of a datagram the
 * kernel writes the IP and the UDP header, so we never see them: they are put together again here (docs/capture.md says how).
 */
import {
  type CaptureRecord,
  POINT_TUN_READ,
  POINT_TUN_WRITTEN,
  POINT_UDP_RECEIVED,
  POINT_UDP_SENT,
  RECORD_HAS_PEER,
  RECORD_PARTIAL,
  RECORD_REPLY,
} from '../../datapath/capture-ring.ts';
import { DROP_NAMES, DROP_REASONS, type DropReason } from '../../datapath/counters.ts';
import { get16, get32 } from '../../wire/bytes.ts';
import { finish, pseudoSum4, pseudoSum6, sum } from '../../wire/checksum.ts';
import { formatCidr4 } from '../../wire/cidr.ts';
import {
  emitIp4,
  formatAddress4,
  IP4_DONT_FRAGMENT,
  IP4_HEADER_BYTES,
  PROTOCOL_UDP,
  parseAddress4,
} from '../../wire/ip4.ts';
import { emitIp6, formatAddress6, IP6_HEADER_BYTES, parseAddress6 } from '../../wire/ip6.ts';
import { emitUdp, setUdpChecksum, UDP_HEADER_BYTES } from '../../wire/udp.ts';

/** Where it was seen: read from the TUN, left, came, written to the TUN. One that was dropped was lost there. */
export type CapturePlace = 'tun-read' | 'udp-send' | 'udp-receive' | 'tun-write';

export interface CapturedPacket {
  place: CapturePlace;
  /** Why it went no further. */
  drop: DropReason | undefined;
  /** Nanoseconds since 1970. */
  time: bigint;
  /** From an IP header on: the pod's on the TUN, the outer one on the underlay. It may be cut. */
  bytes: Uint8Array;
  /** Bytes of the whole packet. */
  length: number;
  /** The peer that it goes to or came from, if one is known. */
  peer: { subnet: string; node: string | undefined } | undefined;
  /** Of a datagram: the other end. */
  endpoint: string | undefined;
  /** The train that it belongs to: `index` counts from 0, all but the last datagram have `size` bytes. */
  train: { id: number; index: number; count: number; size: number } | undefined;
  /** Of a super-packet: payload bytes of each of its segments; else 0. */
  segmentSize: number;
  /** The inner L4 checksum is left to whoever sends it on. */
  partial: boolean;
  /** An ICMP error of this node. */
  reply: boolean;
}

/** What a datagram's outer headers need. */
export interface LocalEnd {
  address: string;
  port: number;
}

/** What turns records into packets. */
export interface PacketContext {
  local: LocalEnd;
  /** Unix time in nanoseconds of the clock's 0. */
  epoch: bigint;
  nodeOf(subnet: string): string | undefined;
}

const PLACES: Readonly<Record<number, CapturePlace>> = {
  [POINT_TUN_READ]: 'tun-read',
  [POINT_UDP_SENT]: 'udp-send',
  [POINT_UDP_RECEIVED]: 'udp-receive',
  [POINT_TUN_WRITTEN]: 'tun-write',
};

const AF_INET = 2;
const AF_INET6 = 10;
/** What Linux gives its datagrams (net.ipv4.ip_default_ttl); of one that came we do not know it. */
const TTL = 64;

export const isDatagram = ({ point }: CaptureRecord): boolean =>
  point === POINT_UDP_SENT || point === POINT_UDP_RECEIVED;

/** The peer's subnet as a number, or -1. */
export const subnetOf = (record: CaptureRecord): number =>
  (record.flags & RECORD_HAS_PEER) !== 0 ? record.subnet : -1;

/** The family (4 or 6, or 0 for none), address and port of a record's remote end. */
export function remoteOf({ bytes, remote }: CaptureRecord): { family: 0 | 4 | 6; address: string; port: number } {
  const family = bytes[remote] | (bytes[remote + 1] << 8);
  const port = get16(bytes, remote + 2);
  if (family === AF_INET) return { family: 4, address: formatAddress4(get32(bytes, remote + 4)), port };
  if (family === AF_INET6) return { family: 6, address: formatAddress6(bytes.slice(remote + 8, remote + 24)), port };
  return { family: 0, address: '', port: 0 };
}

/** Copies a borrowed record. */
export function packetOf(record: CaptureRecord, context: PacketContext): CapturedPacket {
  const subnet = subnetOf(record);
  // The zeros at a mask's end are the ones at its complement's.
  const text = subnet < 0 ? undefined : formatCidr4({ address: subnet, prefixLength: Math.clz32(~record.mask) });
  const datagram = isDatagram(record);
  const remote = datagram ? remoteOf(record) : undefined;
  const data = record.bytes.slice(record.offset, record.offset + record.captured);
  const outer = datagram && remote !== undefined ? withOuter(data, record, remote, context.local) : undefined;
  // A double counts single nanoseconds in a machine's first 50 days, and four at once after a year.
  const milliseconds = Math.floor(record.time);
  const nano = BigInt(milliseconds) * 1_000_000n + BigInt(Math.round((record.time - milliseconds) * 1_000_000));
  return {
    place: PLACES[record.point],
    drop: record.reason < 0 ? undefined : DROP_NAMES[record.reason],
    time: context.epoch + nano,
    bytes: outer ?? data,
    length: record.length + (outer === undefined ? 0 : outer.length - data.length),
    peer: text === undefined ? undefined : { subnet: text, node: context.nodeOf(text) },
    endpoint: remote === undefined || remote.family === 0 ? undefined : endpointText(remote.address, remote.port),
    train:
      record.count > 1
        ? { id: record.train, index: record.index, count: record.count, size: record.segmentSize }
        : undefined,
    segmentSize: datagram ? 0 : record.segmentSize,
    partial: (record.flags & RECORD_PARTIAL) !== 0,
    reply: (record.flags & RECORD_REPLY) !== 0,
  };
}

export const endpointText = (address: string, port: number): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;

/** The datagram behind the IP and UDP header that it has, or had, on the underlay. */
function withOuter(
  data: Uint8Array,
  { point, length }: CaptureRecord,
  remote: { family: 0 | 4 | 6; address: string; port: number },
  local: LocalEnd,
): Uint8Array {
  const sent = point === POINT_UDP_SENT;
  const [from, to] = sent ? [local, remote] : [remote, local];
  const six = remote.family === 6;
  const ipBytes = six ? IP6_HEADER_BYTES : IP4_HEADER_BYTES;
  const headers = ipBytes + UDP_HEADER_BYTES;
  const bytes = new Uint8Array(headers + data.length);
  bytes.set(data, headers);
  const udpLength = UDP_HEADER_BYTES + length;
  if (six) {
    const [source, destination] = [from, to].map(end => parseAddress6(end.address) ?? new Uint8Array(16));
    emitIp6(bytes, 0, 0, 0, udpLength, PROTOCOL_UDP, TTL, source, destination);
  } else {
    const [source, destination] = [from, to].map(end => parseAddress4(end.address) ?? 0);
    emitIp4(bytes, 0, 0, ipBytes + udpLength, 0, IP4_DONT_FRAGMENT, TTL, PROTOCOL_UDP, source, destination);
  }
  emitUdp(bytes, ipBytes, from.port, to.port, udpLength);
  // Of a datagram that is here as a whole; else 0, which for IPv4 means "none".
  if (data.length === length) {
    const pseudo = six ? pseudoSum6(bytes, 0, PROTOCOL_UDP, udpLength) : pseudoSum4(bytes, 0, PROTOCOL_UDP, udpLength);
    setUdpChecksum(bytes, ipBytes, finish(sum(bytes, ipBytes, udpLength, pseudo)) || 0xffff);
  }
  return bytes;
}

/** What is known of a packet beside its bytes, one line each: the comments in a file, and the end of a printed line. */
export function commentsOf(packet: CapturedPacket): string[] {
  const { drop, peer, train, segmentSize, place } = packet;
  const comments: string[] = [];
  if (drop !== undefined) comments.push(`dropped: ${drop}: ${DROP_REASONS[drop]}`);
  if (peer !== undefined) {
    const node = peer.node === undefined ? '' : ` of ${peer.node}`;
    comments.push(`${place === 'tun-read' || place === 'udp-send' ? 'to' : 'from'} lease ${peer.subnet}${node}`);
  }
  if (train !== undefined) {
    comments.push(`train ${train.id}: datagram ${train.index + 1} of ${train.count}, ${train.size} bytes each`);
  }
  if (segmentSize > 0) {
    const what = place === 'tun-read' ? 'super-packet' : 'coalesced';
    comments.push(`${what}: ${segmentsOf(packet)} segments of ${segmentSize} bytes`);
  }
  if (packet.partial) comments.push('checksum left partial');
  if (packet.reply) comments.push('ICMP error of this node');
  return comments;
}

/** How many segments a super-packet has: its payload, behind the headers, in pieces of the segment size. */
function segmentsOf({ bytes, length, segmentSize }: CapturedPacket): number {
  const six = bytes[0] >>> 4 === 6;
  const ip = six ? IP6_HEADER_BYTES : (bytes[0] & 15) * 4;
  const isTcp = bytes[six ? 6 : 9] === 6;
  const headers = ip + (isTcp ? (bytes[ip + 12] >>> 4) * 4 : UDP_HEADER_BYTES);
  return Math.max(1, Math.ceil((length - headers) / segmentSize));
}
