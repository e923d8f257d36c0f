/** The fields of the IP headers: name, value, meaning, place. Offsets and values are lib/wire's. */
import {
  formatAddress4,
  IP4_CHECKSUM,
  IP4_DESTINATION,
  IP4_FRAGMENT,
  IP4_HEADER_BYTES,
  IP4_ID,
  IP4_PROTOCOL,
  IP4_SOURCE,
  IP4_TOS,
  IP4_TOTAL_LENGTH,
  IP4_TTL,
  ip4Checksum,
  ip4Destination,
  ip4DontFragment,
  ip4FragmentOffset,
  ip4Id,
  ip4MoreFragments,
  ip4Protocol,
  ip4Source,
  ip4Tos,
  ip4TotalLength,
  ip4Ttl,
  verifyIp4Checksum,
} from '../../wire/ip4.ts';
import {
  formatAddress6,
  IP6_DESTINATION,
  IP6_HEADER_BYTES,
  IP6_HOP_LIMIT,
  IP6_NEXT_HEADER,
  IP6_PAYLOAD_LENGTH,
  IP6_SOURCE,
  ip6FlowLabel,
  ip6HopLimit,
  ip6NextHeader,
  ip6PayloadLength,
} from '../../wire/ip6.ts';
import { type Field, fieldList, hex } from './field.ts';

type Side = 'outer' | 'inner';

const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  1: 'ICMP',
  6: 'TCP',
  17: 'UDP',
  58: 'ICMPv6',
  44: 'fragment',
};
const protocolName = (protocol: number): string => {
  const name = PROTOCOL_NAMES[protocol];
  return name === undefined ? `${protocol}` : `${protocol} (${name})`;
};

export function ip4Fields(bytes: Uint8Array, o: number, headerLength: number, side: Side): Field[] {
  const { fields, add } = fieldList(o);
  const who = side === 'outer' ? 'node' : 'pod';
  add(
    0,
    1,
    'version, header length',
    `4, ${headerLength} bytes`,
    'Version 4; the header’s length in words of 4 bytes is the low half.',
  );
  add(IP4_TOS, 1, 'DSCP, ECN', hex(ip4Tos(bytes, o), 2), 'How urgent it is, and whether it met congestion.');
  add(
    IP4_TOTAL_LENGTH,
    2,
    'total length',
    `${ip4TotalLength(bytes, o)}`,
    'Header and payload. In a segment it is still the super-packet’s.',
  );
  add(
    IP4_ID,
    2,
    'identification',
    hex(ip4Id(bytes, o), 4),
    'Joins the fragments of one packet; of no use when there are none.',
  );
  const fragment = [
    ...(ip4DontFragment(bytes, o) ? ['don’t fragment'] : []),
    ...(ip4MoreFragments(bytes, o) ? ['more fragments'] : []),
    `offset ${ip4FragmentOffset(bytes, o)}`,
  ];
  add(
    IP4_FRAGMENT,
    2,
    'fragment',
    fragment.join(', '),
    'With "don’t fragment" a packet that is too long is dropped and its sender told.',
  );
  add(
    IP4_TTL,
    1,
    'TTL',
    `${ip4Ttl(bytes, o)}`,
    side === 'outer'
      ? 'Routers that the datagram may still cross between the nodes.'
      : 'One less at each hop; the overlay counts as one.',
  );
  add(IP4_PROTOCOL, 1, 'protocol', protocolName(ip4Protocol(bytes, o)), 'What comes behind this header.');
  const right = verifyIp4Checksum(bytes, o) ? 'right' : 'wrong';
  add(
    IP4_CHECKSUM,
    2,
    'header checksum',
    `${hex(ip4Checksum(bytes, o), 4)} (${right})`,
    'Guards these bytes; computed anew when the TTL changes.',
  );
  add(IP4_SOURCE, 4, 'source', formatAddress4(ip4Source(bytes, o)), `The ${who} that sends.`);
  add(
    IP4_DESTINATION,
    4,
    'destination',
    formatAddress4(ip4Destination(bytes, o)),
    side === 'outer'
      ? 'The node that holds the lease of the inner destination.'
      : 'The pod that it is for; its subnet decides which node gets it.',
  );
  if (headerLength > IP4_HEADER_BYTES)
    add(
      IP4_HEADER_BYTES,
      headerLength - IP4_HEADER_BYTES,
      'options',
      `${headerLength - IP4_HEADER_BYTES} bytes`,
      'Rarely used.',
    );
  return fields;
}

export function ip6Fields(bytes: Uint8Array, o: number, headerLength: number, side: Side): Field[] {
  const { fields, add } = fieldList(o);
  const who = side === 'outer' ? 'node' : 'pod';
  add(
    0,
    4,
    'version, class, flow',
    `6, flow ${hex(ip6FlowLabel(bytes, o), 5)}`,
    'Version 6, traffic class, flow label.',
  );
  add(IP6_PAYLOAD_LENGTH, 2, 'payload length', `${ip6PayloadLength(bytes, o)}`, 'Bytes behind the first 40.');
  add(IP6_NEXT_HEADER, 1, 'next header', protocolName(ip6NextHeader(bytes, o)), 'What comes behind this header.');
  add(IP6_HOP_LIMIT, 1, 'hop limit', `${ip6HopLimit(bytes, o)}`, 'One less at each hop; the overlay counts as one.');
  add(IP6_SOURCE, 16, 'source', formatAddress6(bytes, o + IP6_SOURCE), `The ${who} that sends.`);
  add(IP6_DESTINATION, 16, 'destination', formatAddress6(bytes, o + IP6_DESTINATION), `The ${who} that it is for.`);
  if (headerLength > IP6_HEADER_BYTES)
    add(
      IP6_HEADER_BYTES,
      headerLength - IP6_HEADER_BYTES,
      'extension headers',
      `${headerLength - IP6_HEADER_BYTES} bytes`,
      'They count as headers and travel with each segment.',
    );
  return fields;
}
