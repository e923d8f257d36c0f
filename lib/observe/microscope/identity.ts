/** Knowing a pod's packet again wherever it is seen: on a TUN, in a datagram, in one segment of many. Pure. */
import { get16, get32 } from '../../wire/bytes.ts';
import { isIp6, l4DistanceOf, protocolOf, totalLength } from '../../wire/either.ts';
import {
  formatAddress4,
  IP4_HEADER_BYTES,
  ip4Destination,
  ip4FragmentOffset,
  ip4Id,
  ip4Source,
} from '../../wire/ip4.ts';
import { formatAddress6, IP6_DESTINATION, IP6_HEADER_BYTES, IP6_SOURCE } from '../../wire/ip6.ts';
import {
  HEADER_BYTES,
  KIND_BUNDLE,
  KIND_PACKET,
  KIND_SEGMENT,
  KIND_TRACED,
  TULLE_VERSION,
  tulleIndex,
  tulleKind,
} from '../../wire/tulle.ts';
import { UDP_HEADER_BYTES } from '../../wire/udp.ts';
import type { PacketRecord } from './model.ts';

/** A pod's packet inside a record: `offset` and `length` in the record's bytes, as far as they were captured. */
export interface Inner {
  key: string;
  source: string;
  destination: string;
  offset: number;
  length: number;
  /** Where the tulle header begins, -1 without one. */
  header: number;
}

export const isOuter = ({ place }: PacketRecord): boolean => place === 'udp-send' || place === 'udp-receive';

/** The pods' packets of a record: one, of a bundle several, of a probe or of something damaged none. */
export function innersOf(record: PacketRecord): Inner[] {
  const { bytes } = record;
  if (!isOuter(record)) return wholeOf(bytes, 0, bytes.length, -1);
  const payload = payloadOfOuter(bytes);
  if (payload < 0 || payload >= bytes.length) return [];
  if (bytes[payload] >>> 4 !== TULLE_VERSION) return wholeOf(bytes, payload, bytes.length - payload, -1);
  const behind = payload + HEADER_BYTES;
  if (behind >= bytes.length) return [];
  switch (tulleKind(bytes, payload)) {
    case KIND_PACKET:
    case KIND_TRACED:
    case KIND_SEGMENT:
      return wholeOf(bytes, behind, bytes.length - behind, payload);
    case KIND_BUNDLE:
      return bundled(bytes, behind, tulleIndex(bytes, payload), payload);
    default:
      return [];
  }
}

function bundled(bytes: Uint8Array, from: number, count: number, header: number): Inner[] {
  const found: Inner[] = [];
  for (let at = from, i = 0; i < count && at + 2 < bytes.length; i++) {
    const length = get16(bytes, at);
    if (length === 0) break;
    found.push(...wholeOf(bytes, at + 2, Math.min(length, bytes.length - at - 2), header));
    at += 2 + length;
  }
  return found;
}

/** Where the payload of an outer IP and UDP header begins; -1 when it is neither. */
export function payloadOfOuter(bytes: Uint8Array): number {
  if (bytes.length < 1) return -1;
  const header = isIp6(bytes, 0) ? IP6_HEADER_BYTES : (bytes[0] & 15) * 4;
  const version = bytes[0] >>> 4;
  if ((version !== 4 && version !== 6) || header < IP4_HEADER_BYTES || bytes.length < header + UDP_HEADER_BYTES)
    return -1;
  const protocol = version === 6 ? bytes[6] : bytes[9];
  return protocol === 17 ? header + UDP_HEADER_BYTES : -1;
}

function wholeOf(bytes: Uint8Array, offset: number, length: number, header: number): Inner[] {
  const inner = identify(bytes, offset, length);
  return inner === undefined ? [] : [{ ...inner, offset, length, header }];
}

/**
 * What stays the same on the way: addresses, protocol, and what tells one packet of a conversation from the next. TTL and
 * checksums change; lengths are the super-packet's in a segment; TCP's sequence number and IP's id are the first segment's.
 */
function identify(
  bytes: Uint8Array,
  ip: number,
  available: number,
): Pick<Inner, 'key' | 'source' | 'destination'> | undefined {
  const six = available > 0 && isIp6(bytes, ip);
  if (available < (six ? IP6_HEADER_BYTES : IP4_HEADER_BYTES) || (!six && bytes[ip] >>> 4 !== 4)) return undefined;
  if (!six && ((bytes[ip] & 15) * 4 < IP4_HEADER_BYTES || (bytes[ip] & 15) * 4 > available)) return undefined;
  const source = six ? formatAddress6(bytes, ip + IP6_SOURCE) : formatAddress4(ip4Source(bytes, ip));
  const destination = six ? formatAddress6(bytes, ip + IP6_DESTINATION) : formatAddress4(ip4Destination(bytes, ip));
  const whole = !six || available >= Math.min(totalLength(bytes, ip), 128);
  const protocol = six && !whole ? bytes[ip + 6] : protocolOf(bytes, ip);
  const l4 = ip + (six && !whole ? IP6_HEADER_BYTES : l4DistanceOf(bytes, ip));
  const left = ip + available - l4;
  let more = '';
  if (!six && ip4FragmentOffset(bytes, ip) > 0) more = `fragment ${ip4Id(bytes, ip)}+${ip4FragmentOffset(bytes, ip)}`;
  else if (protocol === 6 && left >= 16)
    more = `${get32(bytes, l4)} ${get32(bytes, l4 + 4)} ${get32(bytes, l4 + 8)} ${bytes[l4 + 13] & 0x76}`;
  else if (protocol === 17 && left >= 4) more = `${get32(bytes, l4)} ${six ? '' : ip4Id(bytes, ip)}`;
  else if (left >= 8) more = `${get16(bytes, l4)} ${get32(bytes, l4 + 4)}`;
  return { key: `${source} ${destination} ${protocol} ${more}`, source, destination };
}
