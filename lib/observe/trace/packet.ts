/** The packet that a trace sends, and what its answer says. */
import { TulleError } from '../../util/errors.ts';
import { isIp6, l4DistanceOf, protocolOf } from '../../wire/either.ts';
import {
  emitEcho4,
  emitEcho6,
  ICMP_HEADER_BYTES,
  ICMP4_ECHO_REPLY,
  ICMP4_ECHO_REQUEST,
  ICMP6_ECHO_REPLY,
  ICMP6_ECHO_REQUEST,
  icmpEchoId,
  icmpType,
} from '../../wire/icmp.ts';
import {
  checkIp4,
  emitIp4,
  formatAddress4,
  IP4_DONT_FRAGMENT,
  IP4_HEADER_BYTES,
  ip4Source,
  PROTOCOL_ICMP,
  PROTOCOL_ICMP6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  parseAddress4,
} from '../../wire/ip4.ts';
import { checkIp6, emitIp6, formatAddress6, IP6_HEADER_BYTES, IP6_SOURCE, parseAddress6 } from '../../wire/ip6.ts';
import { finishL4Checksum4, finishL4Checksum6 } from '../../wire/l4.ts';
import { describePacket } from '../../wire/print.ts';
import {
  emitTcp,
  TCP_ACK,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
  tcpDestinationPort,
  tcpFlags,
  tcpSourcePort,
} from '../../wire/tcp.ts';
import { emitUdp, UDP_HEADER_BYTES, udpDestinationPort, udpSourcePort } from '../../wire/udp.ts';

export type TraceProtocol = 'icmp' | 'tcp' | 'udp';

export interface TraceQuestion {
  source: string;
  destination: string;
  protocol: TraceProtocol;
  /** Of TCP and UDP. */
  port: number;
  /** Of the whole IP packet. */
  size: number;
  /** TTL or hop limit, as it comes out of the TUN. */
  ttl: number;
}

/** As ping(8): 56 bytes of payload. A TCP SYN and a UDP datagram get what they need. */
export const DEFAULT_SIZE = 84;
export const DEFAULT_TTL = 64;
/** traceroute(8)'s first port: hardly anybody listens there. */
export const DEFAULT_PORT = { icmp: 0, tcp: 80, udp: 33_434 } as const;
const MOST_BYTES = 65_535;
const L4_HEADER = { icmp: ICMP_HEADER_BYTES, tcp: TCP_HEADER_BYTES, udp: UDP_HEADER_BYTES } as const;
const MARK = new TextEncoder().encode('tulle trace');

export interface TracePacket {
  bytes: Uint8Array;
  /** The ICMP echo's id, or the source port: an answer repeats it. */
  mark: number;
}

/** @throws TulleError 'bad-trace': what of a question is wrong */
export function checkQuestion(question: unknown): TraceQuestion {
  if (typeof question !== 'object' || question === null) throw bad('say where from and where to');
  const of = question as Record<string, unknown>;
  const [source, destination] = [of['source'], of['destination']];
  const six = isAddress6(source);
  if (!six && !isAddress4(source)) throw bad(`${JSON.stringify(source)?.slice(0, 80)} is no address of a source`);
  if (!isAddress6(destination) && !isAddress4(destination)) {
    throw bad(`${JSON.stringify(destination)?.slice(0, 80)} is no address of a destination`);
  }
  if (six !== isAddress6(destination)) throw bad('source and destination are of different versions of IP');
  const protocol = (of['protocol'] ?? 'icmp') as TraceProtocol;
  if (!Object.hasOwn(L4_HEADER, protocol)) throw bad('the protocol is icmp, tcp or udp');
  const least = (six ? IP6_HEADER_BYTES : IP4_HEADER_BYTES) + L4_HEADER[protocol];
  const size = number(of['size'], 'size', Math.max(DEFAULT_SIZE, least), least, MOST_BYTES);
  const port = number(of['port'], 'port', DEFAULT_PORT[protocol], protocol === 'icmp' ? 0 : 1, 65_535);
  const ttl = number(of['ttl'], 'ttl', DEFAULT_TTL, 1, 255);
  return { source: source as string, destination: destination as string, protocol, port, size, ttl };
}

function number(value: unknown, name: string, fallback: number, least: number, most: number): number {
  if (value === undefined || value === null) return fallback;
  if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value;
  throw bad(`the ${name} is a number from ${least} to ${most}`);
}

const isAddress4 = (value: unknown): boolean => typeof value === 'string' && parseAddress4(value) !== undefined;
const isAddress6 = (value: unknown): boolean => typeof value === 'string' && parseAddress6(value) !== undefined;
const bad = (message: string): TulleError => new TulleError('bad-trace', message);

