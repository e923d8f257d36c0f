/**
 * Faults on demand in a running lab, from any process: what `tulle lab fault` and the live page call.
 *
 *   addFault(state, { kind: 'delay', where: 'node1-node2', ms: 40 })   → { id: 'delay1', … }
 *   listFaults(state)                                                  → with how many frames each has touched
 *   removeFault(state, 'delay1')
 *
 * `state` is loadState's. The caller is in the lab's user namespace, where the lab has one of its own. Most faults are the
 * work of one relay process (fault-relay.ts), started with the first of them and ended with the last.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { withRtnetlink } from '../netlink/netlink.ts';
import * as sys from '../sys/sys.ts';
import { codeOf, TulleError } from '../util/errors.ts';
import { SWITCH } from './build.ts';
import { lastLines } from './cluster.ts';
import { askRelay, type RelayReport } from './fault-client.ts';
import { applyDirect, withdrawDirect } from './fault-direct.ts';
import { mendLink } from './fault-link.ts';
import {
  type Fault,
  type FaultRecord,
  loadFaults,
  placesOf,
  relayLog,
  relaySocket,
  saveFaults,
  withFaultLock,
} from './fault-record.ts';
import { checkSpec, type FaultSpec, isDirect } from './fault-spec.ts';
import { identify, isAlive, waitUntilEnded } from './process.ts';
import { labEnvironment, program } from './spawn.ts';
import { type LabState, namespaceFile, recordExec } from './state.ts';

export type { Fault } from './fault-record.ts';
export { FAULT_KINDS, type FaultKind, type FaultSpec } from './fault-spec.ts';

/** A fault as `list` shows it. */
export interface FaultStatus extends Fault {
  /** Frames that it touched; null when the kernel does the work and does not count. */
  readonly frames: number | null;
}

/** A relay is a Node.js process: a third of a second, and more on a busy machine. */
const RELAY_MS = 20_000;

/** Adds a fault and returns when it is in force. Throws TulleError (`usage` for what the lab cannot have). */
export function addFault(state: LabState, spec: FaultSpec): Promise<Fault> {
  return withFaultLock(state, async () => {
    const places = placesOf(state);
    const checked = checkSpec(spec, places, randomInt(2 ** 32));
    const record = await current(state);
    const fault: Fault = { ...checked, id: `${checked.kind}${record.next}`, state: 'on' };
    const before = record.faults;
    record.next++;
    record.faults = [...before, fault];
    try {
      if (isDirect(fault, places)) applyDirect(state, fault, before);
      else await tellRelay(state, record);
      saveFaults(state, record);
    } catch (error) {
      record.faults = before;
      if (isDirect(fault, places)) withdrawDirect(state, fault, before);
      else await tellRelay(state, record).catch(() => {}); // the first error is the one to tell
      saveFaults(state, record);
      throw error;
    }
    return fault;
  });
}

/** Removes one fault by its id, or `all`; returns those that are gone. An unknown id is an error, no fault at all is none. */
export function removeFault(state: LabState, id: string | 'all'): Promise<Fault[]> {
  return withFaultLock(state, async () => {
    const record = await current(state);
    const gone = record.faults.filter(fault => id === 'all' || fault.id === id);
    if (gone.length === 0 && id !== 'all') throw unknownFault(id, record.faults);
    record.faults = record.faults.filter(fault => !gone.includes(fault));
    const places = placesOf(state);
    for (const fault of gone) if (isDirect(fault, places)) withdrawDirect(state, fault, record.faults);
    await tellRelay(state, record);
    saveFaults(state, record);
    return gone;
  });
}

/** The faults of a lab, oldest first. A relay that was killed meanwhile is noticed, and its links are mended. */
export function listFaults(state: LabState): Promise<FaultStatus[]> {
  return withFaultLock(state, async () => {
    const record = await current(state);
    const report = record.relay === null ? undefined : await askRelay(relaySocket(state), { verb: 'report' });
    const places = placesOf(state);
    return record.faults.map(fault => {
      const frames = isDirect(fault, places) ? null : (report?.hits[fault.id] ?? 0);
      return { ...fault, frames };
    });
  });
}

