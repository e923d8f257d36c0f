/**
 * Takes a lab down by what lies on disk: the record says which processes, the mount table says which namespaces.
 * The same function ends a running lab, undoes one that failed half-way, and cleans up after one that was killed.
 */
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import * as sys from '../sys/sys.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { KUBE_API } from './cluster.ts';
import { endProcesses, type ProcessId, residentsOf } from './process.ts';
import { labDirectory, loadState, recordedProcesses } from './state.ts';

/** Daemons give their leases back and delete their devices in a few milliseconds; a machine under load gets more. */
const GRACE_MS = 4000;

/** True when a lab of that name left anything. */
export function hasRemains(root: string, name: string): boolean {
  return statSync(labDirectory(root, name), { throwIfNoEntry: false }) !== undefined;
}

/**
 * Removes all of a lab: processes, namespaces (and with them every link), files. The caller holds the lab's lock.
 * Does as much as it can and then throws one error that names what it could not do.
 */
export async function tearDown(root: string, name: string): Promise<void> {
  const directory = labDirectory(root, name);
  const state = loadState(root, name);
  const problems: string[] = [];

  // 1. The daemons first, while the registry that they return their leases to still runs; then everything else.
  const recorded = state === undefined ? [] : recordedProcesses(state);
  const isServer = (entry: { name: string }): boolean => ['etcd', KUBE_API].includes(entry.name);
  const left = [
    ...(await endProcesses(
      recorded.filter(entry => !isServer(entry)),
      GRACE_MS,
    )),
    ...(await endProcesses(recorded.filter(isServer), GRACE_MS)),
  ];

  // 2. Whatever else lives in our namespaces: shells of `lab exec` and their children. A shell ends at SIGHUP.
  const files = namespaceFiles(directory);
  left.push(...(await endProcesses(residentsOf(files), 500, 'SIGHUP')));
  if (left.length > 0) problems.push(`processes ${left.map((id: ProcessId) => id.pid).join(', ')} do not end`);

  // 3. The namespaces; the kernel deletes the links in them with the last reference.
  for (const path of [...files, ...mountsBelow(directory)]) {
    try {
      sys.removeNamespace(path);
    } catch (error) {
      if (mountsBelow(directory).includes(path)) problems.push(messageOf(error));
    }
  }

  // 4. The files; never through a mount that is still there.
  if (mountsBelow(directory).length === 0) rmSync(directory, { recursive: true, force: true });
  if (problems.length > 0) {
    throw new TulleError('teardown', `the lab "${name}" is not quite gone: ${problems.join('; ')}; see ${directory}`);
  }
}

function namespaceFiles(directory: string): string[] {
  try {
    return readdirSync(join(directory, 'ns')).map(entry => join(directory, 'ns', entry));
  } catch {
    return [];
  }
}

/** Mount points inside `directory`, deepest first. proc(5): blanks in a path are octal escapes. */
export function mountsBelow(directory: string, mountinfo = readFileSync('/proc/self/mountinfo', 'utf8')): string[] {
  return mountinfo
    .split('\n')
    .map(line =>
      (line.split(' ')[4] ?? '').replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
    )
    .filter(path => path.startsWith(`${directory}/`))
    .sort((a, b) => b.length - a.length);
}
