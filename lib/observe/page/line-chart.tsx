/** A line chart: uPlot's, with the page's colours, following its place's width. */
import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';

interface Props {
  label: string;
  names: readonly string[];
  /** Seconds: since 1970 when `time`, else since the beginning. */
  xs: readonly number[];
  lines: readonly (readonly (number | null)[])[];
  time: boolean;
  /** Of the x axis, in seconds, at least. */
  span: number;
  /** Numbers of the colours, 1 to 6; default: in order. */
  colours?: readonly number[];
  format: (value: number) => string;
  height: number;
}

export const LINE_COLOURS = 6;

export function LineChart({ label, names, xs, lines, time, span, colours, format, height }: Props): JSX.Element {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | undefined>(undefined);
  const data: uPlot.AlignedData = [[...xs], ...lines.map(line => [...line])];
  const names_ = names.join(' ');
  const colourOf = (i: number): number => colours?.[i] ?? (i % LINE_COLOURS) + 1;
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const style = getComputedStyle(element);
    const colour = (name: string): string => style.getPropertyValue(name).trim();
    const axis: uPlot.Axis = {
      space: 70,
      stroke: colour('--soft'),
      grid: { stroke: colour('--line'), width: 1 },
      ticks: { show: false },
      font: '12px system-ui, sans-serif',
    };
    const options: uPlot.Options = {
      width: element.clientWidth,
      height,
      cursor: { show: false },
      legend: { show: false },
      scales: {
        x: { time, range: (_, __, most) => (time ? [most - span, most] : [0, Math.max(span, most ?? 0)]) },
        y: { range: (_, __, most) => [0, Math.max(1, (most ?? 0) * 1.15)] },
      },
      axes: [
        {
          ...axis,
          ...(time
            ? {
                values: (_: uPlot, ticks: number[]) =>
                  ticks.map(tick => new Date(tick * 1000).toISOString().slice(11, 19)),
              }
            : { values: (_: uPlot, ticks: number[]) => ticks.map(tick => `${tick} s`) }),
        },
        { ...axis, space: 34, size: 78, values: (_, ticks) => ticks.map(format) },
      ],
      series: [
        {},
        ...names.map(
          (name, i): uPlot.Series => ({
            label: name,
            stroke: colour(`--line-${colourOf(i)}`),
            width: 2,
            points: { show: false },
            spanGaps: true,
          }),
        ),
      ],
    };
    const made = new uPlot(options, data, element);
    chart.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
    // The data come by setData; a theme's change is rare and is followed at the next start.
  }, [names_, height, time, document.documentElement.dataset['theme']]);
  useEffect(() => chart.current?.setData(data), [data]);
  return (
    <div class="chart">
      <div ref={place} role="img" aria-label={label} style={{ height: `${height}px` }} />
      <ul class="legend">
        {names.map((name, i) => (
          <li key={name}>
            <span class={`swatch line-${colourOf(i)}`} aria-hidden="true" />
            {name}
          </li>
        ))}
      </ul>
    </div>
  );
}
