/** IPv4 headers (RFC 791) and dotted addresses. An address is an unsigned 32-bit number: 10.0.0.1 is 0x0a000001. */
import { get16, get32, set16, set32 } from './bytes.ts';
import { finish, sum, update16 } from './checksum.ts';
import { BAD_HEADER_LENGTH, BAD_TOTAL_LENGTH, BAD_VERSION, OK, TOO_SHORT } from './reason.ts';

// Offsets in the header, RFC 791 §3.1.
export const IP4_VERSION_IHL = 0;
export const IP4_TOS = 1;
export const IP4_TOTAL_LENGTH = 2;
export const IP4_ID = 4;
export const IP4_FRAGMENT = 6;
export const IP4_TTL = 8;
export const IP4_PROTOCOL = 9;
export const IP4_CHECKSUM = 10;
export const IP4_SOURCE = 12;
export const IP4_DESTINATION = 16;
/** Bytes of a header without options. */
export const IP4_HEADER_BYTES = 20;

// Bits of the 16-bit word at IP4_FRAGMENT.
export const IP4_DONT_FRAGMENT = 0x4000;
export const IP4_MORE_FRAGMENTS = 0x2000;
/** The low 13 bits: fragment offset in units of 8 bytes. */
export const IP4_OFFSET_MASK = 0x1fff;

// Protocol numbers (IANA).
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMP6 = 58;

/**
 * Checks the header at `offset` with `available` bytes from there on. `OK`: version 4, a header of at least 5 words that
 * is there whole, a total length that holds the header and is there whole. The checksum is a question of its own:
 * `verifyIp4Checksum`. Bytes after the total length are allowed (padding).
 */
export function checkIp4(bytes: Uint8Array, offset: number, available: number): number {
  if (available < IP4_HEADER_BYTES) return TOO_SHORT;
  const first = bytes[offset];
  if (first >>> 4 !== 4) return BAD_VERSION;
  const headerLength = (first & 0x0f) << 2;
  if (headerLength < IP4_HEADER_BYTES || headerLength > available) return BAD_HEADER_LENGTH;
  const totalLength = get16(bytes, offset + IP4_TOTAL_LENGTH);
  if (totalLength < headerLength || totalLength > available) return BAD_TOTAL_LENGTH;
  return OK;
}

/** True when the header's checksum is right. Only after `checkIp4`. */
export function verifyIp4Checksum(bytes: Uint8Array, offset: number): boolean {
  return sum(bytes, offset, ip4HeaderLength(bytes, offset)) === 0xffff;
}

export function ip4Version(bytes: Uint8Array, offset: number): number {
  return bytes[offset] >>> 4;
}

/** Bytes, 20..60. */
export function ip4HeaderLength(bytes: Uint8Array, offset: number): number {
  return (bytes[offset] & 0x0f) << 2;
}

/** DSCP and ECN, one byte. */
export function ip4Tos(bytes: Uint8Array, offset: number): number {
  return bytes[offset + IP4_TOS];
}

/** Bytes of header and payload. */
export function ip4TotalLength(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + IP4_TOTAL_LENGTH);
}

export function ip4Id(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + IP4_ID);
}

/** The whole flags-and-offset word. */
export function ip4FragmentWord(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + IP4_FRAGMENT);
}

export function ip4DontFragment(bytes: Uint8Array, offset: number): boolean {
  return (bytes[offset + IP4_FRAGMENT] & 0x40) !== 0;
}

export function ip4MoreFragments(bytes: Uint8Array, offset: number): boolean {
  return (bytes[offset + IP4_FRAGMENT] & 0x20) !== 0;
}

/** Position of this fragment's payload in the whole packet's, in bytes. */
export function ip4FragmentOffset(bytes: Uint8Array, offset: number): number {
  return (get16(bytes, offset + IP4_FRAGMENT) & IP4_OFFSET_MASK) << 3;
}

/** True for every fragment of a packet, the first one too. A fragment's L4 header is absent or speaks of other bytes. */
export function isFragment4(bytes: Uint8Array, offset: number): boolean {
  return (get16(bytes, offset + IP4_FRAGMENT) & (IP4_MORE_FRAGMENTS | IP4_OFFSET_MASK)) !== 0;
}

export function ip4Ttl(bytes: Uint8Array, offset: number): number {
  return bytes[offset + IP4_TTL];
}

export function ip4Protocol(bytes: Uint8Array, offset: number): number {
  return bytes[offset + IP4_PROTOCOL];
}

export function ip4Checksum(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + IP4_CHECKSUM);
}

