/**
 * Probes: small datagrams that ask each peer whether it is there. They measure round trip, loss and the path's width, and
 * notice a peer that goes silent. No sockets and no timers: `tick` says what to send and when to call again, the worker's
 * mail comes in through `take`, and everything is decided by the clock that the caller passes.
 *
 * One peer is probed once an interval, all of them spread evenly over it, never more than MOST_A_SECOND in all: with very many
 * peers the interval stretches. A probe carries 64 random bits that its reply must repeat, so a reply cannot be made up.
 */
import { constants } from 'node:os';
import type { Mail, ProbeErrand } from '../datapath/side-link.ts';
import type { Subnet4 } from '../wire/cidr.ts';
import { PROBE_BYTES } from '../wire/tulle.ts';
import { PathSearch } from './path-search.ts';
import { PeerRecord } from './peer-record.ts';

/** A peer that answers probes. */
export interface ProbeTarget {
  subnet: Subnet4;
  /** Changes when the subnet's holder does, or its address: what was measured is forgotten then. */
  identity: string;
}

/** What is known of a peer. Times are milliseconds; null is "not known (yet)". */
export interface PeerHealth {
  /** Smoothed as in RFC 6298. */
  rttMs: number | null;
  lastRttMs: number | null;
  minRttMs: number | null;
  /** Of the last 20 probes. */
  lossPct: number | null;
  /** How long ago anything valid came from it. */
  lastHeardMs: number | null;
  /** The outer IP packet's largest size on the way there. */
  pathMtu: number | null;
  /** Probed, and nothing came for nearly three intervals. */
  silent: boolean;
}

export interface ProbeOptions {
  intervalMs: number;
  /** Bytes of outer IP and UDP headers. */
  overhead: number;
  /** The underlay's MTU; the search for a path's width begins there. */
  most(): number;
  /** No path is narrower. */
  least: number;
  /** Sends one; false when the data path has enough to do. */
  send(subnet: Subnet4, errand: ProbeErrand): boolean;
  /** When the peer was heard last, by the clock of `tick`, and what the kernel believes of the path, where it matters. */
  heardMs(subnet: Subnet4): number | undefined;
  believedMtu?(subnet: Subnet4): number;
  /** 32 random bits. */
  random(): number;
  /** A peer is silent now, or no longer. */
  onSilent(subnet: Subnet4, silent: boolean, health: PeerHealth): void;
  /** The path to a peer is that wide; undefined: as wide as the underlay. */
  onPath(subnet: Subnet4, pathMtu: number | undefined): void;
}

/** 200 probes of 48 bytes are 10 kB a second, and cost the worker about 1 % of one core. */
export const MOST_A_SECOND = 200;
/** Errands given at once: they must fit the letters' ring. */
const MOST_A_TICK = 40;
/** Of three: so that silence is reported within three, however the ticks fall. */
const SILENT_AFTER = 2.5;
const SHORTEST_TICK_MS = 20;
/** In intervals. */
const CONFIRM_AFTER = 6;
const { EMSGSIZE } = constants.errno;

interface Probed {
  target: ProbeTarget;
  record: PeerRecord;
  search: PathSearch;
  silent: boolean;
  /** From when on silence counts. */
  since: number;
}

export class PeerProbes {
  readonly #options: ProbeOptions;
  readonly #peers = new Map<number, Probed>();
  /** The order in which they are probed, and who is next. */
  #order: Probed[] = [];
  #cursor = 0;
  /** Known since the last tick: probed first. */
  #fresh: Probed[] = [];
  #credit = 0;
  #lastTick: number | undefined;
  #scanAt = 0;
  #most: number;

  constructor(options: ProbeOptions) {
    this.#options = options;
    this.#most = options.most();
  }

