/**
 * Bytes to layers and fields, for people: what each byte of a packet is, where it is, and what it means. The checks and
 * numbers are lib/wire's; nothing is parsed a second time. Pure, and it never throws: what is damaged ends in "data".
 */
import { get16 } from '../../wire/bytes.ts';
import { isIp6, l4DistanceOf, protocolOf, totalLength } from '../../wire/either.ts';
import {
  checkIp4,
  IP4_HEADER_BYTES,
  ip4FragmentOffset,
  PROTOCOL_ICMP,
  PROTOCOL_ICMP6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../../wire/ip4.ts';
import { checkIp6, IP6_HEADER_BYTES } from '../../wire/ip6.ts';
import { OK } from '../../wire/reason.ts';
import { checkTcp, tcpHeaderLength } from '../../wire/tcp.ts';
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
import { VNET_HEADER_BYTES } from '../../wire/vnet.ts';
import type { Field, Layer } from './field.ts';
import { icmpFields, tcpFields, tulleFields, udpFields, vnetFields } from './fields.ts';
import { ip4Fields, ip6Fields } from './fields-ip.ts';

export type { Field, Layer, LayerKind } from './field.ts';

/** What the bytes begin with. */
export type Beginning = 'inner' | 'vnet' | 'datagram' | 'outer';

/** `bytes` must be as long as the packet was: what was not captured is zero, and `captured` says where that begins. */
export function layersOf(bytes: Uint8Array, begins: Beginning, captured = bytes.length): Layer[] {
  const layers: Layer[] = [];
  let at = 0;
  if (begins === 'vnet' && bytes.length >= VNET_HEADER_BYTES) {
    layers.push({
      kind: 'vnet',
      title: 'vnet header',
      offset: 0,
      length: VNET_HEADER_BYTES,
      fields: vnetFields(bytes, 0),
    });
    at = VNET_HEADER_BYTES;
  }
  if (begins === 'outer') {
    const header = ipHeader(bytes, 0, 'outer');
    if (header === undefined || protocolOf(bytes, 0) !== PROTOCOL_UDP) return tail(bytes, layers, 0, captured);
    layers.push(header);
    at = header.length;
    if (bytes.length < at + UDP_HEADER_BYTES) return tail(bytes, layers, at, captured);
    layers.push({
      kind: 'outer-udp',
      title: 'Outer UDP',
      offset: at,
      length: UDP_HEADER_BYTES,
      fields: udpFields(bytes, at),
    });
    at += UDP_HEADER_BYTES;
  }
  if (begins === 'outer' || begins === 'datagram') at = datagram(bytes, at, layers);
  else at = inner(bytes, at, bytes.length - at, layers, '');
  return tail(bytes, layers, at, captured);
}

/** The offset of the first inner IP header among these layers, or -1. */
export function innerOffset(layers: readonly Layer[]): number {
  return layers.find(layer => layer.kind === 'inner-ip')?.offset ?? -1;
}

function tail(bytes: Uint8Array, layers: Layer[], at: number, captured: number): Layer[] {
  if (at < bytes.length) layers.push(data(bytes, at, bytes.length - at, captured));
  return layers;
}

function data(_bytes: Uint8Array, offset: number, length: number, captured: number): Layer {
  const missing = Math.max(0, offset + length - Math.max(offset, captured));
  const cut = missing === 0 ? '' : ` The capture left out the last ${missing}.`;
  const field = {
    name: 'data',
    value: `${length} bytes`,
    meaning: `What the pods say to each other; tulle does not look at it.${cut}`,
    offset,
    length,
  };
  return { kind: 'data', title: 'Data', offset, length, fields: [field] };
}

function datagram(bytes: Uint8Array, at: number, layers: Layer[]): number {
  if (at >= bytes.length) return at;
  if (bytes[at] >>> 4 !== TULLE_VERSION) return inner(bytes, at, bytes.length - at, layers, '');
  if (at + HEADER_BYTES > bytes.length) return at;
  layers.push({
    kind: 'tulle',
    title: 'tulle header',
    offset: at,
    length: HEADER_BYTES,
    fields: tulleFields(bytes, at),
  });
  const behind = at + HEADER_BYTES;
  switch (tulleKind(bytes, at)) {
    case KIND_PACKET:
    case KIND_TRACED:
    case KIND_SEGMENT:
      return inner(bytes, behind, bytes.length - behind, layers, '');
    case KIND_BUNDLE:
      return bundle(bytes, behind, tulleIndex(bytes, at), layers);
    default:
      return behind;
  }
}

/** So many packets of a bundle are shown field by field. */
const SHOWN_OF_BUNDLE = 4;

function bundle(bytes: Uint8Array, from: number, count: number, layers: Layer[]): number {
  let at = from;
  for (let i = 0; i < Math.min(count, SHOWN_OF_BUNDLE) && at + 2 <= bytes.length; i++) {
    const length = get16(bytes, at);
    if (length === 0 || at + 2 + length > bytes.length) break;
    const which = `packet ${i + 1} of ${count}`;
    layers.push({
      kind: 'record',
      title: `Length of ${which}`,
      offset: at,
      length: 2,
      fields: [
        {
          name: 'length',
          value: `${length}`,
          meaning: 'So many bytes of IP packet follow: a bundle carries several.',
          offset: at,
          length: 2,
        },
      ],
    });
    const end = at + 2 + length;
    const stopped = inner(bytes, at + 2, length, layers, ` · ${which}`);
    if (stopped < end) layers.push(data(bytes, stopped, end - stopped, bytes.length));
    at = end;
  }
  return at;
}

function ipHeader(
  bytes: Uint8Array,
  at: number,
  side: 'outer' | 'inner',
  more = '',
  available = bytes.length - at,
): Layer | undefined {
  const kind = side === 'outer' ? 'outer-ip' : 'inner-ip';
  const name = side === 'outer' ? 'Outer' : 'Inner';
  if (available < 1) return undefined;
  if (isIp6(bytes, at)) {
    if (available < IP6_HEADER_BYTES) return undefined;
    const length = Math.max(
      IP6_HEADER_BYTES,
      available >= totalLength(bytes, at) && checkIp6(bytes, at, available) === OK
        ? Math.max(IP6_HEADER_BYTES, l4DistanceOf(bytes, at))
        : IP6_HEADER_BYTES,
    );
    return { kind, title: `${name} IPv6${more}`, offset: at, length, fields: ip6Fields(bytes, at, length, side) };
  }
  if (bytes[at] >>> 4 !== 4 || available < IP4_HEADER_BYTES) return undefined;
  const length = (bytes[at] & 15) * 4;
  if (length < IP4_HEADER_BYTES || length > available) return undefined;
  return { kind, title: `${name} IPv4${more}`, offset: at, length, fields: ip4Fields(bytes, at, length, side) };
}

/** IP and L4 header of a pod's packet. A segment's total length is its super-packet's, so lengths are not insisted on. */
function inner(bytes: Uint8Array, at: number, available: number, layers: Layer[], more: string): number {
  const header = ipHeader(bytes, at, 'inner', more, available);
  if (header === undefined) return at;
  layers.push(header);
  if (
    !isIp6(bytes, at) &&
    checkIp4(bytes, at, Math.max(available, totalLength(bytes, at))) === OK &&
    ip4FragmentOffset(bytes, at) > 0
  )
    return at + header.length;
  const protocol = isIp6(bytes, at) && header.length === IP6_HEADER_BYTES ? bytes[at + 6] : protocolOf(bytes, at);
  const l4 = at + header.length;
  const left = available - header.length;
  const push = (title: string, length: number, fields: Field[]): number => {
    layers.push({ kind: 'inner-l4', title: `${title}${more}`, offset: l4, length, fields });
    return l4 + length;
  };
  if (protocol === PROTOCOL_TCP && checkTcp(bytes, l4, left) === OK) {
    const length = tcpHeaderLength(bytes, l4);
    return push('TCP', length, tcpFields(bytes, l4, length));
  }
  if (protocol === PROTOCOL_UDP && left >= UDP_HEADER_BYTES) return push('UDP', UDP_HEADER_BYTES, udpFields(bytes, l4));
  if ((protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMP6) && left >= 8)
    return push(protocol === PROTOCOL_ICMP ? 'ICMP' : 'ICMPv6', 8, icmpFields(bytes, l4, protocol === PROTOCOL_ICMP6));
  return l4;
}
