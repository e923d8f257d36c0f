/**
 *   pod (namespace)          node1 (namespace)                       node2 (namespace)
 *   eth0 10.42.1.2/24 ────── pod0   10.42.1.1/24
 *                            tulle0 10.42.1.0/32 ── UDP 8285 ─┐  ┌── tulle0 10.42.2.0/32
 *                            eth0   10.88.0.1 ────────────────┴──┴── eth0   10.88.0.2
 *
 * Every report of the data path must reach a real process, in the pod and on the node, under every setting of rp_filter.
 */
import { join } from 'node:path';
import t from 'tap';
import { setSysctl } from '../../lib/host/sysctl.ts';
import { ping } from '../../lib/lab/ping.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace } from '../../lib/sys/sys.ts';
import { addressOf, leaseOf, type TwoNodes, twoNodes } from '../support/overlays.ts';
import { connectFrom, hearErrors, makePod, runIn, sendFrom, transfer } from '../support/pods.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

/** Two nodes, and a pod on the first. */
function withPod(t: { teardown(undo: () => void): void }, mtu?: number): TwoNodes & { pod: string } {
  const nodes = twoNodes();
  const pod = join(nodes.namespaces[0], '../pod');
  makePod({
    node: nodes.namespaces[0],
    path: pod,
    addresses: [{ pod: '10.42.1.2/24', node: '10.42.1.1/24' }],
    ...(mtu && { mtu }),
  });
  t.teardown(() => {
    removeNamespace(pod);
    nodes.remove();
  });
  return { ...nodes, pod };
}

for (const [rpFilter, transport] of [
  [0, 'offload'],
  [1, 'batch'],
  [2, 'dgram'],
] as const) {
  t.test(`no lease, a TTL that ends: the pod and the node are told (rp_filter ${rpFilter}, ${transport})`, async t => {
    const nodes = withPod(t);
    const [node] = nodes.namespaces;
    setSysctl(node, 'net.ipv4.conf.all.rp_filter', rpFilter);
    setSysctl(node, 'net.ipv4.conf.default.rp_filter', rpFilter);
    const [one, two] = [await nodes.start(1, { transport }), await nodes.start(2, { transport })];
    one.apply([{ kind: 'add', lease: leaseOf(2) }]);
    two.apply([{ kind: 'add', lease: leaseOf(1) }]);

    const outcomes = await Promise.all([
      connectFrom(nodes.pod, '10.42.77.5', 80),
      connectFrom(node, '10.42.77.5', 80),
      connectFrom(node, '10.42.77.5', 80, '10.88.0.1'),
    ]);
    t.same(outcomes, ['ENETUNREACH', 'ENETUNREACH', 'ENETUNREACH'], 'a connect fails at once, from wherever');

    for (const [where, namespace, hops] of [
      ['pod', nodes.pod, ['10.42.1.1', '10.42.0.0']],
      ['node', node, ['10.42.0.0']],
    ] as const) {
      const heard = hearErrors(namespace);
      for (const [i, hop] of hops.entries()) {
        await sendFrom(namespace, addressOf(2), { ttl: i + 1 });
        const error = await heard.next();
        t.match(error, { from: hop, type: 11, code: 0 }, `${where}: hop ${i + 1} of a traceroute`);
        t.equal(error?.quoted[9], 17, 'quotes the datagram');
      }
      await sendFrom(namespace, addressOf(2), { ttl: hops.length + 1 });
      t.match(await heard.next(), { from: addressOf(2), type: 3, code: 3 }, `${where}: then node 2 answers itself`);
      heard.close();
    }
    t.ok(one.counters()['icmp-sent'] >= 5);
    t.ok(one.drops()['egress-no-lease'] >= 3);
    await Promise.all([one.stop(), two.stop()]);
  });
}

t.test(
  'a pod that does not exist on this node, where the node has no route for its pods: host unreachable',
  async t => {
    const nodes = twoNodes();
    t.teardown(nodes.remove);
    const one = await nodes.start(1);
    t.equal(await connectFrom(nodes.namespaces[0], '10.42.1.9', 80), 'EHOSTUNREACH');
    await one.stop();
  },
);

