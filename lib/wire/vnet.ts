/**
 * The vnet header: struct virtio_net_hdr (linux/virtio_net.h), 10 bytes before every packet on a TUN that was opened with
 * IFF_VNET_HDR. It says what the kernel left undone. Its numbers are in the host's byte order (tun.c, legacy virtio);
 * all of Node's Linux machines that we serve are little-endian, and so is this file.
 */
import { BAD_CHECKSUM_PLACE, BAD_KIND, BAD_SEGMENT_SIZE, OK, TOO_SHORT } from './reason.ts';

export const VNET_FLAGS = 0;
export const VNET_GSO_TYPE = 1;
export const VNET_HEADER_LENGTH = 2;
export const VNET_GSO_SIZE = 4;
export const VNET_CHECKSUM_START = 6;
export const VNET_CHECKSUM_OFFSET = 8;
export const VNET_HEADER_BYTES = 10;

/** The L4 checksum holds only the pseudo-header sum; finish it from checksumStart to the end. */
export const VNET_FLAG_NEEDS_CSUM = 1;
/** The checksum was verified. TUN ignores it on write (facts: checked on 6.18). */
export const VNET_FLAG_DATA_VALID = 2;

export const VNET_GSO_NONE = 0;
export const VNET_GSO_TCPV4 = 1;
/** UDP fragmentation offload, gone from kernels since 4.14. */
export const VNET_GSO_UDP = 3;
export const VNET_GSO_TCPV6 = 4;
/** UDP segmentation offload (USO). */
export const VNET_GSO_UDP_L4 = 5;
/** A bit beside a TCP type: the super-packet carries CWR. */
export const VNET_GSO_ECN = 0x80;

/**
 * `length`: vnet header and packet. `OK`: a known type, ECN only beside TCP, a size with every type, and a checksum field
 * inside the packet. Whether the packet agrees with it is for the reader of the packet.
 */
export function checkVnet(bytes: Uint8Array, offset: number, length: number): number {
  if (length < VNET_HEADER_BYTES) return TOO_SHORT;
  const gsoType = bytes[offset + VNET_GSO_TYPE];
  const type = gsoType & ~VNET_GSO_ECN;
  const isTcp = type === VNET_GSO_TCPV4 || type === VNET_GSO_TCPV6;
  if (!isTcp && gsoType !== VNET_GSO_NONE && gsoType !== VNET_GSO_UDP_L4) return BAD_KIND;
  if (gsoType !== VNET_GSO_NONE && vnetGsoSize(bytes, offset) === 0) return BAD_SEGMENT_SIZE;
  if ((bytes[offset] & VNET_FLAG_NEEDS_CSUM) !== 0) {
    const field = vnetChecksumStart(bytes, offset) + vnetChecksumOffset(bytes, offset);
    if (VNET_HEADER_BYTES + field + 2 > length) return BAD_CHECKSUM_PLACE;
  }
  return OK;
}

export function vnetFlags(bytes: Uint8Array, offset: number): number {
  return bytes[offset + VNET_FLAGS];
}

/** With the ECN bit, when it is set. */
export function vnetGsoType(bytes: Uint8Array, offset: number): number {
  return bytes[offset + VNET_GSO_TYPE];
}

/** Bytes of IP and L4 header; a hint of the kernel's, may be 0. */
export function vnetHeaderLength(bytes: Uint8Array, offset: number): number {
  return bytes[offset + VNET_HEADER_LENGTH] | (bytes[offset + VNET_HEADER_LENGTH + 1] << 8);
}

/** Payload bytes of each full segment. */
export function vnetGsoSize(bytes: Uint8Array, offset: number): number {
  return bytes[offset + VNET_GSO_SIZE] | (bytes[offset + VNET_GSO_SIZE + 1] << 8);
}

/** From the packet's first byte (behind the vnet header) to the L4 header. */
export function vnetChecksumStart(bytes: Uint8Array, offset: number): number {
  return bytes[offset + VNET_CHECKSUM_START] | (bytes[offset + VNET_CHECKSUM_START + 1] << 8);
}

/** From the L4 header to its checksum field: 16 TCP, 6 UDP. */
export function vnetChecksumOffset(bytes: Uint8Array, offset: number): number {
  return bytes[offset + VNET_CHECKSUM_OFFSET] | (bytes[offset + VNET_CHECKSUM_OFFSET + 1] << 8);
}

/** Writes the header. Returns the bytes written. */
export function emitVnet(
  bytes: Uint8Array,
  offset: number,
  flags: number,
  gsoType: number,
  headerLength: number,
  gsoSize: number,
  checksumStart: number,
  checksumOffset: number,
): number {
  bytes[offset + VNET_FLAGS] = flags;
  bytes[offset + VNET_GSO_TYPE] = gsoType;
  bytes[offset + VNET_HEADER_LENGTH] = headerLength;
  bytes[offset + VNET_HEADER_LENGTH + 1] = headerLength >>> 8;
  bytes[offset + VNET_GSO_SIZE] = gsoSize;
  bytes[offset + VNET_GSO_SIZE + 1] = gsoSize >>> 8;
  bytes[offset + VNET_CHECKSUM_START] = checksumStart;
  bytes[offset + VNET_CHECKSUM_START + 1] = checksumStart >>> 8;
  bytes[offset + VNET_CHECKSUM_OFFSET] = checksumOffset;
  bytes[offset + VNET_CHECKSUM_OFFSET + 1] = checksumOffset >>> 8;
  return VNET_HEADER_BYTES;
}

const GSO_NAMES: Readonly<Record<number, string>> = {
  [VNET_GSO_NONE]: 'none',
  [VNET_GSO_TCPV4]: 'tcp4',
  [VNET_GSO_UDP]: 'udp-fragments',
  [VNET_GSO_TCPV6]: 'tcp6',
  [VNET_GSO_UDP_L4]: 'udp',
};

/** "vnet gso tcp4+ecn size 1408 headers 52 checksum 20+16". Only after `checkVnet`. */
export function printVnet(bytes: Uint8Array, offset: number): string {
  const gsoType = vnetGsoType(bytes, offset);
  let text = `vnet gso ${GSO_NAMES[gsoType & ~VNET_GSO_ECN] ?? gsoType}`;
  if ((gsoType & VNET_GSO_ECN) !== 0) text += '+ecn';
  if (gsoType !== VNET_GSO_NONE) text += ` size ${vnetGsoSize(bytes, offset)}`;
  text += ` headers ${vnetHeaderLength(bytes, offset)}`;
  const flags = vnetFlags(bytes, offset);
  if ((flags & VNET_FLAG_NEEDS_CSUM) !== 0) {
    text += ` checksum ${vnetChecksumStart(bytes, offset)}+${vnetChecksumOffset(bytes, offset)}`;
  }
  if ((flags & VNET_FLAG_DATA_VALID) !== 0) text += ' valid';
  return text;
}
