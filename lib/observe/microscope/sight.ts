/** What a sight of a packet tells: its tulle header, the packet as it was before, the same datagram on the other node. Pure. */
import {
  FLAG_PARTIAL_CHECKSUM,
  HEADER_BYTES,
  KIND_BUNDLE,
  KIND_SEGMENT,
  TULLE_VERSION,
  tulleFlags,
  tulleIndex,
  tulleKey,
  tulleKind,
  tulleSegmentSize,
} from '../../wire/tulle.ts';
import { type Bytes, cut, hopsLater, padded, superPacketOf } from './derive.ts';
import type { Sight } from './journey.ts';

export interface TulleFacts {
  kind: number;
  partial: boolean;
  segmentSize: number;
  index: number;
  key: number;
}

export function headerOf({ record: { bytes }, inner }: Sight): TulleFacts | undefined {
  const at = inner.header;
  if (at < 0 || at + HEADER_BYTES > bytes.length || bytes[at] >>> 4 !== TULLE_VERSION) return undefined;
  const partial = (tulleFlags(bytes, at) & FLAG_PARTIAL_CHECKSUM) !== 0;
  return {
    kind: tulleKind(bytes, at),
    partial,
    segmentSize: tulleSegmentSize(bytes, at),
    index: tulleIndex(bytes, at),
    key: tulleKey(bytes, at),
  };
}

/** The packet as the TUN gave it, from the datagram that it became. */
export function early(sight: Sight, segment: boolean): Bytes {
  const { record, inner } = sight;
  const packet = cut(padded(record.bytes, record.length), inner.offset, lengthOf(sight));
  return hopsLater(segment ? superPacketOf(packet) : packet, -1);
}

/** In a bundle a packet ends before the datagram does. */
export function lengthOf({ record, inner }: Sight): number {
  const bundled = inner.header >= 0 && tulleKind(record.bytes, inner.header) === KIND_BUNDLE;
  return bundled ? inner.length : record.length - inner.offset;
}

/** The same datagram on the other node: of segments the one with the same id and index. */
export function matching(received: readonly Sight[], sent: Sight): Sight | undefined {
  const nameOf = ({ record, inner }: Sight): string =>
    inner.header < 0 ? '' : record.bytes.subarray(inner.header + 8, inner.header + 12).join();
  return received.find(sight => nameOf(sight) === nameOf(sent)) ?? (isSegmented(sent) ? undefined : received[0]);
}

const isSegmented = (sight: Sight): boolean => headerOf(sight)?.kind === KIND_SEGMENT;