t.test('a packet that is too long for the path: the pod learns how long it may be', async t => {
  const nodes = withPod(t);
  const [node, node2] = nodes.namespaces;
  const [one, two] = [await nodes.start(1), await nodes.start(2)];
  one.apply([{ kind: 'add', lease: leaseOf(2) }]);
  two.apply([{ kind: 'add', lease: leaseOf(1) }]);
  t.equal((await ping(nodes.pod, addressOf(2), { count: 1, intervalMs: 1, timeoutMs: 2_000 })).received, 1);

  // The way to node 2 alone becomes narrow, as behind a router: the link, and with it the overlay's MTU, stay as they are.
  withRtnetlink(node, netlink =>
    netlink.addRoute({ destination: '10.88.0.2/32', link: 'eth0', mtu: 1300, scope: 'link' }),
  );
  const heard = hearErrors(nodes.pod);
  await sendFrom(nodes.pod, addressOf(2), { bytes: 1400 });
  t.match(await heard.next(), { from: '10.42.0.0', type: 3, code: 4, rest: 1260 }, 'fragmentation needed');
  heard.close();

  t.equal(
    await askUntilRefused(nodes.pod, addressOf(2)),
    'ECONNREFUSED',
    "a UDP socket's kernel sends fragments from then on, which get to the closed port at the other end",
  );
  t.equal(await transfer(nodes.pod, node2, addressOf(2), 3_000_000), 'whole', 'TCP of the pod');
  t.equal(await transfer(node, node2, addressOf(2), 3_000_000), 'whole', 'TCP of the node');
  t.ok(one.drops()['egress-too-big'] > 0);
  await Promise.all([one.stop(), two.stop()]);
});

t.test("the underlay's MTU changes under a running overlay", async t => {
  const nodes = withPod(t);
  const [node, node2] = nodes.namespaces;
  const mtus: number[] = [];
  const [one, two] = [await nodes.start(1, { onMtu: mtu => mtus.push(mtu) }), await nodes.start(2)];
  one.apply([{ kind: 'add', lease: leaseOf(2) }]);
  two.apply([{ kind: 'add', lease: leaseOf(1) }]);
  t.equal(await transfer(nodes.pod, node2, addressOf(2), 1_000_000), 'whole');
  const running = transfer(nodes.pod, node2, addressOf(2), 40_000_000);
  const deviceMtu = (path: string) => withRtnetlink(path, netlink => netlink.link('tulle0')?.mtu);
  for (const mtu of [1300, 900, 1500]) {
    for (const path of [node, node2]) withRtnetlink(path, netlink => netlink.setLink('eth0', { mtu }));
    for (let i = 0; i < 500 && (deviceMtu(node) !== mtu - 40 || deviceMtu(node2) !== mtu - 40); i++)
      await new Promise(resolve => setTimeout(resolve, 10));
    t.same([deviceMtu(node), deviceMtu(node2), one.mtu], [mtu - 40, mtu - 40, mtu - 40]);
  }
  t.same(mtus, [1260, 860, 1460]);
  t.equal(await running, 'whole', 'TCP goes on');
  withRtnetlink(node, netlink => netlink.setLink('eth0', { mtu: 600 }));
  for (let i = 0; i < 500 && !nodes.lines.some(line => line.includes('keeps its MTU')); i++)
    await new Promise(resolve => setTimeout(resolve, 10));
  t.equal(one.mtu, 1460, 'an underlay that is too narrow for any overlay changes nothing, and the log says so');
  await Promise.all([one.stop(), two.stop()]);
});

/** Sends datagrams of 1400 bytes from a connected socket until the other end refuses one, and says so. */
const askUntilRefused = (namespace: string, host: string): Promise<string> =>
  runIn(
    namespace,
    `const s = require('dgram').createSocket('udp4');
     const see = e => {
       if (!e || e.code !== 'ECONNREFUSED') return;
       console.log(e.code);
       process.exit();
     };
     s.on('error', see);
     s.connect(33434, '${host}', () => setInterval(() => s.send(Buffer.alloc(1400), see), 30));`,
  );
