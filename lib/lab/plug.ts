/**
 * Plugs the lab's pods in as a container runtime does: it executes the CNI plugin, which asks its node's daemon. The
 * program is the C one where it was built, else its twin in TypeScript.
 */
import { dirname } from 'node:path';
import { nativeProgram } from '../cni/program.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { newNamespace } from './build.ts';
import type { Daemon } from './cluster.ts';
import type { PodPlan } from './plan.ts';
import { program, spawnIn } from './spawn.ts';
import { type LabState, namespaceFile } from './state.ts';

/** An ADD takes milliseconds; a machine under load gets more. */
const LIMIT_MS = 30_000;

/** What a runtime's conflist says here: the lease fills in the rest. The lab's nodes have no world to masquerade for. */
const configFor = (socket: string): object => ({
  cniVersion: '1.0.0',
  name: 'lab',
  type: 'tulle-cni',
  ipMasq: false,
  socket,
});

/** The pods of one node, one after the other, so that they get its addresses in order. Returns the addresses. */
export async function plugPods(state: LabState, daemon: Daemon, pods: readonly PodPlan[]): Promise<string[]> {
  const addresses: string[] = [];
  for (const pod of pods) addresses.push(await plugPod(state, daemon, pod));
  return addresses;
}

async function plugPod(state: LabState, { node, cniSocket }: Daemon, pod: PodPlan): Promise<string> {
  const netns = newNamespace(state, pod.name, 'pod');
  const [command, ...args] = cniProgram();
  const environment = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: pod.name,
    CNI_NETNS: netns,
    CNI_IFNAME: 'eth0',
    CNI_PATH: dirname(command),
  };
  const child = spawnIn(namespaceFile(state, node.name), command, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: environment,
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  child.stdin?.on('error', () => {}); // it ended early: its exit code says why
  child.stdin?.end(JSON.stringify(configFor(cniSocket)));
  const ending = await new Promise<string>((resolve, reject) => {
    child.once('error', error => reject(cniError(pod.name, messageOf(error))));
    child.once('close', (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  return addressIn(pod.name, ending, output.stdout, output.stderr);
}

/** The program and its first arguments. */
function cniProgram(): string[] {
  const native = nativeProgram();
  return native === undefined ? [process.execPath, program('cmd/tulle-cni.js')] : [native];
}

/** The first address of a CNI result, without its length. */
export function addressIn(pod: string, ending: string, stdout: string, stderr: string): string {
  let answer: unknown;
  try {
    answer = JSON.parse(stdout);
  } catch {
    throw cniError(pod, `${ending}: ${(stdout || stderr).trim() || 'it said nothing'}`);
  }
  const { ips, msg } = answer as { ips?: { address?: unknown }[]; msg?: unknown };
  if (ending !== 'exit code 0') throw cniError(pod, typeof msg === 'string' ? msg : ending);
  const address = ips?.[0]?.address;
  if (typeof address !== 'string') throw cniError(pod, `a result without an address: ${stdout.trim()}`);
  return address.split('/')[0];
}

function cniError(pod: string, what: string): TulleError {
  return new TulleError('cni', `${pod} could not be plugged in: ${what}`);
}
