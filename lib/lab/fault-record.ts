/**
 * The faults of a lab on disk, beside its record (state.ts), because any process may add one while `lab up` owns that file:
 *
 *   ROOT/lab/faults.json   the faults, and the relay's process
 *   ROOT/lab/faults.lock   held (flock) by whoever changes them
 *   ROOT/lab/faults.sock   where the relay listens
 *   ROOT/lab/faults.log    what it had to say
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as sys from '../sys/sys.ts';
import { codeOf, TulleError } from '../util/errors.ts';
import { type CheckedSpec, FAULT_KINDS, type FaultPlaces } from './fault-spec.ts';
import type { ProcessId } from './process.ts';
import type { LabState } from './state.ts';

/** One fault of a lab. */
export interface Fault extends CheckedSpec {
  /** "delay1": what `remove` takes. */
  readonly id: string;
  /** `lost`: its relay ended before it, and the link has been mended. */
  readonly state: 'on' | 'lost';
}

export interface FaultRecord {
  readonly version: 1;
  /** Number of the next fault. */
  next: number;
  faults: Fault[];
  relay: ProcessId | null;
}

export const relaySocket = (state: LabState): string => join(state.directory, 'faults.sock');
export const relayLog = (state: LabState): string => join(state.directory, 'faults.log');
const recordFile = (state: LabState): string => join(state.directory, 'faults.json');
/** A change takes milliseconds, and the start of a relay half a second. */
const LOCK_MS = 30_000;

/** The lab's nodes, as the checks want them. */
export function placesOf({ record }: LabState): FaultPlaces {
  const nodes = record.namespaces.filter(entry => entry.kind === 'node').map(entry => entry.name);
  return { nodes, registry: record.registry };
}

/** What lies on disk; none when there is nothing, or nothing that can be read. */
export function loadFaults(state: LabState): FaultRecord {
  try {
    const found: unknown = JSON.parse(readFileSync(recordFile(state), 'utf8'));
    if (isRecord(found)) return found;
  } catch {
    // none yet
  }
  return { version: 1, next: 1, faults: [], relay: null };
}

/** Atomic. */
export function saveFaults(state: LabState, record: FaultRecord): void {
  const path = recordFile(state);
  writeFileSync(`${path}.new`, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Runs `change` alone in the world. */
export async function withFaultLock<T>(state: LabState, change: () => Promise<T>): Promise<T> {
  const path = join(state.directory, 'faults.lock');
  const deadline = performance.now() + LOCK_MS;
  let handle: number | undefined;
  while (handle === undefined) {
    try {
      handle = sys.flockOpen(path, true);
    } catch (error) {
      if (codeOf(error) !== 'EWOULDBLOCK' && codeOf(error) !== 'EAGAIN') throw error;
      if (performance.now() > deadline)
        throw new TulleError('busy', `another process is at work on the faults of "${state.record.name}": try again`);
      await delay(10);
    }
  }
  try {
    return await change();
  } finally {
    sys.close(handle);
  }
}

function isRecord(value: unknown): value is FaultRecord {
  if (typeof value !== 'object' || value === null) return false;
  const { version, next, faults, relay } = value as Record<string, unknown>;
  if (version !== 1 || !Number.isSafeInteger(next) || !Array.isArray(faults)) return false;
  const isProcess = relay === null || Number.isSafeInteger((relay as ProcessId | undefined)?.pid);
  return isProcess && faults.every(fault => typeof fault?.id === 'string' && FAULT_KINDS.includes(fault.kind));
}