/** What the relay has carried, by the node whose link it is; empty when there is none. */
export async function relayReport(state: LabState): Promise<RelayReport> {
  const { relay } = loadFaults(state);
  if (relay === null || !isAlive(relay)) return { hits: {}, links: {} };
  return askRelay(relaySocket(state), { verb: 'report' });
}

/** Mends what a killed relay left; returns the faults that went with it. For the lab's own process, now and then. */
export async function mendFaults(state: LabState): Promise<Fault[]> {
  const { relay } = loadFaults(state);
  if (relay === null || isAlive(relay)) return [];
  return withFaultLock(state, async () => {
    const before = loadFaults(state).faults.filter(fault => fault.state === 'on');
    const after = (await current(state)).faults.filter(fault => fault.state === 'on');
    return before.filter(fault => !after.some(({ id }) => id === fault.id));
  });
}

/** The record, after what a dead relay left was put in order. Under the lock. */
async function current(state: LabState): Promise<FaultRecord> {
  const record = loadFaults(state);
  if (record.relay === null || isAlive(record.relay)) return record;
  const places = placesOf(state);
  mendAll(state, places.nodes);
  record.relay = null;
  record.faults = record.faults.map(fault => (isDirect(fault, places) ? fault : { ...fault, state: 'lost' }));
  saveFaults(state, record);
  return record;
}

/** Every link that hangs in the air goes back to the bridge. */
function mendAll(state: LabState, nodes: readonly string[]): void {
  const hub = namespaceFile(state, SWITCH);
  const links = withRtnetlink(hub, netlink => netlink.links());
  const loose = nodes.filter(node => links.some(link => link.name === node && link.master === undefined));
  sys.withNamespace(hub, () => {
    for (const node of loose) mendLink(node, namespaceFile(state, node));
  });
}

/** Starts, instructs or ends the relay, as the record's faults want it. */
async function tellRelay(state: LabState, record: FaultRecord): Promise<void> {
  const places = placesOf(state);
  const faults = record.faults.filter(fault => fault.state === 'on' && !isDirect(fault, places));
  if (faults.length === 0) return endRelay(state, record);
  if (record.relay === null) {
    record.relay = await startRelay(state);
    saveFaults(state, record);
  }
  await askRelay(relaySocket(state), { verb: 'apply', faults });
}

async function endRelay(state: LabState, record: FaultRecord): Promise<void> {
  const { relay } = record;
  if (relay === null) return;
  await askRelay(relaySocket(state), { verb: 'stop' });
  await waitUntilEnded([relay], RELAY_MS);
  record.relay = null;
}

async function startRelay(state: LabState): Promise<NonNullable<FaultRecord['relay']>> {
  const log = openSync(relayLog(state), 'a', 0o600);
  let child: ChildProcess;
  try {
    const args = [program('lib/lab/fault-relay.js'), dirname(state.directory), state.record.name];
    // Without spawnIn's death signal: it outlives the command that asked for the first fault.
    child = sys.withNamespace(namespaceFile(state, SWITCH), () =>
      spawn(process.execPath, args, { stdio: ['ignore', log, log], detached: true, env: labEnvironment() }),
    );
  } finally {
    closeSync(log);
  }
  child.on('error', () => {}); // no pid then
  child.unref();
  const id = child.pid === undefined ? undefined : identify(child.pid);
  if (id === undefined) throw new TulleError('relay', 'the relay of the faults cannot be started');
  const forget = recordExec(state.directory, id);
  const deadline = performance.now() + RELAY_MS;
  for (;;) {
    try {
      await askRelay(relaySocket(state), { verb: 'report' });
      return id;
    } catch (error) {
      if (codeOf(error) !== 'no-relay') throw error;
    }
    if (!isAlive(id) || performance.now() > deadline) {
      forget();
      throw new TulleError('relay', `the relay of the faults does not start: ${lastLines(relayLog(state), 2)}`);
    }
    await delay(10);
  }
}

function unknownFault(id: string, faults: readonly Fault[]): TulleError {
  const names = faults.length === 0 ? 'none' : faults.map(fault => fault.id).join(', ');
  return new TulleError('unknown', `there is no fault "${id}" in this lab: it has ${names}`);
}
