/**
 * Prometheus' text format, version 0.0.4, written straight from what is counted (prometheus.io: Exposition formats). A
 * family is a name with its samples; all families of one page are written by one function, so no two mix.
 */
import type { Histogram } from './histogram.ts';

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

export type MetricType = 'counter' | 'gauge' | 'histogram';
export type Labels = Readonly<Record<string, string>>;

export interface Family {
  name: string;
  type: MetricType;
  /** One sentence. */
  help: string;
  samples: readonly Sample[];
}

export type Sample = { labels?: Labels; value: number } | { labels?: Labels; histogram: Histogram };

/** The whole page, each family with HELP and TYPE; one without samples is left out. */
export function writeMetrics(families: readonly Family[]): string {
  return families
    .filter(({ samples }) => samples.length > 0)
    .map(family => {
      const { name, type, help, samples } = family;
      const head = `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n`;
      return head + samples.map(sample => writeSample(name, sample)).join('');
    })
    .join('');
}

function writeSample(name: string, sample: Sample): string {
  const { labels = {} } = sample;
  if ('value' in sample) return line(name, labels, sample.value);
  const { bounds, count, sum } = sample.histogram;
  const counts = sample.histogram.cumulative();
  return [
    ...bounds.map((bound, place) => line(`${name}_bucket`, { ...labels, le: formatNumber(bound) }, counts[place])),
    line(`${name}_bucket`, { ...labels, le: '+Inf' }, count),
    line(`${name}_sum`, labels, sum),
    line(`${name}_count`, labels, count),
  ].join('');
}

function line(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escapeLabel(text)}"`);
  return `${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${formatNumber(value)}\n`;
}

function formatNumber(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return '+Inf';
  if (value === Number.NEGATIVE_INFINITY) return '-Inf';
  return Number.isNaN(value) ? 'NaN' : String(value);
}

const escapeHelp = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
const escapeLabel = (text: string): string => escapeHelp(text).replaceAll('"', '\\"');
