/** `tulle lesson …`: arguments in, exit code out. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TulleError } from '../util/errors.ts';
import { down } from './down.ts';
import { programName } from './hints.ts';
import { answer, type Lesson, lessonLab, lookAt, needsSetUp, report, setUp } from './lesson.ts';
import { LESSON_HELP } from './lesson-help.ts';
import { LESSONS } from './lesson-list.ts';
import { type OptionTable, type ParsedOptions, parseOptions, usageError } from './options.ts';
import { isInside, runBeside } from './rootless.ts';
import { runningLab } from './running.ts';
import { packageRoot, program } from './spawn.ts';
import { type LabState, loadPageUrl, loadState, ownerAlive, stateRoot } from './state.ts';

const OPTIONS: OptionTable = {
  help: { flag: true },
  h: { flag: true },
  list: { flag: true },
  check: { flag: true },
  hint: { flag: true },
  where: { flag: true },
  down: { flag: true },
  answer: { text: 'TEXT' },
  'set-up': { flag: true }, // for ourselves: the second half of a start, inside the lab's user namespace
};
/** A lab takes four seconds; a busy machine more. */
const UP_MS = 120_000;

/** Runs `tulle lesson ARGS`. */
export async function lesson(args: readonly string[]): Promise<number> {
  const options = parseOptions(args, OPTIONS, 'tulle lesson --help');
  const { flags } = options;
  if (flags.has('help') || flags.has('h') || options.positional[0] === 'help') return print(LESSON_HELP);
  const [text, ...more] = [...options.positional, ...(options.rest ?? [])];
  if (more.length > 0) throw usageError(`tulle lesson does not know what to do with "${more[0]}"`);
  if (text === undefined || flags.has('list')) return print(lessonList());
  const chosen = LESSONS.find(one => String(one.number) === text.replace(/^0+/, ''));
  if (chosen === undefined) throw usageError(`there is no lesson ${text}: there are 1 to ${LESSONS.length}`);
  if (flags.has('down')) return end(chosen);
  const asks = ['check', 'hint', 'where', 'set-up'].some(flag => flags.has(flag)) || options.values.has('answer');
  return asks ? attend(chosen, options) : begin(chosen);
}

function lessonList(): string {
  const lines = LESSONS.map(one => `  ${one.number}  ${one.title}\n     ${one.why}\n`);
  return `Lessons: each takes about ten minutes. "tulle lesson 1" begins.\n\n${lines.join('')}`;
}

/** Everything that needs a lab that stands. */
async function attend(chosen: Lesson, options: ParsedOptions): Promise<number> {
  const root = stateRoot();
  const state = labOf(chosen, root);
  if (options.flags.has('where')) return print(`${state.directory}\n`);
  if (state.record.rootless && !isInside()) return runBeside(state, root);
  if (options.flags.has('set-up')) {
    await setUp(chosen, state);
    return 0;
  }
  const said = options.values.get('answer');
  if (said !== undefined) answer(state, said);
  const results = await lookAt(chosen, state);
  print(report(chosen, results, options.flags.has('hint')));
  return results.every(({ done }) => done) || said !== undefined ? 0 : 1;
}

function labOf(chosen: Lesson, root: string): LabState {
  try {
    return runningLab(root, lessonLab(chosen));
  } catch (error) {
    if (!(error instanceof TulleError) || error.code !== 'not-running') throw error;
    throw new TulleError('not-running', `lesson ${chosen.number} has not begun: "tulle lesson ${chosen.number}"`);
  }
}

async function begin(chosen: Lesson): Promise<number> {
  const root = stateRoot();
  const name = lessonLab(chosen);
  const before = loadState(root, name);
  if (before !== undefined && ownerAlive(before)) {
    print(`The lab of lesson ${chosen.number} stands already.\n\n`);
    // It may still be coming up, or its start was interrupted.
    await waitUntilReady(root, name, () => (ownerAlive(before) ? undefined : 'it has ended'));
    await prepare(chosen, root);
  } else {
    process.stderr.write(`Setting up the lab "${name}" …\n`);
    await startLab(chosen, root);
  }
  return print(introduction(chosen, loadState(root, name)!));
}

/** `lab up` in the background, until it is ready and prepared. Who interrupts that wants no lab. */
async function startLab(chosen: Lesson, root: string): Promise<void> {
  const name = lessonLab(chosen);
  const folder = mkdtempSync(join(tmpdir(), 'tulle-lesson-'));
  const logFile = join(folder, 'up.log');
  const child = detached(['lab', 'up', '--name', name, '--seconds', '1', ...chosen.up], logFile);
  const giveUp = (signal: NodeJS.Signals): void => {
    child.kill('SIGTERM');
    rmSync(folder, { recursive: true, force: true });
    process.exit(128 + constants.signals[signal]);
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, giveUp);
  try {
    await waitUntilReady(root, name, () =>
      child.exitCode !== null || child.signalCode !== null || child.pid === undefined ? lastLine(logFile) : undefined,
    );
    await prepare(chosen, root);
  } catch (error) {
    await down(root, name);
    throw error;
  } finally {
    for (const signal of signals) process.off(signal, giveUp);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** `failure`: why it will never be. */
async function waitUntilReady(root: string, name: string, failure: () => string | undefined): Promise<void> {
  const deadline = performance.now() + UP_MS;
  while (loadState(root, name)?.record.ready !== true) {
    const why = failure();
    if (why !== undefined) throw new TulleError('lab', `the lab did not come up: ${why}`);
    if (performance.now() > deadline) throw new TulleError('lab', `the lab is not up after ${UP_MS / 1000} s`);
    await delay(50);
  }
}

async function prepare(chosen: Lesson, root: string): Promise<void> {
  if (!needsSetUp(chosen, labOf(chosen, root))) return;
  const code = await attend(chosen, parseOptions(['--set-up'], OPTIONS, ''));
  if (code !== 0) throw new TulleError('lab', 'the lab could not be prepared');
}

function detached(args: readonly string[], logFile: string): ChildProcess {
  const log = openSync(logFile, 'a', 0o600);
  try {
    const command = [...process.execArgv, program('cmd/tulle.js'), ...args];
    const child = spawn(process.execPath, command, { stdio: ['ignore', log, log], detached: true });
    child.on('error', () => {}); // it has no pid then
    child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}

function lastLine(file: string): string {
  return readFileSync(file, 'utf8').trimEnd().split('\n').at(-1) ?? '';
}

function introduction(chosen: Lesson, state: LabState): string {
  const url = loadPageUrl(state);
  const page = join(packageRoot(), 'docs/lessons', chosen.page);
  const goals = chosen.goals.map((goal, i) => `  ${i + 1}. ${goal.task}\n`);
  const tulle = programName();
  return `Lesson ${chosen.number}: ${chosen.title}

${chosen.why}

Your lab is called ${lessonLab(chosen)}; its files are in ${state.directory}.
${url === undefined ? '' : `The microscope, for your browser: ${url}\n`}${existsSync(page) ? `The text: ${page}\n` : ''}
What is to be done:
${goals.join('')}
  ${tulle} lesson ${chosen.number} --check    says what is still missing
  ${tulle} lesson ${chosen.number} --hint     helps
  ${tulle} lesson ${chosen.number} --down     takes the lab down
`;
}

async function end(chosen: Lesson): Promise<number> {
  const ended = await down(stateRoot(), lessonLab(chosen));
  return print(ended ? `The lab of lesson ${chosen.number} is down.\n` : `Lesson ${chosen.number} has no lab.\n`);
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
