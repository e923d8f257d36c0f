/**
 * The L4 checksum of a whole IP packet: find its field, start it (pseudo-header sum only), finish it, verify it.
 * The packet has passed `checkIp4` or `checkIp6` and is not a fragment: a fragment's checksum speaks of bytes that are elsewhere.
 */
import { set16 } from './bytes.ts';
import { finish, pseudoSum4, pseudoSum6, sum } from './checksum.ts';
import {
  ip4HeaderLength,
  ip4Protocol,
  ip4TotalLength,
  PROTOCOL_ICMP,
  PROTOCOL_ICMP6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from './ip4.ts';
import { findL4Ip6, ip6TotalLength, l4Distance, l4Protocol } from './ip6.ts';
import { checkTcp, TCP_CHECKSUM } from './tcp.ts';
import { checkUdp, UDP_CHECKSUM, udpChecksum, udpLength } from './udp.ts';

const ICMP_CHECKSUM = 2;
const ICMP_HEADER_BYTES = 8;

/** From the L4 header to its checksum field, or -1 for a protocol whose checksum we do not know. */
export function l4ChecksumOffset(protocol: number): number {
  switch (protocol) {
    case PROTOCOL_TCP:
      return TCP_CHECKSUM;
    case PROTOCOL_UDP:
      return UDP_CHECKSUM;
    case PROTOCOL_ICMP:
    case PROTOCOL_ICMP6:
      return ICMP_CHECKSUM;
    default:
      return -1;
  }
}

/** Bytes that the checksum covers, from the L4 header on; -1 when the L4 header is damaged or of an unknown protocol. */
function coveredBytes(bytes: Uint8Array, l4Offset: number, l4Length: number, protocol: number): number {
  switch (protocol) {
    case PROTOCOL_TCP:
      return checkTcp(bytes, l4Offset, l4Length) === 0 ? l4Length : -1;
    case PROTOCOL_UDP:
      return checkUdp(bytes, l4Offset, l4Length) === 0 ? udpLength(bytes, l4Offset) : -1;
    case PROTOCOL_ICMP:
    case PROTOCOL_ICMP6:
      return l4Length >= ICMP_HEADER_BYTES ? l4Length : -1;
    default:
      return -1;
  }
}

/**
 * The check that completes the sum. 0 becomes 0xffff, its equal in ones' complement, since UDP's 0 means "none" (RFC 768);
 * for the other protocols that is as right, and it is what the kernel does (skb_checksum_help).
 */
function checkOf(bytes: Uint8Array, l4Offset: number, covered: number, protocol: number, pseudo: number): number {
  // The field counts as zero, so it is stepped over. (Adding its complement instead would give 0 for an all-zero message,
  // such as an echo reply with id 0 and an empty payload, where a receiver finds only 0xffff right.)
  const before = l4ChecksumOffset(protocol);
  const rest = sum(bytes, l4Offset + before + 2, covered - before - 2, pseudo);
  return finish(sum(bytes, l4Offset, before, rest)) || 0xffff;
}

/** The checksum that the packet's L4 field should hold, 1..0xffff; -1 when there is none to compute. */
export function l4Checksum4(bytes: Uint8Array, ipOffset: number): number {
  const protocol = ip4Protocol(bytes, ipOffset);
  const headerLength = ip4HeaderLength(bytes, ipOffset);
  const l4Offset = ipOffset + headerLength;
  const covered = coveredBytes(bytes, l4Offset, ip4TotalLength(bytes, ipOffset) - headerLength, protocol);
  if (covered < 0) return -1;
  return checkOf(bytes, l4Offset, covered, protocol, startOf4(bytes, ipOffset, protocol, covered));
}

/** As `l4Checksum4`, for IPv6, behind any extension headers. */
export function l4Checksum6(bytes: Uint8Array, ipOffset: number): number {
  const found = findL4Ip6(bytes, ipOffset);
  if (found < 0) return -1;
  const protocol = l4Protocol(found);
  const l4Offset = ipOffset + l4Distance(found);
  const covered = coveredBytes(bytes, l4Offset, ip6TotalLength(bytes, ipOffset) - l4Distance(found), protocol);
  if (covered < 0) return -1;
  return checkOf(bytes, l4Offset, covered, protocol, pseudoSum6(bytes, ipOffset, protocol, covered));
}

/** ICMP over IPv4 has no pseudo-header. */
function startOf4(bytes: Uint8Array, ipOffset: number, protocol: number, covered: number): number {
  return protocol === PROTOCOL_ICMP ? 0 : pseudoSum4(bytes, ipOffset, protocol, covered);
}

/** Computes and stores the L4 checksum. False when the packet has none that we know. */
export function finishL4Checksum4(bytes: Uint8Array, ipOffset: number): boolean {
  const check = l4Checksum4(bytes, ipOffset);
  if (check < 0) return false;
  set16(bytes, ipOffset + ip4HeaderLength(bytes, ipOffset) + l4ChecksumOffset(ip4Protocol(bytes, ipOffset)), check);
  return true;
}

/** As `finishL4Checksum4`, for IPv6. */
export function finishL4Checksum6(bytes: Uint8Array, ipOffset: number): boolean {
  const check = l4Checksum6(bytes, ipOffset);
  if (check < 0) return false;
  const found = findL4Ip6(bytes, ipOffset);
  set16(bytes, ipOffset + l4Distance(found) + l4ChecksumOffset(l4Protocol(found)), check);
  return true;
}

/**
 * Stores the pseudo-header sum only, as the kernel does for CHECKSUM_PARTIAL. For TCP and UDP; the L4 header is at
 * `l4Offset`, `l4Length` is header and payload.
 */
export function startL4Checksum4(bytes: Uint8Array, ipOffset: number, l4Offset: number, l4Length: number): void {
  const protocol = ip4Protocol(bytes, ipOffset);
  set16(bytes, l4Offset + l4ChecksumOffset(protocol), pseudoSum4(bytes, ipOffset, protocol, l4Length));
}

/** As `startL4Checksum4`, for IPv6; the protocol is that of the L4 header, behind any extension headers. */
export function startL4Checksum6(
  bytes: Uint8Array,
  ipOffset: number,
  protocol: number,
  l4Offset: number,
  l4Length: number,
): void {
  set16(bytes, l4Offset + l4ChecksumOffset(protocol), pseudoSum6(bytes, ipOffset, protocol, l4Length));
}

/**
 * True when the L4 checksum is right, or absent: UDP's 0. False for a wrong one, for a damaged L4 header, and for
 * a protocol that we do not know.
 */
export function verifyL4Checksum4(bytes: Uint8Array, ipOffset: number): boolean {
  const protocol = ip4Protocol(bytes, ipOffset);
  const headerLength = ip4HeaderLength(bytes, ipOffset);
  const l4Offset = ipOffset + headerLength;
  const covered = coveredBytes(bytes, l4Offset, ip4TotalLength(bytes, ipOffset) - headerLength, protocol);
  if (covered < 0) return false;
  if (protocol === PROTOCOL_UDP && udpChecksum(bytes, l4Offset) === 0) return true;
  return sum(bytes, l4Offset, covered, startOf4(bytes, ipOffset, protocol, covered)) === 0xffff;
}

/** As `verifyL4Checksum4`; but over IPv6 a UDP checksum of 0 is wrong (RFC 8200 §8.1). */
export function verifyL4Checksum6(bytes: Uint8Array, ipOffset: number): boolean {
  const found = findL4Ip6(bytes, ipOffset);
  if (found < 0) return false;
  const protocol = l4Protocol(found);
  const l4Offset = ipOffset + l4Distance(found);
  const covered = coveredBytes(bytes, l4Offset, ip6TotalLength(bytes, ipOffset) - l4Distance(found), protocol);
  if (covered < 0) return false;
  if (protocol === PROTOCOL_UDP && udpChecksum(bytes, l4Offset) === 0) return false;
  return sum(bytes, l4Offset, covered, pseudoSum6(bytes, ipOffset, protocol, covered)) === 0xffff;
}
