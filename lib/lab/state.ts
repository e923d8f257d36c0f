/**
 * The record of one lab on disk. It is written before each thing is made, so that whoever finds it can remove all of it,
 * whatever happened to the process that wrote it. It lives in the lab's directory:
 *
 *   ROOT/lab.lock         held (flock) by the process that makes or removes the lab of that name
 *   ROOT/lab/state.json   this record
 *   ROOT/lab/ns/…         the namespaces: bind mounts of nsfs
 *   ROOT/lab/exec/PID     commands that `lab exec` runs in the lab
 *   ROOT/lab/faults.json  what is broken on purpose (fault-record.ts)
 *   ROOT/lab/page.url     the address of the live page, with its token: for us alone
 *   ROOT/lab/…            registry, logs, subnet.env of each node
 *
 * ROOT is /run/tulle/lab for root, $XDG_RUNTIME_DIR/tulle/lab or /tmp/tulle-UID/lab for others.
 */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import * as sys from '../sys/sys.ts';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';
import type { LabRegistry } from './plan.ts';
import { bootId, identify, isAlive, type ProcessId } from './process.ts';

export interface LabRecord {
  version: 1;
  name: string;
  bootId: string;
  /** The process of `lab up`. */
  owner: ProcessId;
  /** Made inside a user namespace: its namespaces are reached through the owner. */
  rootless: boolean;
  registry: LabRegistry;
  /** True once everything runs and was measured. */
  ready: boolean;
  namespaces: { name: string; kind: 'switch' | 'node' | 'pod' }[];
  processes: ({ name: string } & ProcessId)[];
}

export interface LabState {
  readonly directory: string;
  readonly record: LabRecord;
}

/** Set for the process inside the user namespace, which is root there and would look in the wrong place. */
export const STATE_ROOT_VARIABLE = 'TULLE_LAB_ROOT';

/** `usable` says whether a directory is there and the user's: su and sudo leave the variable of the user before. */
export function stateRoot(
  environment: NodeJS.ProcessEnv = process.env,
  uid: number = process.getuid!(),
  usable: (path: string, uid: number) => boolean = isOwnDirectory,
): string {
  const given = environment[STATE_ROOT_VARIABLE];
  if (given !== undefined && given !== '') return given;
  if (uid === 0) return '/run/tulle/lab';
  const runtime = environment['XDG_RUNTIME_DIR'];
  const ours = runtime !== undefined && runtime !== '' && usable(runtime, uid);
  return join(ours ? join(runtime, 'tulle') : `/tmp/tulle-${uid}`, 'lab');
}

function isOwnDirectory(path: string, uid: number): boolean {
  try {
    const stat = lstatSync(path);
    return stat.isDirectory() && stat.uid === uid;
  } catch {
    return false;
  }
}

export const labDirectory = (root: string, name: string): string => join(root, name);
export const namespaceFile = (state: { directory: string }, name: string): string => join(state.directory, 'ns', name);
const recordFile = (directory: string): string => join(directory, 'state.json');
const lockFile = (root: string, name: string): string => join(root, `${name}.lock`);

/**
 * Makes ROOT, for us alone. /tmp is everybody's, so what we find there must be ours (or root's, as /run and /tmp are).
 * Inside a user namespace other owners look like nobody: there, whoever started us has looked already.
 */
export function ensureStateRoot(root: string, inside: boolean): void {
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
  } catch (error) {
    const cure = `set ${STATE_ROOT_VARIABLE} to a directory of yours`;
    throw new TulleError('state', `${root} cannot be made (${codeOf(error) ?? messageOf(error)}): ${cure}`);
  }
  if (inside) return;
  const uid = process.getuid!();
  for (const [path, owners] of [
    [dirname(root), [uid, 0]],
    [root, [uid]],
  ] as const) {
    const stat = lstatSync(path);
    if (stat.isDirectory() && owners.includes(stat.uid)) continue;
    throw new TulleError(
      'state',
      `${path} belongs to somebody else: set ${STATE_ROOT_VARIABLE} to a directory of yours`,
    );
  }
}

/** Removes ROOT, and the "tulle" directory above it, when they are empty. */
export function removeStateRoot(root: string): void {
  try {
    rmdirSync(root);
    if (basename(dirname(root)).startsWith('tulle')) rmdirSync(dirname(root));
  } catch {
    // another lab is there, or it is not ours
  }
}

/**
 * Takes the lab's lock; undefined when another process holds it. The holder removes the file before it lets go, so a
 * lock taken on a removed file is worth nothing: only the file that the path still names counts.
 */
export function takeLock(root: string, name: string): number | undefined {
  const path = lockFile(root, name);
  for (;;) {
    let handle: number;
    try {
      handle = sys.flockOpen(path, true);
    } catch (error) {
      if (codeOf(error) === 'EWOULDBLOCK' || codeOf(error) === 'EAGAIN') return undefined;
      throw error;
    }
    if (isOpenHere(path)) return handle;
    sys.close(handle);
  }
}