  /** Longer than was asked for when there are very many peers. */
  get intervalMs(): number {
    return Math.max(this.#options.intervalMs, (this.#peers.size * 1_000) / MOST_A_SECOND);
  }

  /** Who is to be probed from now on. */
  setPeers(targets: readonly ProbeTarget[], now: number): void {
    const wanted = new Set(targets.map(target => target.subnet.address));
    for (const address of this.#peers.keys()) if (!wanted.has(address)) this.#peers.delete(address);
    for (const target of targets) {
      if (this.#peers.get(target.subnet.address)?.target.identity === target.identity) continue;
      const probed = this.#probed(target, now);
      this.#peers.set(target.subnet.address, probed);
      this.#fresh.push(probed);
    }
    this.#fresh = this.#fresh.filter(probed => this.#isKnown(probed));
    this.#order = [...this.#peers.values()];
    this.#cursor %= Math.max(1, this.#order.length);
  }

  /** What is known of this subnet's peer; undefined when it is not probed. */
  of(subnet: Subnet4, now: number): PeerHealth | undefined {
    const probed = this.#peers.get(subnet.address);
    return probed === undefined ? undefined : this.#health(probed, now);
  }

  /** Sends what is due. Returns in how many milliseconds to call again. */
  tick(now: number): number {
    this.#notice(now);
    let budget = MOST_A_TICK;
    if (now >= this.#scanAt) {
      budget = this.#scan(now, budget);
      this.#scanAt = now + this.intervalMs / 5;
    }
    while (budget > 0 && this.#fresh.length > 0) {
      const probed = this.#fresh[0];
      if (this.#isKnown(probed) && !this.#probe(probed, PROBE_BYTES, now)) break;
      this.#fresh.shift();
      budget--;
    }
    for (; budget > 0 && this.#credit >= 1 && this.#order.length > 0; budget--, this.#credit--) {
      if (!this.#probe(this.#order[this.#cursor], PROBE_BYTES, now)) break;
      this.#cursor = (this.#cursor + 1) % this.#order.length;
    }
    this.#credit = Math.min(this.#credit, MOST_A_TICK);
    const next = Math.min(this.#scanAt - now, this.intervalMs / Math.max(1, this.#peers.size));
    // Not all nodes at one moment: ±10 %.
    return Math.max(SHORTEST_TICK_MS, next * (0.9 + 0.2 * (this.#options.random() / 2 ** 32)));
  }

  /** This node may not send: what was lost meanwhile says nothing of the peers. */
  pause(): void {
    this.#lastTick = undefined;
    for (const { record } of this.#peers.values()) record.forgetPending();
  }

  /** A letter of the worker; true when it was about a probe. */
  take(mail: Mail, now: number): boolean {
    if (mail.kind !== 'receipt' && mail.kind !== 'probe-reply') return false;
    const probed = this.#peers.get(mail.subnet);
    const pending = probed?.record.find(mail.sequence, mail.tokenHigh, mail.tokenLow);
    if (probed === undefined || pending === undefined) return mail.kind === 'probe-reply';
    if (mail.kind === 'receipt') {
      if (mail.status === 0) pending.sentAt = mail.at;
      else {
        // Refused by the kernel: too long, or nothing leaves at all. A fenced node (below 0) learns nothing.
        if (mail.status === EMSGSIZE && pending.length > PROBE_BYTES)
          probed.search.refused(this.#sizeOf(pending.length), now);
        probed.record.refused(pending, mail.status > 0 && pending.length === PROBE_BYTES);
        this.#tellPath(probed);
      }
      return true;
    }
    probed.record.answered(pending, mail.at);
    if (pending.length > PROBE_BYTES) {
      const size = this.#sizeOf(pending.length);
      // A socket that does not forbid fragments proves nothing beyond what the kernel believes to fit.
      const believed = this.#options.believedMtu?.(probed.target.subnet) ?? size;
      if (believed >= size) probed.search.crossed(size, now);
      else probed.search.refused(size, now);
      this.#tellPath(probed);
    }
    this.#hear(probed, mail.at, now);
    return true;
  }

  #probed(target: ProbeTarget, now: number): Probed {
    return {
      target,
      record: new PeerRecord(this.#options.random() & 0xffff),
      search: this.#search(),
      silent: false,
      since: now,
    };
  }

  #search(): PathSearch {
    const { least } = this.#options;
    return new PathSearch({ least, most: this.#most, confirmMs: CONFIRM_AFTER * this.#options.intervalMs });
  }

  #isKnown(probed: Probed): boolean {
    return this.#peers.get(probed.target.subnet.address) === probed;
  }

  /** A long time without a tick (the machine slept, the lease was over) is nobody's silence; a new MTU begins all searches anew. */
  #notice(now: number): void {
    const before = this.#lastTick;
    this.#lastTick = now;
    const elapsed = before === undefined ? 0 : now - before;
    if (before === undefined || elapsed > this.intervalMs) {
      for (const probed of this.#peers.values()) probed.since = now;
    }
    this.#credit += (Math.min(elapsed, this.intervalMs) * this.#peers.size) / this.intervalMs;
    const most = this.#options.most();
    if (most === this.#most) return;
    this.#most = most;
    for (const probed of this.#peers.values()) probed.search = this.#search();
  }

  /** Looks at every peer: what is lost, who is silent, whose path is to be measured. Returns what is left of the budget. */
  #scan(now: number, budget: number): number {
    let left = budget;
    for (const probed of this.#peers.values()) {
      const { record, search, target } = probed;
      for (const pending of record.expire(now, this.intervalMs)) {
        if (pending.length === PROBE_BYTES || !record.heardSince(pending.sentAt)) continue;
        search.lost(this.#sizeOf(pending.length), now, record.attempts());
        this.#tellPath(probed);
      }
      this.#hear(probed, this.#options.heardMs(target.subnet), now);
      if (!probed.silent && now - Math.max(probed.since, record.heardAt ?? 0) >= SILENT_AFTER * this.intervalMs) {
        probed.silent = true;
        this.#options.onSilent(target.subnet, true, this.#health(probed, now));
      }
      // Only who answers at all; with a small one right behind, whose answer tells a narrow path from a broken one.
      if (left < 2 || probed.silent || !record.answers || record.hasLong) continue;
      const size = search.next(now);
      if (size === undefined) continue;
      if (this.#probe(probed, size - this.#options.overhead, now)) this.#probe(probed, PROBE_BYTES, now);
      left -= 2;
    }
    return left;
  }

  #hear(probed: Probed, at: number | undefined, now: number): void {
    if (at === undefined || !probed.record.hear(at) || !probed.silent) return;
    probed.silent = false;
    this.#options.onSilent(probed.target.subnet, false, this.#health(probed, now));
  }

  #probe({ target, record }: Probed, length: number, now: number): boolean {
    const pending = record.next(length, this.#options.random(), this.#options.random(), now);
    const { sequence, tokenHigh, tokenLow } = pending;
    if (this.#options.send(target.subnet, { sequence, tokenHigh, tokenLow, length })) return true;
    record.refused(pending, false);
    return false;
  }

  #sizeOf(length: number): number {
    return length + this.#options.overhead;
  }

  #tellPath({ target, search }: Probed): void {
    if (!search.isSettled) return;
    this.#options.onPath(target.subnet, search.isNarrow ? search.pathMtu : undefined);
  }

  #health({ record, search, silent }: Probed, now: number): PeerHealth {
    const { smoothed, last, least, heardAt } = record;
    return {
      rttMs: smoothed ?? null,
      lastRttMs: last ?? null,
      minRttMs: least ?? null,
      lossPct: record.lossPct ?? null,
      lastHeardMs: heardAt === undefined ? null : Math.max(0, now - heardAt),
      pathMtu: search.pathMtu ?? null,
      silent,
    };
  }
}
