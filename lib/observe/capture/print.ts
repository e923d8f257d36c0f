/** Captured packets for people: one line each. */
import { get16, get32 } from '../../wire/bytes.ts';
import { formatAddress4 } from '../../wire/ip4.ts';
import { formatAddress6, IP6_DESTINATION, IP6_SOURCE } from '../../wire/ip6.ts';
import type { PcapngInterface, PcapngPacket } from '../../wire/pcapng-read.ts';
import { describeDatagram, describePacket } from '../../wire/print.ts';
import {
  bundlePacket,
  bundlePacketLength,
  HEADER_BYTES,
  KIND_BUNDLE,
  printTulle,
  TULLE_VERSION,
  tulleIndex,
} from '../../wire/tulle.ts';
import { endpointText } from './packet.ts';

const BUNDLE = (TULLE_VERSION << 4) | KIND_BUNDLE;
const OUTER_BYTES_4 = 28;
const OUTER_BYTES_6 = 48;

const outerBytes = (bytes: Uint8Array): number => (bytes[0] >>> 4 === 6 ? OUTER_BYTES_6 : OUTER_BYTES_4);

/** In the manner of tcpdump. `outer`: it begins with the headers of the underlay. */
export function describeCaptured(bytes: Uint8Array, length: number, outer: boolean): string {
  const offset = outer ? outerBytes(bytes) : 0;
  if (outer && bytes.length < length && bytes[offset] === BUNDLE && bytes.length > offset + HEADER_BYTES)
    return describeCutBundle(bytes, offset);
  const describe = outer ? describeDatagram : describePacket;
  if (bytes.length >= length) return describe(bytes, offset, length - offset);
  // What was cut off counts: the printers check lengths, so they get the packet in its whole length, zeros behind.
  const whole = new Uint8Array(length);
  whole.set(bytes);
  return describe(whole, offset, length - offset);
}

/** Of a bundle those packets that are here as a whole. */
function describeCutBundle(bytes: Uint8Array, offset: number): string {
  const count = tulleIndex(bytes, offset);
  let text = printTulle(bytes, offset);
  let at = offset + HEADER_BYTES;
  for (let i = 0; i < count; i++) {
    const end = at + 2 <= bytes.length ? bundlePacket(at) + bundlePacketLength(bytes, at) : bytes.length + 1;
    if (end > bytes.length) return `${text} | ${count - i} more, cut`;
    text += ` | ${describePacket(bytes, bundlePacket(at), end - bundlePacket(at))}`;
    at = end;
  }
  return text;
}

/** "10.88.0.1:8285 > 10.88.0.2:8285" */
function endpoints(bytes: Uint8Array): string {
  const six = bytes[0] >>> 4 === 6;
  const udp = outerBytes(bytes) - 8;
  const [source, destination] = six
    ? [formatAddress6(bytes, IP6_SOURCE), formatAddress6(bytes, IP6_DESTINATION)]
    : [formatAddress4(get32(bytes, 12)), formatAddress4(get32(bytes, 16))];
  return `${endpointText(source, get16(bytes, udp))} > ${endpointText(destination, get16(bytes, udp + 2))}`;
}

const RESET = '\x1b[0m';
const COLOURS: Readonly<Record<string, string>> = {
  read: '\x1b[36m',
  send: '\x1b[32m',
  recv: '\x1b[33m',
  write: '\x1b[35m',
  drop: '\x1b[1;31m',
};
const FAINT = '\x1b[2m';

/**
 * "04:16:02.123456 read  IP 10.42.1.2.40000 > …  (to lease 10.42.2.0/24 of node2)". read and write are the TUN, send and recv
 * the underlay, drop is what went no further. Times are local.
 */
export function printCaptured(packet: PcapngPacket, from: PcapngInterface, colours: boolean): string {
  const outer = /underlay/.test(from.name);
  const isDrop = / drops$/.test(from.name);
  const out = packet.direction === 'out';
  const word = isDrop ? 'drop' : outer ? (out ? 'send' : 'recv') : out ? 'read' : 'write';
  const isWhole = !outer || packet.data.length >= outerBytes(packet.data);
  const between = outer && isWhole ? `${endpoints(packet.data)}  ` : '';
  const text = isWhole ? describeCaptured(packet.data, packet.length, outer) : `cut, ${packet.length} bytes`;
  const comments = packet.comments.length === 0 ? '' : `  (${packet.comments.join('; ')})`;
  const lost = packet.drops > 0 ? `(${packet.drops} lost by the capture)\n` : '';
  const shown = colours ? `${COLOURS[word]}${word.padEnd(5)}${RESET}` : word.padEnd(5);
  const known = colours ? `${isDrop ? COLOURS['drop'] : FAINT}${comments}${RESET}` : comments;
  return `${lost}${clock(packet.time ?? 0n)} ${shown} ${between}${text}${known}\n`;
}

/** Local time of day, with microseconds. */
function clock(time: bigint): string {
  const date = new Date(Number(time / 1_000_000n));
  const two = (value: number): string => String(value).padStart(2, '0');
  const micro = String((time / 1_000n) % 1_000_000n).padStart(6, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${micro}`;
}
