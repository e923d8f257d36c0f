// Every fault, measured with pings between two nodes of a lab that has no daemons:
//
//   switch(br0 .254) ── relay ── node1(eth0 .1)
//                    └─ node2(eth0 .2)
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { buildUnderlay } from '../../lib/lab/build.ts';
import { addFault, type FaultSpec, listFaults, mendFaults, relayReport, removeFault } from '../../lib/lab/fault.ts';
import { loadFaults } from '../../lib/lab/fault-record.ts';
import { median, type PingResult, ping, waitReachable } from '../../lib/lab/ping.ts';
import { planLab } from '../../lib/lab/plan.ts';
import { isAlive, signal, waitUntilEnded } from '../../lib/lab/process.ts';
import { hasPrivileges } from '../../lib/lab/rootless.ts';
import { createState, execRecords, namespaceFile } from '../../lib/lab/state.ts';
import { tearDown } from '../../lib/lab/teardown.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { withNamespace } from '../../lib/sys/sys.ts';

const skip = hasPrivileges() ? false : 'needs root';
t.setTimeout(120_000);

t.test('faults between two nodes', { skip }, async t => {
  const root = mkdtempSync(join(tmpdir(), 'tulle-fault-test-'));
  const state = createState(root, 'lab', { rootless: false, registry: 'file' });
  t.teardown(async () => {
    if (existsSync(state.directory)) await tearDown(root, 'lab');
    rmSync(root, { recursive: true, force: true });
  });
  buildUnderlay(state, planLab({ name: 'lab', nodes: 2, pods: 1, registry: 'file', transport: 'offload' }));
  const node1 = namespaceFile(state, 'node1');
  const hub = namespaceFile(state, 'switch');
  const echo = (count: number, bytes = 84, intervalMs = 2, to = '10.88.0.2'): Promise<PingResult> =>
    ping(node1, to, { count, intervalMs, timeoutMs: 1000, bytes });
  const add = (kind: FaultSpec['kind'], rest: Partial<FaultSpec> = {}) =>
    addFault(state, { kind, where: 'node1-node2', ...(kind === 'loss' && { seed: 11 }), ...rest });
  const isWhole = (): boolean =>
    withRtnetlink(hub, netlink => netlink.link('node1')?.master === netlink.link('br0')?.index);

  // A link that was just made may take a moment to carry its first packet.
  await waitReachable(node1, '10.88.0.2', 20_000);
  t.match(await echo(5), { received: 5 }, 'before any of them');

  await t.test('delay, and the link is as before when it is gone', async t => {
    const fault = await add('delay', { ms: 30, jitterMs: 5 });
    t.match(fault, { id: 'delay1', state: 'on', where: 'node1-node2' });
    const { received, rttsMs } = await echo(20);
    t.equal(received, 20);
    t.ok(Math.min(...rttsMs) >= 49, `two times 25 ms at least: ${Math.min(...rttsMs)}`);
    t.ok(median(rttsMs)! >= 55, `two times 30 ms: ${median(rttsMs)}`);
    const [status] = await listFaults(state);
    t.ok(status.frames! >= 40, `${status.frames} frames were delayed`);
    t.equal(execRecords(state.directory).length, 1, 'the relay is in the record of the lab');
    t.same(
      (await removeFault(state, 'delay1')).map(({ id }) => id),
      ['delay1'],
    );
    t.ok(isWhole(), 'the link is on the bridge again');
    t.equal(loadFaults(state).relay, null);
    t.ok(Math.min(...(await echo(20)).rttsMs) < 20, 'no delay is left');
  });

  await t.test('loss, one way, by a seed', async t => {
    await add('loss', { percent: 20, direction: 'out' });
    const { sent, received } = await echo(500, 84, 1);
    // Five standard deviations: sqrt(500 · 0.2 · 0.8) is 9. ARP may lose a frame or two besides.
    t.ok(Math.abs(sent - received - 100) <= 50, `${sent - received} of ${sent} were lost`);
    const [{ frames }] = await listFaults(state);
    t.ok(frames! >= sent - received, 'and counted');
    await removeFault(state, 'all');
  });

  await t.test('duplicates', async t => {
    await add('duplicate', { percent: 100, direction: 'out' });
    const { received, duplicates } = await echo(50);
    t.equal(received, 50);
    t.ok(duplicates >= 48, `${duplicates} of 50; nobody waits for the last`);
    await removeFault(state, 'all');
    t.match(await echo(5), { duplicates: 0 });
  });

  await t.test('reordering', async t => {
    await add('reorder', { percent: 30, ms: 40, direction: 'out' });
    const { order, received } = await echo(100, 84, 1);
    t.equal(received, 100, 'nothing is lost');
    const late = order.filter((sequence, i) => order.slice(0, i).some(earlier => earlier > sequence)).length;
    t.ok(late >= 5 && late < 70, `${late} of 100 were overtaken`);
    await removeFault(state, 'all');
  });

  await t.test('a black hole for long packets', async t => {
    await add('mtu', { bytes: 1400 });
    t.match(await echo(3, 1400), { received: 3 }, 'as long as it may be');
    t.match(await ping(node1, '10.88.0.2', { count: 3, intervalMs: 1, timeoutMs: 300, bytes: 1401 }), { received: 0 });
    t.match(await listFaults(state), [{ frames: 3 }]);
    await removeFault(state, 'all');
    t.match(await echo(3, 1500), { received: 3 });
  });

  await t.test('a router with a small MTU tells the sender', async t => {
    await add('mtu', { bytes: 1000, mode: 'icmp' });
    // The first ones have DF and are refused; then both kernels know, and send fragments.
    let received = 0;
    for (let i = 0; i < 20 && received === 0; i++) received = (await echo(1, 1500)).received;
    t.equal(received, 1, 'it passes in fragments, there and back');
    const path = withRtnetlink(node1, netlink => netlink.routeTo('10.88.0.2'));
    t.equal(path.mtu, 1000, 'node1 has learnt the path MTU');
    await removeFault(state, 'all');
  });

  await t.test("the interface's own MTU", async t => {
    const mtu = (): number => withRtnetlink(node1, netlink => netlink.link('eth0')!.mtu);
    await add('mtu', { where: 'node1', bytes: 1300, mode: 'link' });
    await add('mtu', { where: 'node1', bytes: 1400, mode: 'link' });
    t.equal(mtu(), 1300, 'the smallest counts');
    t.match(await listFaults(state), [{ frames: null }, { frames: null }]);
    t.equal(loadFaults(state).relay, null, 'no relay for that');
    const [first] = await listFaults(state);
    await removeFault(state, first.id);
    t.equal(mtu(), 1400);
    await removeFault(state, 'all');
    t.equal(mtu(), 1500);
  });

  await t.test('a partition, and healed', async t => {
    await add('partition');
    const alone = await ping(node1, '10.88.0.2', { count: 5, intervalMs: 1, timeoutMs: 200 });
    t.equal(alone.received, 0);
    t.match(await echo(3, 84, 1, '10.88.0.254'), { received: 3 }, 'the switch is still there');
    await removeFault(state, 'all');
    t.match(await echo(3), { received: 3 });
  });

  await t.test('NAT: who answers sees another address', async t => {
    await add('nat');
    t.match(await echo(5), { received: 5 }, 'the answers find their way back');
    const neighbours = seenBy(namespaceFile(state, 'node2'));
    t.match(neighbours, /10\.88\.0\.200/, 'node2 knows the address that node1 hides behind');
    await removeFault(state, 'all');
  });

  await t.test('they add up', async t => {
    await add('delay', { ms: 10 });
    await add('delay', { ms: 10, where: undefined });
    await add('duplicate', { percent: 100, direction: 'in' });
    const { received, duplicates, rttsMs } = await echo(20);
    t.equal(received, 20);
    t.ok(duplicates >= 18, `${duplicates} of 20`);
    t.ok(Math.min(...rttsMs) >= 39, `${Math.min(...rttsMs)} ms`);
    t.match((await relayReport(state)).links, { node1: { overflow: 0 } });
    t.equal((await removeFault(state, 'all')).length, 3);
    t.same(await removeFault(state, 'all'), [], 'none left is no error');
  });

  await t.test('what cannot be had changes nothing', async t => {
    await t.rejects(add('loss', { percent: 500 }), { code: 'usage' });
    await t.rejects(removeFault(state, 'loss1'), {
      code: 'unknown',
      message: /there is no fault "loss1".*it has none/,
    });
    t.same(await listFaults(state), []);
  });

  await t.test('a relay that is killed: the link is mended, the fault reported', async t => {
    const fault = await add('delay', { ms: 30 });
    const { relay } = loadFaults(state);
    signal(relay!, 'SIGKILL');
    t.same(await waitUntilEnded([relay!], 10_000), []);
    t.same(
      (await mendFaults(state)).map(({ id }) => id),
      [fault.id],
    );
    t.ok(isWhole());
    t.match(await echo(5), { received: 5 });
    t.match(await listFaults(state), [{ id: fault.id, state: 'lost' }]);
    await add('partition');
    t.match((await listFaults(state))[1], { state: 'on' }, 'the next one gets a new relay');
    await removeFault(state, 'all');
    t.same(await listFaults(state), []);
  });

  await t.test('several at a time', async t => {
    const added = await Promise.all([add('delay', { ms: 1 }), add('delay', { ms: 2 }), add('delay', { ms: 3 })]);
    t.equal(new Set(added.map(({ id }) => id)).size, 3);
    t.equal((await removeFault(state, added[0].id)).length, 1);
    t.equal((await listFaults(state)).length, 2);
  });

  t.equal(readFileSync(join(state.directory, 'faults.log'), 'utf8'), '', 'the relay had nothing to complain about');
  const { relay } = loadFaults(state);
  t.ok(isAlive(relay!));
  await tearDown(root, 'lab');
  t.notOk(isAlive(relay!), 'the relay goes with the lab');
});

/** The neighbours of a namespace, as its kernel lists them. */
function seenBy(namespace: string): string {
  return withNamespace(namespace, () => readFileSync('/proc/net/arp', 'utf8'));
}
