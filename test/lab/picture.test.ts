import t, { type Test } from 'tap';
import { type LabFacts, picture, summarise } from '../../lib/lab/picture.ts';
import { pairsOf, planLab } from '../../lib/lab/plan.ts';
import { resultOf } from '../../lib/lab/result.ts';

/** A lab as it would be; node K has subnet 10.42.13K.0/24. */
function factsOf(nodes: number, pods: number, changes: Partial<LabFacts> = {}): LabFacts {
  const plan = planLab({ name: 'lab', nodes, pods, registry: 'file', transport: 'offload' });
  const subnet = (node: string): string => `10.42.${13 * Number(node.slice(4))}`;
  const podFacts = plan.podPlans.map(pod => ({
    name: pod.name,
    node: pod.node,
    address: `${subnet(pod.node)}.${pod.index + 2}`,
    mtu: 1460,
  }));
  const firsts = plan.nodePlans.map(node => podFacts.find(pod => pod.node === node.name)!);
  return {
    name: 'lab',
    registry: 'file',
    transport: 'offload',
    underlay: '10.88.0.0/24',
    network: '10.42.0.0/16',
    seconds: 2.134,
    nodes: plan.nodePlans.map((node, i) => ({
      name: node.name,
      address: node.address,
      underlayMtu: 1500,
      subnet: `${subnet(node.name)}.0/24`,
      leaseSeconds: 86_399,
      leaseKey: i + 3,
      device: { name: 'tulle0', address: `${subnet(node.name)}.0/32`, mtu: 1460 },
      bridge: { name: 'cni0', address: `${subnet(node.name)}.1/24`, mtu: 1460 },
      port: 8285,
      pid: 4242 + i,
    })),
    pods: podFacts,
    pairs: pairsOf(firsts).map(([from, to], i) => ({
      from: from.name,
      to: to.name,
      sent: 20,
      received: 20,
      medianMs: 0.0871 + 0.01 * i,
      leastMs: 0.07,
    })),
    underlayPair: { from: 'node1', to: 'node2', sent: 20, received: 20, medianMs: 0.0434, leastMs: 0.03 },
    tcp: { from: 'pod1', to: firsts[1].name, seconds: 3, gbps: 12.345, underlayGbps: 24.1, others: [] },
    hints: ['tulle lab exec pod1 -- ping -c 3 10.42.26.2', 'tulle lab down'],
    ...changes,
  };
}

const golden = (t: Test, facts: LabFacts, expected: string): void => {
  const lines = picture(facts);
  t.equal(lines.join('\n'), expected);
  t.ok(
    lines.every(line => line.length <= 92 && line === line.trimEnd()),
    '92 columns are enough, and no line ends in a blank',
  );
};

t.test('two nodes', async t => {
  golden(
    t,
    factsOf(2, 1),
    `
 lab "lab" · 2 nodes, 2 pods · registry file · transport offload · up in 2.1 s

   underlay 10.88.0.0/24 · MTU 1500 · pod network 10.42.0.0/16
 ══╤═════════════════════════════════════════════╤═════════════════════════════════════════
   │ eth0 10.88.0.1                              │ eth0 10.88.0.2
 ┌─┴─ node1 ────────────────────────────────┐  ┌─┴─ node2 ────────────────────────────────┐
 │ tulled   UDP port 8285          pid 4242 │  │ tulled   UDP port 8285          pid 4243 │
 │ lease    10.42.13.0/24       24 h, key 3 │  │ lease    10.42.26.0/24       24 h, key 4 │
 │ tulle0   10.42.13.0/32          MTU 1460 │  │ tulle0   10.42.26.0/32          MTU 1460 │
 │ cni0     10.42.13.1/24          MTU 1460 │  │ cni0     10.42.26.1/24          MTU 1460 │
 └─┬────────────────────────────────────────┘  └─┬────────────────────────────────────────┘
   └─ pod1   10.42.13.2            MTU 1460      └─ pod2   10.42.26.2            MTU 1460

 Round trip, pod to pod: median in ms · 20 echoes, none lost · plain underlay 0.043
   pod1 → pod2   0.087   (least 0.070)

 TCP, one stream, 3 s each: the overlay is 0.51 of the plain underlay
   pod1 → pod2   12.35 Gb/s  █████████████████████████
   underlay      24.10 Gb/s  ████████████████████████████████████████████████

 To look around, in another terminal:
   tulle lab exec pod1 -- ping -c 3 10.42.26.2
   tulle lab down
`,
  );
});

