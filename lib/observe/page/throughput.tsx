/** The ladder of transports side by side, measured when asked: what batching buys, what offloads buy. */
import type { JSX } from 'preact';
import { LineChart } from './line-chart.tsx';
import { act } from './live.ts';
import type { State } from './store.ts';

const LADDER: readonly (readonly [transport: string, what: string])[] = [
  ['dgram', 'one packet a time, through Node.js’s own UDP socket'],
  ['batch', 'up to 16 packets a turn, many datagrams in one system call'],
  ['offload', 'also super-packets of up to 64 KB, sent as trains'],
];

/** As the bars'. */
const COLOURS: Readonly<Record<string, number>> = { dgram: 3, batch: 2, offload: 1 };

export function ThroughputView({ state }: { state: State }): JSX.Element {
  const { measure, hello } = state;
  const can = hello.actions.includes('measure');
  const runs = measure?.runs ?? [];
  const best = Math.max(
    0.001,
    ...runs.map(({ gbps }) => gbps ?? 0),
    ...runs.flatMap(({ samples }) => samples.map(({ gbps }) => gbps)),
  );
  const known = LADDER.filter(([name]) => hello.transports.length === 0 || hello.transports.includes(name));
  const extra = runs
    .filter(({ transport }) => !known.some(([name]) => name === transport))
    .map(({ transport }) => [transport, 'the same stream without an overlay'] as const);
  const dgram = runs.find(({ transport }) => transport === 'dgram')?.gbps;
  return (
    <div class="throughput-view">
      <section class="card">
        <h2>One TCP stream, pod to pod, on each transport</h2>
        <p class="soft">
          {measure !== undefined && measure.from !== '' && `${measure.from} → ${measure.to}. `}
          The daemons are started again on each transport and keep their leases; the pods stay. Only figures of one run
          can be compared.
        </p>
        {can && hello.mayAct && (
          <p>
            <button
              type="button"
              class="primary"
              disabled={measure?.running === true}
              onClick={() => void act('measure', {})}
            >
              {measure?.running === true ? 'Measuring…' : runs.length === 0 ? 'Measure' : 'Measure again'}
            </button>{' '}
            <span class="soft" role="status">
              {measure?.note}
            </span>
          </p>
        )}
        {!can && <p class="soft">Measuring needs a lab: “tulle lab up” prints the address of its page.</p>}
        {can && !hello.mayAct && (
          <p class="soft">Open the address that the lab printed: it carries the token that the button needs.</p>
        )}
        <div class="bars">
          {[...known, ...extra].map(([transport, what]) => {
            const run = runs.find(each => each.transport === transport);
            const value = run?.gbps ?? run?.samples.at(-1)?.gbps ?? null;
            return (
              <div class="bar-row" key={transport}>
                <div class="bar-name">
                  <strong>{transport}</strong>
                  <span class="soft">{what}</span>
                </div>
                <div class="bar-place">
                  <div class={`bar ${transport}`} style={{ width: `${((value ?? 0) / best) * 100}%` }} />
                  <span class="bar-value">
                    {value === null ? '–' : `${value.toFixed(value < 1 ? 3 : 2)} Gb/s`}
                    {run?.gbps != null && dgram != null && transport !== 'dgram' && (
                      <span class="soft"> · {(run.gbps / dgram).toFixed(1)} × dgram</span>
                    )}
                  </span>
                </div>
              </div>
            );
          })}
        </div>
      </section>
      {runs.some(({ samples }) => samples.length > 1) && (
        <section class="card">
          <h2>As it went</h2>
          <LineChart
            {...chartOf(runs)}
            label="Gigabits per second over the seconds of each measurement"
            time={false}
            span={3.5}
            format={value => `${value.toFixed(1)} Gb/s`}
            height={220}
          />
        </section>
      )}
    </div>
  );
}

/** All runs on one axis of seconds since each one's beginning. */
function chartOf(
  runs: NonNullable<State['measure']>['runs'],
): Pick<Parameters<typeof LineChart>[0], 'names' | 'xs' | 'lines' | 'colours'> {
  const xs = [
    ...new Set(runs.flatMap(({ samples }) => samples.map(({ seconds }) => Math.round(seconds * 10) / 10))),
  ].sort((a, b) => a - b);
  const lines = runs.map(({ samples }) =>
    xs.map(x => samples.find(({ seconds }) => Math.round(seconds * 10) / 10 === x)?.gbps ?? null),
  );
  const colours = runs.map(({ transport }) => COLOURS[transport] ?? 4);
  return { names: runs.map(({ transport }) => transport), xs, lines, colours };
}
