/** UDP headers (RFC 768). */
import { get16, set16 } from './bytes.ts';
import { BAD_TOTAL_LENGTH, OK, TOO_SHORT } from './reason.ts';

export const UDP_SOURCE_PORT = 0;
export const UDP_DESTINATION_PORT = 2;
export const UDP_LENGTH = 4;
export const UDP_CHECKSUM = 6;
export const UDP_HEADER_BYTES = 8;

/** `length`: bytes from `offset`. The length field must hold the header and be there whole. */
export function checkUdp(bytes: Uint8Array, offset: number, length: number): number {
  if (length < UDP_HEADER_BYTES) return TOO_SHORT;
  const datagramLength = get16(bytes, offset + UDP_LENGTH);
  if (datagramLength < UDP_HEADER_BYTES || datagramLength > length) return BAD_TOTAL_LENGTH;
  return OK;
}

export function udpSourcePort(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + UDP_SOURCE_PORT);
}

export function udpDestinationPort(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + UDP_DESTINATION_PORT);
}

/** Bytes of header and payload. */
export function udpLength(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + UDP_LENGTH);
}

/** 0 means that the sender computed none (IPv4 only). */
export function udpChecksum(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset + UDP_CHECKSUM);
}

// The setters leave the checksum as it is.

export function setUdpLength(bytes: Uint8Array, offset: number, length: number): void {
  set16(bytes, offset + UDP_LENGTH, length);
}

export function setUdpChecksum(bytes: Uint8Array, offset: number, check: number): void {
  set16(bytes, offset + UDP_CHECKSUM, check);
}

/** Writes the header with checksum 0. `length`: header and payload. Returns the bytes written. */
export function emitUdp(
  bytes: Uint8Array,
  offset: number,
  sourcePort: number,
  destinationPort: number,
  length: number,
): number {
  set16(bytes, offset + UDP_SOURCE_PORT, sourcePort);
  set16(bytes, offset + UDP_DESTINATION_PORT, destinationPort);
  set16(bytes, offset + UDP_LENGTH, length);
  set16(bytes, offset + UDP_CHECKSUM, 0);
  return UDP_HEADER_BYTES;
}

/** "53 > 4000 UDP length 32" (payload bytes). Only after `checkUdp`. */
export function printUdp(bytes: Uint8Array, offset: number): string {
  const payloadLength = udpLength(bytes, offset) - UDP_HEADER_BYTES;
  return `${udpSourcePort(bytes, offset)} > ${udpDestinationPort(bytes, offset)} UDP length ${payloadLength}`;
}
