/**
 * The stage: two nodes with nothing but a veth pair between them, and a pod on each.
 *
 *   pod1 ── cni0 node1 eth0 ──── underlay ──── eth0 node2 cni0 ── pod2
 *   10.42.1.2   10.88.0.1                      10.88.0.2   10.42.2.2
 *
 * Nodes, underlay and pods stay for the whole run; tunnels come and go. All of it is in a record on disk (the lab's), so
 * that the next run can remove what a killed one left.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { setSysctl } from '../lib/host/sysctl.ts';
import { buildPods, newNamespace } from '../lib/lab/build.ts';
import { lastLines, startProgram } from '../lib/lab/cluster.ts';
import type { End } from '../lib/lab/measure.ts';
import { waitReachable } from '../lib/lab/ping.ts';
import { endProcesses, identify, isAlive, type ProcessId } from '../lib/lab/process.ts';
import { createState, type LabState, namespaceFile, saveState, stateRoot } from '../lib/lab/state.ts';
import { withRtnetlink } from '../lib/netlink/netlink.ts';
import { codeOf, TulleError } from '../lib/util/errors.ts';

/**
 * The largest packet of a pod that every tunnel here carries whole over 1500 bytes (nebula and WireGuard add 60), the
 * same for all: the comparison is about tunnels, not about header sizes.
 */
export const POD_MTU = 1440;
export const UNDERLAY_MTU = 1500;
export const POD_NETWORK = '10.42.0.0/16';
/** A lease, an ARP exchange, a handshake: all of them together on a machine that is busy. */
const REACHABLE_MS = 15_000;
const STOP_MS = 3000;
/** Links of a node that belong to the stage; whatever else is there a tunnel made. */
const OWN_LINKS = new Set(['lo', 'eth0', 'cni0', 'pod1', 'pod2']);

export interface StageNode {
  readonly name: string;
  readonly namespaceFile: string;
  /** On the underlay. */
  readonly address: string;
  /** Of its pods, and their gateway on the node. */
  readonly subnet: string;
  readonly gateway: string;
  readonly pod: End;
}

export interface Stage {
  readonly state: LabState;
  readonly nodes: readonly [StageNode, StageNode];
}

/** Beside the labs: /run/tulle/bench. */
export const benchRoot = (): string => join(dirname(stateRoot()), 'bench');

/** Makes the stage. The caller holds the lock of `name` and takes it down (lib/lab/teardown.ts), also when this fails. */
export function buildStage(root: string, name: string): Stage {
  const state = createState(root, name, { rootless: false, registry: 'file' });
  const nodes = [1, 2].map(i => {
    const file = newNamespace(state, `node${i}`, 'node');
    setSysctl(file, 'net.ipv4.ip_forward', '1');
    return { name: `node${i}`, namespaceFile: file, address: `10.88.0.${i}` };
  });
  withRtnetlink(nodes[0].namespaceFile, netlink =>
    netlink.createVeth({
      name: 'eth0',
      peerName: 'eth0',
      peerNamespace: nodes[1].namespaceFile,
      mtu: UNDERLAY_MTU,
      up: true,
      peerUp: true,
    }),
  );
  const [first, second] = nodes.map(({ name: node, namespaceFile: file, address }, i): StageNode => {
    withRtnetlink(file, netlink => netlink.addAddress('eth0', `${address}/24`));
    const gateway = `10.42.${i + 1}.1`;
    const pod = `pod${i + 1}`;
    const network = { gateway, prefixLength: 24, mtu: POD_MTU };
    const [podAddress] = buildPods(state, { name: node, address }, [{ name: pod, node, index: 0 }], network);
    const podFile = namespaceFile(state, pod);
    tunePod(podFile);
    const end = { name: pod, namespaceFile: podFile, address: podAddress };
    return { name: node, namespaceFile: file, address, subnet: `10.42.${i + 1}.0/24`, gateway, pod: end };
  });
  return { state, nodes: [first, second] };
}

/** Pods outlive tunnels: nothing of one tunnel's TCP may be remembered under the next, and ports must not run out. */
function tunePod(file: string): void {
  const wishes = {
    'net.ipv4.tcp_no_metrics_save': '1',
    'net.ipv4.tcp_tw_reuse': '1',
    'net.ipv4.ip_local_port_range': '10000\t65535',
  };
  for (const [key, value] of Object.entries(wishes)) {
    try {
      setSysctl(file, key, value);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
    }
  }
}

