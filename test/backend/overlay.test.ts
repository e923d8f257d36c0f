/**
 *   node1 (namespace)                        node2 (namespace)
 *   tulle0 10.42.1.0/32 ── UDP 8285 ──┐  ┌── tulle0 10.42.2.0/32
 *   eth0   10.88.0.1 ─────────────────┴──┴── eth0   10.88.0.2
 */
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { ping } from '../../lib/lab/ping.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { monotonicMs, withNamespace } from '../../lib/sys/sys.ts';
import { addressOf, leaseOf, twoNodes } from '../support/overlays.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

const TEN = { count: 10, intervalMs: 1, timeoutMs: 2_000 };

/** Polls until `done`, at most `deadlineMs`. */
async function until(done: () => boolean, deadlineMs = 5_000): Promise<boolean> {
  const deadline = performance.now() + deadlineMs;
  while (!done() && performance.now() < deadline) await new Promise(resolve => setTimeout(resolve, 10));
  return done();
}

for (const type of ['tulle', 'udp'] as const) {
  for (const transport of ['offload', 'batch', 'dgram'] as const) {
    t.test(`${type} over ${transport}: pings cross, and nothing is left`, async t => {
      const nodes = twoNodes();
      t.teardown(nodes.remove);
      const options = { backend: { type, port: 8285 }, transport };
      const [one, two] = [await nodes.start(1, options), await nodes.start(2, options)];
      t.equal(one.device, 'tulle0');
      t.equal(one.mtu, type === 'tulle' ? 1460 : 1472);
      one.apply([{ kind: 'add', lease: leaseOf(2, type) }]);
      two.apply([{ kind: 'add', lease: leaseOf(1, type) }]);
      const { received } = await ping(nodes.namespaces[0], addressOf(2), TEN);
      t.equal(received, 10);
      t.ok(await until(() => two.counters()['ingress-packets'] === 10));

      one.apply([{ kind: 'remove', lease: leaseOf(2, type) }]);
      t.equal((await ping(nodes.namespaces[0], addressOf(2), { ...TEN, count: 3, timeoutMs: 50 })).received, 0);
      t.ok(await until(() => one.drops()['egress-no-lease'] === 3));
      await Promise.all([one.stop(), two.stop()]);
      for (const namespace of nodes.namespaces) {
        withRtnetlink(namespace, netlink => t.equal(netlink.link('tulle0'), undefined, 'the device is gone'));
      }
    });
  }
}

t.test('the three transports speak one wire', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const [one, two] = [await nodes.start(1, { transport: 'offload' }), await nodes.start(2, { transport: 'dgram' })];
  one.apply([{ kind: 'add', lease: leaseOf(2) }]);
  two.apply([{ kind: 'add', lease: leaseOf(1) }]);
  t.equal((await ping(nodes.namespaces[0], addressOf(2), TEN)).received, 10);
  await Promise.all([one.stop(), two.stop()]);
});

t.test('a datagram from a stranger, or with a key of yesterday, is refused and counted', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const [one, two] = [await nodes.start(1), await nodes.start(2)];
  one.apply([{ kind: 'add', lease: leaseOf(2) }]);
  two.apply([{ kind: 'add', lease: leaseOf(1, 'tulle', 99) }]);
  t.equal((await ping(nodes.namespaces[0], addressOf(2), { ...TEN, timeoutMs: 50 })).received, 0);
  t.ok(await until(() => two.drops()['ingress-stale-key'] === 10), "node 2 knows another key of node 1's");
  one.setLease(leaseOf(1, 'tulle', 99));
  t.equal((await ping(nodes.namespaces[0], addressOf(2), TEN)).received, 10, 'and the right key opens');

  // bash's /dev/udp sends what is written to it as one datagram.
  withNamespace(nodes.namespaces[0], () => spawnSync('bash', ['-c', 'printf stranger > /dev/udp/10.88.0.2/8285']));
  t.ok(await until(() => two.drops()['ingress-unknown-sender'] === 1), 'a stranger');
  t.throws(() => one.setLease(leaseOf(3)), { code: 'bad-subnet' });
  await Promise.all([one.stop(), two.stop()]);
});

