/**
 * Who sees what passes through the data path: any number of readers over the one ring. A reader says which packets it wants
 * and gets copies; nothing is captured while there is no reader, and what is captured is the least that serves all of them.
 *
 *   worker ── ring ──► Captures.#drain ──► filter ──► copy ──► every reader that wants it
 *
 * A reader with a budget (`perSecond`) gets the first packets of every second of the wall clock, in a row, so that one packet's
 * whole journey is among them, on all nodes at once; the rest of the second it costs nothing.
 */
import type { CaptureRecord } from '../datapath/capture-ring.ts';
import type { CaptureSettings, CaptureSource } from '../datapath/capture-source.ts';
import { monotonicMs } from '../sys/sys.ts';
import { TulleError } from '../util/errors.ts';
import { formatCidr4, type Subnet4 } from '../wire/cidr.ts';
import { parseFilter, pointAt } from '../wire/filter.ts';
import { compileFilter, matchesDatagram, type Predicate } from '../wire/filter-match.ts';
import { type CapturedPacket, isDatagram, type LocalEnd, packetOf } from './capture/packet.ts';
import { type CapturePeer, type PeerFilter, peerFilter } from './capture/peer-filter.ts';

export type { CapturedPacket, CapturePlace } from './capture/packet.ts';
export { commentsOf } from './capture/packet.ts';
export type { CapturePeer } from './capture/peer-filter.ts';

/** The overlay that is looked at. */
export interface CapturedOverlay {
  source: CaptureSource;
  device: string;
  local: LocalEnd;
  network: Subnet4;
}

/** What the readers look at; the overlay may come, go, and be another one. */
export interface CapturedNode {
  /** The node's name, where it has one. */
  name(): string | undefined;
  overlay(): CapturedOverlay | undefined;
  peers(): readonly CapturePeer[];
}

export interface CaptureOptions {
  /** A subnet, an address, an endpoint or a node's name; undefined: all peers, and what belongs to none. */
  peer?: string | undefined;
  /** An expression of lib/wire/filter.ts about the inner packet; a datagram is meant when one of its packets is. */
  inner?: string | undefined;
  /** Bytes of each packet, outer headers not counted; 0: all of it. Default 256. */
  snaplen?: number | undefined;
  /** Only what was dropped. */
  dropsOnly?: boolean | undefined;
  /** At most so many packets in each second of the wall clock. */
  perSecond?: number | undefined;
  /** Called for each packet; it may keep it. It must not throw. `lost` counts the records that the ring lost before it. */
  onPacket(packet: CapturedPacket, lost: number): void;
}

export interface Capture {
  /** Packets that were given to it. */
  readonly packets: number;
  /** Records that the ring had no room for, of all peers, since it was opened. */
  readonly lost: number;
  close(): void;
}

export const DEFAULT_SNAPLEN = 256;
/** More would slow the data path's packets down by slowing its worker. */
export const MOST_CAPTURES = 16;

/** How long records wait in the ring at most, which holds those of 20 ms under full load. */
const DRAIN_MS = 5;
/** Records of one turn, after which the event loop sees to other things. */
const MOST_RECORDS = 2_000;
const WHOLE = 0x7fff_ffff;

interface Reader {
  options: CaptureOptions;
  peer: PeerFilter | undefined;
  inner: Predicate | undefined;
  /** What is left of this second's budget. */
  budget: number;
  packets: number;
  lost: number;
}

export class Captures {
  readonly #node: CapturedNode;
  readonly #now: () => number;
  readonly #readers = new Set<Reader>();
  #timer: NodeJS.Timeout | undefined;
  #overlay: CapturedOverlay | undefined;
  /** The settings that the worker was given, as text, to see whether they changed. */
  #settings = '';
  #epoch = 0n;
  /** The peers' names by their subnets, as they were when this second began. */
  #names = new Map<string, string | undefined>();
  #second = 0;
  /** The ring's count of lost records when we last looked. */
  #lost = 0;
  #draining = false;

  /** `now`: milliseconds of the clock that the records' times are read from. */
  constructor(node: CapturedNode, now: () => number = monotonicMs) {
    this.#node = node;
    this.#now = now;
  }

  /** How many readers there are. */
  get size(): number {
    return this.#readers.size;
  }

