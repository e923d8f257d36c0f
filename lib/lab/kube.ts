/** A lab with `--registry kube`: an API server on the switch, a kubeconfig and a net-conf for the nodes. */
import { randomBytes } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TulleError } from '../util/errors.ts';
import { formatCidr4, parseCidr4, subnetAt } from '../wire/cidr.ts';
import { SWITCH } from './build.ts';
import { KUBE_API, kubeconfigFile, lastLines, netConfFile, startProgram } from './cluster.ts';
import type { KubeApiSettings } from './kube-api/program.ts';
import { KUBE, type LabPlan, networkConfig, OVERLAY, UNDERLAY } from './plan.ts';
import { program } from './spawn.ts';
import type { LabState } from './state.ts';

/** A Node.js that starts on a busy machine. */
const READY_MS = 20_000;

export async function startLabKubeApi(state: LabState, plan: LabPlan): Promise<void> {
  const token = randomBytes(16).toString('hex');
  const settings: KubeApiSettings = {
    host: UNDERLAY.switchAddress,
    port: KUBE.port,
    token,
    nodes: plan.nodePlans.map(({ name, address }, index) => ({ name, address, podCIDR: podCidr(index) })),
    ready: join(state.directory, 'kube-api.ready'),
  };
  const file = join(state.directory, 'kube-api.json');
  writeFileSync(file, JSON.stringify(settings), { mode: 0o600 });
  writeFileSync(kubeconfigFile(state), kubeconfig(token), { mode: 0o600 });
  writeFileSync(netConfFile(state), `${networkConfig()}\n`);
  const log = join(state.directory, 'kube-api.log');
  const child = startProgram(state, SWITCH, KUBE_API, log, process.execPath, [
    program('lib/lab/kube-api/program.js'),
    file,
  ]);
  const deadline = performance.now() + READY_MS;
  while (!existsSync(settings.ready)) {
    if (child.exitCode !== null || performance.now() > deadline) {
      throw new TulleError('registry', `the lab's API server does not start: ${lastLines(log, 2) || '(nothing)'}`);
    }
    await delay(20);
  }
}

/** As a controller-manager gives them out: from the first one of the network, which a node may have. */
export function podCidr(index: number): string {
  return formatCidr4(subnetAt(index, parseCidr4(OVERLAY.network)!, OVERLAY.subnetLength));
}

/** YAML is a superset of JSON, and kubectl reads it, too. */
function kubeconfig(token: string): string {
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'lab', cluster: { server: `http://${UNDERLAY.switchAddress}:${KUBE.port}` } }],
    users: [{ name: 'tulled', user: { token } }],
    contexts: [{ name: 'lab', context: { cluster: 'lab', user: 'tulled' } }],
    'current-context': 'lab',
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}
