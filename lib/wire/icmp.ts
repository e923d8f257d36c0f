/**
 * ICMP (RFC 792) and ICMPv6 (RFC 4443): the header, echo, and error messages about a packet that we cannot forward. The two
 * share their layout; types differ, and ICMPv6's checksum covers a pseudo-header.
 */
import { get16, get32, set16, set32 } from './bytes.ts';
import { finish, sum } from './checksum.ts';
import {
  emitIp4,
  IP4_DONT_FRAGMENT,
  ip4Destination,
  ip4FragmentOffset,
  ip4HeaderLength,
  ip4Protocol,
  ip4Source,
  ip4TotalLength,
  PROTOCOL_ICMP,
  PROTOCOL_ICMP6,
} from './ip4.ts';
import {
  emitIp6,
  findL4Ip6,
  HEADER_FRAGMENT,
  IP6_DESTINATION,
  IP6_HEADER_BYTES,
  IP6_SOURCE,
  ip6TotalLength,
  l4Distance,
  l4Protocol,
} from './ip6.ts';
import { finishL4Checksum6 } from './l4.ts';
import { OK, TOO_SHORT } from './reason.ts';

export const ICMP_TYPE = 0;
export const ICMP_CODE = 1;
export const ICMP_CHECKSUM = 2;
/** Four bytes whose meaning depends on the type. */
export const ICMP_REST = 4;
export const ICMP_ECHO_ID = 4;
export const ICMP_ECHO_SEQUENCE = 6;
export const ICMP_HEADER_BYTES = 8;

export const ICMP4_ECHO_REPLY = 0;
export const ICMP4_UNREACHABLE = 3;
export const ICMP4_ECHO_REQUEST = 8;
export const ICMP4_TIME_EXCEEDED = 11;
// Codes of ICMP4_UNREACHABLE.
export const ICMP4_NET_UNREACHABLE = 0;
export const ICMP4_HOST_UNREACHABLE = 1;
export const ICMP4_FRAGMENTATION_NEEDED = 4;
export const ICMP4_ADMIN_PROHIBITED = 13;

export const ICMP6_UNREACHABLE = 1;
export const ICMP6_PACKET_TOO_BIG = 2;
export const ICMP6_TIME_EXCEEDED = 3;
export const ICMP6_ECHO_REQUEST = 128;
export const ICMP6_ECHO_REPLY = 129;
// Codes of ICMP6_UNREACHABLE.
export const ICMP6_NO_ROUTE = 0;
export const ICMP6_ADMIN_PROHIBITED = 1;
export const ICMP6_ADDRESS_UNREACHABLE = 3;

/** An error message with its IPv4 header has at most this many bytes (RFC 1812 §4.3.2.3). */
export const ICMP4_ERROR_MAX_BYTES = 576;
/** For IPv6: the minimum MTU (RFC 4443 §2.4 c). */
export const ICMP6_ERROR_MAX_BYTES = 1280;

/** Internetwork control, the precedence of IPv4 error messages (RFC 1812 §4.3.2.5). */
const TOS_INTERNETWORK_CONTROL = 0xc0;
const HOP_LIMIT = 64;

/** `length`: bytes from `offset`. For ICMP and ICMPv6. */
export function checkIcmp(_bytes: Uint8Array, _offset: number, length: number): number {
  return length < ICMP_HEADER_BYTES ? TOO_SHORT : OK;
}

export function icmpType(bytes: Uint8Array, offset: number): number {
  return bytes[offset + ICMP_TYPE];
}

export function icmpCode(bytes: Uint8Array, offset: number): number {
  return bytes[offset + ICMP_CODE];
}

export function icmpChecksum(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + ICMP_CHECKSUM);
}

export function icmpEchoId(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + ICMP_ECHO_ID);
}

export function icmpEchoSequence(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + ICMP_ECHO_SEQUENCE);
}

/** The next hop's MTU in a Fragmentation Needed (RFC 1191) or, 32 bits, in a Packet Too Big. */
export function icmpMtu(bytes: Uint8Array, offset: number): number {
  return get32(bytes, offset + ICMP_REST);
}

/**
 * Writes the header of an ICMPv4 echo before a payload that already stands there, and the checksum of both.
 * `type`: ICMP4_ECHO_REQUEST or ICMP4_ECHO_REPLY. Returns the bytes of header and payload.
 */
export function emitEcho4(
  bytes: Uint8Array,
  offset: number,
  type: number,
  id: number,
  sequence: number,
  payloadLength: number,
): number {
  emitIcmpHeader(bytes, offset, type, 0, 0);
  set16(bytes, offset + ICMP_ECHO_ID, id);
  set16(bytes, offset + ICMP_ECHO_SEQUENCE, sequence);
  set16(bytes, offset + ICMP_CHECKSUM, finish(sum(bytes, offset, ICMP_HEADER_BYTES + payloadLength)));
  return ICMP_HEADER_BYTES + payloadLength;
}

