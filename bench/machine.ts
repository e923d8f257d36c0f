/** Where and when a run took place: figures of two machines, or of a quiet and a busy one, are not to be compared. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { packageRoot } from '../lib/lab/spawn.ts';
import { machineCpu, ownCpu } from './cpu.ts';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  readonly node: string;
  /** The default congestion control, which new namespaces inherit. */
  readonly tcp: string;
  /** ISO 8601, UTC, at the start. */
  readonly date: string;
  /** Over a minute, at the start. */
  readonly load: number;
  /** Fraction of all cores that others used in the half second before the start. */
  readonly busy: number;
}

export interface Commit {
  /** null outside a git checkout. */
  readonly commit: string | null;
  /** Sources differ from the commit. */
  readonly dirty: boolean;
}

const SAMPLE_MS = 500;
/** More than this and the figures say more about the neighbours. */
const BUSY = 0.1;

export async function describeMachine(): Promise<Machine> {
  const start = performance.now();
  const before = machineCpu() - ownCpu();
  await delay(SAMPLE_MS);
  const busy = (machineCpu() - ownCpu() - before) / ((performance.now() - start) / 1000) / availableParallelism();
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    kernel: release(),
    node: process.versions.node,
    tcp: readQuietly('/proc/sys/net/ipv4/tcp_congestion_control'),
    date: new Date().toISOString(),
    load: Math.round(loadavg()[0] * 100) / 100,
    busy: Math.round(Math.max(0, busy) * 100) / 100,
  };
}

export function machineLine(machine: Machine): string {
  const { cpu, cores, kernel, node, tcp, date, load } = machine;
  const day = date.replace(/T(\d\d:\d\d).*/, ' $1 UTC');
  return `${cpu}, ${cores} cores · Linux ${kernel} · Node.js ${node} · TCP ${tcp} · ${day} · load ${load.toFixed(2)}`;
}

/** A line when the machine had other things to do; undefined when it was quiet. */
export function busyWarning({ busy, load }: Machine): string | undefined {
  if (busy <= BUSY) return undefined;
  const percent = Math.round(busy * 100);
  return `this machine is busy (${percent} % of its cores, load ${load.toFixed(2)}): trust the ratios little, the figures not at all`;
}

export function describeCommit(): Commit {
  const git = (...args: string[]): string | undefined => {
    const { status, stdout } = spawnSync('git', ['-C', packageRoot(), ...args], { encoding: 'utf8', timeout: 5000 });
    return status === 0 ? stdout.trim() : undefined;
  };
  const changed = git(
    'status',
    '--porcelain',
    '--',
    'lib',
    'cmd',
    'etcd',
    'bench',
    ':!bench/results.jsonl',
    ':!bench/plots',
  );
  return { commit: git('rev-parse', '--short=12', 'HEAD') ?? null, dirty: (changed ?? '') !== '' };
}

function readQuietly(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return 'unknown';
  }
}
