/**
 *   pod (namespace)              node1 (namespace)                                   node2 (namespace)
 *   eth0 10.42.1.2/24 ────────── pod0   10.42.1.1/24
 *        fd00:42:0:1::2/64              fd00:42:0:1::1/64
 *                                tulle0 10.42.1.0, fd00:42:0:1:: ── UDP 8285 ─┐  ┌── tulle0 10.42.2.0, fd00:42:0:2::
 *                                eth0   10.88.0.1, 2001:db8:88::1 ────────────┴──┴── eth0   10.88.0.2, 2001:db8:88::2
 */
import { join } from 'node:path';
import t from 'tap';
import type { Overlay } from '../../lib/backend/overlay.ts';
import { ping } from '../../lib/lab/ping.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace } from '../../lib/sys/sys.ts';
import {
  addressOf,
  addressOf6,
  bothLeaseOf,
  endpointOf6,
  NETWORK6,
  type TwoNodes,
  twoNodes,
} from '../support/overlays.ts';
import { connectFrom, hearErrors, makePod, ping6, sendFrom, transfer } from '../support/pods.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

interface Stage extends TwoNodes {
  pod: string;
  one: Overlay;
  two: Overlay;
}

type Transport = 'offload' | 'batch' | 'dgram';

async function stage(
  t: { teardown(undo: () => void): void },
  underlay: 4 | 6,
  transport: Transport = 'offload',
): Promise<Stage> {
  const nodes = twoNodes();
  const pod = join(nodes.namespaces[0], '../pod');
  const options = (k: 1 | 2) => ({
    ...NETWORK6,
    own: bothLeaseOf(k),
    transport,
    ...(underlay === 6 && {
      backend: { type: 'tulle', port: 8285, underlay } as const,
      address: endpointOf6(k),
    }),
  });
  const [one, two] = [await nodes.start(1, options(1)), await nodes.start(2, options(2))];
  makePod({
    node: nodes.namespaces[0],
    path: pod,
    mtu: one.mtu,
    addresses: [
      { pod: '10.42.1.2/24', node: '10.42.1.1/24' },
      { pod: `${addressOf6(1)}2/64`, node: `${addressOf6(1)}1/64` },
    ],
  });
  one.apply([{ kind: 'add', lease: bothLeaseOf(2) }]);
  two.apply([{ kind: 'add', lease: bothLeaseOf(1) }]);
  t.teardown(() => {
    removeNamespace(pod);
    nodes.remove();
  });
  return { ...nodes, pod, one, two };
}

for (const underlay of [4, 6] as const) {
  for (const transport of ['offload', 'batch', 'dgram'] as const) {
    t.test(`both versions inside, IPv${underlay} outside, over ${transport}`, async t => {
      const { pod, namespaces, one, two } = await stage(t, underlay, transport);
      t.equal(one.mtu, underlay === 6 ? 1440 : 1460);
      t.equal(await ping6(pod, addressOf6(2), 5), 5, 'ping over IPv6');
      t.equal((await ping(pod, addressOf(2), { count: 5, intervalMs: 1, timeoutMs: 2_000 })).received, 5, 'over IPv4');
      if (transport === 'dgram') return await Promise.all([one.stop(), two.stop()]);
      t.equal(await transfer(pod, namespaces[1], addressOf6(2), 20_000_000), 'whole', 'TCP over IPv6');
      t.equal(await transfer(pod, namespaces[1], addressOf(2), 5_000_000), 'whole', 'TCP over IPv4');
      if (transport === 'offload') {
        t.ok(one.counters()['egress-super-packets'] > 100, 'as super-packets');
        t.ok(two.counters()['ingress-super-packets'] > 100, 'that arrive as such');
      }
      const drops = { ...one.drops(), ...two.drops() };
      const unexpected = Object.entries(drops).filter(([name, count]) => count > 0 && name !== 'egress-link-local');
      t.same(unexpected, [], 'nothing was dropped but what the kernel says to its own link');
      return await Promise.all([one.stop(), two.stop()]);
    });
  }
}

t.test('the reports of IPv6 reach processes in the pod and on the node', async t => {
  const { pod, namespaces, one, two } = await stage(t, 4);
  const [node] = namespaces;
  t.equal(await connectFrom(pod, 'fd00:42:0:77::5', 80), 'ENETUNREACH', 'no lease: the pod');
  t.equal(await connectFrom(node, 'fd00:42:0:77::5', 80), 'ENETUNREACH', 'no lease: the node');
  const heard = hearErrors(pod, 6);
  await sendFrom(pod, addressOf6(2), { ttl: 2 });
  t.match(await heard.next(), { from: 'fd00:42::', type: 3, code: 0 }, 'time exceeded');
  await sendFrom(pod, addressOf6(2), { ttl: 3 });
  t.match(await heard.next(), { from: addressOf6(2), type: 1, code: 4 }, 'and one hop further node 2 answers itself');

  withRtnetlink(node, netlink =>
    netlink.addRoute({ destination: '10.88.0.2/32', link: 'eth0', mtu: 1400, scope: 'link' }),
  );
  await sendFrom(pod, addressOf6(2), { bytes: 1400 });
  t.match(await heard.next(), { from: 'fd00:42::', type: 2, code: 0, rest: 1360 }, 'packet too big');
  heard.close();
  t.equal(await transfer(pod, namespaces[1], addressOf6(2), 3_000_000), 'whole', 'TCP goes by the new MTU');
  await Promise.all([one.stop(), two.stop()]);
});

t.test('an IPv6 underlay that becomes narrow', async t => {
  const { pod, namespaces, one, two } = await stage(t, 6);
  const [node, node2] = namespaces;
  const running = transfer(pod, node2, addressOf6(2), 20_000_000);
  for (const path of [node, node2]) withRtnetlink(path, netlink => netlink.setLink('eth0', { mtu: 1400 }));
  for (let i = 0; i < 500 && (one.mtu !== 1340 || two.mtu !== 1340); i++)
    await new Promise(resolve => setTimeout(resolve, 10));
  t.same([one.mtu, two.mtu], [1340, 1340]);
  t.equal(await running, 'whole', 'TCP goes on');
  withRtnetlink(node, netlink => netlink.addRoute({ destination: `${endpointOf6(2)}/128`, link: 'eth0', mtu: 1350 }));
  const heard = hearErrors(pod, 6);
  await sendFrom(pod, addressOf6(2), { bytes: 1290 });
  t.match(await heard.next(), { from: 'fd00:42::', type: 2, rest: 1290 }, 'a path that is narrower than the link');
  heard.close();
  await Promise.all([one.stop(), two.stop()]);
});

t.test('a lease that does not fit is of no use, and no harm', async t => {
  const { one, two, lines } = await stage(t, 4);
  const lease = bothLeaseOf(3);
  const { subnet6, ...alone } = lease;
  one.apply([{ kind: 'add', lease: { ...lease, subnet6: { ...subnet6!, prefixLength: 60 } } }]);
  one.apply([{ kind: 'add', lease: alone }]);
  t.equal(lines.filter(line => line.includes('of no use')).length, 1, 'another length is refused, IPv4 alone is fine');
  await Promise.all([one.stop(), two.stop()]);
});