/** As `emitEcho4`, with the checksum left 0: ICMPv6's needs the IP header (`finishL4Checksum6`). */
export function emitEcho6(bytes: Uint8Array, offset: number, type: number, id: number, sequence: number): number {
  emitIcmpHeader(bytes, offset, type, 0, 0);
  set16(bytes, offset + ICMP_ECHO_ID, id);
  set16(bytes, offset + ICMP_ECHO_SEQUENCE, sequence);
  return ICMP_HEADER_BYTES;
}

function emitIcmpHeader(bytes: Uint8Array, offset: number, type: number, code: number, rest: number): void {
  bytes[offset + ICMP_TYPE] = type;
  bytes[offset + ICMP_CODE] = code;
  set16(bytes, offset + ICMP_CHECKSUM, 0);
  set32(bytes, offset + ICMP_REST, rest);
}

/**
 * May an error message be sent about this packet? RFC 1122 §3.2.2 and RFC 1812 §4.3.2.7: not about an ICMP error, not about
 * a fragment other than the first, not to or about an address that names no single host. Only after `checkIp4`.
 */
export function mayReport4(bytes: Uint8Array, offset: number): boolean {
  if (ip4FragmentOffset(bytes, offset) !== 0) return false;
  const source = ip4Source(bytes, offset);
  const destination = ip4Destination(bytes, offset);
  // Sources 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0 and above; destinations 224.0.0.0 and above (multicast, broadcast).
  if (source >>> 24 === 0 || source >>> 24 === 127 || source >>> 28 >= 14 || destination >>> 28 >= 14) return false;
  if (ip4Protocol(bytes, offset) !== PROTOCOL_ICMP) return true;
  const headerLength = ip4HeaderLength(bytes, offset);
  if (ip4TotalLength(bytes, offset) < headerLength + ICMP_HEADER_BYTES) return false;
  const type = icmpType(bytes, offset + headerLength);
  return type === ICMP4_ECHO_REQUEST || type === ICMP4_ECHO_REPLY;
}

/**
 * Writes a whole IPv4 packet with an ICMP error about `about` (the packet at `aboutOffset`, of which `aboutLength` bytes
 * are at hand), from `source` to that packet's source. Quotes as much as 576 bytes allow. Needs up to 576 bytes at `offset`,
 * which do not overlap the quoted packet. Returns the packet's length.
 */
export function emitError4(
  bytes: Uint8Array,
  offset: number,
  type: number,
  code: number,
  rest: number,
  source: number,
  about: Uint8Array,
  aboutOffset: number,
  aboutLength: number,
): number {
  const ipAndIcmp = 20 + ICMP_HEADER_BYTES;
  const quoted = Math.min(aboutLength, ip4TotalLength(about, aboutOffset), ICMP4_ERROR_MAX_BYTES - ipAndIcmp);
  const icmp = offset + 20;
  const payload = icmp + ICMP_HEADER_BYTES;
  const to = ip4Source(about, aboutOffset);
  emitIp4(
    bytes,
    offset,
    TOS_INTERNETWORK_CONTROL,
    ipAndIcmp + quoted,
    0,
    IP4_DONT_FRAGMENT,
    HOP_LIMIT,
    PROTOCOL_ICMP,
    source,
    to,
  );
  emitIcmpHeader(bytes, icmp, type, code, rest);
  for (let i = 0; i < quoted; i++) bytes[payload + i] = about[aboutOffset + i];
  set16(bytes, icmp + ICMP_CHECKSUM, finish(sum(bytes, icmp, ICMP_HEADER_BYTES + quoted)));
  return ipAndIcmp + quoted;
}

/** TTL exceeded in transit. Arguments and result as `emitError4`. */
export function emitTimeExceeded4(
  bytes: Uint8Array,
  offset: number,
  source: number,
  about: Uint8Array,
  aboutOffset: number,
  aboutLength: number,
): number {
  return emitError4(bytes, offset, ICMP4_TIME_EXCEEDED, 0, 0, source, about, aboutOffset, aboutLength);
}

/** `mtu`: the largest packet that would pass (RFC 1191 §4). Arguments and result as `emitError4`. */
export function emitFragmentationNeeded4(
  bytes: Uint8Array,
  offset: number,
  mtu: number,
  source: number,
  about: Uint8Array,
  aboutOffset: number,
  aboutLength: number,
): number {
  const code = ICMP4_FRAGMENTATION_NEEDED;
  return emitError4(bytes, offset, ICMP4_UNREACHABLE, code, mtu & 0xffff, source, about, aboutOffset, aboutLength);
}

/** `code`: ICMP4_NET_UNREACHABLE and so on. Arguments and result as `emitError4`. */
export function emitUnreachable4(
  bytes: Uint8Array,
  offset: number,
  code: number,
  source: number,
  about: Uint8Array,
  aboutOffset: number,
  aboutLength: number,
): number {
  return emitError4(bytes, offset, ICMP4_UNREACHABLE, code, 0, source, about, aboutOffset, aboutLength);
}

/**
 * May an ICMPv6 error be sent about this packet? RFC 4443 §2.4 e. A Packet Too Big may be about multicast too: pass
 * its type. Only after `checkIp6`.
 */
