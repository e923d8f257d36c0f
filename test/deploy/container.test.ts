/**
 * The DaemonSet's tulled with exactly the capabilities, mounts and flags that the manifest gives it, and a pod that is plugged in by the static plugin from outside. What it
 * cannot do with less is tried too, so that the comments in the manifest stay true.
 */
import { fork, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { nativeProgram } from '../../lib/cni/program.ts';
import { BRIDGE_NETFILTER } from '../../lib/host/bridge-netfilter.ts';
import { getSysctl, setSysctl } from '../../lib/host/sysctl.ts';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace, withNamespace } from '../../lib/sys/sys.ts';
import { environment, program } from '../daemon/process.ts';
import { openRuleTools } from '../host/rule-tools.ts';
import { root } from '../sys/support.ts';
import { argumentsOf, manifest, ofKind, podOf, tulledOf, withoutCluster } from './manifests.ts';
import type { KubernetesObject } from './schema.ts';

t.setTimeout(170_000);
const DEADLINE_MS = 30_000;
const plugin = nativeProgram();
const lacks =
  process.getuid?.() !== 0 || !existsSync('/dev/net/tun')
    ? 'SKIPPED: needs root and /dev/net/tun'
    : spawnSync('setpriv', ['--version']).status !== 0 || spawnSync('unshare', ['--mount', 'true']).status !== 0
      ? 'SKIPPED: needs setpriv and unshare of util-linux'
      : plugin === undefined && 'SKIPPED: the CNI plugin was not built in C';
/** The image has nft and iptables; this machine may have to fetch them. */
const tools = lacks === false ? openRuleTools() : lacks;
const skip = typeof tools === 'string' ? tools : false;
t.teardown(() => typeof tools !== 'string' && tools.remove());

const hasBridgeNetfilter = existsSync('/proc/sys/net/bridge');

interface Container {
  /** Path of the node's network namespace. */
  node: string;
  said(): string;
  api: Api | undefined;
  ready(): Promise<void>;
  /** A network namespace, mounted where runtimes do. */
  addPod(pod: string): void;
  /** Runs the plugin as a runtime does, outside the container. */
  cni(command: string, pod: string, prevResult?: unknown): { status: number | null; answer: unknown };
  /** A file below /proc/sys as the pod sees it. */
  sysctl(pod: string, path: string): string;
  stop(): Promise<number | null>;
}

/** What test/deploy/api-server.ts says. */
interface Api {
  ask(): Promise<{ node: KubernetesObject; refused: string[] }>;
}

const POD_CIDR = '10.244.3.0/24';

async function startApi(t: Test, namespace: string, kubeconfig: string): Promise<Api> {
  const server = withNamespace(namespace, () =>
    fork(fileURLToPath(new URL('./api-server.js', import.meta.url)), ['secret', POD_CIDR], { env: environment }),
  );
  t.teardown(() => server.kill('SIGKILL'));
  const answer = async (): Promise<KubernetesObject> =>
    (await once(server, 'message', { signal: AbortSignal.timeout(DEADLINE_MS) }))[0];
  const { url } = await answer();
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'c', cluster: { server: url } }],
    users: [{ name: 'u', user: { token: 'secret' } }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  writeFileSync(kubeconfig, JSON.stringify(config));
  return {
    async ask() {
      const coming = answer();
      server.send('how is the node?');
      return coming;
    },
  };
}

let count = 0;

interface Start {
  /** Mounts of the manifest that are left out. */
  without?: readonly string[];
  cluster?: boolean;
  /** Folders that are empty in the container. */
  hidden?: readonly string[];
}

