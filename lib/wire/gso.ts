/**
 * Segmentation arithmetic. A super-packet is one IP packet with one L4 header and a payload of many segments; segment i
 * carries the payload bytes from i × segmentSize on. All of it follows from four numbers: total length, header length,
 * segment size, index. So a segment's datagram needs nothing but the super-packet's own headers, an index and the size.
 */
import {
  IP4_HEADER_BYTES,
  ip4HeaderLength,
  ip4Id,
  ip4Protocol,
  ip4TotalLength,
  isFragment4,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  setIp4Checksum,
  setIp4Id,
  setIp4TotalLength,
} from './ip4.ts';
import { startL4Checksum4 } from './l4.ts';
import {
  BAD_HEADER_LENGTH,
  BAD_PROTOCOL,
  BAD_SEGMENT,
  BAD_SEGMENT_SIZE,
  BAD_TOTAL_LENGTH,
  BAD_VERSION,
  FRAGMENT,
  OK,
  TOO_SHORT,
} from './reason.ts';
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
import { FLAG_LAST_SEGMENT, HEADER_BYTES, tulleFlags, tulleIndex, tulleSegmentSize } from './tulle.ts';
import { setUdpLength, UDP_HEADER_BYTES, udpLength } from './udp.ts';

/** The most that one UDP send may carry over IPv4, also as a train: 65,535 - 20 - 8 (udp.c: len > 0xFFFF is EMSGSIZE). */
export const MAX_TRAIN_BYTES = 65_507;
/** Datagrams in one UDP_SEGMENT send. linux/udp.h UDP_MAX_SEGMENTS: 64 in older kernels, 128 in newer; 64 serves both. */
export const MAX_TRAIN_DATAGRAMS = 64;

/** Segments of a payload; a payload of 0 bytes has none. */
export function segmentCount(payloadLength: number, segmentSize: number): number {
  return Math.ceil(payloadLength / segmentSize);
}

/** Payload bytes of segment `index`: `segmentSize`, less in the last one; 0 past the end. */
export function segmentPayload(payloadLength: number, segmentSize: number, index: number): number {
  const left = payloadLength - index * segmentSize;
  if (left <= 0) return 0;
  return Math.min(left, segmentSize);
}

/**
 * UDP_SEGMENT sends that `count` datagrams of `datagramBytes` need (each the size of the largest), so that no send exceeds
 * 65,507 bytes or 64 datagrams. Send `Math.ceil(count / sends)` in each: even trains arrive more evenly than 44 + 2.
 */
export function trainSends(count: number, datagramBytes: number): number {
  const fit = Math.min(MAX_TRAIN_DATAGRAMS, Math.max(1, Math.floor(MAX_TRAIN_BYTES / datagramBytes)));
  return Math.ceil(count / fit);
}

/**
 * Checks the headers of an IPv4 super-packet whose payload need not be there: version, lengths, no fragment, TCP or UDP,
 * L4 header whole, a payload of at least one byte in the total length. `available`: bytes from `offset` on.
 */
export function checkSuperHeaders4(bytes: Uint8Array, offset: number, available: number): number {
  if (available < IP4_HEADER_BYTES) return TOO_SHORT;
  if (bytes[offset] >>> 4 !== 4) return BAD_VERSION;
  const headerLength = ip4HeaderLength(bytes, offset);
  if (headerLength < IP4_HEADER_BYTES || headerLength > available) return BAD_HEADER_LENGTH;
  if (isFragment4(bytes, offset)) return FRAGMENT;
  const l4Length = ip4TotalLength(bytes, offset) - headerLength;
  const l4Offset = offset + headerLength;
  switch (ip4Protocol(bytes, offset)) {
    case PROTOCOL_TCP: {
      const reason = checkTcp(bytes, l4Offset, available - headerLength);
      if (reason !== OK) return reason;
      return l4Length > tcpHeaderLength(bytes, l4Offset) ? OK : BAD_TOTAL_LENGTH;
    }
    case PROTOCOL_UDP:
      if (available - headerLength < UDP_HEADER_BYTES) return TOO_SHORT;
      return l4Length > UDP_HEADER_BYTES && udpLength(bytes, l4Offset) === l4Length ? OK : BAD_TOTAL_LENGTH;
    default:
      return BAD_PROTOCOL;
  }
}

