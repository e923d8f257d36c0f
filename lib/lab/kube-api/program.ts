/**
 * The lab's API server as a program, in the switch's namespace:
 *   program.js SETTINGS-FILE
 * It plays kubelets and controller-manager too: the nodes of the settings are there, each with its pod CIDR. It writes the
 * file `ready` once it listens, and ends at SIGTERM.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { messageOf } from '../../util/errors.ts';
import { RESOURCES } from './objects.ts';
import { startKubeApi } from './server.ts';

export interface KubeApiSettings {
  host: string;
  port: number;
  /** What a client must show. */
  token: string;
  nodes: { name: string; address: string; podCIDR: string }[];
  ready: string;
}

async function main(file: string): Promise<void> {
  const { host, port, token, nodes, ready } = JSON.parse(readFileSync(file, 'utf8')) as KubeApiSettings;
  const api = await startKubeApi({ host, port, tokens: new Map([[token, 'system:serviceaccount:tulle:tulled']]) });
  for (const { name, address, podCIDR } of nodes) {
    api.store.create(RESOURCES['nodes'], {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name, uid: '', resourceVersion: '', creationTimestamp: '' },
      spec: { podCIDR, podCIDRs: [podCIDR] },
      status: {
        addresses: [{ type: 'InternalIP', address }],
        conditions: [{ type: 'NetworkUnavailable', status: 'True', reason: 'NoNetwork', message: 'no network yet' }],
      },
    });
  }
  process.on('SIGTERM', () => void api.close().then(() => process.exit(0)));
  writeFileSync(ready, `${api.url}\n`);
}

main(process.argv[2] ?? '').catch(error => {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
});
