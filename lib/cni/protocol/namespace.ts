/**
 * CNI_NETNS. An ADD in the namespace that the plugin itself runs in would put a pod's routes into the host, so it is
 * refused (libcni's skel, code 8). A DEL must succeed whatever became of the namespace: what is no longer a namespace, or
 * is the host's by now (a process number that was given to another process), is treated as gone.
 */
import { type Stats, statfsSync, statSync } from 'node:fs';
import { CNI_ERROR, CniError } from '../plugin.ts';
import { type Environment, isTrue } from './environment.ts';
import { excerpt } from './fields.ts';

/** NSFS_MAGIC of linux/magic.h: a namespace file that is mounted, or open through /proc. */
const NSFS_MAGIC = 0x6e736673;

/** The namespace to work in, for ADD and CHECK. @throws CniError 8 */
export function namespaceFor(environment: Environment): string {
  const path = pathOf(environment);
  const problem = problemOf(path);
  if (problem !== undefined) throw new CniError(CNI_ERROR.namespace, `CNI_NETNS ${excerpt(path)}: ${problem}`);
  if (!isTrue(environment.get('CNI_NETNS_OVERRIDE')) && isOwn(environment, path)) {
    throw new CniError(
      CNI_ERROR.namespace,
      `plugin's netns and netns from CNI_NETNS should not be the same: CNI_NETNS ${excerpt(path)}`,
    );
  }
  return path;
}

/** The same for DEL: '' where there is nothing left to work in. */
export function namespaceForDel(environment: Environment): string {
  const path = pathOf(environment);
  if (path === '' || problemOf(path) !== undefined) return '';
  return !isTrue(environment.get('CNI_NETNS_OVERRIDE')) && isOwn(environment, path) ? '' : path;
}

/** The client's /proc/self is not ours. */
function pathOf(environment: Environment): string {
  const path = environment.get('CNI_NETNS') ?? '';
  const pid = environment.get('client.pid') ?? '';
  return /^\d+$/.test(pid) ? path.replace(/^\/proc\/(thread-)?self\//, `/proc/${pid}/`) : path;
}

function problemOf(path: string): string | undefined {
  if (!path.startsWith('/')) return 'it must be an absolute path';
  if (path.includes('\0')) return 'it must be a path';
  try {
    return statfsSync(path).type === NSFS_MAGIC ? undefined : 'it is not a network namespace';
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    return isMissing ? 'no such namespace' : `cannot be opened: ${String(error)}`;
  }
}

/** Of the namespace that this process began in, and stays in. */
let own: Stats | undefined;

/** Whether it is the namespace of the client, by what the client says, or the one that this process serves. */
function isOwn(environment: Environment, path: string): boolean {
  const claimed = environment.get('client.netns');
  if (claimed !== undefined && claimed === environment.get('cni.netns')) return true;
  try {
    own ??= statSync('/proc/self/ns/net');
    const target = statSync(path);
    return own.dev === target.dev && own.ino === target.ino;
  } catch {
    return false; // gone in this moment: whoever opens it next will say so
  }
}
