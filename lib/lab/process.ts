/**
 * Processes by pid AND start time, so that a pid that the kernel gave to somebody else meanwhile is never taken for ours.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

export interface ProcessId {
  readonly pid: number;
  /** Clock ticks after boot: field 22 of /proc/PID/stat. */
  readonly startTime: number;
}

/** The boot that start times count from; a record of another boot names no process of this one. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** What `/proc/PID/stat` says, undefined when there is no such process. proc(5): the command may hold spaces and ')'. */
export function parseStat(text: string): { state: string; startTime: number } | undefined {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const startTime = Number(fields[19]); // field 22; the first after the command is field 3
  return Number.isSafeInteger(startTime) && fields[0] !== '' ? { state: fields[0], startTime } : undefined;
}

function statOf(pid: number): { state: string; startTime: number } | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return undefined; // ENOENT, or ESRCH when it ends while we read
  }
}

/** The identity of a living process. */
export function identify(pid: number): ProcessId | undefined {
  const stat = statOf(pid);
  return stat === undefined ? undefined : { pid, startTime: stat.startTime };
}

/** True while this very process runs; a zombie has ended. */
export function isAlive(id: ProcessId): boolean {
  const stat = statOf(id.pid);
  return stat !== undefined && stat.startTime === id.startTime && stat.state !== 'Z' && stat.state !== 'X';
}

/** Signals it if it is still the same process. False when it has ended or may not be signalled. */
export function signal(id: ProcessId, name: NodeJS.Signals): boolean {
  if (id.pid <= 1 || !isAlive(id)) return false;
  try {
    return process.kill(id.pid, name);
  } catch {
    return false;
  }
}

/** `first` to all, then SIGKILL to what is left after `graceMs`; returns those that outlived even that. */
export async function endProcesses(
  ids: readonly ProcessId[],
  graceMs: number,
  first: NodeJS.Signals = 'SIGTERM',
): Promise<ProcessId[]> {
  for (const id of ids) signal(id, first);
  let left = await waitUntilEnded(ids, graceMs);
  for (const id of left) signal(id, 'SIGKILL');
  left = await waitUntilEnded(left, 5000);
  return left;
}

/** Waits until all have ended or `ms` have passed; returns those still alive. */
export async function waitUntilEnded(ids: readonly ProcessId[], ms: number): Promise<ProcessId[]> {
  const deadline = performance.now() + ms;
  for (;;) {
    const left = ids.filter(isAlive);
    if (left.length === 0 || performance.now() >= deadline) return left;
    await delay(10);
  }
}

/** Processes whose network namespace is one of these files' (bind mounts of nsfs), ourselves excepted. */
export function residentsOf(namespaceFiles: readonly string[]): ProcessId[] {
  const home = statSync('/proc/self/ns/net');
  const wanted = new Set<string>();
  for (const file of namespaceFiles) {
    const stat = statSync(file, { throwIfNoEntry: false });
    // A file that is not mounted (yet) lies on another device than namespaces do.
    if (stat !== undefined && stat.dev === home.dev && stat.ino !== home.ino) wanted.add(`${stat.dev}:${stat.ino}`);
  }
  if (wanted.size === 0) return [];
  const residents: ProcessId[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      const stat = statSync(`/proc/${pid}/ns/net`);
      const id = wanted.has(`${stat.dev}:${stat.ino}`) ? identify(pid) : undefined;
      if (id !== undefined) residents.push(id);
    } catch {
      // ended meanwhile, or not ours to look at
    }
  }
  return residents;
}
