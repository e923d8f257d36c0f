/**
 * A cluster of Kubernetes for tests, as real as namespaces make it: an API server, a tulled on each node that takes its subnet
 * from there, pods that the CNI plugin plugs in.
 *
 *   namespace "switch"  br0 10.88.0.254/24, the API server on port 6443, "the world" 198.51.100.7 on lo
 *   namespace "nodeK"   eth0 10.88.0.K/24, default route to the switch, tulle0, cni0, pods; podCIDR 10.42.(K-1).0/24
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { nativeProgram } from '../../lib/cni/program.ts';
import { setSysctl } from '../../lib/host/sysctl.ts';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace, withNamespace } from '../../lib/sys/sys.ts';
import { environment, spawnTulled, type Tulled } from '../daemon/process.ts';
import { runIn } from './pods.ts';

export const WORLD = '198.51.100.7';
const SWITCH = '10.88.0.254';
const TOKEN = 'a-token-for-tests';

export interface Pod {
  name: string;
  namespace: string;
  address: string;
}

export interface KubeCluster {
  /** Paths of namespaces. */
  switch: string;
  node(k: number): string;
  directory: string;
  kubeconfig: string;
  /** Starts tulled on node K; `more` is added to its environment. */
  tulled(k: number, args?: string[], more?: Record<string, string>): Tulled;
  /** A pod of node K, plugged in through the daemon that runs there. */
  addPod(k: number, name: string): Promise<Pod>;
  /** Speaks to the API server; gives the status and the object. */
  api(method: string, path: string, body?: object): Promise<{ status: number; object: Record<string, unknown> }>;
  /** Ends the API server as a crash does, and starts it again (with nothing in it but the nodes). */
  killApi(): Promise<void>;
  startApi(): Promise<void>;
}

const compiled = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));

export async function makeKubeCluster(t: Test, nodes: number, netConf?: object): Promise<KubeCluster> {
  const directory = `/run/tulle-test-kube-${process.pid}`;
  mkdirSync(directory, { recursive: true });
  const hub = join(directory, 'switch');
  const node = (k: number): string => join(directory, `node${k}`);
  const namespaces: string[] = [];
  const running = new Set<Tulled>();
  let server: ChildProcess | undefined;
  t.teardown(async () => {
    await Promise.all([...running].map(tulled => tulled.end('SIGTERM')));
    server?.kill('SIGKILL');
    for (const path of namespaces) removeNamespace(path);
    rmSync(directory, { recursive: true, force: true });
  });
  const newNamespace = (path: string): void => {
    makeNamespace(path);
    namespaces.push(path);
  };

  newNamespace(hub);
  setSysctl(hub, 'net.ipv4.ip_forward', 1);
  withRtnetlink(hub, netlink => {
    netlink.createBridge({ name: 'br0', up: true });
    netlink.addAddress('br0', `${SWITCH}/24`);
    netlink.addAddress('lo', `${WORLD}/32`);
    netlink.setLink('lo', { up: true });
  });
  for (let k = 1; k <= nodes; k++) {
    newNamespace(node(k));
    withRtnetlink(hub, netlink =>
      netlink.createVeth({ name: `n${k}`, peerName: 'eth0', peerNamespace: node(k), master: 'br0', up: true }),
    );
    withRtnetlink(node(k), netlink => {
      netlink.setLink('lo', { up: true });
      netlink.addAddress('eth0', `10.88.0.${k}/24`);
      netlink.setLink('eth0', { up: true });
      netlink.addRoute({ destination: 'default', gateway: SWITCH });
    });
  }

  const kubeconfig = join(directory, 'kubeconfig');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server: `http://${SWITCH}:6443` } }],
    users: [{ name: 'tulled', user: { token: TOKEN } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'tulled' } }],
    'current-context': 'test',
  };
  writeFileSync(kubeconfig, JSON.stringify(config));
  const netConfFile = join(directory, 'net-conf.json');
  writeFileSync(netConfFile, JSON.stringify(netConf ?? { Network: '10.42.0.0/16', Backend: { Type: 'tulle' } }));
  const ready = join(directory, 'api.ready');
  const settings = {
    host: SWITCH,
    port: 6443,
    token: TOKEN,
    nodes: Array.from({ length: nodes }, (_, i) => ({
      name: `node${i + 1}`,
      address: `10.88.0.${i + 1}`,
      podCIDR: `10.42.${i}.0/24`,
    })),
    ready,
  };
  writeFileSync(join(directory, 'api.json'), JSON.stringify(settings));

  const socketOf = (k: number): string => join(directory, `cni${k}.sock`);
  const cluster: KubeCluster = {
    switch: hub,
    node,
    directory,
    kubeconfig,
    tulled(k, args = [], more = {}) {
      const flags = [
        '-kube-subnet-mgr',
        `-kubeconfig-file=${kubeconfig}`,
        `-net-config-path=${netConfFile}`,
        '-iface=eth0',
        `-subnet-file=${join(directory, `subnet${k}.env`)}`,
        `--cni-socket=${socketOf(k)}`,
        `--cni-data-dir=${join(directory, `cni${k}`)}`,
        ...args,
      ];
      const tulled = withNamespace(node(k), () => spawnTulled(flags, { NODE_NAME: `node${k}`, ...more }));
      running.add(tulled);
      tulled.child.on('exit', () => running.delete(tulled));
      return tulled;
    },
    async addPod(k, name) {
      const namespace = join(directory, name);
      newNamespace(namespace);
      const native = nativeProgram();
      const [command, ...args] = native === undefined ? [process.execPath, compiled('cmd/tulle-cni.js')] : [native];
      const env = {
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: name,
        CNI_NETNS: namespace,
        CNI_IFNAME: 'eth0',
        CNI_PATH: dirname(command),
      };
      const child = withNamespace(node(k), () => spawn(command, args, { env, stdio: ['pipe', 'pipe', 'inherit'] }));
      child.stdin.end(
        JSON.stringify({
          cniVersion: '1.0.0',
          name: 'test',
          type: 'tulle-cni',
          ipMasq: false,
          hairpinMode: true,
          socket: socketOf(k),
        }),
      );
      let text = '';
      for await (const chunk of child.stdout) text += chunk;
      const { ips, msg } = JSON.parse(text) as { ips?: { address: string }[]; msg?: string };
      if (ips === undefined) throw new Error(`${name}: ${msg}`);
      return { name, namespace, address: ips[0].address.split('/')[0] };
    },
    async api(method, path, body) {
      const headers = {
        authorization: `Bearer ${TOKEN}`,
        'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json',
      };
      const options = { method, headers, ...(body && { body: JSON.stringify(body) }) };
      const program = `fetch('http://${SWITCH}:6443${path}', ${JSON.stringify(options)})
        .then(async r => console.log(JSON.stringify({ status: r.status, object: await r.json() })));`;
      return JSON.parse(await runIn(hub, program)) as { status: number; object: Record<string, unknown> };
    },
    async killApi() {
      const child = server!;
      const ended = new Promise(resolve => child.once('close', resolve));
      child.kill('SIGKILL');
      await ended;
    },
    async startApi() {
      rmSync(ready, { force: true });
      const args = [compiled('lib/lab/kube-api/program.js'), join(directory, 'api.json')];
      server = withNamespace(hub, () =>
        spawn(process.execPath, args, { env: environment, stdio: ['ignore', 'inherit', 'inherit'] }),
      );
      for (const end = performance.now() + 20_000; !existsSync(ready); await sleep(20)) {
        if (performance.now() > end) throw new Error('the API server does not start');
      }
    },
  };
  await cluster.startApi();
  return cluster;
}
