/** A run's results: in memory, as JSON lines, and back. */
import { appendFileSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Commit, Machine } from './machine.ts';
import { METRIC_NAMES, METRICS, type Measured, type Metric } from './metrics.ts';
import { median, present, ratios, type Summary, summarize, type Values } from './statistics.ts';
import type { Underlay } from './underlay.ts';

/** One tunnel on one underlay: its values round by round. */
export interface Row {
  readonly tunnel: string;
  readonly kind: 'kernel' | 'user';
  readonly underlay: Underlay;
  readonly values: Partial<Record<Metric, Values>>;
}

export interface Run {
  readonly machine: Machine;
  readonly commit: Commit;
  readonly quick: boolean;
  /** All tunnels on both underlays. */
  readonly whole: boolean;
  readonly rounds: number;
  readonly seconds: number;
  readonly rows: readonly Row[];
}

/** Collects visits into rows. */
export class Collector {
  readonly #rows: { row: Omit<Row, 'values'>; visits: (Measured | undefined)[] }[] = [];

  add(row: Omit<Row, 'values'>, round: number, measured: Measured): void {
    let entry = this.#rows.find(({ row: { tunnel, underlay } }) => tunnel === row.tunnel && underlay === row.underlay);
    if (entry === undefined) {
      entry = { row, visits: [] };
      this.#rows.push(entry);
    }
    entry.visits[round] = measured;
  }

  /** Rows in the order of their first visit, each with as many values a metric as there were rounds. */
  rows(rounds: number): Row[] {
    return this.#rows.map(({ row, visits }) => {
      const measured = METRIC_NAMES.filter(metric => visits.some(visit => visit?.[metric] !== undefined));
      const valuesOf = (metric: Metric): Values =>
        Array.from({ length: rounds }, (_, i) => visits[i]?.[metric] ?? null);
      return { ...row, values: Object.fromEntries(measured.map(metric => [metric, valuesOf(metric)])) };
    });
  }
}

export function rowOf(rows: readonly Row[], tunnel: string, underlay: Underlay): Row | undefined {
  return rows.find(row => row.tunnel === tunnel && row.underlay === underlay);
}

export function summaryOf(row: Row | undefined, metric: Metric): Summary | null {
  return summarize(row?.values[metric] ?? []);
}

/** The median of a / b round by round; null when no round has both. */
export function ratioOf(a: Row | undefined, b: Row | undefined, metric: Metric): Summary | null {
  return summarize(ratios(a?.values[metric] ?? [], b?.values[metric] ?? []));
}

const rounded = (value: number, digits: number): number => Number(value.toFixed(digits));

/** One line a row: medians and all values, with what one must know to compare it. */
export function jsonLines(run: Run, baseline: string): string {
  const lines = run.rows.map(row => {
    const base = rowOf(run.rows, baseline, row.underlay);
    const metrics: Record<string, object> = {};
    const toBaseline: Record<string, number> = {};
    for (const [name, values] of Object.entries(row.values) as [Metric, Values][]) {
      const summary = summarize(values);
      if (summary === null) continue;
      const digits = METRICS[name].digits + 1;
      metrics[name] = {
        median: rounded(summary.median, digits),
        min: rounded(summary.min, digits),
        max: rounded(summary.max, digits),
        values: values.map(value => (value === null ? null : rounded(value, digits))),
      };
      const ratio = median(present(ratios(values, base?.values[name] ?? [])));
      if (ratio !== null) toBaseline[name] = rounded(ratio, 4);
    }
    const { machine, commit, quick, whole, rounds, seconds } = run;
    const { tunnel, kind, underlay } = row;
    const head = { run: machine.date, ...commit, quick, whole, rounds, seconds, tunnel, kind, underlay };
    return JSON.stringify({ ...head, metrics, [`ratioTo_${baseline}`]: toBaseline, machine });
  });
  return lines.map(line => `${line}\n`).join('');
}

export function appendResults(file: string, run: Run, baseline: string): void {
  mkdirSync(dirname(file), { recursive: true });
  appendFileSync(file, jsonLines(run, baseline));
}

/** The last whole run in the text of such a file; undefined when there is none. */
export function lastRun(text: string): Run | undefined {
  const lines = text
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line) as StoredRow);
  const full = lines.filter(line => line.whole);
  const last = full.at(-1);
  if (last === undefined) return undefined;
  const { machine, commit, dirty, quick, whole, rounds, seconds } = last;
  const rows = full
    .filter(line => line.run === last.run)
    .map(({ tunnel, kind, underlay, metrics }) => ({
      tunnel,
      kind,
      underlay,
      values: Object.fromEntries(Object.entries(metrics).map(([name, { values }]) => [name, values])),
    }));
  return { machine, commit: { commit, dirty }, quick, whole, rounds, seconds, rows };
}

interface StoredRow extends Commit, Omit<Row, 'values'> {
  run: string;
  machine: Machine;
  quick: boolean;
  whole: boolean;
  rounds: number;
  seconds: number;
  metrics: Record<string, { values: Values }>;
}

export const readLastRun = (file: string): Run | undefined => lastRun(readFileSync(file, 'utf8'));

/** What `--quick` prints as its last line. */
export function quickLine(rows: readonly Row[]): string {
  const metrics = ['tcp1Gbps', 'tcp4Gbps', 'rttMs', 'udp64Kpps', 'udp64LossPct', 'cpuPerGb'] as const;
  const list = rows.map(row => {
    const entries = metrics.map(metric => {
      const summary = summaryOf(row, metric);
      return [metric, summary === null ? null : rounded(summary.median, METRICS[metric].digits + 1)];
    });
    return { tunnel: row.tunnel, underlay: row.underlay, ...Object.fromEntries(entries) };
  });
  return JSON.stringify({ rows: list });
}
