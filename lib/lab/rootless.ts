/**
 * The lab without root: the command runs itself again inside a user namespace, where it is root over namespaces of its
 * own (user_namespaces(7)). util-linux's unshare and nsenter do the entering, because a process with threads, as Node.js
 * is, may not enter a user namespace.
 */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import { codeOf, TulleError } from '../util/errors.ts';
import { findOnPath } from './spawn.ts';
import { type LabState, STATE_ROOT_VARIABLE } from './state.ts';

/** Set inside: says where the descriptor is that closes when the process outside ends ("-" when there is none). */
const INSIDE_VARIABLE = 'TULLE_LAB_INSIDE';
const LIFELINE = 3;
/** linux/capability.h */
const CAP_NET_ADMIN = 12n;
const CAP_SYS_ADMIN = 21n;

export const isInside = (): boolean => process.env[INSIDE_VARIABLE] !== undefined;

/** True when this process may make namespaces, mounts and links. */
export function hasPrivileges(status = readFileSync('/proc/self/status', 'utf8')): boolean {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  return ((effective >> CAP_NET_ADMIN) & (effective >> CAP_SYS_ADMIN) & 1n) === 1n;
}

/** One clear line when TUN devices cannot be made here. */
export function checkTun(path = '/dev/net/tun'): void {
  try {
    closeSync(openSync(path, 'r+'));
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOENT') {
      throw new TulleError(
        'no-tun',
        `${path} is missing: load the module with "modprobe tun", or give it to this container`,
      );
    }
    if (code === 'EACCES' || code === 'EPERM') {
      const owner = isInside()
        ? 'this user (as root: chmod 0666 /dev/net/tun), or run the lab as root'
        : 'this container';
      throw new TulleError('no-tun', `${path} may not be opened (${code}): give ${owner}`);
    }
    throw new TulleError('no-tun', `${path} cannot be opened (${code}): is TUN compiled into this kernel?`);
  }
}

const UNSHARE_ARGUMENTS = ['--user', '--map-root-user', '--mount', '--net'];

/** Runs this very command again inside a new user namespace; resolves to its exit code. */
export async function runInside(root: string): Promise<number> {
  const unshare = findOnPath('unshare');
  if (unshare === undefined) throw noNamespaces('there is no unshare command (package util-linux)');
  const probe = spawnSync(unshare, [...UNSHARE_ARGUMENTS, 'true'], { encoding: 'utf8' });
  if (probe.status !== 0) throw noNamespaces(probe.stderr?.trim() || 'unshare failed');
  const command = [...UNSHARE_ARGUMENTS, '--', process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  return follow(unshare, command, root, true);
}

function noNamespaces(why: string): TulleError {
  return new TulleError(
    'privileges',
    `the lab needs root, or user namespaces, which this machine does not allow (${why}): run it with sudo`,
  );
}

/** Runs this very command again inside the namespaces of the lab's process; resolves to its exit code. */
export async function runBeside(state: LabState, root: string): Promise<number> {
  const nsenter = findOnPath('nsenter');
  if (nsenter === undefined) throw new TulleError('privileges', 'there is no nsenter command: install util-linux');
  const target = ['-t', String(state.record.owner.pid), '-U', '-n', '-m', '--preserve-credentials'];
  const command = [...target, '--', process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  return follow(nsenter, command, root, false);
}

function follow(file: string, args: readonly string[], root: string, lifeline: boolean): Promise<number> {
  const child = spawn(file, args, {
    stdio: ['inherit', 'inherit', 'inherit', ...(lifeline ? (['pipe'] as const) : [])],
    env: {
      ...process.env,
      [STATE_ROOT_VARIABLE]: root,
      [INSIDE_VARIABLE]: lifeline ? String(LIFELINE) : '-',
      TULLE_LAB_CWD: process.cwd(),
    },
  });
  // The one inside does the work: signals are handed on. A terminal sends Ctrl-C to both of us; a lab hears only the
  // first, and a command of "lab exec" must not hear it twice.
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  process.on('SIGINT', () => void (lifeline && child.kill('SIGINT')));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
  });
}

/** Inside: calls back when the process outside has ended, however it ended. */
export function watchLifeline(gone: () => void): void {
  if (process.env[INSIDE_VARIABLE] !== String(LIFELINE)) return;
  const lifeline = new Socket({ fd: LIFELINE, readable: true, writable: false });
  lifeline.on('error', () => {});
  lifeline.on('close', gone);
  lifeline.resume();
  lifeline.unref();
}
