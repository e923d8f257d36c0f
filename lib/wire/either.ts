/** What is asked of a packet of either version of IP. Each function looks at the version and goes on; only after a check. */
import { checkSegment4, checkSuperHeaders4, rewriteSegment4, superHeaderLength4 } from './gso.ts';
import { checkSegment6, checkSuperHeaders6, findSuperL4, rewriteSegment6, superHeaderLength6 } from './gso6.ts';
import { ip4HeaderLength, ip4Protocol, ip4TotalLength } from './ip4.ts';
import { ip6TotalLength, l4Distance, l4Protocol } from './ip6.ts';
import { HEADER_BYTES } from './tulle.ts';

export function isIp6(bytes: Uint8Array, offset: number): boolean {
  return bytes[offset] >>> 4 === 6;
}

/** Bytes of header and payload. */
export function totalLength(bytes: Uint8Array, offset: number): number {
  return isIp6(bytes, offset) ? ip6TotalLength(bytes, offset) : ip4TotalLength(bytes, offset);
}

/**
 * The protocol of the L4 header. For IPv6 behind extension headers that may stand before TCP and UDP; any other one is itself
 * the protocol, and -1 stands for a chain that is broken.
 */
export function protocolOf(bytes: Uint8Array, offset: number): number {
  if (!isIp6(bytes, offset)) return ip4Protocol(bytes, offset);
  const found = findSuperL4(bytes, offset, ip6TotalLength(bytes, offset));
  return found < 0 ? -1 : l4Protocol(found);
}

/** From the IP header's first byte to the L4 header, as `protocolOf` finds it. */
export function l4DistanceOf(bytes: Uint8Array, offset: number): number {
  if (!isIp6(bytes, offset)) return ip4HeaderLength(bytes, offset);
  const found = findSuperL4(bytes, offset, ip6TotalLength(bytes, offset));
  return found < 0 ? -1 : l4Distance(found);
}

/** `checkSuperHeaders4` or `checkSuperHeaders6`. */
export function checkSuperHeaders(bytes: Uint8Array, offset: number, available: number): number {
  return isIp6(bytes, offset)
    ? checkSuperHeaders6(bytes, offset, available)
    : checkSuperHeaders4(bytes, offset, available);
}

export function superHeaderLength(bytes: Uint8Array, offset: number): number {
  return isIp6(bytes, offset) ? superHeaderLength6(bytes, offset) : superHeaderLength4(bytes, offset);
}

/** `offset` is the datagram's. */
export function checkSegment(bytes: Uint8Array, offset: number, length: number): number {
  return length > HEADER_BYTES && isIp6(bytes, offset + HEADER_BYTES)
    ? checkSegment6(bytes, offset, length)
    : checkSegment4(bytes, offset, length);
}

export function rewriteSegment(
  bytes: Uint8Array,
  headerOffset: number,
  headerLength: number,
  index: number,
  segmentSize: number,
  payloadLength: number,
  isLast: boolean,
): void {
  if (isIp6(bytes, headerOffset))
    rewriteSegment6(bytes, headerOffset, headerLength, index, segmentSize, payloadLength, isLast);
  else rewriteSegment4(bytes, headerOffset, headerLength, index, segmentSize, payloadLength, isLast);
}
