/**
 * The lab's registry as the lab itself uses it: the net-conf goes in, the leases come out. An etcd or an API server listens in the
 * switch's namespace only, so a child there speaks to it (registry-child.ts); the file registry is read in place.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findEtcd, startEtcd } from '../../etcd/server.ts';
import { openFileRegistry } from '../lease/file-registry.ts';
import type { Past } from '../lease/history.ts';
import { type Lease, leaseKeyOf } from '../lease/lease.ts';
import * as sys from '../sys/sys.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { formatCidr4 } from '../wire/cidr.ts';
import { SWITCH } from './build.ts';
import { etcdEndpoint, kubeconfigFile, leaseDirectory, makeFileRegistry, netConfFile } from './cluster.ts';
import { startLabKubeApi } from './kube.ts';
import { ETCD, type LabPlan, type LabRegistry, networkConfig, UNDERLAY } from './plan.ts';
import { identify } from './process.ts';
import { labEnvironment, packageRoot, program } from './spawn.ts';
import { type LabState, namespaceFile, updateState } from './state.ts';

/** What the picture says of a lease. */
export interface LeaseFacts {
  readonly publicIp: string;
  readonly subnet: string;
  readonly key: number;
  /** Wall clock, milliseconds since 1970; null = it does not end. */
  readonly expiresAtMs: number | null;
}

const run = promisify(execFile);
/** etcd3 takes a third of a second to load, an etcd that was just started a moment to elect itself. */
const CHILD_MS = 20_000;

export function factsOf(lease: Lease): LeaseFacts {
  return {
    publicIp: lease.attributes.PublicIP,
    subnet: formatCidr4(lease.subnet),
    key: leaseKeyOf(lease),
    expiresAtMs: lease.expiresAtMs,
  };
}

/** Starts what the registry needs and puts the net-conf into it. */
export async function startRegistry(state: LabState, plan: LabPlan): Promise<void> {
  if (plan.registry === 'file') return makeFileRegistry(state);
  if (plan.registry === 'kube') return startLabKubeApi(state, plan);
  const server = await startEtcd({
    directory: join(state.directory, 'etcd'),
    clientAddress: UNDERLAY.switchAddress,
    clientPort: ETCD.clientPort,
    peerPort: ETCD.peerPort,
    namespace: namespaceFile(state, SWITCH),
    dontWait: true,
  });
  const id = identify(server.pid);
  // Before the wait, so that it is known whatever happens meanwhile.
  if (id !== undefined) updateState(state, record => void record.processes.push({ name: 'etcd', ...id }));
  await server.ready();
  await registryChild(state, ['config', etcdEndpoint(), ETCD.prefix, networkConfig()]);
}

export async function readLeases(state: LabState, kind: LabRegistry): Promise<LeaseFacts[]> {
  if (kind === 'kube')
    return JSON.parse(await registryChild(state, ['nodes', kubeconfigFile(state), netConfFile(state)])) as LeaseFacts[];
  if (kind === 'etcd')
    return JSON.parse(await registryChild(state, ['leases', etcdEndpoint(), ETCD.prefix])) as LeaseFacts[];
  const registry = openFileRegistry(leaseDirectory(state));
  try {
    return (await registry.list()).leases.map(factsOf);
  } finally {
    await registry.close();
  }
}

/** Everything that the lab's etcd remembers. */
export async function readPast(state: LabState): Promise<Past> {
  return JSON.parse(await registryChild(state, ['past', etcdEndpoint(), ETCD.prefix])) as Past;
}

async function registryChild(state: LabState, args: readonly string[]): Promise<string> {
  const options = { timeout: CHILD_MS, env: labEnvironment() };
  // In an object, because withNamespace refuses a promise: what runs later would run in the wrong namespace.
  const { started } = sys.withNamespace(namespaceFile(state, SWITCH), () => ({
    started: run(process.execPath, [program('lib/lab/registry-child.js'), ...args], options),
  }));
  return started.then(({ stdout }) => stdout, fail);
}

function fail(error: unknown): never {
  const stderr = typeof error === 'object' && error !== null && 'stderr' in error ? String(error.stderr).trim() : '';
  throw new TulleError('registry', `the lab's registry: ${stderr === '' ? messageOf(error) : stderr}`);
}

/** Makes sure that there is an etcd to start; installs Debian's when we may. */
export async function ensureEtcd(): Promise<void> {
  if (findEtcd() !== undefined) return;
  try {
    await run(process.execPath, [join(packageRoot(), 'scripts/install-etcd.mjs')], { timeout: 180_000 });
  } catch {
    // said below
  }
  if (findEtcd() === undefined) {
    throw new TulleError(
      'no-etcd',
      '--registry etcd needs an etcd server: apt-get install etcd-server (or leave the option out)',
    );
  }
}