  /** @throws TulleError: 'unavailable' without an overlay, 'busy' with too many readers, 'bad-peer', 'bad-filter' */
  open(options: CaptureOptions): Capture {
    const overlay = this.#node.overlay();
    if (overlay === undefined)
      throw new TulleError('unavailable', 'there is no overlay yet: ask again when the node is ready');
    if (this.#readers.size >= MOST_CAPTURES)
      throw new TulleError('busy', `${MOST_CAPTURES} captures run already: end one of them first`);
    const reader: Reader = {
      options,
      peer: options.peer === undefined ? undefined : peerFilter(options.peer, overlay.network, this.#node.peers()),
      inner: innerFilter(options.inner),
      budget: options.perSecond ?? Number.POSITIVE_INFINITY,
      packets: 0,
      lost: 0,
    };
    if (this.#readers.size === 0) {
      this.#epoch = epochOf(this.#now);
      this.#lost = overlay.source.lost();
    }
    this.#readers.add(reader);
    this.#apply();
    this.#schedule(0);
    return {
      get packets() {
        return reader.packets;
      },
      get lost() {
        return reader.lost;
      },
      close: () => {
        if (!this.#readers.has(reader)) return;
        this.#drain();
        this.#readers.delete(reader);
        this.#apply();
      },
    };
  }

  /** Ends all captures. */
  close(): void {
    this.#readers.clear();
    this.#apply();
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #schedule(delayMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#readers.size === 0) return;
    this.#timer = setTimeout(() => this.#turn(), delayMs);
    this.#timer.unref();
  }

  #turn(): void {
    const second = Math.floor(Date.now() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#names = new Map(this.#node.peers().map(({ subnet, node }) => [formatCidr4(subnet), node]));
      for (const reader of this.#readers) reader.budget = reader.options.perSecond ?? Number.POSITIVE_INFINITY;
    }
    this.#apply();
    this.#schedule(this.#drain() === MOST_RECORDS ? 0 : DRAIN_MS);
  }

  /** Takes what is in the ring, at most MOST_RECORDS; returns how many there were. */
  #drain(): number {
    const { source } = this.#overlay ?? {};
    // A reader may close itself when it is given its last packet.
    if (source === undefined || this.#draining) return 0;
    this.#draining = true;
    try {
      const lost = source.lost();
      const count = source.drain(record => this.#take(record), MOST_RECORDS);
      // What was lost behind the last record no record tells of.
      if (count < MOST_RECORDS) this.#lose(Math.max(lost, this.#lost));
      return count;
    } finally {
      this.#draining = false;
    }
  }

  /** The ring has lost so many records by now. */
  #lose(lost: number): void {
    for (const reader of this.#readers) reader.lost += lost - this.#lost;
    this.#lost = lost;
  }

  /** Gives the worker the settings that serve all readers, when they are others than it has. */
  #apply(): void {
    const overlay = this.#node.overlay();
    if (overlay?.source !== this.#overlay?.source) {
      this.#settings = '';
      this.#lost = 0;
    }
    this.#overlay = overlay;
    const settings = this.#union();
    const text = settings === undefined ? '' : JSON.stringify(settings);
    if (text === this.#settings) return;
    this.#settings = text;
    overlay?.source.set(settings);
  }

  #union(): CaptureSettings | undefined {
    const active = [...this.#readers].filter(({ budget }) => budget > 0);
    if (active.length === 0) return undefined;
    const lengths = active.map(({ options }) => options.snaplen ?? DEFAULT_SNAPLEN);
    const settings = {
      snaplen: lengths.includes(0) ? WHOLE : Math.max(...lengths),
      dropsOnly: active.every(({ options }) => options.dropsOnly === true),
    };
    if (active.some(({ peer }) => peer === undefined)) return settings;
    const peers = this.#node.peers();
    const subnets = new Map<string, Subnet4>();
    for (const { peer } of active) {
      for (const subnet of peer?.subnets(peers) ?? []) subnets.set(formatCidr4(subnet), subnet);
    }
    return { ...settings, peers: [...subnets.values()] };
  }

  #take(record: CaptureRecord): void {
    // Another overlay's ring counts from 0 again.
    if (record.lost < this.#lost) this.#lost = 0;
    this.#lose(record.lost);
    let packet: CapturedPacket | undefined;
    for (const reader of this.#readers) {
      if (reader.budget <= 0 || !wants(reader, record)) continue;
      packet ??= this.#copy(record);
      if (packet === undefined) return;
      reader.budget--;
      reader.packets++;
      reader.options.onPacket(cut(packet, reader.options.snaplen ?? DEFAULT_SNAPLEN, record), reader.lost);
    }
  }

  #copy(record: CaptureRecord): CapturedPacket | undefined {
    const overlay = this.#overlay;
    if (overlay === undefined) return undefined;
    const nodeOf = (subnet: string): string | undefined => this.#names.get(subnet);
    return packetOf(record, { local: overlay.local, epoch: this.#epoch, nodeOf });
  }
}

function wants({ options, peer, inner }: Reader, record: CaptureRecord): boolean {
  if (options.dropsOnly === true && record.reason < 0) return false;
  if (peer !== undefined && !peer.matches(record)) return false;
  if (inner === undefined) return true;
  const { bytes, offset, captured } = record;
  return isDatagram(record) ? matchesDatagram(inner, bytes, offset, captured) : inner(bytes, offset, captured);
}

/** A reader's own snaplen, where another one wants more. Outer headers come on top: they were not captured. */
function cut(packet: CapturedPacket, snaplen: number, record: CaptureRecord): CapturedPacket {
  const headers = packet.length - record.length;
  if (snaplen === 0 || packet.bytes.length <= snaplen + headers) return packet;
  return { ...packet, bytes: packet.bytes.subarray(0, snaplen + headers) };
}

/** @throws TulleError 'bad-filter', which points at the column */
function innerFilter(text: string | undefined): Predicate | undefined {
  if (text === undefined) return undefined;
  const parsed = parseFilter(text);
  if ('filter' in parsed) return compileFilter(parsed.filter);
  throw new TulleError(
    'bad-filter',
    `--inner: column ${parsed.error.column}: ${parsed.error.message}\n${pointAt(text, parsed.error)}`,
  );
}

/**
 * Unix time in nanoseconds of the clock's 0. Date.now() is rounded down to milliseconds, so the greatest difference of many
 * is the true one: for little more than a millisecond we look at both.
 */
function epochOf(now: () => number): bigint {
  let greatest = Number.NEGATIVE_INFINITY;
  const start = now();
  for (let looks = 0; looks < 100_000 && now() - start < 1.2; looks++) {
    const before = now();
    greatest = Math.max(greatest, Date.now() - before);
  }
  return BigInt(Math.round(greatest * 1_000)) * 1_000n;
}
