/** IPv6 headers and extension header chains (RFC 8200). Addresses are offsets of 16 bytes; address6.ts has their text. */
import { formatAddress6 } from './address6.ts';
import { get16, get32, set16, set32 } from './bytes.ts';
import { BAD_TOTAL_LENGTH, BAD_VERSION, OK, TOO_SHORT } from './reason.ts';

export { address6ToBigint, bigintToAddress6, formatAddress6, parseAddress6 } from './address6.ts';

export const IP6_VERSION_CLASS_FLOW = 0;
export const IP6_PAYLOAD_LENGTH = 4;
export const IP6_NEXT_HEADER = 6;
export const IP6_HOP_LIMIT = 7;
export const IP6_SOURCE = 8;
export const IP6_DESTINATION = 24;
export const IP6_HEADER_BYTES = 40;

// Next-header numbers of extension headers (IANA).
export const HEADER_HOP_BY_HOP = 0;
export const HEADER_ROUTING = 43;
export const HEADER_FRAGMENT = 44;
export const HEADER_ESP = 50;
export const HEADER_AUTHENTICATION = 51;
export const HEADER_NONE = 59;
export const HEADER_DESTINATION_OPTIONS = 60;
export const HEADER_MOBILITY = 135;
export const HEADER_HIP = 139;
export const HEADER_SHIM6 = 140;

/**
 * Checks the header at `offset` with `available` bytes from there on. `OK`: version 6 and a payload that is there whole.
 * A jumbogram (payload length 0 with a hop-by-hop option) passes as a packet without payload.
 */
export function checkIp6(bytes: Uint8Array, offset: number, available: number): number {
  if (available < IP6_HEADER_BYTES) return TOO_SHORT;
  if (bytes[offset] >>> 4 !== 6) return BAD_VERSION;
  if (IP6_HEADER_BYTES + get16(bytes, offset + IP6_PAYLOAD_LENGTH) > available) return BAD_TOTAL_LENGTH;
  return OK;
}

export function ip6Version(bytes: Uint8Array, offset: number): number {
  return bytes[offset] >>> 4;
}

/** DSCP and ECN, one byte. */
export function ip6TrafficClass(bytes: Uint8Array, offset: number): number {
  return (get16(bytes, offset) >>> 4) & 0xff;
}

/** 20 bits. */
export function ip6FlowLabel(bytes: Uint8Array, offset: number): number {
  return get32(bytes, offset) & 0xfffff;
}

/** Bytes behind the 40 of the header, extension headers included. */
export function ip6PayloadLength(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + IP6_PAYLOAD_LENGTH);
}

/** Bytes of header and payload, as ip4TotalLength. */
export function ip6TotalLength(bytes: Uint8Array, offset: number): number {
  return IP6_HEADER_BYTES + get16(bytes, offset + IP6_PAYLOAD_LENGTH);
}

export function ip6NextHeader(bytes: Uint8Array, offset: number): number {
  return bytes[offset + IP6_NEXT_HEADER];
}

export function ip6HopLimit(bytes: Uint8Array, offset: number): number {
  return bytes[offset + IP6_HOP_LIMIT];
}

export function setIp6PayloadLength(bytes: Uint8Array, offset: number, length: number): void {
  set16(bytes, offset + IP6_PAYLOAD_LENGTH, length);
}

/** One hop less. Returns the new limit; 0 when the packet ends here, which then is left as it came. */
export function decrementHopLimit(bytes: Uint8Array, offset: number): number {
  const hopLimit = bytes[offset + IP6_HOP_LIMIT];
  if (hopLimit <= 1) return 0;
  bytes[offset + IP6_HOP_LIMIT] = hopLimit - 1;
  return hopLimit - 1;
}

