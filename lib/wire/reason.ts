/**
 * Why a check of this room refused some bytes: one closed list for all of them, so that a counter per code needs no
 * mapping. Every `check…` returns `OK` (0) or one of these; after `OK` no accessor of that file reads outside the
 * checked range.
 */
export const OK = 0;
/** Fewer bytes than the fixed header needs. */
export const TOO_SHORT = 1;
/** The version nibble is not the expected one. */
export const BAD_VERSION = 2;
/** A header length below the minimum, or beyond the bytes at hand. */
export const BAD_HEADER_LENGTH = 3;
/** A total or payload length below the header, or beyond the bytes at hand. */
export const BAD_TOTAL_LENGTH = 4;
/** A tulle kind or a GSO type that this version does not know. */
export const BAD_KIND = 5;
/** A protocol that the operation does not handle (a segment that is neither TCP nor UDP). */
export const BAD_PROTOCOL = 6;
/** A segment size of zero. */
export const BAD_SEGMENT_SIZE = 7;
/** An index, a last-segment flag or a slice length that does not follow from the super-packet's total length. */
export const BAD_SEGMENT = 8;
/** A bundle whose packets do not fill the datagram exactly, or whose count is wrong. */
export const BAD_BUNDLE = 9;
/** A checksum position outside the packet. */
export const BAD_CHECKSUM_PLACE = 10;
/** An IP fragment where only whole packets are allowed. */
export const FRAGMENT = 11;

/** Names for counters and messages, indexed by code. */
export const REASON_NAMES: readonly string[] = [
  'ok',
  'too-short',
  'bad-version',
  'bad-header-length',
  'bad-total-length',
  'bad-kind',
  'bad-protocol',
  'bad-segment-size',
  'bad-segment',
  'bad-bundle',
  'bad-checksum-place',
  'fragment',
];
