/**
 * What a packet must have looked like where nobody captured it, worked out from where somebody did: one hop earlier or
 * later, behind its vnet header, or as the super-packet that a segment is of. Pure; every function returns new bytes.
 */
import { isIp6, l4DistanceOf, protocolOf, totalLength } from '../../wire/either.ts';
import { ip4Ttl, PROTOCOL_TCP, setIp4Checksum, setIp4Ttl } from '../../wire/ip4.ts';
import { IP6_HOP_LIMIT } from '../../wire/ip6.ts';
import { TCP_CHECKSUM, tcpHeaderLength } from '../../wire/tcp.ts';
import { UDP_CHECKSUM, UDP_HEADER_BYTES } from '../../wire/udp.ts';
import {
  emitVnet,
  VNET_FLAG_NEEDS_CSUM,
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_UDP_L4,
  VNET_HEADER_BYTES,
} from '../../wire/vnet.ts';

/** Bytes as long as the packet was, zero from `captured` on. */
export interface Bytes {
  bytes: Uint8Array;
  captured: number;
}

export function padded(bytes: Uint8Array, length: number): Bytes {
  if (bytes.length >= length) return { bytes: bytes.slice(0, length), captured: length };
  const whole = new Uint8Array(length);
  whole.set(bytes);
  return { bytes: whole, captured: bytes.length };
}

/** The packet at `ip`, `length` bytes of it, alone. */
export function cut({ bytes, captured }: Bytes, ip: number, length = bytes.length - ip): Bytes {
  return { bytes: bytes.slice(ip, ip + length), captured: Math.max(0, Math.min(captured - ip, length)) };
}

export function hopsLeft(bytes: Uint8Array, ip = 0): number {
  return isIp6(bytes, ip) ? bytes[ip + IP6_HOP_LIMIT] : ip4Ttl(bytes, ip);
}

/** The same packet `hops` hops later; before, when negative. */
export function hopsLater({ bytes, captured }: Bytes, hops: number): Bytes {
  const copy = bytes.slice();
  const left = Math.max(0, Math.min(255, hopsLeft(copy) - hops));
  if (isIp6(copy, 0)) copy[IP6_HOP_LIMIT] = left;
  else {
    setIp4Ttl(copy, 0, left);
    setIp4Checksum(copy, 0);
  }
  return { bytes: copy, captured };
}

/** `bytes` behind the vnet header that goes with them. `segmentSize` 0: no super-packet. */
export function behindVnet({ bytes, captured }: Bytes, partial: boolean, segmentSize: number): Bytes {
  const whole = new Uint8Array(VNET_HEADER_BYTES + bytes.length);
  whole.set(bytes, VNET_HEADER_BYTES);
  const l4 = l4DistanceOf(bytes, 0);
  const tcp = protocolOf(bytes, 0) === PROTOCOL_TCP;
  const gso =
    segmentSize === 0 ? VNET_GSO_NONE : tcp ? (isIp6(bytes, 0) ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4) : VNET_GSO_UDP_L4;
  const headers = segmentSize === 0 ? 0 : l4 + (tcp ? tcpHeaderLength(bytes, l4) : UDP_HEADER_BYTES);
  const flags = partial ? VNET_FLAG_NEEDS_CSUM : 0;
  emitVnet(
    whole,
    0,
    flags,
    gso,
    headers,
    segmentSize,
    partial ? l4 : 0,
    partial ? (tcp ? TCP_CHECKSUM : UDP_CHECKSUM) : 0,
  );
  return { bytes: whole, captured: captured + VNET_HEADER_BYTES };
}

/** The super-packet that a segment is of: its headers, and of the payload only that it was there. */
export function superPacketOf(segment: Bytes): Bytes {
  const l4 = l4DistanceOf(segment.bytes, 0);
  const headers =
    l4 + (protocolOf(segment.bytes, 0) === PROTOCOL_TCP ? tcpHeaderLength(segment.bytes, l4) : UDP_HEADER_BYTES);
  return padded(segment.bytes.slice(0, headers), totalLength(segment.bytes, 0));
}
