#!/usr/bin/env node
/**
 * Does tulled grow? Ten minutes of TCP at full speed, small packets and short connections through it, its resident memory
 * sampled all the while. `npm run bench:soak [-- --seconds S] [--tunnel NAME]`
 */
import { setTimeout as delay } from 'node:timers/promises';
import { parseOptions } from '../lib/lab/options.ts';
import type { ProcessId } from '../lib/lab/process.ts';
import * as store from '../lib/lab/state.ts';
import { hasRemains, tearDown } from '../lib/lab/teardown.ts';
import { messageOf, TulleError } from '../lib/util/errors.ts';
import { residentMb } from './cpu.ts';
import { type Growth, growthOf, type Sample } from './growth.ts';
import { connectionsPerSecond } from './load/connect.ts';
import { iperf } from './load/iperf.ts';
import { type Found, findProgram } from './programs.ts';
import { benchRoot, buildStage, checkAlive, type Stage, waitForPods } from './stage.ts';
import { TUNNELS } from './tunnels/all.ts';
import { down, type Made } from './tunnels/tunnel.ts';

const HELP = `Loads tulled for ten minutes and watches its memory. As root. Exit code 1 when it grows.

  npm run bench:soak
  npm run bench:soak -- --seconds 60 --tunnel tulle-udp

options:
  --seconds S       10 to 36000 (default 600)
  --tunnel NAME     ${TUNNELS.filter(({ name }) => name.startsWith('tulle'))
    .map(({ name }) => name)
    .join(', ')} (default tulle)
`;

const SAMPLE_MS = 1000;
/** Of each load in turn, at most. */
const TURN_SECONDS = 5;
const NAME = 'soak';
const note = (text: string): void => void process.stderr.write(`soak: ${text}\n`);

async function main(args: readonly string[]): Promise<number> {
  const words = TUNNELS.map(({ name }) => name).filter(name => name.startsWith('tulle'));
  const table = { help: { flag: true }, seconds: { numbers: [10, 36_000] }, tunnel: { words } } as const;
  const options = parseOptions(args, table, 'npm run bench:soak -- --help');
  if (options.flags.has('help')) {
    process.stdout.write(HELP);
    return 0;
  }
  const seconds = options.numbers.get('seconds') ?? 600;
  const tunnel = TUNNELS.find(({ name }) => name === (options.values.get('tunnel') ?? 'tulle'))!;
  const iperf3 = await findProgram({ package: 'iperf3', program: 'iperf3' }, { limitMs: 60_000, fetch: true });
  if (typeof iperf3 === 'string') throw new TulleError('nothing', `the soak needs iperf3: ${iperf3}`);

  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => ending.abort(new TulleError('interrupted', `ended by ${signal}`)));
  }
  const root = benchRoot();
  store.ensureStateRoot(root, false);
  const lock = store.takeLock(root, NAME);
  if (lock === undefined) throw new TulleError('running', 'a soak is running already: wait for it');
  try {
    if (hasRemains(root, NAME)) await tearDown(root, NAME);
    const stage = buildStage(root, NAME);
    const made: Made = { programs: [], found: undefined };
    await tunnel.up(stage, made);
    await waitForPods(stage, made.programs, ending.signal);
    const samples = await soak(stage, made, iperf3, seconds, ending.signal);
    await down(stage, made);
    return report(samples, seconds);
  } finally {
    if (hasRemains(root, NAME)) await tearDown(root, NAME);
    store.releaseLock(root, NAME, lock);
    store.removeStateRoot(root);
  }
}

/** Samples of each daemon, in the order of the nodes. */
async function soak(
  stage: Stage,
  made: Made,
  iperf3: Found,
  duration: number,
  signal: AbortSignal,
): Promise<Sample[][]> {
  const [from, to] = [stage.nodes[0].pod, stage.nodes[1].pod];
  const start = performance.now();
  const endsAt = start + duration * 1000;
  const ids: ProcessId[] = made.programs.map(program => program.id);
  const samples: Sample[][] = ids.map(() => []);
  const turn = Math.min(TURN_SECONDS, Math.ceil(duration / 10));
  const loads = [
    () => iperf(iperf3, from, to, { seconds: turn, streams: 4 }, signal),
    () => iperf(iperf3, to, from, { seconds: turn }, signal),
    () => iperf(iperf3, from, to, { seconds: turn, udp: { bytes: 64, bitsPerSecond: 300e6 } }, signal),
    () => connectionsPerSecond(from, to, turn, signal),
  ];
  const load = async (): Promise<void> => {
    for (let i = 0; performance.now() < endsAt; i++) {
      try {
        await loads[i % loads.length]();
      } catch (error) {
        signal.throwIfAborted();
        checkAlive(made.programs);
        note(messageOf(error));
      }
    }
  };
  const watch = async (): Promise<void> => {
    for (let tick = 0; performance.now() < endsAt; tick++) {
      const seconds = (performance.now() - start) / 1000;
      for (const [i, id] of ids.entries()) samples[i].push({ seconds, mb: residentMb(id) });
      if (tick % 30 === 0)
        note(`${seconds.toFixed(0)} s: ${samples.map(of => `${of.at(-1)?.mb.toFixed(1)} MB`).join(', ')}`);
      await delay(SAMPLE_MS, undefined, { signal });
    }
  };
  const loading = load();
  loading.catch(() => {});
  await watch();
  await loading;
  return samples;
}

function report(samples: readonly (readonly Sample[])[], seconds: number): number {
  const growths = samples.map(of => growthOf(of)).filter((growth): growth is Growth => growth !== undefined);
  for (const [i, { earlyMb, lateMb, mostMb, grows }] of growths.entries()) {
    const change = `${earlyMb.toFixed(1)} MB in the second quarter, ${lateMb.toFixed(1)} MB in the last`;
    process.stdout.write(
      `tulled on node${i + 1}: ${change}, at most ${mostMb.toFixed(1)} MB: ${grows ? 'GROWS' : 'does not grow'}\n`,
    );
  }
  process.stdout.write(`${JSON.stringify({ seconds, daemons: growths })}\n`);
  return growths.length < 2 || growths.some(({ grows }) => grows) ? 1 : 0;
}

main(process.argv.slice(2)).then(
  code => process.exit(code),
  error => {
    process.stderr.write(`soak: ${messageOf(error)}\n`);
    process.exit(1);
  },
);
