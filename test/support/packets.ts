/** Builds packets for tests: each function makes one whole, correct packet; a test spoils the field that it is about. */
import { isIp6, l4DistanceOf, protocolOf } from '../../lib/wire/either.ts';
import { emitIp4, IP4_HEADER_BYTES, PROTOCOL_TCP, PROTOCOL_UDP, parseAddress4 } from '../../lib/wire/ip4.ts';
import { emitIp6, HEADER_DESTINATION_OPTIONS, IP6_HEADER_BYTES, parseAddress6 } from '../../lib/wire/ip6.ts';
import { finishL4Checksum4, finishL4Checksum6, startL4Checksum4, startL4Checksum6 } from '../../lib/wire/l4.ts';
import { emitTcp, TCP_ACK, TCP_HEADER_BYTES } from '../../lib/wire/tcp.ts';
import { emitUdp, UDP_HEADER_BYTES } from '../../lib/wire/udp.ts';
import {
  emitVnet,
  VNET_FLAG_NEEDS_CSUM,
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_UDP_L4,
  VNET_HEADER_BYTES,
} from '../../lib/wire/vnet.ts';

/** Addresses of IPv6 make a packet of IPv6: `ttl` is its hop limit, `tos` its traffic class, `id` its flow label. */
export interface PacketOptions {
  source: string;
  destination: string;
  payload: Uint8Array;
  ttl?: number;
  id?: number;
  tos?: number;
  sequence?: number;
  flags?: number;
  /** IPv6: put a destination options header of 8 bytes before the L4 header. */
  extension?: boolean;
  /** TCP options, a multiple of 4 bytes. */
  options?: Uint8Array;
  /** Leave the pseudo-header sum where the checksum belongs, as the kernel does for a device that finishes it. */
  partial?: boolean;
}

export const address = (text: string): number => {
  const value = parseAddress4(text);
  if (value === undefined) throw new Error(`not an address: ${text}`);
  return value;
};

export function tcpPacket(options: PacketOptions): Uint8Array {
  const tcpLength = TCP_HEADER_BYTES + (options.options?.length ?? 0);
  return packet(options, PROTOCOL_TCP, tcpLength, (bytes, at) => {
    emitTcp(bytes, at, 1234, 80, options.sequence ?? 1000, 7, tcpLength, options.flags ?? TCP_ACK, 512);
    bytes.set(options.options ?? [], at + TCP_HEADER_BYTES);
  });
}

export function udpPacket(options: PacketOptions): Uint8Array {
  return packet(options, PROTOCOL_UDP, UDP_HEADER_BYTES, (bytes, at) =>
    emitUdp(bytes, at, 5000, 53, UDP_HEADER_BYTES + options.payload.length),
  );
}

function packet(
  options: PacketOptions,
  protocol: number,
  l4Header: number,
  emitL4: (bytes: Uint8Array, offset: number) => void,
): Uint8Array {
  if (options.source.includes(':')) return packet6(options, protocol, l4Header, emitL4);
  const total = IP4_HEADER_BYTES + l4Header + options.payload.length;
  const bytes = new Uint8Array(total).fill(0xaa);
  const { tos = 0, id = 1, ttl = 64 } = options;
  emitIp4(bytes, 0, tos, total, id, 0x4000, ttl, protocol, address(options.source), address(options.destination));
  emitL4(bytes, IP4_HEADER_BYTES);
  bytes.set(options.payload, IP4_HEADER_BYTES + l4Header);
  if (options.partial) startL4Checksum4(bytes, 0, IP4_HEADER_BYTES, total - IP4_HEADER_BYTES);
  else finishL4Checksum4(bytes, 0);
  return bytes;
}

export const address6 = (text: string): Uint8Array => {
  const value = parseAddress6(text);
  if (value === undefined) throw new Error(`not an IPv6 address: ${text}`);
  return value;
};

function packet6(
  options: PacketOptions,
  protocol: number,
  l4Header: number,
  emitL4: (bytes: Uint8Array, offset: number) => void,
): Uint8Array {
  const { tos = 0, id = 1, ttl = 64, extension = false } = options;
  const distance = IP6_HEADER_BYTES + (extension ? 8 : 0);
  const l4Length = l4Header + options.payload.length;
  const bytes = new Uint8Array(distance + l4Length).fill(0xaa);
  const next = extension ? HEADER_DESTINATION_OPTIONS : protocol;
  const [source, destination] = [address6(options.source), address6(options.destination)];
  emitIp6(bytes, 0, tos, id, distance - IP6_HEADER_BYTES + l4Length, next, ttl, source, destination);
  if (extension) bytes.set([protocol, 0, 1, 4, 0, 0, 0, 0], IP6_HEADER_BYTES); // PadN of 4 (RFC 8200 §4.2)
  emitL4(bytes, distance);
  bytes.set(options.payload, distance + l4Header);
  if (options.partial) startL4Checksum6(bytes, 0, protocol, distance, l4Length);
  else finishL4Checksum6(bytes, 0);
  return bytes;
}

/** What the TUN gives for a packet: the vnet header in front. segmentSize 0: no super-packet. */
export function tunRead(packet: Uint8Array, options: { segmentSize?: number; partial?: boolean } = {}): Uint8Array {
  const segmentSize = options.segmentSize ?? 0;
  const partial = options.partial ?? segmentSize > 0;
  const bytes = new Uint8Array(VNET_HEADER_BYTES + packet.length);
  const tcp = protocolOf(packet, 0) === PROTOCOL_TCP;
  const l4 = l4DistanceOf(packet, 0);
  const headers = l4 + (tcp ? (packet[l4 + 12] >>> 4) * 4 : UDP_HEADER_BYTES);
  const tcpType = isIp6(packet, 0) ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4;
  const gsoType = segmentSize === 0 ? VNET_GSO_NONE : tcp ? tcpType : VNET_GSO_UDP_L4;
  const flags = partial ? VNET_FLAG_NEEDS_CSUM : 0;
  const start = partial ? l4 : 0;
  emitVnet(bytes, 0, flags, gsoType, segmentSize > 0 ? headers : 0, segmentSize, start, partial ? (tcp ? 16 : 6) : 0);
  bytes.set(packet, VNET_HEADER_BYTES);
  return bytes;
}
