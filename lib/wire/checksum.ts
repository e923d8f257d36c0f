/**
 * The internet checksum (RFC 1071) and its incremental update (RFC 1624). A *sum* here is the ones' complement sum of
 * big-endian 16-bit words, not inverted; a *check* is what stands in a packet: the inverted sum.
 */
import { get16 } from './bytes.ts';

/** Folds the carries of a sum (0..2^32-1) into 16 bits. Zero stays zero, anything else stays non-zero. */
export function fold(sum: number): number {
  let folded = (sum & 0xffff) + (sum >>> 16);
  folded = (folded & 0xffff) + (folded >>> 16);
  return folded;
}

/** The check of a sum: folded and inverted, 0..0xffff. */
export function finish(sum: number): number {
  return ~fold(sum) & 0xffff;
}

/**
 * Adds `length` bytes at `offset` to the sum `initial` (0..2^31). An odd last byte counts as the high half of a word.
 * Returns a folded sum, 0..0xffff. `length` may be up to 16 MB: high and low bytes are added up apart (255 × 8 Mi stays
 * below 2^31), which needs one add for each byte, no shift, and one fold at the end.
 */
export function sum(bytes: Uint8Array, offset: number, length: number, initial = 0): number {
  let high = 0;
  let low = 0;
  let at = offset;
  const unrolledEnd = offset + (length & ~15);
  while (at < unrolledEnd) {
    high =
      (high +
        bytes[at] +
        bytes[at + 2] +
        bytes[at + 4] +
        bytes[at + 6] +
        bytes[at + 8] +
        bytes[at + 10] +
        bytes[at + 12] +
        bytes[at + 14]) |
      0;
    low =
      (low +
        bytes[at + 1] +
        bytes[at + 3] +
        bytes[at + 5] +
        bytes[at + 7] +
        bytes[at + 9] +
        bytes[at + 11] +
        bytes[at + 13] +
        bytes[at + 15]) |
      0;
    at += 16;
  }
  const pairsEnd = offset + (length & ~1);
  while (at < pairsEnd) {
    high = (high + bytes[at]) | 0;
    low = (low + bytes[at + 1]) | 0;
    at += 2;
  }
  if ((length & 1) !== 0) high = (high + bytes[at]) | 0;
  // high × 256, folded once already: the part that would exceed 16 bits wraps around to the low end.
  return fold(fold(((high & 0xff) << 8) + (high >>> 8)) + fold(low) + fold(initial));
}

/** RFC 1624 equation 3: the check after a 16-bit word changed from `before` to `after`. */
export function update16(check: number, before: number, after: number): number {
  return finish((~check & 0xffff) + (~before & 0xffff) + (after & 0xffff));
}

/** RFC 1624 equation 3 for a 32-bit field on a 16-bit boundary (an address, a sequence number). */
export function update32(check: number, before: number, after: number): number {
  return finish(
    (~check & 0xffff) + (~before & 0xffff) + (~(before >>> 16) & 0xffff) + (after & 0xffff) + ((after >>> 16) & 0xffff),
  );
}

/** Sum of the IPv4 pseudo-header (RFC 9293 §3.1): addresses of the header at `ipOffset`, protocol, L4 length in bytes. */
export function pseudoSum4(bytes: Uint8Array, ipOffset: number, protocol: number, l4Length: number): number {
  return fold(
    get16(bytes, ipOffset + 12) +
      get16(bytes, ipOffset + 14) +
      get16(bytes, ipOffset + 16) +
      get16(bytes, ipOffset + 18) +
      protocol +
      l4Length,
  );
}

/** Sum of the IPv6 pseudo-header (RFC 8200 §8.1): addresses of the header at `ipOffset`, last next-header, L4 length. */
export function pseudoSum6(bytes: Uint8Array, ipOffset: number, protocol: number, l4Length: number): number {
  return sum(bytes, ipOffset + 8, 32, protocol + (l4Length >>> 16) + (l4Length & 0xffff));
}

/**
 * Finishes a partial checksum as the kernel's skb_checksum_help does: the field at `checksumStart + checksumOffset`
 * holds the pseudo-header sum, everything from `checksumStart` to `end` is added, the inverted sum is stored.
 * A result of 0 is stored as 0xffff, which is equal in ones' complement and which UDP needs (RFC 768): 0 means "none".
 */
export function finishPartial(bytes: Uint8Array, checksumStart: number, checksumOffset: number, end: number): void {
  const check = finish(sum(bytes, checksumStart, end - checksumStart)) || 0xffff;
  bytes[checksumStart + checksumOffset] = check >>> 8;
  bytes[checksumStart + checksumOffset + 1] = check;
}
