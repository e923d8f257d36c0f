// tulled in a cluster of Kubernetes: what it says, what it survives, and what it refuses.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parseSubnetEnv } from '../../lib/lease/subnet-env.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { formatCidr4 } from '../../lib/wire/cidr.ts';
import { skip } from '../daemon/node.ts';
import { until } from '../kube/support.ts';
import { makeKubeCluster } from '../support/kube-cluster.ts';
import { connectFrom, runIn, transfer } from '../support/pods.ts';

const quiet = ['--probe-interval=0'];

t.test('a node in a cluster: announced, ready, and through the loss of the API server', { skip }, async t => {
  const cluster = await makeKubeCluster(t, 2);
  const [one, two] = [1, 2].map(k => cluster.tulled(k, quiet));
  await Promise.all([one.saw(/ ready /), two.saw(/ ready /)]);
  const nodeOf = async (k: number) => (await cluster.api('GET', `/api/v1/nodes/node${k}`)).object;
  t.match(await nodeOf(1), {
    metadata: {
      annotations: {
        'flannel.alpha.coreos.com/kube-subnet-manager': 'true',
        'flannel.alpha.coreos.com/public-ip': '10.88.0.1',
        'flannel.alpha.coreos.com/backend-type': 'tulle',
      },
    },
  });
  await until('the condition', async () => JSON.stringify(await nodeOf(1)).includes('"TulleIsUp"'));
  const env = parseSubnetEnv(readFileSync(join(cluster.directory, 'subnet1.env'), 'utf8'));
  t.same(env.subnets.map(formatCidr4), ['10.42.0.0/24'], 'the first subnet of the network, as the cluster gave it');

  const [a, b] = [await cluster.addPod(1, 'a'), await cluster.addPod(2, 'b')];
  t.equal(await transfer(a.namespace, b.namespace, b.address, 2_000_000), 'whole');
  await cluster.killApi();
  await one.saw(/the watch of nodes is interrupted/);
  t.equal(await transfer(a.namespace, b.namespace, b.address, 2_000_000), 'whole', 'without an API server');

  // It comes back with nothing in it but nodes of the same names, other UIDs and no annotations.
  await cluster.startApi();
  // The waits have grown meanwhile, to 30 s and a half at the most.
  await Promise.all([one, two].map(tulled => tulled.saw(/made again/, 60_000)));
  await until('the annotations', async () => JSON.stringify(await nodeOf(2)).includes('"10.88.0.2"'));
  await until(
    'the way to the pod',
    async () => (await connectFrom(a.namespace, b.address, 9)) === 'ECONNREFUSED',
    60_000,
  );
  t.equal(await transfer(b.namespace, a.namespace, a.address, 2_000_000), 'whole', 'and back');
  await until('the condition of the new node', async () => JSON.stringify(await nodeOf(1)).includes('"TulleIsUp"'));
  t.equal((await one.end('SIGTERM')).code, 0);
});

t.test('its node is deleted, and made again with another pod CIDR', { skip }, async t => {
  const cluster = await makeKubeCluster(t, 2);
  const [one, two] = [1, 2].map(k => cluster.tulled(k, quiet));
  await Promise.all([one.saw(/ ready /), two.saw(/ ready /)]);
  const [a, b] = [await cluster.addPod(1, 'a'), await cluster.addPod(2, 'b')];
  t.equal(await transfer(a.namespace, b.namespace, b.address, 10_000), 'whole');
  await cluster.api('DELETE', '/api/v1/nodes/node1');
  await one.saw(/forwarding stops/);
  await two.saw(/peer removed/);
  t.equal(one.child.exitCode, null, 'it waits for its node');
  const spec = { podCIDR: '10.42.77.0/24', podCIDRs: ['10.42.77.0/24'] };
  await cluster.api('POST', '/api/v1/nodes', { metadata: { name: 'node1' }, spec });
  t.equal((await one.ended).code, 2);
  t.match(one.stderr(), /the lease is lost: the registry gives this node 10\.42\.77\.0\/24 now, not 10\.42\.0\.0\/24/);
  const again = cluster.tulled(1, quiet);
  await again.saw(/lease acquired.*10\.42\.77\.0\/24/);
  await two.saw(/peer added.*10\.42\.77\.0\/24/);
});