/** Everything of the host lies in a folder of the test's own. */
async function start(
  t: Test,
  capabilities: readonly string[],
  { without = [], cluster = false, hidden = [] }: Start = {},
): Promise<Container> {
  const host = `/run/tulle-test-container-${process.pid}-${++count}`;
  const node = join(host, 'node');
  mkdirSync(join(host, 'leases/subnets'), { recursive: true });
  writeFileSync(join(host, 'leases/config'), '{"Network":"10.5.0.0/16","Backend":{"Type":"tulle"}}');
  makeNamespace(node);
  withRtnetlink(node, netlink => {
    netlink.createVeth({ name: 'eth0', peerName: 'far0' });
    netlink.addAddress('eth0', '10.88.0.1/24');
    netlink.setLink('eth0', { up: true });
    netlink.setLink('far0', { up: true });
  });
  if (hasBridgeNetfilter) setSysctl(node, BRIDGE_NETFILTER[4], 0);

  const { volumes } = podOf(manifest());
  const { volumeMounts } = tulledOf(manifest());
  const lines = volumeMounts.flatMap(({ name, mountPath, readOnly }: KubernetesObject) => {
    if (without.includes(name)) return [];
    const { hostPath } = volumes.find((volume: KubernetesObject) => volume.name === name);
    // The machine's own device and settings; the rest is made here, and kept from the machine.
    let from = hostPath?.path ?? '/etc/tulle';
    if (!/^\/(dev|proc)\//.test(from)) {
      from = join(host, name);
      if (hostPath?.type === 'FileOrCreate') writeFileSync(from, '');
      else mkdirSync(from, { recursive: true });
    }
    // A namespace's path is the same outside and inside.
    const to = name === 'netns' ? from : mountPath;
    return [`${from} ${to} ${readOnly === true ? 'ro' : 'rw'}`];
  });
  const { data } = ofKind(manifest(), 'ConfigMap');
  for (const [name, text] of Object.entries<string>(data)) writeFileSync(join(host, 'config', name), text);
  lines.push(`${join(host, 'leases')} /leases rw`);
  mkdirSync(join(host, 'empty'));
  lines.push(...hidden.map(folder => `${join(host, 'empty')} ${folder} ro`));
  if (typeof tools === 'string') throw new Error(tools);
  lines.push(...tools.needed.map(folder => `${folder} ${folder} ro`));
  writeFileSync(join(host, 'mounts'), `${lines.join('\n')}\n`);

  // The node: its network, and mounts of its own that the container's are slaves of.
  const pidFile = join(host, 'pid');
  const shell = `mount --make-rshared / && echo $$ > ${pidFile} && exec sleep 1000`;
  const keeper = spawn('nsenter', [`--net=${node}`, 'unshare', '--mount', 'sh', '-ec', shell], { stdio: 'ignore' });
  const deadline = performance.now() + DEADLINE_MS;
  while (!existsSync(pidFile) || readFileSync(pidFile, 'utf8').trim() === '') {
    if (performance.now() > deadline) throw new Error('no namespace of mounts within 30 s');
    await delay(20);
  }
  const onNode = ['--target', readFileSync(pidFile, 'utf8').trim(), '--mount', '--net', '--'];
  const run = (words: string[], more: Record<string, string> = {}, input = '') =>
    spawnSync('nsenter', [...onNode, ...words], {
      env: { ...environment, ...more },
      input,
      encoding: 'utf8',
      timeout: DEADLINE_MS,
    });

  const bounding = ['-all', ...capabilities.map(name => `+${name.toLowerCase()}`)].join(',');
  const given = argumentsOf(manifest());
  const api = cluster ? await startApi(t, node, join(host, 'leases/kubeconfig')) : undefined;
  const flags = cluster
    ? [...given, '-kubeconfig-file=/leases/kubeconfig', '-iface=eth0']
    : [...withoutCluster(given), '--registry=file:/leases', '-iface=eth0'];
  const container = [
    'unshare',
    '--mount',
    '--propagation=unchanged',
    'sh',
    join(root, 'test/deploy/container.sh'),
    host,
    bounding,
    root,
  ];
  const child = spawn('nsenter', [...onNode, ...container, process.execPath, program, ...flags], {
    env: { ...environment, PATH: [...tools.path('both'), environment['PATH']].join(':'), NODE_NAME: 'node1' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let output = '';
  child.stderr.setEncoding('utf8').on('data', chunk => {
    output += chunk;
  });
  const ended = once(child, 'exit');
  t.teardown(async () => {
    child.kill('SIGKILL');
    keeper.kill('SIGKILL');
    await ended;
    removeNamespace(node);
    rmSync(host, { recursive: true, force: true });
  });
  const inPod = (pod: string, ...words: string[]): string =>
    run(['nsenter', `--net=${join(host, 'netns', pod)}`, ...words]).stdout.trim();
  return {
    node,
    said: () => output,
    api,
    async ready() {
      const limit = performance.now() + DEADLINE_MS;
      while (!/ ready /.test(output)) {
        if (child.exitCode !== null || performance.now() > limit) throw new Error(`not ready: ${output}`);
        await delay(50);
      }
    },
    addPod(pod) {
      const file = join(host, 'netns', pod);
      writeFileSync(file, '');
      const made = run(['unshare', `--net=${file}`, 'true']);
      if (made.status !== 0) throw new Error(made.stderr);
    },
    cni: (command, pod, prevResult) => {
      const config = JSON.stringify({
        cniVersion: '1.0.0',
        name: 'tulle',
        type: 'tulle-cni',
        socket: join(host, 'run/cni.sock'),
        ...(prevResult !== undefined && { prevResult }),
      });
      const variables = {
        CNI_COMMAND: command,
        CNI_CONTAINERID: pod,
        CNI_NETNS: join(host, 'netns', pod),
        CNI_IFNAME: 'eth0',
        CNI_PATH: '/opt/cni/bin',
      };
      const { status, stdout } = run([plugin as string], variables, config);
      return { status, answer: stdout === '' ? undefined : JSON.parse(stdout) };
    },
    sysctl: (pod, path) => inPod(pod, 'cat', `/proc/sys/${path}`),
    async stop() {
      child.kill('SIGTERM'); // each of the commands became the next one: it is tulled by now
      await ended;
      return child.exitCode;
    },
  };
}

const NEEDED: string[] = skip === false ? tulledOf(manifest()).securityContext.capabilities.add : [];

t.test('with what the manifest gives it', { skip }, async t => {
  const container = await start(t, NEEDED);
  await container.ready();
  t.notMatch(container.said(), / warn | error /, 'nothing is missing');
  for (const pod of ['pod1', 'pod2']) {
    container.addPod(pod); // after the container was made
    const { status, answer } = container.cni('ADD', pod);
    t.equal(status, 0, JSON.stringify(answer));
    t.match(answer, { ips: [{ address: /^10\.5\.\d+\.\d+\/24$/ }] });
    t.equal(container.cni('CHECK', pod, answer).status, 0);
  }
  if (hasBridgeNetfilter) t.equal(getSysctl(container.node, BRIDGE_NETFILTER[4]), '1', 'Services on one node work');
  t.equal(container.sysctl('pod1', 'net/ipv4/ip_forward'), '0', "the pod's own settings are its own");
  for (const pod of ['pod1', 'pod2']) t.equal(container.cni('DEL', pod).status, 0);
  t.equal(await container.stop(), 0, container.said());
});

t.test('in a cluster, with the flags and the permissions of the manifest', { skip }, async t => {
  const container = await start(t, NEEDED, { cluster: true });
  await container.ready();
  container.addPod('pod1');
  const { status, answer } = container.cni('ADD', 'pod1');
  t.equal(status, 0, JSON.stringify(answer));
  t.match(answer, { ips: [{ address: /^10\.244\.3\.\d+\/24$/ }] }, "an address of the node's pod CIDR");
  const { node, refused } = (await container.api?.ask()) ?? { node: {}, refused: ['nothing was asked'] };
  t.same(refused, [], 'the ClusterRole is enough');
  t.match(node.metadata.annotations, { 'flannel.alpha.coreos.com/public-ip': '10.88.0.1' });
  t.match(node.status.conditions, [{ type: 'NetworkUnavailable', status: 'False' }]);
  t.equal(await container.stop(), 0, container.said());
});

t.test('without CAP_SYS_ADMIN no pod can be plugged in, and the overlay works', { skip }, async t => {
  const container = await start(
    t,
    NEEDED.filter(name => name !== 'SYS_ADMIN'),
  );
  await container.ready();
  container.addPod('pod1');
  const { status, answer } = container.cni('ADD', 'pod1');
  t.not(status, 0, 'the comment in the manifest is true');
  t.match(answer, { code: Number, msg: /setns|EPERM/ });
});

t.test('without CAP_NET_ADMIN it does not start', { skip }, async t => {
  const container = await start(
    t,
    NEEDED.filter(name => name !== 'NET_ADMIN'),
  );
  await t.rejects(container.ready());
  t.match(container.said(), /^tulled: no permission to make a TUN device: .*CAP_NET_ADMIN/m);
});

t.test("without the host's settings an ADD says what could not be written", { skip }, async t => {
  const container = await start(t, NEEDED, { without: ['sysctl'] });
  await container.ready();
  container.addPod('pod1');
  const { status, answer } = container.cni('ADD', 'pod1');
  t.not(status, 0);
  t.match(answer, { msg: /EROFS/ });
});

t.test(
  'on a node without br_netfilter pods are plugged in, and one line says what does not work',
  { skip },
  async t => {
    const container = await start(t, NEEDED, {
      hidden: hasBridgeNetfilter ? ['/proc/sys/net/bridge'] : [],
    });
    await container.ready();
    for (const pod of ['pod1', 'pod2']) {
      container.addPod(pod);
      t.equal(container.cni('ADD', pod).status, 0);
    }
    t.equal(await container.stop(), 0, container.said());
    const lines = container.said().split('\n');
    t.match(
      lines.filter(line => line.includes(' warn ')),
      [/a Service does not reach .*"modprobe br_netfilter", or "mode": "ptp".*br_netfilter is not loaded/],
      'once, not with each pod',
    );
  },
);
