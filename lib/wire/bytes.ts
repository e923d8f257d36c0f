/**
 * Big-endian (network order) integers in a Uint8Array. No DataView: V8 compiles plain indexing as well, and nothing is
 * allocated. Offsets are byte offsets; the caller has checked the range.
 */

/** 0..0xffff */
export function get16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset] << 8) | bytes[offset + 1];
}

/** Stores the low 16 bits of `value`. */
export function set16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 8;
  bytes[offset + 1] = value;
}

/** 0..0xffff_ffff, never negative. */
export function get32(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset] << 24) | (bytes[offset + 1] << 16) | (bytes[offset + 2] << 8) | bytes[offset + 3]) >>> 0;
}

/** Stores the low 32 bits of `value`. */
export function set32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 24;
  bytes[offset + 1] = value >>> 16;
  bytes[offset + 2] = value >>> 8;
  bytes[offset + 3] = value;
}