t.test('three nodes, two pods each: a second row, a matrix', async t => {
  golden(
    t,
    factsOf(3, 2, { name: 'second', registry: 'etcd', transport: 'dgram', hints: [] }),
    `
 lab "second" · 3 nodes, 6 pods · registry etcd · transport dgram · up in 2.1 s

   underlay 10.88.0.0/24 · MTU 1500 · pod network 10.42.0.0/16
 ══╤═════════════════════════════════════════════╤═════════════════════════════════════════
   │ eth0 10.88.0.1                              │ eth0 10.88.0.2
 ┌─┴─ node1 ────────────────────────────────┐  ┌─┴─ node2 ────────────────────────────────┐
 │ tulled   UDP port 8285          pid 4242 │  │ tulled   UDP port 8285          pid 4243 │
 │ lease    10.42.13.0/24       24 h, key 3 │  │ lease    10.42.26.0/24       24 h, key 4 │
 │ tulle0   10.42.13.0/32          MTU 1460 │  │ tulle0   10.42.26.0/32          MTU 1460 │
 │ cni0     10.42.13.1/24          MTU 1460 │  │ cni0     10.42.26.1/24          MTU 1460 │
 └─┬────────────────────────────────────────┘  └─┬────────────────────────────────────────┘
   ├─ pod1   10.42.13.2            MTU 1460      ├─ pod3   10.42.26.2            MTU 1460
   └─ pod2   10.42.13.3            MTU 1460      └─ pod4   10.42.26.3            MTU 1460
 ══╤═══════════════════════════════════════════════════════════════════════════════════════
   │ eth0 10.88.0.3
 ┌─┴─ node3 ────────────────────────────────┐
 │ tulled   UDP port 8285          pid 4244 │
 │ lease    10.42.39.0/24       24 h, key 5 │
 │ tulle0   10.42.39.0/32          MTU 1460 │
 │ cni0     10.42.39.1/24          MTU 1460 │
 └─┬────────────────────────────────────────┘
   ├─ pod5   10.42.39.2            MTU 1460
   └─ pod6   10.42.39.3            MTU 1460

 Round trip, pod to pod: median in ms · 60 echoes, none lost · plain underlay 0.043
               pod3     pod5
   pod1       0.087    0.097
   pod3                0.107

 TCP, one stream, 3 s each: the overlay is 0.51 of the plain underlay
   pod1 → pod3   12.35 Gb/s  █████████████████████████
   underlay      24.10 Gb/s  ████████████████████████████████████████████████
`,
  );
});

t.test('many nodes: least, middle and most', async t => {
  const text = picture(factsOf(10, 1)).join('\n');
  t.match(
    text,
    / Round trip, pod to pod: median in ms · 900 echoes, none lost · plain underlay 0\.043\n {3}least {3}0\.087 {3}pod1 → pod2\n/,
  );
  t.match(text, /\n {3}middle {2}0\.307 {3}pod3 → pod9\n {3}most {4}0\.527 {3}pod9 → pod10\n/);
  t.equal(text.match(/┌─┴─ node/g)?.length, 10);
});

t.test('losses, slow paths, long keys, leases that end soon', async t => {
  const facts = factsOf(2, 1);
  const [node1, node2] = facts.nodes;
  const text = picture({
    ...facts,
    nodes: [
      { ...node1, leaseKey: 4294967295, subnet: '10.42.255.0/24', leaseSeconds: 75.2 },
      { ...node2, leaseSeconds: 75.2 },
    ],
    pairs: [{ from: 'pod1', to: 'pod2', sent: 20, received: 0, medianMs: null, leastMs: null }],
    tcp: { from: 'pod1', to: 'pod2', seconds: 1, gbps: 0.0123, underlayGbps: 30, others: [] },
  });
  t.match(text.join('\n'), /│ lease +10\.42\.255\.0\/24 +key 4294967295 │/);
  t.match(text.join('\n'), / 75 s, key 4 │/);
  t.match(text.join('\n'), /20 echoes, 20 lost · plain underlay 0\.043\n {3}pod1 → pod2 {3}lost/);
  t.match(text.join('\n'), /the overlay is 0\.00041 of/);
  t.match(text.join('\n'), /pod1 → pod2 {3}0\.012 Gb\/s {2}█\n/, 'the shortest bar is one block');
  t.ok(text.every(line => line.length <= 92));
});

t.test('all transports', async t => {
  const facts = factsOf(2, 1);
  const others = [
    { transport: 'batch', gbps: 0.64 },
    { transport: 'dgram', gbps: 0.29 },
  ];
  const text = picture({ ...facts, tcp: { ...facts.tcp, others } });
  const expected = ` TCP, one stream, 3 s each: the overlay is 0.51 of the plain underlay
   pod1 → pod2   12.35 Gb/s  █████████████████████████
     batch       0.640 Gb/s  █
     dgram       0.290 Gb/s  █
   underlay      24.10 Gb/s  ████████████████████████████████████████████████`;
  const start = text.findIndex(line => line.startsWith(' TCP'));
  t.equal(text.slice(start, start + 5).join('\n'), expected);
  t.match(resultOf({ ...facts, tcp: { ...facts.tcp, others } }), {
    tcp: { gbps: 12.345, underlayGbps: 24.1, transports: { offload: 12.345, batch: 0.64, dgram: 0.29 } },
  });
  t.match(Object.keys((resultOf(facts) as { tcp: object }).tcp), ['gbps', 'underlayGbps']);
});

t.test('the summary of all pairs', async t => {
  t.same(summarise([]), { sent: 0, received: 0, rttMs: null, minRttMs: null });
  t.match(summarise(factsOf(3, 1).pairs), { sent: 60, received: 60, rttMs: /^0\.0971?/, minRttMs: 0.07 });
});
