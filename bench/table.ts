/** Aligned tables for a terminal: the first columns are words, the rest figures. */
import { formatMetric, METRICS, type Metric } from './metrics.ts';
import { type Row, ratioOf, rowOf, summaryOf } from './results.ts';
import type { Underlay } from './underlay.ts';

/** Columns as wide as their widest cell; `words` of them, from the left, are aligned to the left. */
export function formatTable(rows: readonly (readonly string[])[], words: number): string {
  const width = (column: number): number => Math.max(...rows.map(row => [...(row[column] ?? '')].length));
  const widths = (rows[0] ?? []).map((_, column) => width(column));
  const pad = (cell: string, column: number): string => {
    const space = ' '.repeat(widths[column] - [...cell].length);
    return column < words ? cell + space : space + cell;
  };
  return rows.map(row => `${row.map(pad).join('  ').trimEnd()}\n`).join('');
}

/** One of the tables of a run: these metrics of all rows of one underlay, medians with the spread where there is one. */
export function metricsTable(
  rows: readonly Row[],
  underlay: Underlay,
  metrics: readonly Metric[],
  options: { baseline: string; ratio?: Metric },
): string {
  const own = rows.filter(row => row.underlay === underlay);
  const shown = metrics.filter(metric => own.some(row => summaryOf(row, metric) !== null));
  const base = rowOf(rows, options.baseline, underlay);
  const { ratio } = options;
  const titles = shown.map(metric => METRICS[metric].title);
  const units = shown.map(metric => METRICS[metric].unit);
  const head = [
    ['', ...titles, ...(ratio === undefined ? [] : [`× ${options.baseline}`])],
    [`${underlay} underlay`, ...units, ...(ratio === undefined ? [] : [''])],
  ];
  const body = own.map(row => {
    const cells = shown.map(metric => cell(row, metric));
    const factor = ratio === undefined ? null : ratioOf(row, base, ratio);
    return [row.tunnel, ...cells, ...(ratio === undefined ? [] : [factor === null ? '–' : factor.median.toFixed(2)])];
  });
  return formatTable([...head, ...body], 1);
}

/** "9.71 (9.02–10.10)"; without the spread when there was one round, or when it does not show. */
function cell(row: Row, metric: Metric): string {
  const summary = summaryOf(row, metric);
  if (summary === null) return '–';
  const [middle, low, high] = [summary.median, summary.min, summary.max].map(value => formatMetric(metric, value));
  return low === high ? middle : `${middle} (${low}–${high})`;
}

/** All tables of one underlay, split by kind of workload so that they fit a terminal. */
export function tablesOf(rows: readonly Row[], underlay: Underlay, baseline: string): string {
  const of = (metrics: readonly Metric[], ratio?: Metric): string =>
    metricsTable(rows, underlay, metrics, { baseline, ...(ratio !== undefined && { ratio }) });
  const has = (metrics: readonly Metric[]): boolean =>
    metrics.some(metric => rows.some(row => row.underlay === underlay && summaryOf(row, metric) !== null));
  const groups: [Metric[], Metric?][] = [
    [['tcp1Gbps', 'tcp4Gbps', 'cpuPerGb', 'machineCpuPerGb', 'rssMb'], 'tcp1Gbps'],
    [['udp64Kpps', 'udp64LossPct', 'udp64CarriedLossPct', 'udp1400Gbps', 'udp1400LossPct'], 'udp64Kpps'],
    [['rttMs', 'rttP90Ms', 'rttP99Ms', 'rttLoadMs', 'rttLoadP90Ms', 'rttLoadP99Ms', 'connectionsPerSecond'], 'rttMs'],
  ];
  return groups
    .filter(([metrics]) => has(metrics))
    .map(([metrics, ratio]) => of(metrics, ratio))
    .join('\n');
}
