/**
 * Segmentation of IPv6 super-packets: as gso.ts does it for IPv4, with the differences that IPv6 has. No header checksum
 * and no id; the length counts what is behind the header; extension headers may stand between.
 */
import { checkSlice } from './gso.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from './ip4.ts';
import {
  HEADER_DESTINATION_OPTIONS,
  HEADER_FRAGMENT,
  HEADER_HOP_BY_HOP,
  HEADER_ROUTING,
  IP6_HEADER_BYTES,
  ip6NextHeader,
  ip6TotalLength,
  l4Distance,
  l4Protocol,
  setIp6PayloadLength,
} from './ip6.ts';
import { startL4Checksum6 } from './l4.ts';
import { BAD_HEADER_LENGTH, BAD_PROTOCOL, BAD_TOTAL_LENGTH, BAD_VERSION, FRAGMENT, OK, TOO_SHORT } from './reason.ts';
import {
  checkTcp,
  setTcpFlags,
  setTcpSequence,
  TCP_CWR,
  TCP_FIN,
  TCP_PSH,
  tcpFlags,
  tcpHeaderLength,
  tcpSequence,
} from './tcp.ts';
import { HEADER_BYTES } from './tulle.ts';
import { setUdpLength, UDP_HEADER_BYTES, udpLength } from './udp.ts';

/**
 * As `findL4Ip6`, for a packet of which only `available` bytes are there: protocol and distance of the L4 header in one number,
 * or -1 when the chain leads further. Only extension headers that may stand before TCP and UDP are walked.
 */
export function findSuperL4(bytes: Uint8Array, offset: number, available: number): number {
  let protocol = ip6NextHeader(bytes, offset);
  let distance = IP6_HEADER_BYTES;
  while (protocol === HEADER_HOP_BY_HOP || protocol === HEADER_ROUTING || protocol === HEADER_DESTINATION_OPTIONS) {
    if (distance + 8 > available) return -1;
    protocol = bytes[offset + distance];
    distance += (bytes[offset + distance + 1] + 1) << 3;
  }
  return distance > available ? -1 : (protocol << 20) | distance;
}

/** As `checkSuperHeaders4`. `available`: bytes from `offset` on. */
export function checkSuperHeaders6(bytes: Uint8Array, offset: number, available: number): number {
  if (available < IP6_HEADER_BYTES) return TOO_SHORT;
  if (bytes[offset] >>> 4 !== 6) return BAD_VERSION;
  const found = findSuperL4(bytes, offset, available);
  if (found < 0) return BAD_HEADER_LENGTH;
  const distance = l4Distance(found);
  const l4Length = ip6TotalLength(bytes, offset) - distance;
  switch (l4Protocol(found)) {
    case PROTOCOL_TCP: {
      const reason = checkTcp(bytes, offset + distance, available - distance);
      if (reason !== OK) return reason;
      return l4Length > tcpHeaderLength(bytes, offset + distance) ? OK : BAD_TOTAL_LENGTH;
    }
    case PROTOCOL_UDP:
      if (available - distance < UDP_HEADER_BYTES) return TOO_SHORT;
      return l4Length > UDP_HEADER_BYTES && udpLength(bytes, offset + distance) === l4Length ? OK : BAD_TOTAL_LENGTH;
    case HEADER_FRAGMENT:
      return FRAGMENT;
    default:
      return BAD_PROTOCOL;
  }
}

/** Bytes of IP, extension and L4 headers. Only after `checkSuperHeaders6` or `checkSegment6`. */
export function superHeaderLength6(bytes: Uint8Array, offset: number): number {
  const found = findSuperL4(bytes, offset, ip6TotalLength(bytes, offset));
  const distance = l4Distance(found);
  return l4Protocol(found) === PROTOCOL_UDP
    ? distance + UDP_HEADER_BYTES
    : distance + tcpHeaderLength(bytes, offset + distance);
}

/** As `checkSegment4`: a tulle datagram of kind segment that passed `checkTulle`. */
export function checkSegment6(bytes: Uint8Array, offset: number, length: number): number {
  const inner = offset + HEADER_BYTES;
  const available = length - HEADER_BYTES;
  const reason = checkSuperHeaders6(bytes, inner, available);
  if (reason !== OK) return reason;
  const headerLength = superHeaderLength6(bytes, inner);
  return checkSlice(bytes, offset, available - headerLength, ip6TotalLength(bytes, inner) - headerLength);
}

/** As `rewriteSegment4`: payload length, sequence, flags and the partial checksum become those of the segment or run. */
export function rewriteSegment6(
  bytes: Uint8Array,
  headerOffset: number,
  headerLength: number,
  index: number,
  segmentSize: number,
  payloadLength: number,
  isLast: boolean,
): void {
  const found = findSuperL4(bytes, headerOffset, headerLength);
  const distance = l4Distance(found);
  const l4Offset = headerOffset + distance;
  const l4Length = headerLength - distance + payloadLength;
  setIp6PayloadLength(bytes, headerOffset, headerLength - IP6_HEADER_BYTES + payloadLength);
  const protocol = l4Protocol(found);
  if (protocol === PROTOCOL_UDP) {
    setUdpLength(bytes, l4Offset, l4Length);
  } else {
    setTcpSequence(bytes, l4Offset, tcpSequence(bytes, l4Offset) + index * segmentSize);
    let flags = tcpFlags(bytes, l4Offset);
    if (!isLast) flags &= ~(TCP_FIN | TCP_PSH);
    if (index > 0) flags &= ~TCP_CWR;
    setTcpFlags(bytes, l4Offset, flags);
  }
  startL4Checksum6(bytes, headerOffset, protocol, l4Offset, l4Length);
}
