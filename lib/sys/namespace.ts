/** Network namespaces as files: what `ip netns` keeps in /run/netns, at any path. */
import { stat } from 'node:fs';
import { check, native } from './addon.ts';
import { errnoName, SysError } from './errors.ts';

const HINTS: Readonly<Record<string, string>> = {
  EPERM: 'run as root, or in a user namespace of your own ("unshare -Urnm")',
};

/**
 * Makes a network namespace and binds it to `path`, a file that must not exist (EEXIST). It lives until
 * removeNamespace(path) and the end of what runs inside. Its loopback link is down.
 */
export function createNamespace(path: string): void {
  const value = native.createNamespace(path);
  const hint = value < 0 ? HINTS[errnoName(value)] : undefined;
  check(value, hint === undefined ? { subject: path } : { subject: path, hint });
}

/**
 * Unbinds and deletes a namespace's file. A missing one is no error; a file that is neither a namespace nor empty is not
 * touched (EINVAL).
 */
export function removeNamespace(path: string): void {
  check(native.removeNamespace(path), { subject: path });
}

let poolStarted = false;

/**
 * libuv starts its thread pool at the first asynchronous call, and a thread is born in the namespace of the one that
 * starts it: a file read or a name lookup begun inside an action would leave the whole pool there. So start it before.
 */
function startPool(): void {
  if (poolStarted) return;
  poolStarted = true;
  stat('/', () => {});
}

/**
 * Moves this thread into the namespace, runs `action`, moves back, and returns the action's result or throws what it
 * threw. A child that the action spawns is born in the namespace, a socket that it opens stays there; an asynchronous
 * action would run in two places and is refused with a TypeError, and so must no Worker be started there. If there is no
 * way back, the process aborts.
 */
export function withNamespace<T>(path: string, action: () => T): T {
  startPool();
  const value = native.withNamespace(path, action, errno => {
    const hint = HINTS[errnoName(errno)];
    throw new SysError(errno, native.errorStep(), hint === undefined ? { subject: path } : { subject: path, hint });
  });
  if (value instanceof Promise) {
    value.catch(() => {});
    throw new TypeError('withNamespace takes a synchronous action: this one returned a promise');
  }
  return value;
}