t.test('no pod CIDR yet: it says so and waits', { skip }, async t => {
  const cluster = await makeKubeCluster(t, 1);
  await cluster.api('POST', '/api/v1/nodes', { metadata: { name: 'late' } });
  const tulled = cluster.tulled(1, [...quiet, '-healthz-ip=127.0.0.1', '-healthz-port=18091'], { NODE_NAME: 'late' });
  await tulled.saw(/waiting for the registry.*has no podCIDR: .*--allocate-node-cidrs/);
  const readyz = `fetch('http://127.0.0.1:18091/readyz').then(async r => console.log(r.status, await r.text()));`;
  t.match(await runIn(cluster.node(1), readyz), /^503 not ready: waiting for the network configuration/);
  await cluster.api('PATCH', '/api/v1/nodes/late', { spec: { podCIDR: '10.42.5.0/24', podCIDRs: ['10.42.5.0/24'] } });
  await tulled.saw(/lease acquired.*10\.42\.5\.0\/24[\s\S]* ready /);
});

t.test('flannel runs here, or left its device behind', { skip }, async t => {
  const cluster = await makeKubeCluster(t, 1);
  withRtnetlink(cluster.node(1), netlink => {
    netlink.createVeth({ name: 'flannel.1', peerName: 'peer0', up: true });
    netlink.addAddress('flannel.1', '10.42.0.0/32');
    netlink.setLink('peer0', { up: true });
    netlink.addRoute({ destination: '10.42.1.0/24', gateway: '10.42.1.0', link: 'flannel.1', onlink: true });
  });
  const tulled = cluster.tulled(1, quiet);
  t.equal((await tulled.ended).code, 1);
  t.match(
    tulled.stderr(),
    /^tulled: packets for 10\.42\.0\.0\/16 already leave by other routes \(10\.42\.1\.0\/24 dev flannel\.1\): .*kubectl -n kube-flannel delete daemonset kube-flannel-ds.*"ip link delete flannel\.1", and start again\n$/,
  );
  const { object } = await cluster.api('GET', '/api/v1/nodes/node1');
  t.notMatch(JSON.stringify(object), /flannel\.alpha/, 'nothing was announced');
  withRtnetlink(cluster.node(1), netlink => netlink.deleteLink('flannel.1'));
  const second = cluster.tulled(1, quiet);
  await second.saw(/ ready /);
});

t.test('what is wrong with the start is one line', { skip }, async t => {
  const cluster = await makeKubeCluster(t, 1);
  const cases: [string[], Record<string, string>, RegExp][] = [
    [[], { NODE_NAME: '' }, /^tulled: which node is this\? Set NODE_NAME, or POD_NAME and POD_NAMESPACE/],
    [['-kubeconfig-file=/no/such/file'], {}, /^tulled: the kubeconfig \/no\/such\/file cannot be read \(ENOENT/],
    [
      ['-kubeconfig-file=/proc/self/status'],
      {},
      /^tulled: the kubeconfig \/proc\/self\/status (is none|names no current-context)/,
    ],
    [
      ['-kubeconfig-file='],
      {},
      /^tulled: this is no pod \(KUBERNETES_SERVICE_HOST is not set\): give -kubeconfig-file/,
    ],
    [['-kube-api-url=10.88.0.254:6443'], {}, /^tulled: -kube-api-url: "10\.88\.0\.254:6443" /],
  ];
  for (const [args, environment, line] of cases) {
    const tulled = cluster.tulled(1, [...quiet, ...args], environment);
    t.equal((await tulled.ended).code, 1);
    t.match(tulled.stderr(), line);
    t.equal(tulled.stderr().trimEnd().split('\n').length, 1, tulled.stderr());
  }
});
