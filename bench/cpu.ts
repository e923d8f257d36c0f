/** CPU time and memory by /proc, before and after: what a tunnel costs. */
import { readFileSync } from 'node:fs';
import type { ProcessId } from '../lib/lab/process.ts';

/** USER_HZ: what /proc counts in on every architecture that Node.js runs on (include/asm-generic/param.h). */
const TICKS_PER_SECOND = 100;

/** User and system seconds of a process with all its threads, from the text of /proc/PID/stat (fields 14 and 15). */
export function parseProcessCpu(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Seconds that all CPUs have been busy, from the text of /proc/stat: user, nice, system, irq, softirq. */
export function parseMachineCpu(stat: string): number {
  const [user, nice, system, , , irq, softirq] = (/^cpu +(.*)$/m.exec(stat)?.[1] ?? '').split(' ').map(Number);
  return (user + nice + system + irq + softirq) / TICKS_PER_SECOND;
}

/** The highest that its resident memory has been, in MB, from the text of /proc/PID/status. */
export function parsePeakMb(status: string): number {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) / 1024;
}

/** Its resident memory now, in MB. */
export function parseResidentMb(status: string): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) / 1024;
}

export const processCpu = (ids: readonly ProcessId[]): number =>
  ids.reduce((sum, { pid }) => sum + parseProcessCpu(readFileSync(`/proc/${pid}/stat`, 'utf8')), 0);

export const machineCpu = (): number => parseMachineCpu(readFileSync('/proc/stat', 'utf8'));

/** The largest of the processes; null of none. */
export function peakMb(ids: readonly ProcessId[]): number | null {
  if (ids.length === 0) return null;
  return Math.max(...ids.map(({ pid }) => parsePeakMb(readFileSync(`/proc/${pid}/status`, 'utf8'))));
}

export const residentMb = ({ pid }: ProcessId): number => parseResidentMb(readFileSync(`/proc/${pid}/status`, 'utf8'));

/** Our own, in seconds. */
export function ownCpu(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