/** Writes a header; the addresses are copied from 16 bytes each. Returns the bytes written. */
export function emitIp6(
  bytes: Uint8Array,
  offset: number,
  trafficClass: number,
  flowLabel: number,
  payloadLength: number,
  nextHeader: number,
  hopLimit: number,
  source: Uint8Array,
  destination: Uint8Array,
): number {
  set32(bytes, offset, 0x6000_0000 | ((trafficClass & 0xff) << 20) | (flowLabel & 0xfffff));
  set16(bytes, offset + IP6_PAYLOAD_LENGTH, payloadLength);
  bytes[offset + IP6_NEXT_HEADER] = nextHeader;
  bytes[offset + IP6_HOP_LIMIT] = hopLimit;
  for (let i = 0; i < 16; i++) {
    bytes[offset + IP6_SOURCE + i] = source[i];
    bytes[offset + IP6_DESTINATION + i] = destination[i];
  }
  return IP6_HEADER_BYTES;
}

/**
 * Walks the extension headers to the upper-layer header. Returns protocol and distance from `offset` in one number,
 * for `l4Protocol` and `l4Distance`; -1 when the chain ends outside the packet. Only after `checkIp6`.
 * A fragment that is not the first has no upper-layer header: its protocol is HEADER_FRAGMENT, at the fragment header.
 * ESP and "no next header" end the walk as protocols of their own. Every header has at least 8 bytes, so the walk ends.
 */
export function findL4Ip6(bytes: Uint8Array, offset: number): number {
  const totalLength = ip6TotalLength(bytes, offset);
  let protocol = ip6NextHeader(bytes, offset);
  let distance = IP6_HEADER_BYTES;
  for (;;) {
    switch (protocol) {
      case HEADER_HOP_BY_HOP:
      case HEADER_ROUTING:
      case HEADER_DESTINATION_OPTIONS:
      case HEADER_MOBILITY:
      case HEADER_HIP:
      case HEADER_SHIM6:
      case HEADER_AUTHENTICATION:
      case HEADER_FRAGMENT: {
        if (distance + 8 > totalLength) return -1;
        const at = offset + distance;
        let headerBytes = 8;
        if (protocol === HEADER_FRAGMENT) {
          if ((get16(bytes, at + 2) & 0xfff8) !== 0) return (protocol << 20) | distance;
        } else if (protocol === HEADER_AUTHENTICATION) {
          headerBytes = (bytes[at + 1] + 2) << 2; // RFC 4302 §2.2: in words, less two
        } else {
          headerBytes = (bytes[at + 1] + 1) << 3; // RFC 8200 §4: in units of 8 bytes, not counting the first
        }
        if (distance + headerBytes > totalLength) return -1;
        protocol = bytes[at];
        distance += headerBytes;
        break;
      }
      default:
        return (protocol << 20) | distance;
    }
  }
}

/** The protocol number of a result of `findL4Ip6`. */
export function l4Protocol(found: number): number {
  return found >>> 20;
}

/** Bytes from the IPv6 header's first byte to the upper-layer header. */
export function l4Distance(found: number): number {
  return found & 0xfffff;
}

/** True for every fragment, the first one too. Only after `checkIp6`. */
export function isFragment6(bytes: Uint8Array, offset: number): boolean {
  const totalLength = ip6TotalLength(bytes, offset);
  let protocol = ip6NextHeader(bytes, offset);
  let distance = IP6_HEADER_BYTES;
  // Only these may stand before a fragment header (RFC 8200 §4.5, the per-fragment headers).
  while (protocol === HEADER_HOP_BY_HOP || protocol === HEADER_ROUTING || protocol === HEADER_DESTINATION_OPTIONS) {
    if (distance + 8 > totalLength) return false;
    protocol = bytes[offset + distance];
    distance += (bytes[offset + distance + 1] + 1) << 3;
  }
  return protocol === HEADER_FRAGMENT;
}

/** "fd00::1 > fd00::2 next 6 hops 64 length 1460" (all bytes, as for IPv4). Only after `checkIp6`. */
export function printIp6(bytes: Uint8Array, offset: number): string {
  const source = formatAddress6(bytes, offset + IP6_SOURCE);
  const destination = formatAddress6(bytes, offset + IP6_DESTINATION);
  const next = ip6NextHeader(bytes, offset);
  return `${source} > ${destination} next ${next} hops ${ip6HopLimit(bytes, offset)} length ${ip6TotalLength(bytes, offset)}`;
}
