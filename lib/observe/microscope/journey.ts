/**
 * From captured packets to journeys: all that was seen of one packet of a pod, from the TUN of its node to the TUN of the
 * other. Works on a live capture of all nodes, on that of one node, and on a file. Pure.
 */
import { describePacket } from '../../wire/print.ts';
import { KIND_SEGMENT } from '../../wire/tulle.ts';
import { type Inner, innersOf } from './identity.ts';
import type { PacketRecord, Place } from './model.ts';

/** One sight of the packet. */
export interface Sight {
  record: PacketRecord;
  inner: Inner;
}

export interface Journey {
  /** Unique among the journeys of one call; stays when more records come behind. */
  id: string;
  source: string;
  destination: string;
  /** In the manner of tcpdump. */
  title: string;
  atUs: number;
  read?: Sight;
  /** The datagrams that carried it: one, or one for each segment. */
  sent: Sight[];
  received: Sight[];
  /** One, or one for each run of segments. */
  written: Sight[];
  /** It was discarded, and why. */
  drop?: string;
}

/** Records in any order; the journeys come in the order in which their packets were first seen. */
export function journeysOf(records: readonly PacketRecord[]): Journey[] {
  const open = new Map<string, Candidates>();
  const all: Journey[] = [];
  for (const record of inOrder(records)) {
    for (const inner of innersOf(record)) {
      const candidates = open.get(inner.key) ?? new Candidates();
      let journey = candidates.find(record, inner);
      if (journey === undefined) {
        journey = {
          id: `${inner.key} ${candidates.journeys.length}`,
          source: inner.source,
          destination: inner.destination,
          title: titleOf(record, inner),
          atUs: record.atUs,
          sent: [],
          received: [],
          written: [],
        };
        candidates.journeys.push(journey);
        open.set(inner.key, candidates);
        all.push(journey);
      }
      add(journey, { record, inner });
    }
  }
  return all;
}

/**
 * The journeys of one key. A stream of datagrams that nothing tells apart (IP ids of 0, IPv6) is one key of thousands, so those of
 * its beginning that are done with a place, for good, are not looked at again.
 */
class Candidates {
  readonly journeys: Journey[] = [];
  readonly #done: Record<Place, number> = { 'tun-read': 0, 'udp-send': 0, 'udp-receive': 0, 'tun-write': 0 };
  #dropped = 0;

  /** The first one that the sight can belong to. */
  find(record: PacketRecord, inner: Inner): Journey | undefined {
    const { journeys } = this;
    const { place, drop } = record;
    while (this.#done[place] < journeys.length && isDone(journeys[this.#done[place]], place)) this.#done[place]++;
    while (journeys[this.#dropped]?.drop !== undefined) this.#dropped++;
    let at = drop === undefined ? this.#done[place] : Math.min(this.#done[place], this.#dropped);
    while (at < journeys.length && !hasRoom(journeys[at], record, inner)) at++;
    return journeys[at];
  }
}

/** Whether no record of this place, but for a drop, can ever belong to the journey again. */
function isDone({ read, sent, received, written, drop }: Journey, place: Place): boolean {
  const isWhole = ([first]: readonly Sight[]): boolean => first !== undefined && !isSegment(first);
  switch (place) {
    case 'tun-read':
      return read !== undefined || drop !== undefined;
    case 'udp-send':
      return isWhole(sent);
    case 'udp-receive':
      return isWhole(received);
    case 'tun-write':
      return written.length > 0;
  }
}

const isSegment = ({ record: { bytes }, inner: { header } }: Sight): boolean =>
  header >= 0 && (bytes[header] & 15) === KIND_SEGMENT;

const ORDER: readonly Place[] = ['tun-read', 'udp-send', 'udp-receive', 'tun-write'];

/** By time; of one time, as a packet meets the places. */
function inOrder(records: readonly PacketRecord[]): PacketRecord[] {
  return [...records].sort((a, b) => a.atUs - b.atUs || ORDER.indexOf(a.place) - ORDER.indexOf(b.place));
}

/** Whether a sight can belong to a journey: the same packet sent twice is two journeys, a segment is another sight of one. */
function hasRoom(journey: Journey, record: PacketRecord, inner: Inner): boolean {
  if (record.drop !== undefined && journey.drop === undefined && seenBefore(journey, { record, inner }) !== undefined)
    return true;
  switch (record.place) {
    case 'tun-read':
      return journey.read === undefined && journey.drop === undefined;
    case 'udp-send':
      return (
        (journey.read === undefined || journey.read.record.node === record.node) && isNew(journey.sent, record, inner)
      );
    case 'udp-receive':
      return (
        (journey.read === undefined || journey.read.record.node !== record.node) &&
        isNew(journey.received, record, inner)
      );
    case 'tun-write':
      return journey.written.length === 0 && (journey.read === undefined || journey.read.record.node !== record.node);
  }
}

/** A capture tells of a packet that came, and then once more that it was dropped there. */
function seenBefore(journey: Journey, { record, inner }: Sight): Sight | undefined {
  const { read, sent, received, written } = journey;
  const sights = {
    'tun-read': read === undefined ? [] : [read],
    'udp-send': sent,
    'udp-receive': received,
    'tun-write': written,
  };
  return sights[record.place].find(
    sight =>
      sight.record.node === record.node &&
      sight.record.drop === undefined &&
      nameOf(sight) === nameOf({ record, inner }),
  );
}

/** Kind, id and index of the tulle header: the same for the same datagram of a journey. */
function nameOf({ record: { bytes }, inner: { header } }: Sight): string {
  return header < 0 ? '' : `${bytes[header] & 15} ${bytes.subarray(header + 8, header + 12).join()}`;
}

/** Another segment, not the same one again: bytes 8 to 11 of the tulle header are id and index. */
function isNew(sights: readonly Sight[], record: PacketRecord, inner: Inner): boolean {
  if (sights.length === 0) return true;
  if (!isSegment({ record, inner }) || !isSegment(sights[0])) return false;
  return !sights.some(sight => nameOf(sight) === nameOf({ record, inner }));
}

function add(journey: Journey, sight: Sight): void {
  const { record } = sight;
  if (record.drop !== undefined) {
    const before = seenBefore(journey, sight);
    journey.drop = record.drop;
    if (before !== undefined) {
      before.record =
        record.bytes.length >= before.record.bytes.length ? record : { ...before.record, drop: record.drop };
      return;
    }
  }
  switch (record.place) {
    case 'tun-read':
      journey.read = sight;
      break;
    case 'udp-send':
      journey.sent.push(sight);
      break;
    case 'udp-receive':
      journey.received.push(sight);
      break;
    case 'tun-write':
      journey.written.push(sight);
      break;
  }
}

/** The longest IP packet; one for all titles, because a capture has thousands. */
const SCRATCH = new Uint8Array(65_600);

function titleOf(record: PacketRecord, inner: Inner): string {
  const { bytes, length } = record;
  const { offset } = inner;
  // Of a segment or a snapped capture the whole packet is not there: describe it as long as it says that it is.
  // A segment says that it is as long as its super-packet, a cut capture that it is whole: there is room for that.
  const total = Math.min(
    SCRATCH.length,
    Math.max(isSegment({ record, inner }) ? SCRATCH.length : 0, length - offset, bytes.length - offset),
  );
  const known = bytes.subarray(offset, offset + SCRATCH.length);
  SCRATCH.set(known);
  SCRATCH.fill(0, known.length, total);
  return describePacket(SCRATCH, 0, total).replace(/^IP6? /, '');
}
