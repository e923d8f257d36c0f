/** Which pictures a run gives, and from which of its figures. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type BarGroup, BLUE, barChart, ORANGE, percentileChart, SAND, type Series, SKY } from './charts.ts';
import { METRICS, type Metric } from './metrics.ts';
import { type Row, type Run, rowOf, summaryOf } from './results.ts';
import { UNDERLAYS, type Underlay } from './underlay.ts';

/** The plots of a run by file name; one that the run has no figures for is missing. */
export function plotsOf(run: Run): Map<string, string> {
  const { machine, commit, rounds, seconds } = run;
  const day = machine.date.slice(0, 10);
  const source = `${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}, Node.js ${machine.node} · ${rounds} rounds of ${seconds} s · commit ${commit.commit ?? 'unknown'} · ${day}`;
  const plots = new Map<string, string>();
  const put = (name: string, svg: string | undefined): void => void (svg !== undefined && plots.set(name, svg));
  for (const underlay of UNDERLAYS) {
    const bars = (title: string, subtitle: string, list: readonly (readonly [Metric, Series])[]): string | undefined =>
      barsOf(run.rows, underlay, { title: `${title}, ${UNDERLAY_WORDS[underlay]}`, subtitle, source }, list);
    put(
      `tcp-${underlay}.svg`,
      bars('TCP throughput', 'Pod to pod; higher is better; bars are medians, whiskers the spread over the rounds', [
        ['tcp1Gbps', { name: '1 stream', color: BLUE }],
        ['tcp4Gbps', { name: '4 streams', color: SKY }],
      ]),
    );
    put(
      `udp-${underlay}.svg`,
      bars('Small packets', 'UDP with 64 bytes of payload, 300 Mb/s offered: delivered; higher is better', [
        ['udp64Kpps', { name: 'delivered', color: BLUE }],
      ]),
    );
    put(
      `cpu-${underlay}.svg`,
      bars('CPU time of one gigabit', 'TCP, 1 stream; lower is better; user and system', [
        ['cpuPerGb', { name: 'the tunnel: its processes, or the kernel less the generator', color: ORANGE }],
        ['machineCpuPerGb', { name: 'the whole machine, generator included', color: SAND }],
      ]),
    );
    put(`rtt-${underlay}.svg`, rttOf(run.rows, underlay, source));
  }
  put('ladder.svg', ladderOf(run.rows, source));
  return plots;
}

export function drawPlots(run: Run, folder: string): string[] {
  mkdirSync(folder, { recursive: true });
  return [...plotsOf(run)].map(([name, svg]) => {
    const file = join(folder, name);
    writeFileSync(file, svg);
    return file;
  });
}

const UNDERLAY_WORDS: Readonly<Record<Underlay, string>> = { veth: 'veth underlay', nic: 'NIC-like underlay' };
/** Ladder rungs have a picture of their own. */
const isRung = ({ tunnel }: Row): boolean => /-(batch|dgram)$/.test(tunnel);

function barOf(row: Row | undefined, metric: Metric): { value: number; low: number; high: number } | null {
  const summary = summaryOf(row, metric);
  return summary === null ? null : { value: summary.median, low: summary.min, high: summary.max };
}

function barsOf(
  rows: readonly Row[],
  underlay: Underlay,
  head: { title: string; subtitle: string; source: string },
  list: readonly (readonly [Metric, Series])[],
): string | undefined {
  const groups = rows
    .filter(row => row.underlay === underlay && !isRung(row))
    .map((row): BarGroup => {
      const bars = list.map(([metric]) => barOf(row, metric));
      return { label: row.tunnel, bars, strong: row.tunnel.startsWith('tulle') };
    })
    .filter(({ bars }) => bars.some(bar => bar !== null));
  if (groups.length === 0) return undefined;
  const { unit, digits } = METRICS[list[0][0]];
  return barChart(
    { ...head, unit: UNIT_WORDS[unit] ?? unit },
    list.map(([, series]) => series),
    groups,
    digits,
  );
}

const UNIT_WORDS: Readonly<Record<string, string>> = {
  kpps: 'thousand packets a second',
  's/Gb': 'CPU seconds per gigabit',
};

function rttOf(rows: readonly Row[], underlay: Underlay, source: string): string | undefined {
  const range = (row: Row, [p50, p90, p99]: readonly [Metric, Metric, Metric]) => {
    const [a, b, c] = [p50, p90, p99].map(metric => summaryOf(row, metric)?.median);
    return a === undefined || b === undefined || c === undefined ? null : { p50: a, p90: b, p99: c };
  };
  const list = rows
    .filter(row => row.underlay === underlay && !isRung(row))
    .map(row => ({
      label: row.tunnel,
      ranges: [
        range(row, ['rttMs', 'rttP90Ms', 'rttP99Ms']),
        range(row, ['rttLoadMs', 'rttLoadP90Ms', 'rttLoadP99Ms']),
      ],
      strong: row.tunnel.startsWith('tulle'),
    }))
    .filter(({ ranges }) => ranges.some(each => each !== null));
  if (list.length === 0) return undefined;
  const head = {
    title: `Round trips, ${UNDERLAY_WORDS[underlay]}`,
    subtitle:
      'Ping from pod to pod every 2 ms: dot p50 (the figure), thick line to p90, thin line to p99; left is better',
    unit: 'ms, logarithmic',
    source,
  };
  const series = [
    { name: 'idle', color: BLUE },
    { name: 'beside one TCP stream at full speed', color: ORANGE },
  ];
  return percentileChart(head, series, list);
}

const RUNGS = [
  ['dgram', 'dgram: one packet a time, node:dgram'],
  ['batch', 'batch: many packets a system call'],
  ['offload', 'offload: trains and super-packets'],
] as const;

/** What each technique buys: the transports of tulled, in both wire formats, on both underlays. */
function ladderOf(rows: readonly Row[], source: string): string | undefined {
  const formats = [
    ['tulle', 'tulle header'],
    ['tulle-udp', 'flannel udp'],
  ] as const;
  const colors = ['#cbd5e0', SKY, BLUE];
  const groups = UNDERLAYS.flatMap(underlay =>
    formats.map(([prefix, words]): BarGroup => {
      const nameOf = (transport: string): string => (transport === 'offload' ? prefix : `${prefix}-${transport}`);
      const bars = RUNGS.map(([transport]) => barOf(rowOf(rows, nameOf(transport), underlay), 'tcp1Gbps'));
      return { label: `${underlay}, ${words}`, bars };
    }),
  ).filter(({ bars }) => bars.filter(bar => bar !== null).length > 1);
  if (groups.length === 0) return undefined;
  const series = RUNGS.map(([, name], i) => ({ name, color: colors[i] }));
  const head = {
    title: 'The transport ladder: what each technique buys',
    subtitle: 'TCP, 1 stream, pod to pod through tulled; higher is better',
    unit: 'Gb/s',
    source,
  };
  return barChart(head, series, groups, METRICS.tcp1Gbps.digits);
}
