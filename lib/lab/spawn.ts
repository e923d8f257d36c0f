/** Starts programs inside a lab's namespaces. */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as sys from '../sys/sys.ts';

/** A compiled program of this package by its path from the package's compiled root: `program('cmd/tulled.js')`. */
export function program(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

/** The folder that holds package.json, from a compiled file in dist/lib/lab (or wherever the compiler was told to write). */
export function packageRoot(): string {
  let folder = new URL('../../', import.meta.url);
  while (!existsSync(new URL('package.json', folder)) && folder.pathname !== '/') folder = new URL('../', folder);
  return fileURLToPath(folder);
}

/** The program's own place on PATH. */
export function findOnPath(name: string): string | undefined {
  const folders = `${process.env['PATH'] ?? ''}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin`.split(':');
  return folders.map(folder => `${folder}/${name}`).find(path => path.startsWith('/') && existsSync(path));
}

let deathSignalPrefix: readonly string[] | undefined;

/**
 * util-linux's setpriv makes the kernel kill the child when we die (prctl(2) PR_SET_PDEATHSIG): it covers the moment
 * between a child's birth and its entry in the record. Where it is missing the record alone must do.
 */
function withDeathSignal(): readonly string[] {
  if (deathSignalPrefix === undefined) {
    const setpriv = findOnPath('setpriv');
    const works = setpriv !== undefined && spawnSync(setpriv, ['--pdeathsig', 'KILL', 'true']).status === 0;
    deathSignalPrefix = works ? [setpriv, '--pdeathsig', 'KILL'] : [];
  }
  return deathSignalPrefix;
}

/** The environment of the lab's programs: ours without what would configure a daemon behind the lab's back. */
export function labEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(FLANNELD_|NODE_EXTRA_CA_CERTS$|NODE_NAME$|POD_NAME|NOTIFY_SOCKET$|EVENT_QUEUE_DEPTH$)/.test(name),
  );
  return Object.fromEntries(kept);
}

/** Spawns `command` in the network namespace of `namespaceFile`, to be killed with us. */
export function spawnIn(
  namespaceFile: string,
  command: string,
  args: readonly string[],
  options: SpawnOptions,
): ChildProcess {
  const [first, ...rest] = [...withDeathSignal(), command, ...args];
  return sys.withNamespace(namespaceFile, () => spawn(first, rest, { env: labEnvironment(), ...options }));
}
