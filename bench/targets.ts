/** What tulle wants to reach, as ratios within one run; and what a run says about it. Pure. */
import type { Metric } from './metrics.ts';
import { type Row, ratioOf, rowOf, summaryOf } from './results.ts';
import { formatTable } from './table.ts';
import type { Underlay } from './underlay.ts';

interface Verdict {
  readonly what: string;
  readonly target: string;
  readonly measured: string;
  readonly result: 'ok' | 'missed' | '–';
}

interface Target {
  readonly what: string;
  readonly target: string;
  /** A figure and whether it is good enough; undefined when the run has not measured it. */
  judge(rows: readonly Row[]): { text: string; ok: boolean } | undefined;
}

/** metric of `a` / metric of `b` is at least (or at most) so much. */
function ratio(
  what: string,
  [a, b]: readonly [string, string],
  metric: Metric,
  limit: { least: number } | { most: number },
  underlay: Underlay = 'veth',
): Target {
  const unit = `× ${b}`;
  const target = 'least' in limit ? `≥ ${limit.least} ${unit}` : `≤ ${limit.most} ${unit}`;
  return {
    what,
    target,
    judge(rows) {
      const found = ratioOf(rowOf(rows, a, underlay), rowOf(rows, b, underlay), metric);
      if (found === null) return undefined;
      const text = `${found.median.toFixed(3)} (${found.min.toFixed(3)}–${found.max.toFixed(3)})`;
      return { text, ok: 'least' in limit ? found.median >= limit.least : found.median <= limit.most };
    },
  };
}

/** The median of a metric is at most so much. */
function atMost(what: string, tunnel: string, metric: Metric, most: number, unit: string): Target {
  return {
    what,
    target: `≤ ${most} ${unit}`,
    judge(rows) {
      const found = summaryOf(rowOf(rows, tunnel, 'veth'), metric);
      if (found === null) return undefined;
      return { text: `${found.median.toFixed(1)} ${unit} (up to ${found.max.toFixed(1)})`, ok: found.median <= most };
    },
  };
}

const leastCpu: Target = {
  what: 'CPU per gigabit, veth underlay',
  target: 'best of the user-space ones',
  judge(rows) {
    const cost = (row: Row | undefined): number | undefined => summaryOf(row, 'cpuPerGb')?.median;
    const own = cost(rowOf(rows, 'tulle', 'veth'));
    const others = rows
      .filter(({ kind, underlay }) => kind === 'user' && underlay === 'veth')
      // The floor carries packets for nobody.
      .filter(({ tunnel }) => !tunnel.startsWith('tulle') && tunnel !== 'floor')
      .flatMap(row => {
        const value = cost(row);
        return value === undefined ? [] : [{ tunnel: row.tunnel, value }];
      })
      .sort((a, b) => a.value - b.value);
    if (own === undefined || others.length === 0) return undefined;
    const [best] = others;
    const text = `${own.toFixed(3)} s/Gb, the best other ${best.value.toFixed(3)} (${best.tunnel})`;
    return { text, ok: own <= best.value };
  },
};

const OURS: readonly [string, string] = ['tulle', 'vxlan'];

/** Issue 3's table, then what it calls stretch. */
export const TARGETS: readonly Target[] = [
  ratio('TCP, 1 stream, veth underlay', OURS, 'tcp1Gbps', { least: 0.5 }),
  ratio('  stretch', OURS, 'tcp1Gbps', { least: 0.7 }),
  ratio('TCP, 1 stream, NIC-like underlay', OURS, 'tcp1Gbps', { least: 0.85 }, 'nic'),
  ratio('  stretch', OURS, 'tcp1Gbps', { least: 1 }, 'nic'),
  ratio('TCP, 1 stream, against fastd null', ['tulle', 'fastd'], 'tcp1Gbps', { least: 8 }),
  ratio('TCP, 1 stream, against quicktun raw', ['tulle', 'quicktun'], 'tcp1Gbps', { least: 7 }),
  ratio('UDP, 64 bytes at 300 Mb/s: delivered', OURS, 'udp64Kpps', { least: 0.9 }),
  atMost('UDP, 64 bytes at a rate that VXLAN carries: lost', 'tulle', 'udp64CarriedLossPct', 10, '%'),
  ratio('round trip, idle', ['tulle', 'fastd'], 'rttMs', { most: 1 }),
  ratio("flannel's wire format, TCP, 1 stream", ['tulle-udp', 'vxlan'], 'tcp1Gbps', { least: 0.125 }),
  leastCpu,
  atMost('memory of one tulled at its highest', 'tulle', 'rssMb', 120, 'MB'),
];

export function verdicts(rows: readonly Row[], targets: readonly Target[] = TARGETS): Verdict[] {
  return targets.map(({ what, target, judge }) => {
    const found = judge(rows);
    const result = found === undefined ? '–' : found.ok ? 'ok' : 'missed';
    return { what, target, measured: found?.text ?? 'not measured', result };
  });
}

export function targetsTable(rows: readonly Row[]): string {
  const body = verdicts(rows).map(({ what, target, measured, result }) => [what, target, measured, result]);
  return formatTable([['target', '', 'measured: median (spread)', ''], ...body], 4);
}
