/**
 * IPv4 fragmentation (RFC 791 §3.2), as a router does it for a packet without DF that the next hop cannot take whole. Rare:
 * most senders set DF and are told (icmp-reply.ts).
 */
import { set16 } from '../wire/bytes.ts';
import {
  IP4_DONT_FRAGMENT,
  IP4_FRAGMENT,
  IP4_HEADER_BYTES,
  IP4_MORE_FRAGMENTS,
  IP4_OFFSET_MASK,
  ip4FragmentWord,
  ip4TotalLength,
  setIp4Checksum,
  setIp4TotalLength,
} from '../wire/ip4.ts';
import { emitTulle, HEADER_BYTES, KIND_PACKET } from '../wire/tulle.ts';
import type { MessageTable } from './message-table.ts';
import { CONTROL_KEY, type Slab } from './slab.ts';

/** Version 4 and a header of five words. */
const IP4_WITHOUT_OPTIONS = 0x45;

/** False for a packet that must not be fragmented, IPv6 is one; also for one with options, which only some fragments may repeat. */
export function mayFragment4(bytes: Uint8Array, ip: number): boolean {
  return bytes[ip] === IP4_WITHOUT_OPTIONS && (ip4FragmentWord(bytes, ip) & IP4_DONT_FRAGMENT) === 0;
}

/**
 * Adds the fragments of the packet at `ip`, each of `limit` bytes at most, as messages to `peer`, and returns their number.
 * Only after `mayFragment4`, and with a finished L4 checksum.
 */
export function fragments4(
  slab: Slab,
  table: MessageTable,
  peer: number,
  ip: number,
  limit: number,
  tulle: boolean,
): number {
  const { bytes } = slab;
  const word = ip4FragmentWord(bytes, ip);
  const payload = ip4TotalLength(bytes, ip) - IP4_HEADER_BYTES;
  const most = (limit - IP4_HEADER_BYTES) & ~7;
  let count = 0;
  for (let at = 0; at < payload; at += most) {
    const slice = Math.min(most, payload - at);
    const isLast = at + slice === payload;
    const header = table.innerHeaders();
    bytes.copyWithin(header, ip, ip + IP4_HEADER_BYTES);
    setIp4TotalLength(bytes, header, IP4_HEADER_BYTES + slice);
    const more = isLast ? word & IP4_MORE_FRAGMENTS : IP4_MORE_FRAGMENTS;
    set16(bytes, header + IP4_FRAGMENT, more | ((word & IP4_OFFSET_MASK) + (at >> 3)));
    setIp4Checksum(bytes, header);
    if (tulle) {
      const tulleHeader = table.header();
      emitTulle(bytes, tulleHeader, KIND_PACKET, 0, 0, slab.control[CONTROL_KEY], 0, 0);
      table.iov(tulleHeader, HEADER_BYTES);
    }
    table.iov(header, IP4_HEADER_BYTES);
    table.iov(ip + IP4_HEADER_BYTES + at, slice);
    const outer = tulle ? HEADER_BYTES : 0;
    table.message(peer, 1, tulle ? 3 : 2, outer + IP4_HEADER_BYTES + slice, 0);
    table.ofFragment();
    count++;
  }
  return count;
}
