/** One line for a packet, in the manner of tcpdump -n. Never throws: what is damaged is said to be damaged. */
import { formatAddress6 } from './address6.ts';
import { checkSuperHeaders, isIp6, superHeaderLength } from './either.ts';
import { checkIcmp, printIcmp4, printIcmp6 } from './icmp.ts';
import {
  checkIp4,
  formatAddress4,
  ip4Destination,
  ip4FragmentOffset,
  ip4HeaderLength,
  ip4Id,
  ip4MoreFragments,
  ip4Protocol,
  ip4Source,
  ip4TotalLength,
  PROTOCOL_ICMP,
  PROTOCOL_ICMP6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from './ip4.ts';
import {
  checkIp6,
  findL4Ip6,
  HEADER_FRAGMENT,
  IP6_DESTINATION,
  IP6_SOURCE,
  ip6TotalLength,
  l4Distance,
  l4Protocol,
} from './ip6.ts';
import { OK, REASON_NAMES } from './reason.ts';
import {
  checkTcp,
  formatTcpFlags,
  TCP_ACK,
  tcpAcknowledgement,
  tcpDestinationPort,
  tcpFlags,
  tcpHeaderLength,
  tcpSequence,
  tcpSourcePort,
  tcpWindow,
} from './tcp.ts';
import {
  bundlePacket,
  bundlePacketLength,
  checkTulle,
  datagramVersion,
  HEADER_BYTES,
  KIND_BUNDLE,
  KIND_PACKET,
  KIND_SEGMENT,
  KIND_TRACED,
  nextInBundle,
  printTulle,
  TULLE_VERSION,
  tulleKind,
} from './tulle.ts';
import { checkUdp, UDP_HEADER_BYTES, udpDestinationPort, udpLength, udpSourcePort } from './udp.ts';

/**
 * An IP packet of `length` bytes at `offset`, as
 * "IP 10.5.1.2.40000 > 10.5.2.2.80: Flags [P.], seq 1:101, ack 2, win 502, length 100".
 */
export function describePacket(bytes: Uint8Array, offset: number, length: number): string {
  if (length < 1) return 'empty';
  switch (bytes[offset] >>> 4) {
    case 4: {
      const reason = checkIp4(bytes, offset, length);
      return reason === OK ? describe4(bytes, offset) : malformed('IP', reason, length);
    }
    case 6: {
      const reason = checkIp6(bytes, offset, length);
      return reason === OK ? describe6(bytes, offset) : malformed('IP6', reason, length);
    }
    default:
      return `not IP, ${length} bytes`;
  }
}

/**
 * A datagram of the underlay: bare IP, or a tulle header and what it carries. Of a segment the super-packet's headers
 * are shown, of a bundle every packet.
 */
export function describeDatagram(bytes: Uint8Array, offset: number, length: number): string {
  if (length < 1 || datagramVersion(bytes, offset) !== TULLE_VERSION) return describePacket(bytes, offset, length);
  const reason = checkTulle(bytes, offset, length);
  if (reason !== OK) return malformed('tulle', reason, length);
  const header = printTulle(bytes, offset);
  const inner = offset + HEADER_BYTES;
  const innerLength = length - HEADER_BYTES;
  switch (tulleKind(bytes, offset)) {
    case KIND_PACKET:
    case KIND_TRACED:
      return `${header} | ${describePacket(bytes, inner, innerLength)}`;
    case KIND_SEGMENT: {
      const six = innerLength > 0 && isIp6(bytes, inner);
      const innerReason = checkSuperHeaders(bytes, inner, innerLength);
      if (innerReason !== OK) return `${header} | ${malformed(six ? 'IP6' : 'IP', innerReason, innerLength)}`;
      const slice = innerLength - superHeaderLength(bytes, inner);
      return `${header} slice ${slice} | ${six ? describe6(bytes, inner) : describe4(bytes, inner)}`;
    }
    case KIND_BUNDLE: {
      let text = header;
      for (let at = inner; at < offset + length; at = nextInBundle(bytes, at)) {
        text += ` | ${describePacket(bytes, bundlePacket(at), bundlePacketLength(bytes, at))}`;
      }
      return text;
    }
    default:
      return header;
  }
}

function malformed(what: string, reason: number, length: number): string {
  return `${what} malformed (${REASON_NAMES[reason]}), ${length} bytes`;
}

function describe4(bytes: Uint8Array, offset: number): string {
  const headerLength = ip4HeaderLength(bytes, offset);
  const length = ip4TotalLength(bytes, offset) - headerLength;
  const source = formatAddress4(ip4Source(bytes, offset));
  const destination = formatAddress4(ip4Destination(bytes, offset));
  const fragmentOffset = ip4FragmentOffset(bytes, offset);
  const more = ip4MoreFragments(bytes, offset);
  const fragment =
    more || fragmentOffset > 0 ? `, fragment ${fragmentOffset}${more ? '+' : ''} of id ${ip4Id(bytes, offset)}` : '';
  if (fragmentOffset > 0) return `IP ${source} > ${destination}: length ${length}${fragment}`;
  return `IP ${describeL4(bytes, offset + headerLength, length, ip4Protocol(bytes, offset), source, destination)}${fragment}`;
}

function describe6(bytes: Uint8Array, offset: number): string {
  const source = formatAddress6(bytes, offset + IP6_SOURCE);
  const destination = formatAddress6(bytes, offset + IP6_DESTINATION);
  const found = findL4Ip6(bytes, offset);
  if (found < 0) return `IP6 ${source} > ${destination}: malformed extension headers`;
  const length = ip6TotalLength(bytes, offset) - l4Distance(found);
  if (l4Protocol(found) === HEADER_FRAGMENT) return `IP6 ${source} > ${destination}: fragment, length ${length}`;
  return `IP6 ${describeL4(bytes, offset + l4Distance(found), length, l4Protocol(found), source, destination)}`;
}

function describeL4(
  bytes: Uint8Array,
  offset: number,
  length: number,
  protocol: number,
  source: string,
  destination: string,
): string {
  switch (protocol) {
    case PROTOCOL_TCP: {
      const reason = checkTcp(bytes, offset, length);
      if (reason !== OK) return `${source} > ${destination}: ${malformed('TCP', reason, length)}`;
      const ports = `${source}.${tcpSourcePort(bytes, offset)} > ${destination}.${tcpDestinationPort(bytes, offset)}`;
      return `${ports}: ${describeTcp(bytes, offset, length)}`;
    }
    case PROTOCOL_UDP: {
      const reason = checkUdp(bytes, offset, length);
      if (reason !== OK) return `${source} > ${destination}: ${malformed('UDP', reason, length)}`;
      const ports = `${source}.${udpSourcePort(bytes, offset)} > ${destination}.${udpDestinationPort(bytes, offset)}`;
      return `${ports}: UDP, length ${udpLength(bytes, offset) - UDP_HEADER_BYTES}`;
    }
    case PROTOCOL_ICMP:
    case PROTOCOL_ICMP6: {
      const reason = checkIcmp(bytes, offset, length);
      if (reason !== OK) return `${source} > ${destination}: ${malformed('ICMP', reason, length)}`;
      const text = protocol === PROTOCOL_ICMP ? printIcmp4(bytes, offset) : printIcmp6(bytes, offset);
      return `${source} > ${destination}: ${text}, length ${length}`;
    }
    default:
      return `${source} > ${destination}: protocol ${protocol}, length ${length}`;
  }
}

function describeTcp(bytes: Uint8Array, offset: number, length: number): string {
  const flags = tcpFlags(bytes, offset);
  const payloadLength = length - tcpHeaderLength(bytes, offset);
  const sequence = tcpSequence(bytes, offset);
  const range = payloadLength > 0 ? `${sequence}:${(sequence + payloadLength) >>> 0}` : `${sequence}`;
  const ack = (flags & TCP_ACK) !== 0 ? `, ack ${tcpAcknowledgement(bytes, offset)}` : '';
  return `Flags [${formatTcpFlags(flags)}], seq ${range}${ack}, win ${tcpWindow(bytes, offset)}, length ${payloadLength}`;
}