for (const transport of ['offload', 'dgram'] as const) {
  t.test(`past its deadline a node neither sends nor delivers (${transport})`, async t => {
    const nodes = twoNodes();
    t.teardown(nodes.remove);
    const [one, two] = [await nodes.start(1, { transport }), await nodes.start(2, { transport })];
    one.apply([{ kind: 'add', lease: leaseOf(2) }]);
    two.apply([{ kind: 'add', lease: leaseOf(1) }]);
    const short = { ...TEN, timeoutMs: 50 };
    one.setDeadline(monotonicMs() - 1);
    t.equal((await ping(nodes.namespaces[0], addressOf(2), short)).received, 0);
    t.ok(await until(() => one.drops()['egress-fenced'] === 10));
    one.setDeadline(monotonicMs() + 60_000);
    two.setDeadline(0);
    t.equal((await ping(nodes.namespaces[0], addressOf(2), short)).received, 0);
    t.ok(await until(() => two.drops()['ingress-fenced'] === 10));
    two.setDeadline(Number.POSITIVE_INFINITY);
    t.equal((await ping(nodes.namespaces[0], addressOf(2), TEN)).received, 10, 'a renewal opens again');
    await Promise.all([one.stop(), two.stop()]);
  });
}

t.test('the plain transport counts what did not leave', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const one = await nodes.start(1, { transport: 'dgram' });
  one.apply([{ kind: 'add', lease: leaseOf(2) }]);
  withRtnetlink(nodes.namespaces[0], netlink => netlink.setLink('eth0', { up: false }));
  await ping(nodes.namespaces[0], addressOf(2), { count: 3, intervalMs: 1, timeoutMs: 10 });
  t.ok(await until(() => one.drops()['egress-send-failed'] === 3));
  t.equal(one.counters()['egress-datagrams'], 0);
  await one.stop();
});

t.test('traffic resumes by itself when the underlay does, with one line each way', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const [one, two] = [await nodes.start(1), await nodes.start(2)];
  one.apply([{ kind: 'add', lease: leaseOf(2) }]);
  two.apply([{ kind: 'add', lease: leaseOf(1) }]);
  const works = async (): Promise<boolean> =>
    (await ping(nodes.namespaces[0], addressOf(2), { count: 1, intervalMs: 0, timeoutMs: 100 })).received === 1;
  const resumes = async (): Promise<boolean> => {
    const deadline = performance.now() + 10_000;
    while (performance.now() < deadline) if (await works()) return true;
    return false;
  };
  const inNode1 = (change: Parameters<typeof withRtnetlink<void>>[1]): void =>
    withRtnetlink(nodes.namespaces[0], change);
  t.ok(await resumes());
  inNode1(netlink => netlink.setLink('eth0', { up: false }));
  t.notOk(await works(), 'down');
  inNode1(netlink => netlink.setLink('eth0', { up: true }));
  t.ok(await resumes(), 'up again');
  inNode1(netlink => netlink.deleteAddress('eth0', '10.88.0.1/24'));
  t.notOk(await works(), 'without its address');
  inNode1(netlink => netlink.addAddress('eth0', '10.88.0.1/24'));
  t.ok(await resumes(), 'with its address again');
  const said = (text: string): number => nodes.lines.filter(line => line.includes(text)).length;
  t.ok(await until(() => said('takes datagrams again') === 2), 'two lines of a recovery');
  t.equal(said('refuses all datagrams'), 2, 'two lines of a loss');
  t.equal(said('refused an offload'), 0, 'no offload was given up for it');
  await Promise.all([one.stop(), two.stop()]);
});

t.test('a port that is taken is one clear error, and the device is not left behind', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const one = await nodes.start(1);
  await t.rejects(nodes.start(1), { code: 'bad-endpoint', message: /10\.88\.0\.1:8285.*EADDRINUSE/ });
  withRtnetlink(nodes.namespaces[0], netlink => t.equal(netlink.link('tulle1'), undefined));
  await one.stop();
});