export function releaseLock(root: string, name: string, handle: number): void {
  try {
    unlinkSync(lockFile(root, name));
  } catch {
    // a person removed it
  }
  sys.close(handle);
}

/** Removes the lock's file that a killed process left; one that is held stays. */
export function dropStaleLock(root: string, name: string): void {
  if (!existsSync(lockFile(root, name))) return;
  const handle = takeLock(root, name);
  if (handle !== undefined) releaseLock(root, name, handle);
}

/** True when one of our descriptors is the very file that `path` names now. */
function isOpenHere(path: string): boolean {
  const named = statSync(path, { throwIfNoEntry: false });
  if (named === undefined) return false;
  return readdirSync('/proc/self/fd').some(fd => {
    const open = statSync(`/proc/self/fd/${fd}`, { throwIfNoEntry: false });
    return open !== undefined && open.dev === named.dev && open.ino === named.ino;
  });
}

/** A new lab's record, on disk before anything else of it. */
export function createState(root: string, name: string, facts: { rootless: boolean; registry: LabRegistry }): LabState {
  const directory = labDirectory(root, name);
  mkdirSync(join(directory, 'ns'), { recursive: true, mode: 0o700 });
  mkdirSync(join(directory, 'exec'), { recursive: true, mode: 0o700 });
  const record: LabRecord = {
    version: 1,
    name,
    bootId: bootId(),
    owner: identify(process.pid)!,
    rootless: facts.rootless,
    registry: facts.registry,
    ready: false,
    namespaces: [],
    processes: [],
  };
  const state = { directory, record };
  saveState(state);
  return state;
}

/** Atomic: a reader sees the old record or the new one. */
export function saveState(state: LabState): void {
  const path = recordFile(state.directory);
  writeFileSync(`${path}.new`, `${JSON.stringify(state.record, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Changes the record. Another process may have changed it meanwhile (`lab restart` does): what lies on disk goes first. */
export function updateState(state: LabState, change: (record: LabRecord) => void): void {
  const found = loadState(dirname(state.directory), state.record.name);
  if (found !== undefined) Object.assign(state.record, found.record);
  change(state.record);
  saveState(state);
}

/** The record of a lab; undefined when there is none, or none that can be read. */
export function loadState(root: string, name: string): LabState | undefined {
  const directory = labDirectory(root, name);
  try {
    const record: unknown = JSON.parse(readFileSync(recordFile(directory), 'utf8'));
    return isRecord(record) ? { directory, record } : undefined;
  } catch {
    return undefined;
  }
}

const pageFile = (directory: string): string => join(directory, 'page.url');

/** Notes where the page is, for whoever asks later. */
export function savePageUrl({ directory }: LabState, url: string): void {
  writeFileSync(pageFile(directory), `${url}\n`, { mode: 0o600 });
}

/** The address of the lab's page; undefined when it has none. */
export function loadPageUrl({ directory }: LabState): string | undefined {
  try {
    return readFileSync(pageFile(directory), 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** True while the process of `lab up` runs. */
export function ownerAlive(state: LabState): boolean {
  return state.record.bootId === bootId() && isAlive(state.record.owner);
}

/** The processes of the record that may still live: those recorded in this boot, and those of `lab exec`. */
export function recordedProcesses(state: LabState): ({ name: string } & ProcessId)[] {
  if (state.record.bootId !== bootId()) return [];
  return [...state.record.processes, ...execRecords(state.directory)];
}

/** Notes a command that runs in the lab; returns how to forget it. */
export function recordExec(directory: string, id: ProcessId): () => void {
  const path = join(directory, 'exec', String(id.pid));
  writeFileSync(path, String(id.startTime), { mode: 0o600 });
  return () => {
    try {
      unlinkSync(path);
    } catch {
      // the lab went before the command did
    }
  };
}

export function execRecords(directory: string): ({ name: string } & ProcessId)[] {
  try {
    return readdirSync(join(directory, 'exec')).map(entry => ({
      name: 'exec',
      pid: Number(entry),
      startTime: Number(readFileSync(join(directory, 'exec', entry), 'utf8')),
    }));
  } catch {
    return [];
  }
}

function isProcessId(value: unknown): value is ProcessId {
  if (typeof value !== 'object' || value === null) return false;
  const { pid, startTime } = value as Record<string, unknown>;
  return Number.isSafeInteger(pid) && Number.isSafeInteger(startTime);
}

function isRecord(value: unknown): value is LabRecord {
  if (typeof value !== 'object' || value === null) return false;
  const { version, name, bootId: boot, owner, namespaces, processes } = value as Record<string, unknown>;
  return (
    version === 1 &&
    typeof name === 'string' &&
    typeof boot === 'string' &&
    isProcessId(owner) &&
    Array.isArray(namespaces) &&
    namespaces.every(entry => typeof entry?.name === 'string') &&
    Array.isArray(processes) &&
    processes.every(isProcessId)
  );
}