export function ip4Source(bytes: Uint8Array, offset: number): number {
  return get32(bytes, offset + IP4_SOURCE);
}

export function ip4Destination(bytes: Uint8Array, offset: number): number {
  return get32(bytes, offset + IP4_DESTINATION);
}

// The setters leave the checksum as it is; finish with setIp4Checksum.

export function setIp4TotalLength(bytes: Uint8Array, offset: number, totalLength: number): void {
  set16(bytes, offset + IP4_TOTAL_LENGTH, totalLength);
}

export function setIp4Id(bytes: Uint8Array, offset: number, id: number): void {
  set16(bytes, offset + IP4_ID, id);
}

export function setIp4FragmentWord(bytes: Uint8Array, offset: number, word: number): void {
  set16(bytes, offset + IP4_FRAGMENT, word);
}

export function setIp4Ttl(bytes: Uint8Array, offset: number, ttl: number): void {
  bytes[offset + IP4_TTL] = ttl;
}

export function setIp4Source(bytes: Uint8Array, offset: number, address: number): void {
  set32(bytes, offset + IP4_SOURCE, address);
}

export function setIp4Destination(bytes: Uint8Array, offset: number, address: number): void {
  set32(bytes, offset + IP4_DESTINATION, address);
}

/** Computes and stores the header's checksum. */
export function setIp4Checksum(bytes: Uint8Array, offset: number): void {
  set16(bytes, offset + IP4_CHECKSUM, 0);
  set16(bytes, offset + IP4_CHECKSUM, finish(sum(bytes, offset, ip4HeaderLength(bytes, offset))));
}

/**
 * One hop less. Returns the new TTL, with the checksum updated in place (RFC 1624). A packet whose TTL ends here (0 or 1)
 * is left as it came, so that it can be quoted in a Time Exceeded, and 0 is returned.
 */
export function decrementTtl(bytes: Uint8Array, offset: number): number {
  const ttl = bytes[offset + IP4_TTL];
  if (ttl <= 1) return 0;
  const word = get16(bytes, offset + IP4_TTL);
  set16(bytes, offset + IP4_CHECKSUM, update16(get16(bytes, offset + IP4_CHECKSUM), word, word - 0x100));
  bytes[offset + IP4_TTL] = ttl - 1;
  return ttl - 1;
}

/** Writes a header of 20 bytes with its checksum; arguments in the header's order. Returns the bytes written. */
export function emitIp4(
  bytes: Uint8Array,
  offset: number,
  tos: number,
  totalLength: number,
  id: number,
  fragmentWord: number,
  ttl: number,
  protocol: number,
  source: number,
  destination: number,
): number {
  bytes[offset] = 0x45;
  bytes[offset + IP4_TOS] = tos;
  set16(bytes, offset + IP4_TOTAL_LENGTH, totalLength);
  set16(bytes, offset + IP4_ID, id);
  set16(bytes, offset + IP4_FRAGMENT, fragmentWord);
  bytes[offset + IP4_TTL] = ttl;
  bytes[offset + IP4_PROTOCOL] = protocol;
  set32(bytes, offset + IP4_SOURCE, source);
  set32(bytes, offset + IP4_DESTINATION, destination);
  setIp4Checksum(bytes, offset);
  return IP4_HEADER_BYTES;
}

/** "10.5.1.2 > 10.5.2.2 proto 6 ttl 64 id 7 DF length 1460". Only after `checkIp4`. */
export function printIp4(bytes: Uint8Array, offset: number): string {
  const source = formatAddress4(ip4Source(bytes, offset));
  const destination = formatAddress4(ip4Destination(bytes, offset));
  let text = `${source} > ${destination} proto ${ip4Protocol(bytes, offset)} ttl ${ip4Ttl(bytes, offset)} id ${ip4Id(bytes, offset)}`;
  if (ip4DontFragment(bytes, offset)) text += ' DF';
  if (isFragment4(bytes, offset)) {
    text += ` fragment ${ip4FragmentOffset(bytes, offset)}${ip4MoreFragments(bytes, offset) ? '+' : ''}`;
  }
  return `${text} length ${ip4TotalLength(bytes, offset)}`;
}

/** Strict dotted quad: four decimal numbers 0..255 without leading zeros, nothing around them. */
export function parseAddress4(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let address = 0;
  for (const part of parts) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part)) return undefined;
    const octet = Number(part);
    if (octet > 255) return undefined;
    address = address * 256 + octet;
  }
  return address;
}

/** Dotted quad of the low 32 bits. */
export function formatAddress4(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 0xff}.${(address >>> 8) & 0xff}.${address & 0xff}`;
}
