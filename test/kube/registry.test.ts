// The Kubernetes registry against an API server: what it writes, byte for byte, what it reads, and what it refuses.
import t from 'tap';
import { leaseKeyOf, printSubnets } from '../../lib/lease/lease.ts';
import { announced, attributesOf, openBench, prefix, until } from './support.ts';

t.test('a node announces itself in flannel annotations', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.0.0/24']);
  const registry = bench.registry('node1');
  const { text } = await registry.config();
  t.same(
    JSON.parse(text),
    { Network: '10.42.0.0/16', Backend: { Type: 'tulle' }, SubnetLen: 24, SubnetMin: '10.42.0.0' },
    'the subnets are those of the cluster, the first one too',
  );
  t.equal(registry.thisNode?.().name, 'node1');
  const { assigned } = await registry.list();
  t.equal(assigned && printSubnets(assigned), '10.42.0.0/24');
  const lease = await registry.update(assigned!, attributesOf('node1', '10.88.0.1'), null);
  t.equal(lease.expiresAtMs, null);
  t.same(bench.annotations('node1'), {
    'backend-data': '{"Version":1,"Port":8285,"NodeID":"node1"}',
    'backend-type': 'tulle',
    'kube-subnet-manager': 'true',
    'public-ip': '10.88.0.1',
  });
  t.match(bench.getNode('node1').status, { conditions: [{ type: 'Ready' }, { status: 'True' }] }, 'not ready yet');
  registry.announceReady?.();
  await until('the condition', () => JSON.stringify(bench.getNode('node1').status).includes('TulleIsUp'));
  t.match(bench.getNode('node1').status, {
    conditions: [
      { type: 'Ready', status: 'True' },
      { type: 'NetworkUnavailable', status: 'False', reason: 'TulleIsUp' },
    ],
  });

  const version = bench.getNode('node1').metadata.resourceVersion;
  const again = await registry.update(lease, lease.attributes, null);
  t.same(again, lease, 'the same once more');
  t.equal(bench.getNode('node1').metadata.resourceVersion, version, 'is no write');
});

t.test("flannel's udp backend, as flannel writes it", async t => {
  const bench = await openBench(t, {}, { Network: '10.42.0.0/16' });
  bench.addNode('node1', ['10.42.1.0/24']);
  const registry = bench.registry('node1');
  await registry.config();
  const { assigned } = await registry.list();
  await registry.update(assigned!, { PublicIP: '10.88.0.1', PublicIPv6: null }, null);
  t.same(bench.annotations('node1'), {
    'backend-data': 'null',
    'backend-type': 'udp',
    'kube-subnet-manager': 'true',
    'public-ip': '10.88.0.1',
  });
  const { leases } = await registry.list();
  t.same(leases[0].attributes, { PublicIP: '10.88.0.1', PublicIPv6: null, BackendType: 'udp' });
});

t.test('what flannel left is taken over, what an operator wrote is obeyed', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24'], {
    [`${prefix}/kube-subnet-manager`]: 'true',
    [`${prefix}/backend-type`]: 'vxlan',
    [`${prefix}/backend-data`]: '{"VNI":1,"VtepMAC":"4e:08:1b:1c:1d:1e"}',
    [`${prefix}/backend-v6-data`]: '{"VNI":1,"VtepMAC":"4e:08:1b:1c:1d:1f"}',
    [`${prefix}/public-ip`]: '10.88.0.77',
    [`${prefix}/public-ip-overwrite`]: '192.0.2.7',
    'node.alpha.kubernetes.io/ttl': '0',
  });
  const registry = bench.registry('node1');
  await registry.config();
  const { assigned } = await registry.list();
  t.match(assigned?.attributes, { BackendType: 'vxlan', PublicIP: '10.88.0.77' });
  const lease = await registry.update(assigned!, attributesOf('node1', '10.88.0.1'), null);
  t.equal(lease.attributes.PublicIP, '192.0.2.7', 'public-ip-overwrite');
  t.same(bench.annotations('node1'), {
    'backend-data': '{"Version":1,"Port":8285,"NodeID":"node1"}',
    'backend-type': 'tulle',
    'kube-subnet-manager': 'true',
    'node.alpha.kubernetes.io/ttl': '0',
    'public-ip': '192.0.2.7',
    'public-ip-overwrite': '192.0.2.7',
  });
  bench.write('node1', { metadata: { annotations: { [`${prefix}/public-ip-overwrite`]: 'nonsense' } } });
  const own = await registry.update(lease, attributesOf('node1', '10.88.0.1'), null);
  t.equal(own.attributes.PublicIP, '10.88.0.1', 'an overwrite that is no address is not obeyed');
  t.ok(bench.lines.some(line => line.includes('these are no addresses') && line.includes('nonsense')));
  bench.write('node1', { metadata: { annotations: { [`${prefix}/backend-data`]: '{}' } } });
  await t.rejects(registry.update(own, own.attributes, null), { code: 'conflict' }, 'somebody else announced');
  await t.rejects(registry.remove(own), { code: 'conflict' });
  await registry.remove((await registry.list()).assigned!);
  t.same(Object.keys(bench.annotations('node1')), ['node.alpha.kubernetes.io/ttl', 'public-ip-overwrite']);
});

