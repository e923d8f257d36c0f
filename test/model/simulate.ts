/**
 * The lease simulation for people:
 *
 *   npm run simulate                               seeds 0 to 199
 *   npm run simulate -- --seeds 5000 --from 1000   others
 *   npm run simulate -- --hours 8                  seeds from a random one on, for 8 hours of this machine's time
 *   npm run simulate -- --nodes 1000               that many nodes, whatever the seed says
 *   npm run simulate -- --replay 17 --trace        one seed again, with every line of its trace
 */
import { parseArgs } from 'node:util';
import { simulate } from './lease-simulation.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    from: { type: 'string' },
    nodes: { type: 'string' },
    hours: { type: 'string' },
    replay: { type: 'string' },
    trace: { type: 'boolean', default: false },
  },
});

/** A number, at least 0; a person mistypes. */
function number(name: 'seeds' | 'from' | 'nodes' | 'hours' | 'replay'): number | undefined {
  const text = values[name];
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text !== '' && Number.isFinite(value) && value >= 0) return value;
  console.error(`--${name}: "${text}" is not a number`);
  process.exit(1);
}

const nodes = number('nodes');
const replay = number('replay');
const hours = number('hours');
const from = replay ?? number('from') ?? (hours === undefined ? 0 : Math.floor(Math.random() * 2 ** 31));
const count = replay !== undefined ? 1 : (number('seeds') ?? (hours === undefined ? 200 : Number.POSITIVE_INFINITY));
const endsAt = performance.now() + (hours ?? Number.POSITIVE_INFINITY) * 3_600_000;

let [done, events, virtualHours, saidAt] = [0, 0, 0, performance.now()];
const began = performance.now();
const tell = (): void => {
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  console.log(`${done} seeds from ${from}, ${events} events, ${virtualHours.toFixed(0)} virtual hours in ${seconds} s`);
};
for (let seed = from; seed < from + count && performance.now() < endsAt; seed++) {
  const more = nodes === undefined ? '' : ` --nodes ${nodes}`;
  const result = await simulate({
    seed,
    ...(nodes !== undefined && { nodes }),
    ...(values.trace && { onLine: (line: string) => console.log(line) }),
  });
  done++;
  events += result.events;
  virtualHours += result.virtualHours;
  if (replay !== undefined) console.log(`seed ${seed}: ${result.kind}, ${result.nodes} nodes, trace ${result.hash}`);
  if (result.violation !== undefined) {
    if (!values.trace) console.log(result.tail.join('\n'));
    console.log(`seed ${seed} (${result.kind}, ${result.nodes} nodes): ${result.violation}`);
    console.log(`see it again: npm run simulate -- --replay ${seed}${more} --trace`);
    tell();
    process.exit(1);
  }
  if (performance.now() - saidAt > 60_000) {
    saidAt = performance.now();
    tell();
  }
}
tell();
