/**
 * The tulle header, version 1: 12 bytes at the head of every tulle datagram. docs/wire.md draws it and says why.
 * One byte tells formats apart: its high nibble is 4 or 6 for a bare IP packet (flannel's udp format), 1 for tulle.
 */
import { get16, get32, set16, set32 } from './bytes.ts';
import { BAD_BUNDLE, BAD_KIND, BAD_SEGMENT_SIZE, BAD_VERSION, OK, TOO_SHORT } from './reason.ts';

export const TULLE_VERSION_KIND = 0;
export const TULLE_FLAGS = 1;
export const TULLE_SEGMENT_SIZE = 2;
export const TULLE_KEY = 4;
export const TULLE_ID = 8;
export const TULLE_INDEX = 10;
/** Three words, so that the inner header stays 4-aligned. */
export const HEADER_BYTES = 12;

export const TULLE_VERSION = 1;

export const KIND_PACKET = 0;
export const KIND_SEGMENT = 1;
export const KIND_BUNDLE = 2;
export const KIND_PROBE = 3;
export const KIND_PROBE_REPLY = 4;
/** What daemons say to each other: lib/wire/node-message.ts. */
export const KIND_MESSAGE = 5;
/** A packet that is being traced: as KIND_PACKET, and its receiver reports what became of it. */
export const KIND_TRACED = 6;
/** Reserved for an authenticated and encrypted format; refused by this version. */
export const KIND_SEALED = 15;

/** The inner TCP or UDP checksum is the pseudo-header sum only; the outer UDP checksum guards the bytes. */
export const FLAG_PARTIAL_CHECKSUM = 1;
/** The segment with the super-packet's last byte. */
export const FLAG_LAST_SEGMENT = 2;

/** A probe carries a token of 8 bytes behind the header; padding may follow (path MTU probes). */
export const PROBE_BYTES = HEADER_BYTES + 8;
/** A message carries at least a token of 8 bytes and a header of 4 (lib/wire/node-message.ts). */
const LEAST_MESSAGE_BYTES = HEADER_BYTES + 12;

/** The high nibble of a datagram's first byte: 4 or 6 bare IP, 1 tulle. */
export function datagramVersion(bytes: Uint8Array, offset: number): number {
  return bytes[offset] >>> 4;
}

/**
 * `length`: the whole datagram. `OK`: version 1, a known kind, a segment has a size, a probe and a message their tokens, and a bundle's
 * packets fill the datagram exactly. Unknown flags are ignored. The inner packets are not looked at: `checkIp4` for a packet,
 * `checkSegment4` (gso.ts) for a segment.
 */
export function checkTulle(bytes: Uint8Array, offset: number, length: number): number {
  if (length < HEADER_BYTES) return TOO_SHORT;
  const first = bytes[offset];
  if (first >>> 4 !== TULLE_VERSION) return BAD_VERSION;
  switch (first & 0x0f) {
    case KIND_PACKET:
    case KIND_TRACED:
      return OK;
    case KIND_SEGMENT:
      return tulleSegmentSize(bytes, offset) === 0 ? BAD_SEGMENT_SIZE : OK;
    case KIND_BUNDLE:
      return checkBundle(bytes, offset, length);
    case KIND_PROBE:
    case KIND_PROBE_REPLY:
      return length < PROBE_BYTES ? TOO_SHORT : OK;
    case KIND_MESSAGE:
      return length < LEAST_MESSAGE_BYTES ? TOO_SHORT : OK;
    default:
      return BAD_KIND;
  }
}

function checkBundle(bytes: Uint8Array, offset: number, length: number): number {
  const end = offset + length;
  let at = offset + HEADER_BYTES;
  let left = tulleIndex(bytes, offset);
  if (left === 0) return BAD_BUNDLE;
  for (; left > 0; left--) {
    if (at + 2 > end) return BAD_BUNDLE;
    const packetLength = get16(bytes, at);
    if (packetLength === 0) return BAD_BUNDLE;
    at += 2 + packetLength;
  }
  return at === end ? OK : BAD_BUNDLE;
}

export function tulleKind(bytes: Uint8Array, offset: number): number {
  return bytes[offset] & 0x0f;
}

export function tulleFlags(bytes: Uint8Array, offset: number): number {
  return bytes[offset + TULLE_FLAGS];
}

/** Payload bytes of each full segment of the super-packet; 0 for other kinds. */
export function tulleSegmentSize(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + TULLE_SEGMENT_SIZE);
}

/** The sender's lease key. */
export function tulleKey(bytes: Uint8Array, offset: number): number {
  return get32(bytes, offset + TULLE_KEY);
}

