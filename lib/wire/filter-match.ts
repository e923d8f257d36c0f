/**
 * Expressions (filter.ts) as predicates on packets. A packet may be cut (a capture keeps its beginning) and may be damaged: what
 * cannot be read does not match, and "not" of it does.
 */
import { get16, get32 } from './bytes.ts';
import { maskOf, maskOf6, type Subnet4, type Subnet6 } from './cidr.ts';
import type { Filter, Side } from './filter.ts';
import {
  IP4_DESTINATION,
  IP4_HEADER_BYTES,
  IP4_SOURCE,
  ip4FragmentOffset,
  ip4HeaderLength,
  ip4Protocol,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from './ip4.ts';
import {
  address6ToBigint,
  HEADER_AUTHENTICATION,
  HEADER_DESTINATION_OPTIONS,
  HEADER_FRAGMENT,
  HEADER_HOP_BY_HOP,
  HEADER_ROUTING,
  IP6_DESTINATION,
  IP6_HEADER_BYTES,
  IP6_SOURCE,
  ip6NextHeader,
} from './ip6.ts';
import {
  bundlePacket,
  bundlePacketLength,
  HEADER_BYTES,
  KIND_BUNDLE,
  KIND_PACKET,
  KIND_SEGMENT,
  KIND_TRACED,
  TULLE_VERSION,
  tulleIndex,
  tulleKind,
} from './tulle.ts';

/** Whether the IP packet at `offset`, of which `available` bytes are here, is meant. */
export type Predicate = (bytes: Uint8Array, offset: number, available: number) => boolean;

/** What a predicate of a port or a protocol asks about; -1 for what the packet does not say. */
interface L4 {
  protocol: number;
  /** Where the L4 header begins, -1 in a later fragment or when it is not here. */
  offset: number;
}

/** Makes a predicate. It allocates little and never throws. */
export function compileFilter(filter: Filter): Predicate {
  switch (filter.kind) {
    case 'and': {
      const [left, right] = [compileFilter(filter.left), compileFilter(filter.right)];
      return (bytes, offset, available) => left(bytes, offset, available) && right(bytes, offset, available);
    }
    case 'or': {
      const [left, right] = [compileFilter(filter.left), compileFilter(filter.right)];
      return (bytes, offset, available) => left(bytes, offset, available) || right(bytes, offset, available);
    }
    case 'not': {
      const of = compileFilter(filter.of);
      return (bytes, offset, available) => !of(bytes, offset, available);
    }
    case 'net4':
      return net4(filter.side, filter.net);
    case 'net6':
      return net6(filter.side, filter.net);
    case 'port':
      return port(filter);
    case 'protocol':
      return (bytes, offset, available) => l4Of(bytes, offset, available).protocol === filter.protocol;
    case 'version':
      return (bytes, offset, available) => isOf(filter.version, bytes, offset, available);
  }
}

/**
 * Whether one of the inner packets of a datagram is meant: bare IP, or behind a tulle header. A datagram without any (a probe)
 * is not.
 */
export function matchesDatagram(predicate: Predicate, bytes: Uint8Array, offset: number, available: number): boolean {
  if (available < 1) return false;
  if (bytes[offset] >>> 4 !== TULLE_VERSION) return predicate(bytes, offset, available);
  if (available <= HEADER_BYTES) return false;
  const end = offset + available;
  let at = offset + HEADER_BYTES;
  const kind = tulleKind(bytes, offset);
  if (kind === KIND_PACKET || kind === KIND_SEGMENT || kind === KIND_TRACED) return predicate(bytes, at, end - at);
  if (kind !== KIND_BUNDLE) return false;
  for (let left = tulleIndex(bytes, offset); left > 0 && at + 2 < end; left--) {
    const length = bundlePacketLength(bytes, at);
    if (predicate(bytes, bundlePacket(at), Math.min(length, end - bundlePacket(at)))) return true;
    at = bundlePacket(at) + length;
  }
  return false;
}

function isOf(version: 4 | 6, bytes: Uint8Array, offset: number, available: number): boolean {
  const least = version === 4 ? IP4_HEADER_BYTES : IP6_HEADER_BYTES;
  return available >= least && bytes[offset] >>> 4 === version;
}

function net4(side: Side, { address, prefixLength }: Subnet4): Predicate {
  const mask = maskOf(prefixLength);
  const holds = (bytes: Uint8Array, at: number): boolean => (get32(bytes, at) & mask) >>> 0 === address;
  return (bytes, offset, available) =>
    isOf(4, bytes, offset, available) &&
    ((side !== 'dst' && holds(bytes, offset + IP4_SOURCE)) ||
      (side !== 'src' && holds(bytes, offset + IP4_DESTINATION)));
}

function net6(side: Side, { address, prefixLength }: Subnet6): Predicate {
  const mask = maskOf6(prefixLength);
  const holds = (bytes: Uint8Array, at: number): boolean => (address6ToBigint(bytes, at) & mask) === address;
  return (bytes, offset, available) =>
    isOf(6, bytes, offset, available) &&
    ((side !== 'dst' && holds(bytes, offset + IP6_SOURCE)) ||
      (side !== 'src' && holds(bytes, offset + IP6_DESTINATION)));
}

function port({ side, from, to, protocol }: Extract<Filter, { kind: 'port' }>): Predicate {
  return (bytes, offset, available) => {
    const l4 = l4Of(bytes, offset, available);
    if (
      protocol === undefined ? l4.protocol !== PROTOCOL_TCP && l4.protocol !== PROTOCOL_UDP : l4.protocol !== protocol
    )
      return false;
    if (l4.offset < 0 || l4.offset + 4 > offset + available) return false;
    const isIn = (at: number): boolean => get16(bytes, at) >= from && get16(bytes, at) <= to;
    return (side !== 'dst' && isIn(l4.offset)) || (side !== 'src' && isIn(l4.offset + 2));
  };
}

const EXTENSIONS = new Set<number>([
  HEADER_HOP_BY_HOP,
  HEADER_ROUTING,
  HEADER_FRAGMENT,
  HEADER_AUTHENTICATION,
  HEADER_DESTINATION_OPTIONS,
]);

function l4Of(bytes: Uint8Array, offset: number, available: number): L4 {
  if (isOf(4, bytes, offset, available)) {
    const headers = ip4HeaderLength(bytes, offset);
    const isHere = headers >= IP4_HEADER_BYTES && ip4FragmentOffset(bytes, offset) === 0;
    return { protocol: ip4Protocol(bytes, offset), offset: isHere ? offset + headers : -1 };
  }
  if (!isOf(6, bytes, offset, available)) return { protocol: -1, offset: -1 };
  // Every turn moves on by 8 bytes or more, so the chain ends with the bytes.
  const end = offset + available;
  let next = ip6NextHeader(bytes, offset);
  let at = offset + IP6_HEADER_BYTES;
  let isLater = false;
  while (EXTENSIONS.has(next)) {
    if (at + 8 > end) return { protocol: -1, offset: -1 };
    if (next === HEADER_FRAGMENT && (get16(bytes, at + 2) & 0xfff8) !== 0) isLater = true;
    const length =
      next === HEADER_FRAGMENT ? 8 : next === HEADER_AUTHENTICATION ? (bytes[at + 1] + 2) * 4 : (bytes[at + 1] + 1) * 8;
    next = bytes[at];
    at += length;
    if (isLater) return { protocol: next, offset: -1 };
  }
  return { protocol: next, offset: at };
}
