/**
 * Runs the test files and says how they went: what `npm test` is. Each file is a tap program of its own; this runs them,
 * one a core and the long ones first, shows one line for each and everything that a failed one said, and ends with
 * "N passed, N failed".
 *
 *   npm test                 all of them
 *   npm test -- wire lease   those whose path holds one of the words
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { longestFirst } from './order.ts';

/** A file that runs longer hangs; the first run of all fetches a browser. */
const FILE_DEADLINE_MS = 360_000;

/** The tests that run: each leads a group of its own, which a terminal's Ctrl-C does not reach. */
const running = new Set<number | undefined>();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    queue.length = 0;
    for (const leader of running) endGroup(leader, signal);
  });
}

const root = fileURLToPath(new URL('../../..', import.meta.url));
const tests = join(root, 'dist/test');

interface Outcome {
  file: string;
  passed: number;
  failed: number;
  skipped: number;
  seconds: number;
  output: string;
}

function runFile(file: string): Promise<Outcome> {
  const started = performance.now();
  const child = spawn(process.execPath, ['--enable-source-maps', file], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true, // a group of its own, so that what it leaves behind can be ended with it
    // tap's own 30 s are for a machine that does nothing else.
    env: { ...process.env, TAP_TIMEOUT: String(FILE_DEADLINE_MS / 1000) },
  });
  let output = '';
  const hear = (chunk: Buffer): void => {
    output += chunk.toString();
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  const deadline = setTimeout(() => {
    output += `\nno end after ${FILE_DEADLINE_MS / 1000} s: stopped\n`;
    endGroup(child.pid);
  }, FILE_DEADLINE_MS);
  running.add(child.pid);
  // A program that outlives its test would hold the pipes open, and "close" would never come.
  child.on('exit', () => {
    running.delete(child.pid);
    endGroup(child.pid);
    setTimeout(() => {
      child.stdout.destroy();
      child.stderr.destroy();
    }, 2000).unref();
  });
  return new Promise(resolve => {
    child.on('close', code => {
      clearTimeout(deadline);
      const count = (name: string): number => Number(closing(output).match(new RegExp(`\\b${name}: (\\d+)`))?.[1] ?? 0);
      const [passed, failed] = [count('pass'), count('fail')];
      // A file that ends badly, or before its plan, has failed whatever it counted.
      const broken = failed === 0 && (code !== 0 || closing(output) === '');
      const seconds = (performance.now() - started) / 1000;
      resolve({ file, passed, failed: broken ? 1 : failed, skipped: count('skip'), seconds, output });
    });
  });
}

/** Signals the processes of a test's group that are still there. */
function endGroup(leader: number | undefined, signal: NodeJS.Signals = 'SIGKILL'): void {
  try {
    if (leader !== undefined) process.kill(-leader, signal);
  } catch {
    // nobody is left
  }
}

/** tap's closing comment: "# { total: 9, pass: 8, fail: 1 }". */
const closing = (output: string): string => output.match(/^# \{ .*\}$/gm)?.at(-1) ?? '';

const ENDING = '.test.js';
const nameOf = (file: string): string => relative(tests, file).slice(0, -ENDING.length);
const words = process.argv.slice(2);
const files = longestFirst(
  walk(tests)
    .filter(file => file.endsWith(ENDING))
    .filter(file => words.length === 0 || words.some(word => relative(tests, file).includes(word)))
    .map(nameOf),
).map(name => join(tests, `${name}${ENDING}`));

function walk(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true }).map(entry => join(entry.parentPath, entry.name));
}

const { ensureEtcd } = (await import(join(root, 'scripts/install-etcd.mjs'))) as { ensureEtcd(): string | undefined };
if (
  files.some(file => file.includes('etcd') || file.includes('netns') || file.includes('lab')) &&
  ensureEtcd() === undefined
) {
  console.log(
    'SKIPPED: all tests against a real etcd, because there is none here and apt-get cannot install etcd-server',
  );
}

const queue = [...files];
const outcomes: Outcome[] = [];
async function work(): Promise<void> {
  for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
    const outcome = await runFile(file);
    outcomes.push(outcome);
    const { passed, failed, skipped, seconds, output } = outcome;
    const notes = `${skipped > 0 ? `, ${skipped} skipped` : ''}`;
    console.log(
      `${failed > 0 ? 'FAILED' : 'ok    '}  ${nameOf(file).padEnd(36)} ${String(passed).padStart(6)} passed${notes}  ${seconds.toFixed(1)} s`,
    );
    if (failed > 0) console.log(output.replace(/^/gm, '    '));
    else for (const line of output.match(/^(.*# SKIP.*|SKIPPED.*)$/gm) ?? []) console.log(`        ${line.trim()}`);
  }
}
await Promise.all(Array.from({ length: availableParallelism() }, work));

const sum = (of: (outcome: Outcome) => number): number => outcomes.reduce((total, outcome) => total + of(outcome), 0);
if (files.length === 0) console.log(`no test file has ${words.join(' or ')} in its path`);
console.log(`${sum(o => o.passed)} passed, ${sum(o => o.failed)} failed`);
process.exitCode = files.length === 0 || sum(o => o.failed) > 0 ? 1 : 0;