export function mayReport6(bytes: Uint8Array, offset: number, errorType: number): boolean {
  const source = offset + IP6_SOURCE;
  if (bytes[source] === 0xff || isUnspecified6(bytes, source)) return false;
  if (bytes[offset + IP6_DESTINATION] === 0xff && errorType !== ICMP6_PACKET_TOO_BIG) return false;
  const found = findL4Ip6(bytes, offset);
  if (found < 0 || l4Protocol(found) === HEADER_FRAGMENT) return false;
  if (l4Protocol(found) !== PROTOCOL_ICMP6) return true;
  if (ip6TotalLength(bytes, offset) < l4Distance(found) + ICMP_HEADER_BYTES) return false;
  const type = icmpType(bytes, offset + l4Distance(found));
  return type >= 128 && type !== 137; // below 128 are errors; 137 is a redirect
}

function isUnspecified6(bytes: Uint8Array, offset: number): boolean {
  for (let i = 0; i < 16; i++) if (bytes[offset + i] !== 0) return false;
  return true;
}

/**
 * As `emitError4`, for IPv6: a whole packet of up to 1280 bytes. `source`: 16 bytes. `rest` is the MTU of
 * a Packet Too Big, else 0.
 */
export function emitError6(
  bytes: Uint8Array,
  offset: number,
  type: number,
  code: number,
  rest: number,
  source: Uint8Array,
  about: Uint8Array,
  aboutOffset: number,
  aboutLength: number,
): number {
  const ipAndIcmp = IP6_HEADER_BYTES + ICMP_HEADER_BYTES;
  const quoted = Math.min(aboutLength, ip6TotalLength(about, aboutOffset), ICMP6_ERROR_MAX_BYTES - ipAndIcmp);
  const to = about.subarray(aboutOffset + IP6_SOURCE, aboutOffset + IP6_SOURCE + 16);
  const payload = offset + ipAndIcmp;
  emitIp6(bytes, offset, 0, 0, ICMP_HEADER_BYTES + quoted, PROTOCOL_ICMP6, HOP_LIMIT, source, to);
  emitIcmpHeader(bytes, offset + IP6_HEADER_BYTES, type, code, rest);
  for (let i = 0; i < quoted; i++) bytes[payload + i] = about[aboutOffset + i];
  finishL4Checksum6(bytes, offset);
  return ipAndIcmp + quoted;
}

const NAMES4: Readonly<Record<number, string>> = {
  [ICMP4_ECHO_REPLY]: 'echo reply',
  [ICMP4_ECHO_REQUEST]: 'echo request',
  [ICMP4_UNREACHABLE]: 'unreachable',
  [ICMP4_TIME_EXCEEDED]: 'time exceeded',
};

const NAMES6: Readonly<Record<number, string>> = {
  [ICMP6_ECHO_REPLY]: 'echo reply',
  [ICMP6_ECHO_REQUEST]: 'echo request',
  [ICMP6_UNREACHABLE]: 'unreachable',
  [ICMP6_TIME_EXCEEDED]: 'time exceeded',
  [ICMP6_PACKET_TOO_BIG]: 'packet too big',
};

/** "ICMP echo request, id 1, seq 2", "ICMP unreachable, fragmentation needed, mtu 1460". Only after `checkIcmp`. */
export function printIcmp4(bytes: Uint8Array, offset: number): string {
  const type = icmpType(bytes, offset);
  const code = icmpCode(bytes, offset);
  const text = `ICMP ${NAMES4[type] ?? `type ${type}`}`;
  if (type === ICMP4_ECHO_REQUEST || type === ICMP4_ECHO_REPLY) return text + printEcho(bytes, offset);
  if (type !== ICMP4_UNREACHABLE) return code === 0 ? text : `${text}, code ${code}`;
  if (code === ICMP4_FRAGMENTATION_NEEDED)
    return `${text}, fragmentation needed, mtu ${icmpMtu(bytes, offset) & 0xffff}`;
  if (code === ICMP4_NET_UNREACHABLE) return `${text}, net`;
  return code === ICMP4_HOST_UNREACHABLE ? `${text}, host` : `${text}, code ${code}`;
}

/** As `printIcmp4`. */
export function printIcmp6(bytes: Uint8Array, offset: number): string {
  const type = icmpType(bytes, offset);
  const code = icmpCode(bytes, offset);
  const text = `ICMP6 ${NAMES6[type] ?? `type ${type}`}`;
  if (type === ICMP6_ECHO_REQUEST || type === ICMP6_ECHO_REPLY) return text + printEcho(bytes, offset);
  if (type === ICMP6_PACKET_TOO_BIG) return `${text}, mtu ${icmpMtu(bytes, offset)}`;
  return code === 0 ? text : `${text}, code ${code}`;
}

function printEcho(bytes: Uint8Array, offset: number): string {
  return `, id ${icmpEchoId(bytes, offset)}, seq ${icmpEchoSequence(bytes, offset)}`;
}
