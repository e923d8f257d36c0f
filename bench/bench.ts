#!/usr/bin/env node
/** The bench: stage, rounds, results; and everything gone at the end, whichever end that is. */
import { join } from 'node:path';
import { packageRoot } from '../lib/lab/spawn.ts';
import * as store from '../lib/lab/state.ts';
import { hasRemains, tearDown } from '../lib/lab/teardown.ts';
import { codeOf, messageOf, TulleError } from '../lib/util/errors.ts';
import { busyWarning, describeCommit, describeMachine, machineLine } from './machine.ts';
import { type BenchOptions, HELP_TEXT, parseBenchOptions } from './options.ts';
import { drawPlots } from './plots.ts';
import { appendResults, quickLine, type Run, readLastRun } from './results.ts';
import { findTools, type Outcome, type Plan, runRounds } from './rounds.ts';
import { benchRoot, buildStage } from './stage.ts';
import { tablesOf } from './table.ts';
import { targetsTable } from './targets.ts';
import { BASELINE } from './tunnels/all.ts';
import { UNDERLAYS } from './underlay.ts';

/** `--quick` ends within 2 minutes, with room for a build before it: no visit begins after the first, none lasts beyond the second. */
const QUICK_MS = 80_000;
const QUICK_ABORT_MS = 98_000;
const QUICK_FETCH_MS = 12_000;
const FETCH_MS = 60_000;

const note = (text: string): void => void process.stderr.write(`bench: ${text}\n`);

async function main(args: readonly string[]): Promise<number> {
  const options = parseBenchOptions(args);
  if (options.help) {
    process.stdout.write(HELP_TEXT);
    return 0;
  }
  const out = options.out ?? join(packageRoot(), 'bench');
  if (options.draw) return drawAgain(out);
  if (process.getuid!() !== 0) {
    throw new TulleError('root', 'the bench makes network namespaces: run it as root');
  }
  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => ending.abort(new TulleError('interrupted', `ended by ${signal}`)));
  }
  const machine = await describeMachine();
  note(machineLine(machine));
  const warning = busyWarning(machine);
  if (warning !== undefined) note(warning);

  const { rows, rounds } = await onStage(options, ending);
  if (ending.signal.aborted && codeOf(ending.signal.reason) !== 'time') throw ending.signal.reason;
  if (rows.length === 0) throw new TulleError('nothing', 'nothing could be measured: the lines above say why');
  const { quick, seconds, whole } = options;
  const run: Run = { machine, commit: describeCommit(), quick, whole, rounds, seconds, rows };
  appendResults(join(out, 'results.jsonl'), run, BASELINE);
  process.stdout.write(`${report(run, warning)}\n`);
  if (whole) for (const file of drawPlots(run, join(out, 'plots'))) note(`drew ${file}`);
  if (quick) process.stdout.write(`${quickLine(rows)}\n`);
  return 0;
}

/** The rounds between a lock and a removal. What was measured before an interruption is returned. */
async function onStage(options: BenchOptions, ending: AbortController): Promise<Outcome> {
  const root = benchRoot();
  const { name, quick } = options;
  store.ensureStateRoot(root, false);
  const lock = store.takeLock(root, name);
  if (lock === undefined) {
    throw new TulleError(
      'running',
      `a bench named "${name}" is running already: wait for it, or give this one a --name`,
    );
  }
  const start = performance.now();
  const plan: Plan = {
    cells: options.cells,
    rounds: options.rounds,
    seconds: options.seconds,
    short: quick,
    fetch: options.fetch,
    fetchMs: quick ? QUICK_FETCH_MS : FETCH_MS,
    endsAt: quick ? start + QUICK_MS : Number.POSITIVE_INFINITY,
  };
  const timer = setTimeout(
    () => ending.abort(new TulleError('time', 'time is up')),
    quick ? QUICK_ABORT_MS : 2 ** 31 - 1,
  );
  let outcome: Outcome = { rows: [], rounds: 0 };
  try {
    if (hasRemains(root, name)) {
      note('removing what a killed bench left behind');
      await tearDown(root, name);
    }
    const tools = await findTools(plan, note);
    const stage = buildStage(root, name);
    outcome = await runRounds(stage, plan, tools, ending.signal, note, soFar => {
      outcome = soFar;
    });
  } catch (error) {
    if (!ending.signal.aborted) throw error;
    if (codeOf(ending.signal.reason) === 'time') note('time is up: this is what there is');
  } finally {
    clearTimeout(timer);
    if (hasRemains(root, name)) await tearDown(root, name);
    store.releaseLock(root, name, lock);
    store.removeStateRoot(root);
  }
  return outcome;
}

function report(run: Run, warning: string | undefined): string {
  const { machine, commit, rounds, seconds, rows } = run;
  const source = `commit ${commit.commit ?? 'unknown'}${commit.dirty ? ' with changes' : ''}`;
  const how = `${rounds} rounds of ${seconds} s a workload, medians (least–most), pod to pod`;
  const tables = UNDERLAYS.filter(underlay => rows.some(row => row.underlay === underlay)).map(underlay =>
    tablesOf(rows, underlay, BASELINE),
  );
  const head = [machineLine(machine), `${source} · ${how}`, ...(warning === undefined ? [] : [`WARNING: ${warning}`])];
  return [head.join('\n'), ...tables, targetsTable(rows)].join('\n\n');
}

function drawAgain(out: string): number {
  const file = join(out, 'results.jsonl');
  const run = readLastRun(file);
  if (run === undefined) throw new TulleError('nothing', `${file} holds no full run: "npm run bench" makes one`);
  for (const plot of drawPlots(run, join(out, 'plots'))) note(`drew ${plot}`);
  process.stdout.write(`${report(run, busyWarning(run.machine))}\n`);
  return 0;
}

main(process.argv.slice(2)).then(
  code => process.exit(code),
  error => {
    const debug = process.env['TULLE_DEBUG'] !== undefined && error instanceof Error;
    process.stderr.write(`bench: ${debug ? error.stack : messageOf(error)}\n`);
    process.exit(1);
  },
);