/** Super-packet id of a segment, sequence number of a probe, number of a message's part. */
export function tulleId(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + TULLE_ID);
}

/** Index of a segment, number of packets in a bundle, of parts of a message. */
export function tulleIndex(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + TULLE_INDEX);
}

/** Writes the header. Returns the bytes written. */
export function emitTulle(
  bytes: Uint8Array,
  offset: number,
  kind: number,
  flags: number,
  segmentSize: number,
  key: number,
  id: number,
  index: number,
): number {
  bytes[offset] = (TULLE_VERSION << 4) | kind;
  bytes[offset + TULLE_FLAGS] = flags;
  set16(bytes, offset + TULLE_SEGMENT_SIZE, segmentSize);
  set32(bytes, offset + TULLE_KEY, key);
  set16(bytes, offset + TULLE_ID, id);
  set16(bytes, offset + TULLE_INDEX, index);
  return HEADER_BYTES;
}

// A bundle's packets, each behind its 16-bit length. A walk, only after checkTulle:
// let at = offset + HEADER_BYTES; while (at < offset + length) { packet at bundlePacket(at); at = nextInBundle(bytes, at) }

/** Bytes of the packet whose record begins at `at`. */
export function bundlePacketLength(bytes: Uint8Array, at: number): number {
  return get16(bytes, at);
}

/** Where that packet begins. */
export function bundlePacket(at: number): number {
  return at + 2;
}

/** Where the next record begins, or the datagram ends. */
export function nextInBundle(bytes: Uint8Array, at: number): number {
  return at + 2 + get16(bytes, at);
}

// A probe's token, in two halves: random bytes that only its sender knows. The peer returns them as they came, so nobody can
// make up a reply to a probe that he has not seen. The sender remembers when it sent each: its clock is nobody's business.

export function probeTokenHigh(bytes: Uint8Array, offset: number): number {
  return get32(bytes, offset + HEADER_BYTES);
}

export function probeTokenLow(bytes: Uint8Array, offset: number): number {
  return get32(bytes, offset + HEADER_BYTES + 4);
}

export function setProbeToken(bytes: Uint8Array, offset: number, high: number, low: number): void {
  set32(bytes, offset + HEADER_BYTES, high);
  set32(bytes, offset + HEADER_BYTES + 4, low);
}

/** The number of a traced packet, below 2^48. It stands in the fields that a packet does not use, so it costs no byte. */
export function traceId(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + TULLE_SEGMENT_SIZE) * 0x1_0000_0000 + get32(bytes, offset + TULLE_ID);
}

/** Makes a packet's datagram that of a traced packet. */
export function markTraced(bytes: Uint8Array, offset: number, id: number): void {
  bytes[offset] = (TULLE_VERSION << 4) | KIND_TRACED;
  set16(bytes, offset + TULLE_SEGMENT_SIZE, Math.floor(id / 0x1_0000_0000));
  set32(bytes, offset + TULLE_ID, id % 0x1_0000_0000);
}

const KIND_NAMES = ['packet', 'segment', 'bundle', 'probe', 'probe-reply', 'message', 'traced'];

/** "tulle segment key 0000002a size 1408 id 7 index 3 partial last". Only after `checkTulle`. */
export function printTulle(bytes: Uint8Array, offset: number): string {
  const kind = tulleKind(bytes, offset);
  let text = `tulle ${KIND_NAMES[kind] ?? `kind ${kind}`} key ${tulleKey(bytes, offset).toString(16).padStart(8, '0')}`;
  if (kind === KIND_SEGMENT) {
    text += ` size ${tulleSegmentSize(bytes, offset)} id ${tulleId(bytes, offset)} index ${tulleIndex(bytes, offset)}`;
  } else if (kind === KIND_BUNDLE) {
    text += ` packets ${tulleIndex(bytes, offset)}`;
  } else if (kind === KIND_PROBE || kind === KIND_PROBE_REPLY) {
    text += ` sequence ${tulleId(bytes, offset)}`;
  } else if (kind === KIND_MESSAGE) {
    text += ` part ${tulleId(bytes, offset) + 1} of ${tulleIndex(bytes, offset)}`;
  } else if (kind === KIND_TRACED) {
    text += ` trace ${traceId(bytes, offset).toString(16).padStart(12, '0')}`;
  }
  const flags = tulleFlags(bytes, offset);
  if ((flags & FLAG_PARTIAL_CHECKSUM) !== 0) text += ' partial';
  if ((flags & FLAG_LAST_SEGMENT) !== 0) text += ' last';
  return text;
}