/** Bytes of IP and L4 header. Only after `checkSuperHeaders4` or `checkSegment4`. */
export function superHeaderLength4(bytes: Uint8Array, offset: number): number {
  const headerLength = ip4HeaderLength(bytes, offset);
  return ip4Protocol(bytes, offset) === PROTOCOL_UDP
    ? headerLength + UDP_HEADER_BYTES
    : headerLength + tcpHeaderLength(bytes, offset + headerLength);
}

/**
 * Checks a tulle datagram of kind segment that passed `checkTulle`: `offset` and `length` are the datagram's. `OK`: the
 * inner headers are sound, and index, last flag and slice length are those that follow from total length and segment size.
 */
export function checkSegment4(bytes: Uint8Array, offset: number, length: number): number {
  const inner = offset + HEADER_BYTES;
  const available = length - HEADER_BYTES;
  const reason = checkSuperHeaders4(bytes, inner, available);
  if (reason !== OK) return reason;
  const headerLength = superHeaderLength4(bytes, inner);
  return checkSlice(bytes, offset, available - headerLength, ip4TotalLength(bytes, inner) - headerLength);
}

/**
 * The part of a segment's check that is the same for both IP versions: `slice` bytes stand behind the inner headers, out of
 * a super-packet's `payloadLength`; index, last flag and length must be those that follow from it and the segment size.
 */
export function checkSlice(bytes: Uint8Array, offset: number, slice: number, payloadLength: number): number {
  const segmentSize = tulleSegmentSize(bytes, offset);
  if (segmentSize === 0) return BAD_SEGMENT_SIZE;
  const left = payloadLength - tulleIndex(bytes, offset) * segmentSize;
  const isLast = left <= segmentSize;
  if (left <= 0 || isLast !== ((tulleFlags(bytes, offset) & FLAG_LAST_SEGMENT) !== 0)) return BAD_SEGMENT;
  return slice === (isLast ? left : segmentSize) ? OK : BAD_SEGMENT;
}

/**
 * Turns a copy of the super-packet's IPv4 and TCP or UDP headers, in place, into those of segment `index`, or of a run of
 * segments that begins there (`payloadLength` of the run, `isLast` when it holds the super-packet's last byte).
 * As the kernel's inet_gso_segment and tcp_gso_segment: total length; IP id + index (RFC 6864); sequence +
 * index × segmentSize; FIN and PSH only on the last; CWR only on the first. (Under AccECN it is a counter's bit and belongs to
 * all, but a TUN gets no super-packets of such flows: tx-tcp-accecn-segmentation is off there, and fixed.) The IP checksum is
 * made anew; the L4 checksum becomes the pseudo-header sum for this length ("partial"): hand it to the kernel with NEEDS_CSUM,
 * or finish it with `finishPartial` once the payload stands behind it.
 */
export function rewriteSegment4(
  bytes: Uint8Array,
  headerOffset: number,
  headerLength: number,
  index: number,
  segmentSize: number,
  payloadLength: number,
  isLast: boolean,
): void {
  const ipLength = ip4HeaderLength(bytes, headerOffset);
  const l4Offset = headerOffset + ipLength;
  const l4Length = headerLength - ipLength + payloadLength;
  setIp4TotalLength(bytes, headerOffset, headerLength + payloadLength);
  setIp4Id(bytes, headerOffset, ip4Id(bytes, headerOffset) + index);
  setIp4Checksum(bytes, headerOffset);
  if (ip4Protocol(bytes, headerOffset) === PROTOCOL_UDP) {
    setUdpLength(bytes, l4Offset, l4Length);
  } else {
    setTcpSequence(bytes, l4Offset, tcpSequence(bytes, l4Offset) + index * segmentSize);
    let flags = tcpFlags(bytes, l4Offset);
    if (!isLast) flags &= ~(TCP_FIN | TCP_PSH);
    if (index > 0) flags &= ~TCP_CWR;
    setTcpFlags(bytes, l4Offset, flags);
  }
  startL4Checksum4(bytes, headerOffset, l4Offset, l4Length);
}
