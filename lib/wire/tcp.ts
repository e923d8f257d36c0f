/** TCP headers (RFC 9293 §3.1). Sequence and acknowledgement numbers are unsigned 32-bit. */
import { get16, get32, set16, set32 } from './bytes.ts';
import { BAD_HEADER_LENGTH, OK, TOO_SHORT } from './reason.ts';

export const TCP_SOURCE_PORT = 0;
export const TCP_DESTINATION_PORT = 2;
export const TCP_SEQUENCE = 4;
export const TCP_ACKNOWLEDGEMENT = 8;
/** 16 bits: data offset (4), reserved (3), nine flags. */
export const TCP_OFFSET_FLAGS = 12;
export const TCP_WINDOW = 14;
export const TCP_CHECKSUM = 16;
export const TCP_URGENT = 18;
/** Bytes of a header without options; where options begin. */
export const TCP_HEADER_BYTES = 20;

export const TCP_FIN = 0x001;
export const TCP_SYN = 0x002;
export const TCP_RST = 0x004;
export const TCP_PSH = 0x008;
export const TCP_ACK = 0x010;
export const TCP_URG = 0x020;
export const TCP_ECE = 0x040;
export const TCP_CWR = 0x080;
/** Accurate ECN, the former NS bit (RFC 9768). */
export const TCP_AE = 0x100;

// Option kinds (IANA).
export const TCP_OPTION_END = 0;
export const TCP_OPTION_NOP = 1;
export const TCP_OPTION_MSS = 2;
export const TCP_OPTION_WINDOW_SCALE = 3;
export const TCP_OPTION_SACK_PERMITTED = 4;
export const TCP_OPTION_SACK = 5;
export const TCP_OPTION_TIMESTAMPS = 8;

/** `length`: bytes of header and payload from `offset`. Checks that the header, with its options, is there whole. */
export function checkTcp(bytes: Uint8Array, offset: number, length: number): number {
  if (length < TCP_HEADER_BYTES) return TOO_SHORT;
  const headerLength = (bytes[offset + TCP_OFFSET_FLAGS] >>> 4) << 2;
  if (headerLength < TCP_HEADER_BYTES || headerLength > length) return BAD_HEADER_LENGTH;
  return OK;
}

export function tcpSourcePort(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + TCP_SOURCE_PORT);
}

export function tcpDestinationPort(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + TCP_DESTINATION_PORT);
}

export function tcpSequence(bytes: Uint8Array, offset: number): number {
  return get32(bytes, offset + TCP_SEQUENCE);
}

export function tcpAcknowledgement(bytes: Uint8Array, offset: number): number {
  return get32(bytes, offset + TCP_ACKNOWLEDGEMENT);
}

/** Bytes, 20..60. */
export function tcpHeaderLength(bytes: Uint8Array, offset: number): number {
  return (bytes[offset + TCP_OFFSET_FLAGS] >>> 4) << 2;
}

/** Nine bits: TCP_FIN … TCP_AE. */
export function tcpFlags(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + TCP_OFFSET_FLAGS) & 0x1ff;
}

/** As it stands, not scaled. */
export function tcpWindow(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + TCP_WINDOW);
}

export function tcpChecksum(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + TCP_CHECKSUM);
}

export function tcpUrgent(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + TCP_URGENT);
}

// The setters leave the checksum as it is.

export function setTcpSequence(bytes: Uint8Array, offset: number, sequence: number): void {
  set32(bytes, offset + TCP_SEQUENCE, sequence);
}

/** Replaces the nine flags; data offset and reserved bits stay. */
export function setTcpFlags(bytes: Uint8Array, offset: number, flags: number): void {
  const word = get16(bytes, offset + TCP_OFFSET_FLAGS);
  set16(bytes, offset + TCP_OFFSET_FLAGS, (word & 0xfe00) | (flags & 0x1ff));
}

export function setTcpChecksum(bytes: Uint8Array, offset: number, check: number): void {
  set16(bytes, offset + TCP_CHECKSUM, check);
}

