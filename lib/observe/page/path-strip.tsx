/** The way from pod to pod as a drawing: where the kernel ends and tulled begins, and where the packet is now. */
import type { JSX } from 'preact';
import type { Station, Step } from '../microscope/steps.ts';

const WIDTH = 1000;
const HEIGHT = 132;
const KERNEL = 96;
const USER = 40;

/** Places of the near side; the far side mirrors them. */
const NEAR_X: Readonly<Record<Station, number>> = {
  pod: 52,
  bridge: 148,
  tun: 236,
  tulled: 312,
  eth0: 396,
  wire: WIDTH / 2,
};
const LABELS: Readonly<Record<Station, string>> = {
  pod: 'pod',
  bridge: 'cni0',
  tun: 'tulle0',
  tulled: 'tulled',
  eth0: 'eth0',
  wire: '',
};
const ORDER: readonly Station[] = ['pod', 'bridge', 'tun', 'tulled', 'eth0'];

const xOf = (side: Step['side'], station: Station): number =>
  side === 'far' ? WIDTH - NEAR_X[station] : NEAR_X[station];
const yOf = (station: Station): number => (station === 'tulled' ? USER : KERNEL);

const WAY = [
  ...ORDER.map(station => ['near', station] as const),
  ...[...ORDER].reverse().map(station => ['far', station] as const),
]
  .map(([side, station], i) => `${i === 0 ? 'M' : 'L'}${xOf(side, station)} ${yOf(station)}`)
  .join(' ');

interface Props {
  steps: readonly Step[];
  at: number;
  go: (index: number) => void;
  names: { near: string; far: string };
}

export function PathStrip({ steps, at, go, names }: Props): JSX.Element {
  const step = steps[at];
  const nearNode = steps.find(({ side, node }) => side === 'near' && node !== '')?.node ?? 'node';
  const farNode = steps.find(({ side, node }) => side === 'far' && node !== '')?.node ?? 'other node';
  const [x, y] = [xOf(step.side, step.station), yOf(step.station)];
  return (
    <div class="path">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`The packet is at: ${step.title}`}>
        <NodeBox x={104} width={336} name={nearNode} />
        <NodeBox x={WIDTH - 104 - 336} width={336} name={farNode} />
        <text x={WIDTH / 2} y={KERNEL - 22} class="label soft" text-anchor="middle">
          underlay
        </text>
        <path d={WAY} class="way" />
        <path d={partOfWay(steps, at)} class={step.drop === undefined ? 'way done' : 'way done bad'} />
        {(['near', 'far'] as const).flatMap(side =>
          ORDER.map(station => {
            const index = indexOf(steps, side, station, at);
            const label = station === 'pod' ? (side === 'near' ? names.near : names.far) : LABELS[station];
            const here = step.side === side && step.station === station;
            return (
              <g
                key={`${side} ${station}`}
                class={`station ${station === 'tulled' ? 'user' : ''} ${here ? 'here' : ''} ${index === undefined ? '' : 'known'}`}
                onClick={() => index !== undefined && go(index)}
              >
                <circle cx={xOf(side, station)} cy={yOf(station)} r={9} />
                <text
                  x={xOf(side, station)}
                  y={yOf(station) + (station === 'tulled' ? -17 : 27)}
                  text-anchor="middle"
                  class="label"
                >
                  {label}
                </text>
              </g>
            );
          }),
        )}
        <g class={step.drop === undefined ? 'packet' : 'packet bad'} style={{ transform: `translate(${x}px, ${y}px)` }}>
          <Packet step={step} />
        </g>
      </svg>
      <ol class="steps" aria-label="Steps">
        {steps.map((each, i) => (
          <li key={each.id}>
            <button
              type="button"
              aria-current={i === at ? 'step' : undefined}
              class={each.drop === undefined ? '' : 'bad'}
              aria-label={`Step ${i + 1}: ${each.title}`}
              title={each.title}
              onClick={() => go(i)}
            />
          </li>
        ))}
      </ol>
    </div>
  );
}

function NodeBox({ x, width, name }: { x: number; width: number; name: string }): JSX.Element {
  return (
    <g class="node-box">
      <rect x={x} y={4} width={width} height={HEIGHT - 8} rx={10} />
      <line x1={x + 8} x2={x + width - 8} y1={66} y2={66} />
      <text x={x + 12} y={22} class="label strong">
        {name}
      </text>
      <text x={x + width - 12} y={22} class="label tiny" text-anchor="end">
        programs
      </text>
      <text x={x + width - 12} y={79} class="label tiny" text-anchor="end">
        kernel
      </text>
    </g>
  );
}

/** The packet as a stack of its layers, small; the widths are the headers' bytes. */
function Packet({ step }: { step: Step }): JSX.Element {
  const layers = step.layers.slice(0, 7);
  const widths = layers.map(layer => (layer.kind === 'data' ? 16 : Math.max(5, Math.min(12, layer.length * 0.5))));
  const total = widths.reduce((sum, width) => sum + width, 0);
  let left = -total / 2;
  return (
    <g>
      <rect x={left - 3} y={-9} width={total + 6} height={18} rx={4} class="packet-frame" />
      {layers.map((layer, i) => {
        const x = left;
        left += widths[i];
        return (
          <rect
            key={`${layer.kind} ${layer.offset}`}
            x={x}
            y={-6}
            width={widths[i] - 1}
            height={12}
            rx={1.5}
            class={`fill ${layer.kind}`}
          />
        );
      })}
    </g>
  );
}

/** The step that is at a station; of several the nearest one to where we are. */
function indexOf(steps: readonly Step[], side: Step['side'], station: Station, at: number): number | undefined {
  const found = steps.flatMap((step, i) => (step.side === side && step.station === station ? [i] : []));
  return found.sort((a, b) => Math.abs(a - at) - Math.abs(b - at))[0];
}

function partOfWay(steps: readonly Step[], at: number): string {
  const points: string[] = [];
  const all = [
    ...ORDER.map(station => ['near', station] as const),
    ['wire', 'wire'] as const,
    ...[...ORDER].reverse().map(station => ['far', station] as const),
  ];
  const { side, station } = steps[at];
  const begin = steps[0];
  const from = all.findIndex(([s, p]) => s === begin.side && p === begin.station);
  const to = all.findIndex(([s, p]) => s === side && p === station);
  for (const [s, p] of all.slice(Math.max(0, from), to + 1))
    points.push(`${points.length === 0 ? 'M' : 'L'}${xOf(s, p)} ${yOf(p)}`);
  return points.join(' ');
}
