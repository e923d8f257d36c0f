/** The rates of a lab's links, read where each namespace keeps its counters. */
import { readFileSync } from 'node:fs';
import type { LinkRate } from '../observe/microscope/model.ts';
import * as sys from '../sys/sys.ts';

interface Sample {
  atMs: number;
  counts: Map<string, LinkRate>;
}

/** The columns of /proc/net/dev (net/core/net-procfs.c, dev_seq_printf_stats): 8 of what came, 8 of what went. */
export function parseNetDev(text: string): Map<string, LinkRate> {
  const counts = new Map<string, LinkRate>();
  for (const line of text.split('\n')) {
    const [, name, rest] = /^\s*([^\s:]+):\s*(.*)$/.exec(line) ?? [];
    const columns = rest?.trim().split(/\s+/).map(Number);
    if (name === undefined || columns === undefined || columns.length < 16 || columns.some(Number.isNaN)) continue;
    const [receivedBytes, receivedPackets] = columns;
    counts.set(name, { receivedBytes, receivedPackets, sentBytes: columns[8], sentPackets: columns[9] });
  }
  return counts;
}

export function readCounts(namespaceFile: string): Map<string, LinkRate> {
  return sys.withNamespace(namespaceFile, () => parseNetDev(readFileSync('/proc/thread-self/net/dev', 'utf8')));
}

/** What the counters of each namespace rose by, a second, since they were asked before. */
export class LinkRates {
  readonly #last = new Map<string, Sample>();

  /** By link; empty at the first call. */
  of(namespaceFile: string, now = performance.now()): Record<string, LinkRate> {
    const counts = readCounts(namespaceFile);
    const last = this.#last.get(namespaceFile);
    this.#last.set(namespaceFile, { atMs: now, counts });
    const seconds = last === undefined ? 0 : (now - last.atMs) / 1000;
    if (last === undefined || seconds <= 0) return {};
    const rates: Record<string, LinkRate> = {};
    for (const [name, count] of counts) {
      const before = last.counts.get(name);
      if (before === undefined || name === 'lo') continue;
      // A link that was made again counts from 0.
      const rate = (key: keyof LinkRate): number => Math.max(0, count[key] - before[key]) / seconds;
      rates[name] = {
        receivedBytes: rate('receivedBytes'),
        sentBytes: rate('sentBytes'),
        receivedPackets: rate('receivedPackets'),
        sentPackets: rate('sentPackets'),
      };
    }
    return rates;
  }
}
