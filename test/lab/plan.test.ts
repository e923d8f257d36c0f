import t from 'tap';
import { checkLabName, networkConfig, pairsOf, planLab, podAddress } from '../../lib/lab/plan.ts';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { isLinkName } from '../../lib/netlink/link.ts';

const options = { name: 'lab', registry: 'file', transport: 'offload' } as const;

t.test('three nodes, two pods each', async t => {
  t.same(planLab({ ...options, nodes: 3, pods: 2 }), {
    ...options,
    nodes: 3,
    pods: 2,
    nodePlans: [
      { name: 'node1', address: '10.88.0.1' },
      { name: 'node2', address: '10.88.0.2' },
      { name: 'node3', address: '10.88.0.3' },
    ],
    podPlans: [
      { name: 'pod1', node: 'node1', index: 0 },
      { name: 'pod2', node: 'node1', index: 1 },
      { name: 'pod3', node: 'node2', index: 0 },
      { name: 'pod4', node: 'node2', index: 1 },
      { name: 'pod5', node: 'node3', index: 0 },
      { name: 'pod6', node: 'node3', index: 1 },
    ],
  });
});

t.test('the largest plan: every name is a link name, none is there twice', async t => {
  const plan = planLab({ ...options, nodes: 50, pods: 100 });
  const names = [...plan.nodePlans, ...plan.podPlans].map(entry => entry.name);
  t.equal(names.length, 5050);
  t.equal(new Set(names).size, names.length);
  t.ok(names.every(isLinkName));
  t.equal(plan.nodePlans.at(-1)?.address, '10.88.0.50');
});

t.test('pods come after the gateway', async t => {
  t.equal(podAddress('10.42.7.1', 0), '10.42.7.2');
  t.equal(podAddress('10.42.7.1', 99), '10.42.7.101');
  t.throws(() => podAddress('nonsense', 0), RangeError);
});

t.test('pairs', async t => {
  t.same(pairsOf([]), []);
  t.same(pairsOf(['a']), []);
  t.same(pairsOf(['a', 'b', 'c']), [
    ['a', 'b'],
    ['a', 'c'],
    ['b', 'c'],
  ]);
});

t.test('names of labs', async t => {
  for (const name of ['lab', 'a', '0', 'my-lab-2']) t.equal(checkLabName(name), name);
  for (const name of ['', '-x', 'Lab', 'a/b', '..', 'a b', 'ä', 'x'.repeat(32)]) {
    t.throws(() => checkLabName(name), { code: 'usage' }, JSON.stringify(name));
  }
});

t.test('the net-conf is one that a daemon takes', async t => {
  t.match(parseNetworkConfig(networkConfig()), { subnetLength: 24, backendType: 'tulle' });
});
