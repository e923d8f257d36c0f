/**
 * What it costs a daemon to move packets: its own counters, and what the kernel counts about its process. Both are read
 * before and after; the difference is what happened in between.
 */
import { readFileSync } from 'node:fs';
import { TulleError } from '../util/errors.ts';
import { type NodeStatus, statusOf } from './places.ts';
import type { LabState } from './state.ts';

/** Totals since the daemon started. */
export interface Sample {
  readonly counters: Readonly<Record<string, number>>;
  /** read(2) and write(2) and their kin, of all threads: /proc/PID/io. sendmsg and recvmsg are not among them. */
  readonly reads: number;
  readonly writes: number;
  readonly cpuMs: number;
}

/** For each datagram that crossed the underlay. */
export interface Cost {
  readonly node: string;
  readonly datagrams: number;
  readonly reads: number;
  readonly writes: number;
  /** Turns of its loop: one sendmmsg or recvmmsg each, whatever it carries. */
  readonly batches: number;
  /** UDP_SEGMENT and UDP_GRO trains: many datagrams in one message. */
  readonly trains: number;
  readonly cpuMicroseconds: number;
}

/** The kernel counts CPU time in these (USER_HZ, fixed in its interface to programs). */
const TICKS_A_SECOND = 100;

/** The `key: number` lines of a file of /proc. */
export function parseIo(text: string): Map<string, number> {
  return new Map(
    text.split('\n').flatMap(line => {
      const [key, value] = line.split(':');
      return value === undefined ? [] : [[key, Number(value)] as const];
    }),
  );
}

/** User and system time of a process: fields 14 and 15 of /proc/PID/stat. */
export function cpuMsIn(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_A_SECOND;
}

export async function sampleOf(state: LabState, node: string): Promise<Sample> {
  const status: NodeStatus = await statusOf(state, node);
  try {
    const io = parseIo(readFileSync(`/proc/${status.pid}/io`, 'utf8'));
    const cpuMs = cpuMsIn(readFileSync(`/proc/${status.pid}/stat`, 'utf8'));
    return { counters: status.counters, reads: io.get('syscr') ?? 0, writes: io.get('syscw') ?? 0, cpuMs };
  } catch {
    throw new TulleError('not-running', `tulled on ${node} ended while it was looked at`);
  }
}

export function costOf(node: string, before: Sample, after: Sample): Cost {
  const more = (name: string): number => (after.counters[name] ?? 0) - (before.counters[name] ?? 0);
  const datagrams = more('egress-datagrams') + more('ingress-datagrams');
  const each = (total: number): number => (datagrams === 0 ? 0 : total / datagrams);
  return {
    node,
    datagrams,
    reads: each(after.reads - before.reads),
    writes: each(after.writes - before.writes),
    batches: each(more('egress-batches') + more('ingress-batches')),
    trains: each(more('egress-trains') + more('ingress-trains')),
    cpuMicroseconds: each((after.cpuMs - before.cpuMs) * 1000),
  };
}

/** The costs as a person reads them. */
export function costTable(costs: readonly Cost[]): string {
  const rows = costs.map(cost => [
    cost.node,
    cost.datagrams.toLocaleString('en'),
    cost.reads.toFixed(3),
    cost.writes.toFixed(3),
    cost.batches.toFixed(3),
    cost.trains.toFixed(3),
    `${cost.cpuMicroseconds.toFixed(2)} µs`,
  ]);
  const all = [['', 'datagrams', 'reads', 'writes', 'batches', 'trains', 'CPU'], ...rows];
  const widths = all[0].map((_, i) => Math.max(...all.map(row => row[i].length)));
  const lines = all.map(row => row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))));
  return `${lines.map(line => `  ${line.join('  ')}`).join('\n')}\n  what tulled did for each datagram: docs/lessons/01-the-naive-loop.md explains the columns\n`;
}
