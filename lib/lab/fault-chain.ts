/**
 * What the rules of one link make of one frame. Choices are pseudo-random: a rule has a generator for each direction, from
 * its seed, so that the n-th frame that meets it meets the same fate in every run.
 */

import { parseAddress4 } from '../wire/ip4.ts';
import { answerArp, concerns, ip4Bytes, type Station, tooLong, translate } from './fault-frame.ts';
import type { Rule } from './fault-spec.ts';

/** What becomes of a frame. One object is used again and again: read it before the next call. */
export interface Verdict {
  /** 0 = it is gone; 2 and more: it was duplicated. */
  copies: number;
  delayMs: number;
  /** May be overtaken by later frames. */
  heldBack: boolean;
  /** Instead of the frame: its fragments. */
  pieces: Uint8Array[];
  /** Frames for the one that sent this. */
  back: Uint8Array[];
}

interface Live {
  rule: Rule;
  peer: Station | undefined;
  /** For out and in. */
  readonly random: readonly [() => number, () => number];
  hits: number;
}

/** mulberry32: small, seeded, good enough for coins. 0 to below 1. */
export function coin(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

/** The bytes of a text as one number (FNV-1a), to give each rule of one fault a stream of its own. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}

export class FaultChain {
  readonly #self: Station;
  readonly #router: number;
  #rules: Live[] = [];
  readonly #verdict: Verdict = { copies: 1, delayMs: 0, heldBack: false, pieces: [], back: [] };

  /**
   * @param self the node of this link
   * @param router the address that ICMP errors come from
   */
  constructor(self: Station, router: number) {
    this.#self = self;
    this.#router = router;
  }

  /** New rules; those that were there already go on where they are. `stationOf` knows where a peer is. */
  update(link: string, rules: readonly Rule[], stationOf: (peer: string) => Station | undefined): void {
    const before = new Map(this.#rules.map(live => [`${live.rule.id} ${live.rule.peer}`, live]));
    this.#rules = rules.map(rule => {
      const peer = rule.peer === null ? undefined : stationOf(rule.peer);
      const known = before.get(`${rule.id} ${rule.peer}`);
      if (known !== undefined) return Object.assign(known, { rule, peer });
      const seed = rule.seed ^ hash(`${link} ${rule.peer}`);
      return { rule, peer, random: [coin(seed), coin(seed ^ 0x9e3779b9)] as const, hits: 0 };
    });
  }

  get empty(): boolean {
    return this.#rules.length === 0;
  }

  /** How many frames each fault has touched on this link. */
  hits(): Map<string, number> {
    const hits = new Map<string, number>();
    for (const { rule, hits: count } of this.#rules) hits.set(rule.id, (hits.get(rule.id) ?? 0) + count);
    return hits;
  }

  /** Decides about a frame and changes it where a rule says so. `out`: it comes from the node. Checksums are finished. */
  decide(frame: Uint8Array, bytes: number, out: boolean): Verdict {
    const verdict = this.#verdict;
    verdict.copies = 1;
    verdict.delayMs = 0;
    verdict.heldBack = false;
    verdict.pieces = [];
    verdict.back = [];
    for (const live of this.#rules) {
      const { direction } = live.rule;
      if (direction !== 'both' && (direction === 'out') !== out) continue;
      if (live.rule.peer !== null && (live.peer === undefined || !concerns(frame, bytes, out, live.peer))) continue;
      this.#apply(live, frame, bytes, out, verdict);
      if (verdict.copies === 0) break;
    }
    return verdict;
  }

  #apply(live: Live, frame: Uint8Array, bytes: number, out: boolean, verdict: Verdict): void {
    const { rule } = live;
    const random = live.random[out ? 0 : 1];
    switch (rule.kind) {
      case 'partition':
        live.hits++;
        verdict.copies = 0;
        break;
      case 'loss':
        if (random() * 100 >= rule.percent) break;
        live.hits++;
        verdict.copies = 0;
        break;
      case 'mtu': {
        if (ip4Bytes(frame, bytes) <= rule.bytes) break;
        live.hits++;
        verdict.copies = 0;
        if (rule.mode !== 'icmp') break;
        const { forward, back } = tooLong(frame, bytes, rule.bytes, this.#router);
        verdict.pieces = forward;
        if (back !== undefined) verdict.back.push(back);
        break;
      }
      case 'nat':
        if (this.#translate(rule, frame, bytes, out, verdict)) live.hits++;
        break;
      case 'duplicate':
        if (random() * 100 >= rule.percent) break;
        live.hits++;
        verdict.copies++;
        break;
      case 'delay':
        live.hits++;
        verdict.delayMs += Math.max(0, rule.ms + (random() * 2 - 1) * rule.jitterMs);
        break;
      case 'reorder':
        if (random() * 100 >= rule.percent) break;
        live.hits++;
        verdict.delayMs += rule.ms;
        verdict.heldBack = true;
        break;
    }
  }

  #translate(rule: Rule, frame: Uint8Array, bytes: number, out: boolean, verdict: Verdict): boolean {
    const { mac, address } = this.#self;
    const seen = parseAddress4(rule.address ?? '');
    if (seen === undefined) return false;
    if (out) return translate(frame, bytes, true, address, seen);
    const answer = answerArp(frame, bytes, { mac, address: seen });
    if (answer === undefined) return translate(frame, bytes, false, seen, address);
    verdict.back.push(answer);
    verdict.copies = 0;
    return true;
  }
}
