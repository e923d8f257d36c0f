/**
 * Arenas: memory that the hot calls address by byte offsets.
 *
 * The hot calls take integers only and return an integer: >= 0 a result, < 0 -errno. They check every offset and length
 * against the arena: -EINVAL for a wrong argument, -EFAULT for a place outside. Tables of records must be 4-aligned;
 * each field is an Int32 in the machine's byte order.
 */
import { check, native } from './addon.ts';

/**
 * Registers memory for the hot calls of this thread and returns the arena's number. The view must be 4-aligned; a
 * SharedArrayBuffer is best (a plain ArrayBuffer can be detached, so it is looked up again at each call). At most 16.
 */
export function registerArena(bytes: Uint8Array): number {
  return check(native.registerArena(bytes, bytes.buffer instanceof SharedArrayBuffer ? 0 : 1));
}

/** Lets go of an arena of this thread. Its number may be given again. */
export function unregisterArena(arena: number): void {
  check(native.unregisterArena(arena));
}

/**
 * Hot: checksum(arena, offset, length, initial). The ones' complement sum (RFC 1071) of the bytes as big-endian 16-bit
 * words plus `initial`, folded to 0..65535, not inverted.
 */
export const checksum = native.checksum;