/**
 * The place of the next option at or after `at`, no-operations skipped; -1 at the end of the list or where it is
 * malformed. The option returned lies wholly in the header: kind at [at], length (≥ 2) at [at + 1]. A walk:
 * `for (let at = nextTcpOption(b, o, o + TCP_HEADER_BYTES); at >= 0; at = nextTcpOption(b, o, at + b[at + 1]))`
 */
export function nextTcpOption(bytes: Uint8Array, offset: number, at: number): number {
  const end = offset + tcpHeaderLength(bytes, offset);
  let place = at;
  while (place < end && bytes[place] === TCP_OPTION_NOP) place++;
  if (place + 2 > end || bytes[place] === TCP_OPTION_END) return -1;
  const optionLength = bytes[place + 1];
  return optionLength < 2 || place + optionLength > end ? -1 : place;
}

/** The place of the first option of a kind, or -1. */
export function findTcpOption(bytes: Uint8Array, offset: number, kind: number): number {
  let at = nextTcpOption(bytes, offset, offset + TCP_HEADER_BYTES);
  while (at >= 0 && bytes[at] !== kind) at = nextTcpOption(bytes, offset, at + bytes[at + 1]);
  return at;
}

/** The MSS that a SYN announces, or 0 when it does not. */
export function tcpMss(bytes: Uint8Array, offset: number): number {
  const at = findTcpOption(bytes, offset, TCP_OPTION_MSS);
  return at >= 0 && bytes[at + 1] === 4 ? get16(bytes, at + 2) : 0;
}

/**
 * Writes a header of `headerLength` bytes (a multiple of 4, 20..60). The bytes of the options are the caller's: they are
 * not touched. The checksum is set to 0. Returns `headerLength`.
 */
export function emitTcp(
  bytes: Uint8Array,
  offset: number,
  sourcePort: number,
  destinationPort: number,
  sequence: number,
  acknowledgement: number,
  headerLength: number,
  flags: number,
  window: number,
): number {
  set16(bytes, offset + TCP_SOURCE_PORT, sourcePort);
  set16(bytes, offset + TCP_DESTINATION_PORT, destinationPort);
  set32(bytes, offset + TCP_SEQUENCE, sequence);
  set32(bytes, offset + TCP_ACKNOWLEDGEMENT, acknowledgement);
  set16(bytes, offset + TCP_OFFSET_FLAGS, ((headerLength >>> 2) << 12) | (flags & 0x1ff));
  set16(bytes, offset + TCP_WINDOW, window);
  set16(bytes, offset + TCP_CHECKSUM, 0);
  set16(bytes, offset + TCP_URGENT, 0);
  return headerLength;
}

// Letters as tcpdump's, in its order.
const FLAG_LETTERS: readonly (readonly [number, string])[] = [
  [TCP_FIN, 'F'],
  [TCP_SYN, 'S'],
  [TCP_RST, 'R'],
  [TCP_PSH, 'P'],
  [TCP_ACK, '.'],
  [TCP_URG, 'U'],
  [TCP_ECE, 'E'],
  [TCP_CWR, 'W'],
  [TCP_AE, 'e'],
];

/** "S.", "P.", "none". */
export function formatTcpFlags(flags: number): string {
  let text = '';
  for (const [bit, letter] of FLAG_LETTERS) if ((flags & bit) !== 0) text += letter;
  return text === '' ? 'none' : text;
}

/** "40000 > 80 Flags [P.] seq 1 ack 2 win 502". Only after `checkTcp`. */
export function printTcp(bytes: Uint8Array, offset: number): string {
  const flags = tcpFlags(bytes, offset);
  const ports = `${tcpSourcePort(bytes, offset)} > ${tcpDestinationPort(bytes, offset)}`;
  const ack = (flags & TCP_ACK) !== 0 ? ` ack ${tcpAcknowledgement(bytes, offset)}` : '';
  return `${ports} Flags [${formatTcpFlags(flags)}] seq ${tcpSequence(bytes, offset)}${ack} win ${tcpWindow(bytes, offset)}`;
}