/** The whole packet, checksums finished; behind its first bytes there are only zeros. `random`: 32 bits. */
export function buildPacket(question: TraceQuestion, random: () => number): TracePacket {
  const { source, destination, size, ttl } = question;
  const bytes = new Uint8Array(size);
  const mark = 32_768 + (random() & 0x3fff);
  const [from4, to4] = [parseAddress4(source), parseAddress4(destination)];
  if (from4 !== undefined && to4 !== undefined) {
    const l4 = IP4_HEADER_BYTES;
    emitIp4(bytes, 0, 0, size, random() & 0xffff, IP4_DONT_FRAGMENT, ttl, PROTOCOLS4[question.protocol], from4, to4);
    emitL4(bytes, l4, question, mark, random);
    if (question.protocol === 'icmp') emitEcho4(bytes, l4, ICMP4_ECHO_REQUEST, mark, 1, size - l4 - ICMP_HEADER_BYTES);
    else finishL4Checksum4(bytes, 0);
    return { bytes, mark };
  }
  const l4 = IP6_HEADER_BYTES;
  const protocol = question.protocol === 'icmp' ? PROTOCOL_ICMP6 : PROTOCOLS4[question.protocol];
  emitIp6(bytes, 0, 0, 0, size - l4, protocol, ttl, parseAddress6(source)!, parseAddress6(destination)!);
  emitL4(bytes, l4, question, mark, random);
  finishL4Checksum6(bytes, 0);
  return { bytes, mark };
}

const PROTOCOLS4 = { icmp: PROTOCOL_ICMP, tcp: PROTOCOL_TCP, udp: PROTOCOL_UDP } as const;

function emitL4(bytes: Uint8Array, at: number, question: TraceQuestion, mark: number, random: () => number): void {
  const { protocol, port } = question;
  const payload = at + L4_HEADER[protocol];
  // A SYN carries no data.
  if (protocol !== 'tcp') bytes.set(MARK.subarray(0, Math.max(0, bytes.length - payload)), payload);
  if (protocol === 'tcp') emitTcp(bytes, at, mark, port, random() >>> 0, 0, TCP_HEADER_BYTES, TCP_SYN, 64_240);
  else if (protocol === 'udp') emitUdp(bytes, at, mark, port, bytes.length - at);
  else emitEcho6(bytes, at, ICMP6_ECHO_REQUEST, mark, 1);
}

export interface TraceAnswer {
  /** Whether the destination itself was reached: it may refuse, but it is there. */
  reached: boolean;
  from: string;
  text: string;
}

/** What a packet says that may be the answer to a traced one; undefined when it is about something else. */
export function readAnswer(
  head: Uint8Array,
  length: number,
  question: TraceQuestion,
  mark: number,
): TraceAnswer | undefined {
  if (length < 1 || length > MOST_BYTES + IP6_HEADER_BYTES) return undefined;
  // Its end may be missing; the checks want the whole length.
  const packet = new Uint8Array(length);
  packet.set(head.subarray(0, length));
  const six = isIp6(packet, 0);
  if ((six ? checkIp6(packet, 0, length) : checkIp4(packet, 0, length)) !== 0) return undefined;
  const from = six ? formatAddress6(packet, IP6_SOURCE) : formatAddress4(ip4Source(packet, 0));
  const l4 = l4DistanceOf(packet, 0);
  if (l4 < 0 || l4 + ICMP_HEADER_BYTES > length) return undefined;
  const text = describePacket(packet, 0, length);
  const isDestination = six
    ? from === formatAddress6(parseAddress6(question.destination) ?? new Uint8Array(16), 0)
    : from === question.destination;
  switch (protocolOf(packet, 0)) {
    case PROTOCOL_ICMP:
    case PROTOCOL_ICMP6: {
      const isReply = icmpType(packet, l4) === (six ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY);
      if (isReply) {
        if (question.protocol !== 'icmp' || icmpEchoId(packet, l4) !== mark) return undefined;
        return { reached: true, from, text: `echo reply: ${text}` };
      }
      return quotes(packet, l4 + ICMP_HEADER_BYTES, question, mark)
        ? { reached: isDestination, from, text }
        : undefined;
    }
    case PROTOCOL_TCP: {
      if (question.protocol !== 'tcp' || l4 + TCP_HEADER_BYTES > packet.length) return undefined;
      if (tcpSourcePort(packet, l4) !== question.port || tcpDestinationPort(packet, l4) !== mark) return undefined;
      const flags = tcpFlags(packet, l4);
      const says =
        (flags & TCP_RST) !== 0
          ? 'nobody listens on that port (RST)'
          : (flags & (TCP_SYN | TCP_ACK)) === (TCP_SYN | TCP_ACK)
            ? 'the port is open (SYN-ACK)'
            : 'TCP answers';
      return { reached: true, from, text: `${says}: ${text}` };
    }
    case PROTOCOL_UDP: {
      if (question.protocol !== 'udp') return undefined;
      if (udpSourcePort(packet, l4) !== question.port || udpDestinationPort(packet, l4) !== mark) return undefined;
      return { reached: true, from, text };
    }
    default:
      return undefined;
  }
}

/** Whether an ICMP error quotes our packet: its protocol and our mark. */
function quotes(packet: Uint8Array, at: number, question: TraceQuestion, mark: number): boolean {
  if (at + IP4_HEADER_BYTES > packet.length) return false;
  const six = isIp6(packet, at);
  const l4 = at + (six ? IP6_HEADER_BYTES : (packet[at] & 0x0f) * 4);
  if (l4 + 8 > packet.length) return false;
  if (question.protocol === 'icmp') return icmpEchoId(packet, l4) === mark;
  return udpSourcePort(packet, l4) === mark && udpDestinationPort(packet, l4) === question.port;
}
