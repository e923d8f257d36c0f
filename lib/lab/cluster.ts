/** The programs of a lab: the registry's server when there is one, and a tulled on each node. */
import type { ChildProcess } from 'node:child_process';
import { closeSync, lstatSync, mkdirSync, openSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, TulleError } from '../util/errors.ts';
import { ETCD, type LabPlan, type NodePlan, networkConfig, UNDERLAY } from './plan.ts';
import { identify } from './process.ts';
import { labEnvironment, program, spawnIn } from './spawn.ts';
import { type LabState, namespaceFile, updateState } from './state.ts';

/** A daemon takes a second; etcd's client, a cold disk and a busy machine make it more. */
const READY_MS = 30_000;
const LOG_LINES = 3;

/** One node's daemon. */
export interface Daemon {
  readonly node: NodePlan;
  readonly process: ChildProcess;
  readonly logFile: string;
  readonly subnetFile: string;
  /** Where its CNI plugin finds it. */
  readonly cniSocket: string;
}

export const daemonName = (node: string): string => `tulled on ${node}`;
export const nodeDirectory = (state: LabState, node: string): string => join(state.directory, node);
/** Where a node's daemon is asked: `tulle status --socket …`. */
export const controlSocket = (state: LabState, node: string): string => join(nodeDirectory(state, node), 'tulled.sock');
export const leaseDirectory = (state: LabState): string => join(state.directory, 'leases');
/** Where a node finds the file registry: a link of its own to the leases, so that one node can lose it (fault-direct.ts). */
export const registryPath = (state: LabState, node: string): string => join(nodeDirectory(state, node), 'registry');
export const etcdEndpoint = (): string => `http://${UNDERLAY.switchAddress}:${ETCD.clientPort}`;

/** What a daemon of a lab with Kubernetes is given; the name that its API server has in the record. */
export const kubeconfigFile = (state: LabState): string => join(state.directory, 'kubeconfig');
export const netConfFile = (state: LabState): string => join(state.directory, 'net-conf.json');
export const KUBE_API = 'kube-api';

/** The file registry with its net-conf. */
export function makeFileRegistry(state: LabState): void {
  mkdirSync(join(leaseDirectory(state), 'subnets'), { recursive: true });
  writeFileSync(join(leaseDirectory(state), 'config'), `${networkConfig()}\n`);
}

/** Starts a program of the lab, its output in a log file, its pid in the record. */
export function startProgram(
  state: LabState,
  namespace: string,
  name: string,
  logFile: string,
  command: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): ChildProcess {
  const log = openSync(logFile, 'a', 0o600);
  try {
    const child = spawnIn(namespaceFile(state, namespace), command, args, {
      env: { ...labEnvironment(), ...environment },
      stdio: ['ignore', log, log],
      detached: true, // the terminal's Ctrl-C is for us: we end the daemons while the registry still runs
    });
    const id = child.pid === undefined ? undefined : identify(child.pid);
    if (id !== undefined) {
      updateState(state, record => void record.processes.push({ name, ...id }));
    }
    return child;
  } finally {
    closeSync(log);
  }
}

export function startDaemon(state: LabState, plan: LabPlan, node: NodePlan): Daemon {
  const directory = nodeDirectory(state, node.name);
  mkdirSync(directory, { recursive: true });
  const subnetFile = join(directory, 'subnet.env');
  const cniSocket = join(directory, 'cni.sock');
  const logFile = join(directory, 'tulled.log');
  const args = [
    program('cmd/tulled.js'),
    ...registryFlags(state, plan, node),
    '-iface=eth0',
    `-subnet-file=${subnetFile}`,
    `--transport=${plan.transport}`,
    `--cni-socket=${cniSocket}`,
    `--cni-data-dir=${join(directory, 'cni')}`,
    `--control-socket=${controlSocket(state, node.name)}`,
  ];
  const environment = plan.registry === 'kube' ? { NODE_NAME: node.name } : {};
  // How to start it again: restart.ts.
  writeFileSync(join(directory, 'tulled.start.json'), JSON.stringify({ args, environment }));
  const name = daemonName(node.name);
  const process_ = startProgram(state, node.name, name, logFile, process.execPath, args, environment);
  return { node, process: process_, logFile, subnetFile, cniSocket };
}

function registryFlags(state: LabState, { registry }: LabPlan, node: NodePlan): string[] {
  const id = `--node-id=${node.name}`;
  switch (registry) {
    case 'file':
      return [`--registry=file:${registryLink(state, node)}`, id];
    case 'etcd':
      return [`-etcd-endpoints=${etcdEndpoint()}`, `-etcd-prefix=${ETCD.prefix}`, id];
    case 'kube':
      return [
        '-kube-subnet-mgr',
        `-kubeconfig-file=${kubeconfigFile(state)}`,
        `-net-config-path=${netConfFile(state)}`,
      ];
  }
}

function registryLink(state: LabState, node: NodePlan): string {
  const path = registryPath(state, node.name);
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) symlinkSync(leaseDirectory(state), path);
  return path;
}

/** Waits until the daemon has written its subnet file and serves CNI, or has ended, or too long. */
export async function waitReady(daemon: Daemon): Promise<void> {
  const deadline = performance.now() + READY_MS;
  let failure: string | undefined;
  daemon.process.once('error', error => {
    failure = messageOf(error);
  });
  const ended = (): boolean => daemon.process.exitCode !== null || daemon.process.signalCode !== null;
  const isThere = (path: string): boolean => statSync(path, { throwIfNoEntry: false }) !== undefined;
  while (!isThere(daemon.subnetFile) || !isThere(daemon.cniSocket)) {
    if (failure !== undefined || ended()) throw daemonError(daemon, failure ?? `ended ${howEnded(daemon.process)}`);
    if (performance.now() > deadline) throw daemonError(daemon, `has no lease after ${READY_MS / 1000} s`);
    await delay(20);
  }
}

export function howEnded(child: ChildProcess): string {
  return child.signalCode === null ? `with exit code ${child.exitCode}` : `by ${child.signalCode}`;
}

function daemonError(daemon: Daemon, what: string): TulleError {
  const log = lastLines(daemon.logFile, LOG_LINES);
  return new TulleError(
    'daemon',
    `tulled on ${daemon.node.name} ${what}; its log ends: ${log === '' ? '(nothing)' : log}`,
  );
}

/** The end of a log, for an error message: joined by " | ", because an error is one line. */
export function lastLines(file: string, count: number): string {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-count).join(' | ');
  } catch {
    return '';
  }
}
