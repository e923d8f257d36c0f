/** `tulle lab exec`: a command inside a node or a pod. */
import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import * as sys from '../sys/sys.ts';
import { codeOf, TulleError } from '../util/errors.ts';
import { identify } from './process.ts';
import { type LabState, namespaceFile, recordExec } from './state.ts';

/** The file of a node's or pod's namespace; an unknown name lists those there are. */
export function namespaceOf(state: LabState, name: string): string {
  const { namespaces } = state.record;
  if (namespaces.some(entry => entry.name === name)) return namespaceFile(state, name);
  const names = namespaces.map(entry => entry.name).join(', ');
  throw new TulleError('unknown', `there is no "${name}" in this lab: it has ${names === '' ? 'nothing yet' : names}`);
}

/** Runs the command there with our terminal; resolves to its exit code, 128 + signal as a shell does. */
export async function execIn(
  state: LabState,
  name: string,
  command: readonly string[],
  cwd: string | undefined,
): Promise<number> {
  const path = namespaceOf(state, name);
  const [file, ...args] = command;
  const options = { stdio: 'inherit' as const, ...(cwd === undefined ? {} : { cwd }) };
  const child: ChildProcess = sys.withNamespace(path, () => spawn(file, args, options));
  const id = child.pid === undefined ? undefined : identify(child.pid);
  const forget = id === undefined ? undefined : recordExec(state.directory, id);
  // The terminal sends Ctrl-C to the command as well, and it is the command's to answer.
  process.on('SIGINT', () => {});
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  try {
    return await new Promise<number>((resolve, reject) => {
      child.on('error', reject);
      child.on('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
    });
  } catch (error) {
    if (codeOf(error) === 'ENOENT') throw new TulleError('not-found', `${file}: there is no such command`);
    throw new TulleError('exec', `${file} cannot be run (${codeOf(error) ?? String(error)})`);
  } finally {
    forget?.();
  }
}