t.test('another prefix', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24']);
  const registry = bench.registry('node1', { annotationPrefix: 'example.org/net' });
  await registry.config();
  const { assigned } = await registry.list();
  await registry.update(assigned!, attributesOf('node1', '10.88.0.1'), null);
  t.equal(bench.annotations('node1')['example.org/net-public-ip'], '10.88.0.1');
  t.throws(() => bench.registry('node1', { annotationPrefix: 'Not A Prefix' }), { code: 'bad-option' });
});

t.test('two families', async t => {
  const bench = await openBench(
    t,
    {},
    {
      Network: '10.42.0.0/16',
      EnableIPv6: true,
      IPv6Network: 'fd00:42::/48',
      Backend: { Type: 'tulle' },
    },
  );
  bench.addNode('node1', ['10.42.1.0/24', 'fd00:42:0:1::/64']);
  const registry = bench.registry('node1');
  t.match(JSON.parse((await registry.config()).text), { SubnetLen: 24, IPv6SubnetLen: 64, IPv6SubnetMin: 'fd00:42::' });
  const { assigned } = await registry.list();
  t.equal(assigned && printSubnets(assigned), '10.42.1.0/24 fd00:42:0:1::/64');
  const attributes = { ...attributesOf('node1', '10.88.0.1'), PublicIPv6: 'fd88::1' };
  await registry.update(assigned!, attributes, null);
  t.equal(bench.annotations('node1')['public-ipv6'], 'fd88::1');

  const only4 = await openBench(t);
  only4.addNode('node1', ['10.42.1.0/24', 'fd00:42:0:1::/64']);
  const second = only4.registry('node1');
  await second.config();
  const found = (await second.list()).assigned;
  t.equal(found && printSubnets(found), '10.42.1.0/24', 'a family that the net-conf does not carry is left out');
});

t.test('the lease key changes when the subnet changes hands, and only then', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  bench.addNode('node2', ['10.42.2.0/24'], announced('node2', '10.88.0.2'));
  const keyOn = async (node: string): Promise<number> => {
    const { leases } = await bench.registry(node).list();
    return leaseKeyOf(leases.find(lease => printSubnets(lease) === '10.42.1.0/24')!);
  };
  const key = await keyOn('node1');
  t.equal(await keyOn('node2'), key, 'the same on every node');
  bench.write('node1', { metadata: { annotations: { [`${prefix}/public-ip`]: '10.88.0.9' } } });
  t.equal(await keyOn('node2'), key, 'a new address is the same holder');
  bench.removeNode('node1');
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  t.not(await keyOn('node2'), key, 'a node that was made again is another one');
});

t.test('what cannot be, in one line each', async t => {
  const bench = await openBench(t);
  const registry = bench.registry('node1');
  await t.rejects(registry.config(), { code: 'no-config', message: /no node node1.*kubelet/ });
  bench.addNode('node1');
  await t.rejects(registry.config(), { code: 'no-config', message: /no podCIDR.*--allocate-node-cidrs/ });
  bench.addNode('node2', ['10.1.2.0/24']);
  await t.rejects(bench.registry('node2').config(), {
    code: 'corrupt',
    message: /the pod CIDR 10\.1\.2\.0\/24, which is not in Network 10\.42\.0\.0\/16.*--cluster-cidr/,
  });
  bench.addNode('node3', ['10.42.3.0/24', '10.42.4.0/24']);
  await t.rejects(bench.registry('node3').config(), { code: 'no-config', message: /not one subnet of each family/ });
  bench.addNode('node4', ['10.42.3.7/24']);
  await t.rejects(bench.registry('node4').config(), { code: 'no-config', message: /not one subnet of each family/ });
  const lost = bench.registry('node2', { netConfigPath: '/no/such/file' });
  await t.rejects(lost.config(), { code: 'no-config', message: /-net-config-path/ });
  const create = registry.create(
    { subnet: { address: 0x0a2a0900, prefixLength: 24 }, attributes: attributesOf('node2', '10.88.0.2') },
    60,
  );
  await t.rejects(
    create,
    { code: 'unavailable', message: /--allocate-node-cidrs/ },
    'nobody but the cluster gives subnets',
  );
});

t.test('two nodes with one pod CIDR: the older one has it', async t => {
  const bench = await openBench(t);
  bench.addNode('old', ['10.42.1.0/24'], announced('old', '10.88.0.1'));
  const { creationTimestamp } = bench.getNode('old').metadata;
  await until('a later second', () => new Date().toISOString().slice(0, 19) !== creationTimestamp.slice(0, 19));
  bench.addNode('a-new', ['10.42.1.0/24'], announced('a-new', '10.88.0.2'));
  const { leases } = await bench.registry(undefined).list();
  t.same(
    leases.map(lease => lease.attributes.PublicIP),
    ['10.88.0.1'],
  );
  t.ok(bench.lines.some(line => line.includes('a-new') && line.includes('older node old')));
});

t.test('a pod that asks on which node it runs', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24']);
  const path = `${bench.api.url}/api/v1/namespaces/tulle/pods`;
  const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'tulle-x' }, spec: { nodeName: 'node1' } };
  t.equal((await fetch(path, { method: 'POST', body: JSON.stringify(pod) })).status, 201);
  const registry = bench.registry(undefined, { node: { pod: { namespace: 'tulle', name: 'tulle-x' } } });
  await registry.config();
  t.equal(registry.thisNode?.().name, 'node1');
});
