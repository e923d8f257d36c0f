/** Two kinds of chart, both with one line of labels a row, so that long names need no slanting. Pure: data in, SVG out. */
import { element, FAINT, GRID, INK, line, logTicks, picture, rect, text, ticks } from './svg.ts';

export interface ChartHead {
  readonly title: string;
  /** What is compared, and how to read it. */
  readonly subtitle: string;
  /** Of the axis. */
  readonly unit: string;
  /** Where the figures come from. */
  readonly source: string;
}

export interface Series {
  readonly name: string;
  readonly color: string;
}

export interface Bar {
  readonly value: number;
  /** The spread; equal to `value` where there is none. */
  readonly low: number;
  readonly high: number;
}

export interface BarGroup {
  readonly label: string;
  /** One a series; null where it was not measured. */
  readonly bars: readonly (Bar | null)[];
  /** Ours. */
  readonly strong?: boolean;
}

const WIDTH = 860;
const LEFT = 160;
/** Room for a figure beside the longest bar. */
const RIGHT = 80;
const PLOT = WIDTH - LEFT - RIGHT;
const BAR = 14;
const GAP = 12;

export const BLUE = '#2b6cb0';
export const SKY = '#90cdf4';
export const ORANGE = '#dd6b20';
export const SAND = '#fbd38d';

/** Horizontal bars from zero, the spread as a whisker, the value beside each. */
export function barChart(
  head: ChartHead,
  series: readonly Series[],
  groups: readonly BarGroup[],
  digits: number,
): string {
  const most = Math.max(0, ...groups.flatMap(group => group.bars.map(bar => bar?.high ?? 0)));
  const marks = ticks(most);
  const scale = PLOT / marks[marks.length - 1];
  const x = (value: number): number => LEFT + value * scale;
  const parts = header(head, series);
  const top = headerHeight(series) + 8;
  const groupHeight = series.length * BAR + GAP;
  const bottom = top + groups.length * groupHeight;
  for (const mark of marks)
    parts.push(line(x(mark), top, x(mark), bottom, GRID), tickLabel(x(mark), bottom, String(mark)));
  for (const [g, group] of groups.entries()) {
    const y = top + g * groupHeight + GAP / 2;
    parts.push(rowLabel(y + (series.length * BAR) / 2, group.label, group.strong));
    for (const [s, { color }] of series.entries()) {
      const bar = group.bars[s] ?? null;
      const barTop = y + s * BAR;
      const middle = barTop + BAR / 2;
      if (bar === null) {
        parts.push(text(LEFT + 4, middle + 4, 'not measured', { size: 10, fill: FAINT }));
        continue;
      }
      parts.push(rect(LEFT, barTop + 1, Math.max(0.5, bar.value * scale), BAR - 2, color));
      if (bar.high > bar.low) {
        parts.push(line(x(bar.low), middle, x(bar.high), middle, INK, 1.2));
        for (const end of [bar.low, bar.high]) parts.push(line(x(end), middle - 3.5, x(end), middle + 3.5, INK, 1.2));
      }
      parts.push(text(x(Math.max(bar.value, bar.high)) + 6, middle + 4, bar.value.toFixed(digits), { size: 11 }));
    }
  }
  parts.push(line(LEFT, top, LEFT, bottom, FAINT));
  return finish(head, parts, bottom);
}

export interface PercentileRow {
  readonly label: string;
  /** One a series, in the same unit; null where it was not measured. */
  readonly ranges: readonly ({ readonly p50: number; readonly p90: number; readonly p99: number } | null)[];
  readonly strong?: boolean;
}

/** A dot for the median, a thick line to p90, a thin one to p99, on a logarithmic axis. */
export function percentileChart(head: ChartHead, series: readonly Series[], rows: readonly PercentileRow[]): string {
  const values = rows.flatMap(row => row.ranges.flatMap(range => (range === null ? [] : [range.p50, range.p99])));
  const above = values.filter(value => value > 0);
  const marks = above.length === 0 ? [0.1, 1] : logTicks(Math.min(...above), Math.max(...above));
  const [low, high] = [Math.log10(marks[0]), Math.log10(marks[marks.length - 1])];
  const scale = PLOT / Math.max(1e-9, high - low);
  const x = (value: number): number => LEFT + (Math.log10(Math.max(value, marks[0])) - low) * scale;
  const parts = header(head, series);
  const top = headerHeight(series) + 8;
  const rowHeight = series.length * BAR + GAP;
  const bottom = top + rows.length * rowHeight;
  for (const mark of marks)
    parts.push(line(x(mark), top, x(mark), bottom, GRID), tickLabel(x(mark), bottom, String(mark)));
  for (const [r, row] of rows.entries()) {
    const y = top + r * rowHeight + GAP / 2;
    parts.push(rowLabel(y + (series.length * BAR) / 2, row.label, row.strong));
    for (const [s, { color }] of series.entries()) {
      const range = row.ranges[s] ?? null;
      const middle = y + s * BAR + BAR / 2;
      if (range === null) continue;
      parts.push(line(x(range.p50), middle, x(range.p99), middle, color, 1.5));
      parts.push(line(x(range.p50), middle, x(range.p90), middle, color, 5));
      parts.push(line(x(range.p99), middle - 4, x(range.p99), middle + 4, color, 1.5));
      parts.push(element('circle', { cx: x(range.p50), cy: middle, r: 4.5, fill: color, stroke: '#ffffff' }));
      parts.push(text(x(range.p99) + 6, middle + 4, range.p50.toFixed(3), { size: 11 }));
    }
  }
  parts.push(line(LEFT, top, LEFT, bottom, FAINT));
  return finish(head, parts, bottom);
}

/** Of a letter of the legend, on average. */
const LETTER = 6.8;
const LEGEND_LINE = 20;

/** The series' names from left to right, on as many lines as they need. */
function legend(series: readonly Series[]): { x: number; line: number; series: Series }[] {
  let x = 20;
  let row = 0;
  return series.map(each => {
    const width = 44 + each.name.length * LETTER;
    if (x > 20 && x + width > WIDTH) {
      x = 20;
      row++;
    }
    const place = { x, line: row, series: each };
    x += width;
    return place;
  });
}

const headerHeight = (series: readonly Series[]): number =>
  series.length > 1 ? 88 + LEGEND_LINE * Math.max(...legend(series).map(place => place.line)) : 62;

function header({ title, subtitle }: ChartHead, series: readonly Series[]): string[] {
  const parts = [text(20, 30, title, { size: 18, weight: 'bold' }), text(20, 50, subtitle, { size: 12, fill: FAINT })];
  if (series.length < 2) return parts;
  for (const { x, line: row, series: each } of legend(series)) {
    const y = 66 + row * LEGEND_LINE;
    parts.push(rect(x, y, 12, 12, each.color), text(x + 18, y + 10, each.name, { size: 12 }));
  }
  return parts;
}

const tickLabel = (x: number, bottom: number, words: string): string =>
  text(x, bottom + 16, words, { size: 11, anchor: 'middle', fill: FAINT });

const rowLabel = (middle: number, label: string, strong = false): string =>
  text(LEFT - 10, middle + 4, label, { anchor: 'end', weight: strong ? 'bold' : 'normal' });

function finish(head: ChartHead, parts: string[], bottom: number): string {
  parts.push(text(LEFT + PLOT / 2, bottom + 36, head.unit, { size: 12, anchor: 'middle' }));
  parts.push(text(20, bottom + 62, head.source, { size: 10, fill: FAINT }));
  return picture(WIDTH, bottom + 76, head.title, parts);
}
