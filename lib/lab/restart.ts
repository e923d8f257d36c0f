/**
 * Daemons of a running lab, ended and started again from another process, with other flags: the nodes, their leases and
 * their pods stay. How a daemon was started lies beside its log (tulled.start.json).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as sys from '../sys/sys.ts';
import { TulleError } from '../util/errors.ts';
import { controlSocket, daemonName, lastLines, nodeDirectory } from './cluster.ts';
import { endProcesses, identify, isAlive } from './process.ts';
import { labEnvironment } from './spawn.ts';
import { type LabState, loadState, namespaceFile, updateState } from './state.ts';

const STOP_MS = 10_000;
const READY_MS = 30_000;

/** What startDaemon wrote down. */
interface Start {
  /** The program first. */
  readonly args: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
}

const readStart = (state: LabState, node: string): Start =>
  JSON.parse(readFileSync(join(nodeDirectory(state, node), 'tulled.start.json'), 'utf8')) as Start;

/** The flags with `changes` in the place of those of the same name: "--transport=batch". */
export function changeFlags(flags: readonly string[], changes: readonly string[]): string[] {
  const nameOf = (flag: string): string => flag.replace(/^--?/, '').split('=')[0];
  const changed = new Set(changes.map(nameOf));
  return [...flags.filter(flag => !changed.has(nameOf(flag))), ...changes];
}

/**
 * Ends a node's daemon, whoever started it; its lease stays. Its files go, so that their return says that the next one is ready.
 * True when there was one.
 */
export async function stopDaemon(state: LabState, node: string): Promise<boolean> {
  const name = daemonName(node);
  const record = loadState(join(state.directory, '..'), state.record.name)?.record ?? state.record;
  const ids = record.processes.filter(entry => entry.name === name);
  const running = ids.filter(isAlive);
  const left = await endProcesses(running, STOP_MS);
  if (left.length > 0) throw new TulleError('daemon', `${name} does not end (process ${left[0].pid})`);
  updateState(state, after => {
    after.processes = after.processes.filter(entry => !ids.some(({ pid }) => pid === entry.pid));
  });
  for (const file of ['subnet.env', 'cni.sock']) rmSync(join(nodeDirectory(state, node), file), { force: true });
  return running.length > 0;
}

/** Ends a node's daemon, if it runs, and starts it with some flags changed; resolves when it is ready. */
export async function restartDaemon(state: LabState, node: string, changes: readonly string[]): Promise<void> {
  const { args, environment } = readStart(state, node);
  const [script, ...flags] = args;
  await stopDaemon(state, node);
  const logFile = join(nodeDirectory(state, node), 'tulled.log');
  const child = start(state, node, logFile, { args: [script, ...changeFlags(flags, changes)], environment });
  const id = child.pid === undefined ? undefined : identify(child.pid);
  if (id !== undefined) updateState(state, record => void record.processes.push({ name: daemonName(node), ...id }));
  const deadline = performance.now() + READY_MS;
  const files = ['subnet.env', 'cni.sock'].map(file => join(nodeDirectory(state, node), file));
  while (![...files, controlSocket(state, node)].every(existsSync)) {
    if (child.exitCode !== null || child.signalCode !== null || id === undefined)
      throw daemonError(node, 'ended', logFile);
    if (performance.now() > deadline) throw daemonError(node, `is not ready after ${READY_MS / 1000} s`, logFile);
    await delay(20);
  }
}

/** Without the lab's death signal: it outlives the command that starts it, and the lab's record knows it. */
function start(state: LabState, node: string, logFile: string, { args, environment }: Start): ChildProcess {
  const log = openSync(logFile, 'a', 0o600);
  try {
    const env = { ...labEnvironment(), ...environment };
    const child = sys.withNamespace(namespaceFile(state, node), () =>
      spawn(process.execPath, args, { stdio: ['ignore', log, log], detached: true, env }),
    );
    child.on('error', () => {}); // it has no pid then
    child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}

function daemonError(node: string, what: string, logFile: string): TulleError {
  return new TulleError('daemon', `${daemonName(node)} ${what}; its log ends: ${lastLines(logFile, 2)}`);
}
