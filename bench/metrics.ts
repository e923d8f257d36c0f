/** What is measured, in one table: names as in the JSON lines, units, how a figure is written, which way is better. */

export interface MetricSpec {
  /** Heading of the table's column. */
  readonly title: string;
  readonly unit: string;
  readonly digits: number;
  readonly better: 'higher' | 'lower';
}

export const METRICS = {
  tcp1Gbps: { title: 'TCP 1', unit: 'Gb/s', digits: 2, better: 'higher' },
  tcp4Gbps: { title: 'TCP 4', unit: 'Gb/s', digits: 2, better: 'higher' },
  tcp1Retransmits: { title: 'TCP 1 retr', unit: 'segments', digits: 0, better: 'lower' },
  rttMs: { title: 'RTT p50', unit: 'ms', digits: 3, better: 'lower' },
  rttP90Ms: { title: 'RTT p90', unit: 'ms', digits: 3, better: 'lower' },
  rttP99Ms: { title: 'RTT p99', unit: 'ms', digits: 3, better: 'lower' },
  rttLoadMs: { title: 'load p50', unit: 'ms', digits: 3, better: 'lower' },
  rttLoadP90Ms: { title: 'load p90', unit: 'ms', digits: 3, better: 'lower' },
  rttLoadP99Ms: { title: 'load p99', unit: 'ms', digits: 3, better: 'lower' },
  udp64Kpps: { title: 'UDP 64 B', unit: 'kpps', digits: 1, better: 'higher' },
  udp64LossPct: { title: 'lost', unit: '%', digits: 1, better: 'lower' },
  udp64CarriedLossPct: { title: 'lost at VXLAN rate', unit: '%', digits: 1, better: 'lower' },
  udp1400Gbps: { title: 'UDP 1400 B', unit: 'Gb/s', digits: 2, better: 'higher' },
  udp1400LossPct: { title: 'lost', unit: '%', digits: 1, better: 'lower' },
  connectionsPerSecond: { title: 'connections', unit: '1/s', digits: 0, better: 'higher' },
  cpuPerGb: { title: 'CPU', unit: 's/Gb', digits: 3, better: 'lower' },
  machineCpuPerGb: { title: 'machine', unit: 's/Gb', digits: 3, better: 'lower' },
  rssMb: { title: 'memory', unit: 'MB', digits: 0, better: 'lower' },
} as const satisfies Record<string, MetricSpec>;

export type Metric = keyof typeof METRICS;
/** What one visit to one tunnel gave. A metric that was not measured is missing; one that failed is null. */
export type Measured = Partial<Record<Metric, number | null>>;

export const METRIC_NAMES = Object.keys(METRICS) as Metric[];

/** A figure as people read it; "–" for none. */
export function formatMetric(metric: Metric, value: number | null | undefined): string {
  return value === null || value === undefined ? '–' : value.toFixed(METRICS[metric].digits);
}
