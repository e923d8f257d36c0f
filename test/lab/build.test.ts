// The lab's namespaces without daemons: the underlay and two pods that share a node.
//
//   switch(br0 .254) ── node1(eth0 .1, cni0 10.42.9.1) ── pod1(10.42.9.2), pod2(10.42.9.3)
//                    └─ node2(eth0 .2)
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { buildPods, buildUnderlay } from '../../lib/lab/build.ts';
import { type End, measurePairs, measureTcp, waitForPaths } from '../../lib/lab/measure.ts';
import { ping } from '../../lib/lab/ping.ts';
import { planLab } from '../../lib/lab/plan.ts';
import { hasPrivileges } from '../../lib/lab/rootless.ts';
import { createState, loadState, namespaceFile } from '../../lib/lab/state.ts';
import { mountsBelow, tearDown } from '../../lib/lab/teardown.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { withNamespace } from '../../lib/sys/sys.ts';

const skip = hasPrivileges() ? false : 'needs root';

t.test('the underlay and pods of one node', { skip }, async t => {
  const root = mkdtempSync(join(tmpdir(), 'tulle-lab-build-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  const linksBefore = readdirSync('/sys/class/net');
  const plan = planLab({ name: 'lab', nodes: 2, pods: 2, registry: 'file', transport: 'offload' });
  const state = createState(root, 'lab', { rootless: false, registry: 'file' });
  const end = (name: string, address: string): End => ({ name, namespaceFile: namespaceFile(state, name), address });

  try {
    buildUnderlay(state, plan);
    const network = { gateway: '10.42.9.1', prefixLength: 24, mtu: 1460 };
    const pods = plan.podPlans.filter(pod => pod.node === 'node1');
    t.same(buildPods(state, plan.nodePlans[0], pods, network), ['10.42.9.2', '10.42.9.3']);
    t.same(
      loadState(root, 'lab')?.record.namespaces.map(entry => entry.name),
      ['switch', 'node1', 'node2', 'pod1', 'pod2'],
      'the record on disk knows all of them',
    );
    t.equal(mountsBelow(state.directory).length, 5);

    await t.test('links, addresses, settings', async t => {
      withRtnetlink(namespaceFile(state, 'pod1'), netlink => {
        t.same(
          netlink
            .links()
            .map(link => [link.name, link.mtu, link.up])
            .sort(),
          [
            ['eth0', 1460, true],
            ['lo', 65536, true],
          ],
        );
        t.equal(netlink.routeTo('192.0.2.1').gateway, '10.42.9.1');
      });
      withRtnetlink(namespaceFile(state, 'node1'), netlink => {
        t.same(
          netlink
            .links()
            .map(link => link.name)
            .sort(),
          ['cni0', 'eth0', 'lo', 'pod1', 'pod2'],
        );
        t.match(netlink.link('eth0'), { mtu: 1500, running: true });
      });
      const forward = withNamespace(namespaceFile(state, 'node1'), () =>
        readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8'),
      );
      t.equal(forward.trim(), '1');
    });

    await t.test('pings', async t => {
      const [node1, node2] = [end('node1', '10.88.0.1'), end('node2', '10.88.0.2')];
      await waitForPaths(node1, [node2]);
      const pairs = await measurePairs([
        [node1, node2],
        [end('pod1', '10.42.9.2'), end('pod2', '10.42.9.3')],
      ]);
      t.match(pairs, [
        { from: 'node1', to: 'node2', sent: 20, received: 20 },
        { from: 'pod1', to: 'pod2', sent: 20, received: 20 },
      ]);
      for (const pair of pairs) t.ok(pair.leastMs! > 0 && pair.leastMs! <= pair.medianMs!, 'round trips were measured');
      const nobody = await ping(node1.namespaceFile, '10.88.0.77', { count: 2, intervalMs: 1, timeoutMs: 50 });
      t.match(nobody, { sent: 2, received: 0, rttsMs: [] }, 'echoes to nobody are lost, not an error');
      const noRoute = await ping(end('node2', '').namespaceFile, '255.255.255.255', {
        count: 1,
        intervalMs: 1,
        timeoutMs: 10,
      });
      t.equal(noRoute.received, 0);
    });

    await t.test('TCP', async t => {
      const [node1, node2] = [end('node1', '10.88.0.1'), end('node2', '10.88.0.2')];
      const seeded = await measureTcp(node1, node2, { bytes: 20_000_001, seed: 7 });
      t.match(seeded, { bytes: 20_000_001, sha256: /^[0-9a-f]{64}$/ });
      const timed = await measureTcp(node1, node2, { seconds: 1 });
      t.ok(timed.gbps > 0);
      await t.rejects(measureTcp({ ...node1, address: '10.88.0.99' }, node2, { seconds: 1 }), {
        code: 'traffic',
        message: /node1.*EADDRNOTAVAIL/,
      });
    });
  } finally {
    await tearDown(root, 'lab');
  }
  t.same(readdirSync(root), [], 'no file is left');
  t.same(mountsBelow(root), [], 'no mount is left');
  t.same(readdirSync('/sys/class/net'), linksBefore, 'no link is left');
});