export const peerOf = (stage: Stage, node: StageNode): StageNode => stage.nodes[node === stage.nodes[0] ? 1 : 0];

/** A directory of the stage that goes with it. */
export function workDirectory(stage: Stage, name: string): string {
  const path = join(stage.state.directory, 'work', name);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
}

/** A program of a tunnel on a node. */
export interface Program {
  readonly name: string;
  readonly id: ProcessId;
  readonly logFile: string;
}

/** `environment` is given on top of ours. */
export function startOn(
  stage: Stage,
  node: StageNode,
  command: readonly string[],
  options: { name: string; environment?: Readonly<Record<string, string>> },
): Program {
  const logFile = join(workDirectory(stage, 'logs'), `${options.name}-${node.name}.log`);
  const settings = Object.entries(options.environment ?? {}).map(([key, value]) => `${key}=${value}`);
  const [first, ...rest] = settings.length === 0 ? command : ['/usr/bin/env', ...settings, ...command];
  const name = `${options.name} on ${node.name}`;
  const child: ChildProcess = startProgram(stage.state, node.name, name, logFile, first, rest);
  child.on('error', () => {}); // no pid: said below
  const id = child.pid === undefined ? undefined : identify(child.pid);
  if (id === undefined) throw new TulleError('program', `${first} cannot be started`);
  return { name, id, logFile };
}

/** Ends programs and forgets them. */
export async function stopPrograms(stage: Stage, programs: readonly Program[]): Promise<void> {
  const pids = programs.map(program => program.id.pid);
  await endProcesses(
    programs.map(program => program.id),
    STOP_MS,
  );
  const { record } = stage.state;
  record.processes = record.processes.filter(entry => !pids.includes(entry.pid));
  saveState(stage.state);
}

/** Throws when one of the programs has ended. */
export function checkAlive(programs: readonly Program[]): void {
  for (const { name, id, logFile } of programs) {
    if (isAlive(id)) continue;
    throw new TulleError('program', `${name} ended; its log ends: ${lastLines(logFile, 3) || '(nothing)'}`);
  }
}

/** Polls until `ready` gives something; an error when a program ends, or after too long. */
export async function until<T>(what: string, programs: readonly Program[], ready: () => T | undefined): Promise<T> {
  const deadline = performance.now() + REACHABLE_MS;
  for (;;) {
    const found = ready();
    if (found !== undefined) return found;
    checkAlive(programs);
    if (performance.now() > deadline) {
      const log = programs.length === 0 ? '' : `; ${programs[0].name} says: ${lastLines(programs[0].logFile, 3)}`;
      throw new TulleError('timeout', `${what} not within ${REACHABLE_MS / 1000} s${log}`);
    }
    await delay(10);
  }
}

/** Waits until the pods reach each other. */
export async function waitForPods(stage: Stage, programs: readonly Program[], signal: AbortSignal): Promise<void> {
  const [from, to] = stage.nodes;
  const deadline = performance.now() + REACHABLE_MS;
  for (;;) {
    signal.throwIfAborted();
    try {
      return await waitReachable(from.pod.namespaceFile, to.pod.address, 300);
    } catch (error) {
      if (codeOf(error) !== 'unreachable') throw error;
      checkAlive(programs);
      if (performance.now() < deadline) continue;
      const log = programs.length === 0 ? '' : `; ${programs[0].name} says: ${lastLines(programs[0].logFile, 3)}`;
      throw new TulleError('unreachable', `the pods do not reach each other within ${REACHABLE_MS / 1000} s${log}`);
    }
  }
}

/** Removes the links that a tunnel left, and the routes to pods with them. */
export function sweep(stage: Stage): void {
  for (const node of stage.nodes) {
    withRtnetlink(node.namespaceFile, netlink => {
      for (const { name, kind } of netlink.links()) {
        if (!OWN_LINKS.has(name) && (kind === 'tun' || kind === 'vxlan')) netlink.deleteLink(name);
      }
      netlink.deleteRoute({ destination: peerOf(stage, node).subnet });
    });
  }
}
