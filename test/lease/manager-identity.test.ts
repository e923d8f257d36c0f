// Who a lease belongs to, and what happens when two processes say that it is theirs.
import t from 'tap';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { type Lease, type LeaseAttributes, subnetKey } from '../../lib/lease/lease.ts';
import { type AcquireRequest, LeaseManager } from '../../lib/lease/manager.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { createMemoryRegistry } from '../support/memory-registry.ts';
import { prng, testSeed } from '../support/prng.ts';
import { createVirtualClock } from '../support/virtual-clock.ts';

const config = parseNetworkConfig('{"Network":"10.5.0.0/20"}');
const attributesOf = (address: string, nodeId: string): LeaseAttributes => ({
  PublicIP: address,
  PublicIPv6: null,
  BackendType: 'tulle',
  BackendData: { NodeID: nodeId },
});
const requestOf = (nodeId: string, address: string, ttlSeconds = 90): AcquireRequest => ({
  config,
  nodeId,
  attributes: attributesOf(address, nodeId),
  ttlSeconds,
});

/** A registry and nodes on it that also watch; `lines` is what they said. */
function stage(random: () => number = () => 0) {
  const clock = createVirtualClock();
  const registry = createMemoryRegistry(clock);
  const lines: string[] = [];
  const node = (name: string) => {
    const say = (text: string) => lines.push(`${Math.round(clock.monotonicMs() / 1000)} ${name} ${text}`);
    const log = { ...silentLogger, warn: (_: object, text: string) => void say(`warn ${text}`) };
    const deadlines: number[] = [];
    const manager = new LeaseManager({ registry, clock, random, log, onDeadline: at => void deadlines.push(at) });
    manager.subscribe(event => void say(event.kind + (event.kind === 'lost' ? ` ${event.reason}` : '')));
    const state = { end: undefined as string | undefined };
    const start = (): AbortController => {
      const stop = new AbortController();
      void (async () => {
        for await (const message of registry.watch(stop.signal)) manager.observe(message);
      })();
      void manager.run(stop.signal, { marginSeconds: 3600 }).then(end => {
        state.end = end;
        stop.abort();
      });
      return stop;
    };
    return { manager, deadlines, start, state };
  };
  return { clock, registry, lines, node };
}

t.test('machines that were cloned with their node id get a subnet each, and are told', async t => {
  const { clock, node, lines } = stage();
  const managers = Array.from({ length: 5 }, (_, i) => node(`n${i}`));
  const leases: Lease[] = [];
  for (const [i, { manager, start }] of managers.entries()) {
    leases.push(await manager.acquire(requestOf('clone', `10.88.0.${i + 1}`)));
    start();
    await clock.advance(1000);
  }
  await clock.advance(600_000);
  t.equal(new Set(leases.map(subnetKey)).size, 5);
  t.same(
    managers.map(({ manager }) => manager.fenced),
    [false, false, false, false, false],
  );
  t.equal(lines.filter(line => /cloned \/etc\/machine-id/.test(line)).length, 0 + 1 + 2 + 3 + 4);
  t.same(
    lines.filter(line => /lost|fenced/.test(line)),
    [],
  );
});

t.test('a second process with our id and address yields to us, whoever it is', async t => {
  const { clock, node, lines } = stage();
  const [first, second] = [node('first'), node('second')];
  await first.manager.acquire(requestOf('a', '10.88.0.1'));
  first.start();
  await clock.advance(120_000);
  lines.length = 0;
  await second.manager.acquire(requestOf('a', '10.88.0.1'));
  second.start();
  await clock.advance(300_000);
  t.equal(second.state.end, 'lost');
  t.equal(first.state.end, undefined, 'who was there goes on');
  t.equal(first.manager.fenced, false);
  t.equal(second.deadlines.at(-1), Number.NEGATIVE_INFINITY, 'who yields stops forwarding at once');
  const [lost] = lines.filter(line => line.includes('lost'));
  t.match(lost, /^120 second lost another process with this node's id and address writes .*10\.5\.1\.0\/24.*--node-id/);
  t.ok(lines.length < 20, 'they do not fight');
});

t.test('a rival that its supervisor starts again every 2 s does not outlast us', async t => {
  const { clock, registry, node } = stage();
  registry.latencyMs = 20;
  const owner = node('owner');
  const acquired = owner.manager.acquire(requestOf('a', '10.88.0.1'));
  await clock.advance(1000);
  await acquired;
  owner.start();
  await clock.advance(120_000);
  let starts = 0;
  for (; starts < 60; starts++) {
    const rival = node(`rival${starts}`);
    const taking = rival.manager.acquire(requestOf('a', '10.88.0.1'));
    await clock.advance(100);
    await taking;
    rival.start();
    await clock.advance(1900);
    t.equal(rival.state.end, 'lost', 'it yields each time');
    if (owner.state.end !== undefined) break;
  }
  t.equal(owner.state.end, undefined, `after ${starts} starts`);
  t.equal(owner.manager.fenced, false);
});

t.test('a machine that is copied while it runs: one of the two yields soon', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const { clock, registry, node } = stage(() => next() / 2 ** 32);
  registry.latencyMs = 150;
  const [one, two] = [node('one'), node('two')];
  for (const { manager, start } of [one, two]) {
    const acquired = manager.acquire(requestOf('a', '10.88.0.1'));
    await clock.advance(1000);
    await acquired;
    if (manager === one.manager) await clock.advance(0);
    // Neither is a newcomer when they meet.
    await clock.advance(70_000);
    start();
  }
  await clock.advance(120_000);
  t.same(
    [one.state.end, two.state.end].filter(end => end === 'lost'),
    ['lost'],
    'exactly one',
  );
  t.same([one.manager.fenced, two.manager.fenced].sort(), [false, true]);
});

t.test('a process that takes our subnet with our node id on another address: lost, with the reason', async t => {
  const { clock, registry, node, lines } = stage();
  const { manager, start, state } = node('a');
  await manager.acquire(requestOf('a', '10.88.0.1'));
  start();
  await clock.advance(1000);
  registry.put('10.5.1.0-24', attributesOf('10.88.0.9', 'a'), 90);
  await clock.settle();
  t.equal(state.end, 'lost');
  t.match(lines.at(-1), /10\.88\.0\.9.*our own node id on another address.*--node-id/);
});

t.test('a second lease of ours, from a request that was done late, is given back; others are not', async t => {
  const { clock, registry, node } = stage();
  const { manager, start } = node('a');
  await manager.acquire(requestOf('a', '10.88.0.1'));
  registry.put('10.5.3.0-24', attributesOf('10.88.0.1', 'a'), 90);
  registry.put('10.5.4.0-24', attributesOf('10.88.0.9', 'a'), 90); // a clone's
  registry.put('10.5.5.0-24', attributesOf('10.88.0.1', 'a'), null); // an operator's
  registry.put('10.5.6.0-24', { PublicIP: '10.88.0.1' }, 90); // flannel's, perhaps somebody else's
  start();
  await clock.advance(1000);
  registry.put('10.5.7.0-24', attributesOf('10.88.0.1', 'a'), 90);
  await clock.advance(1000);
  t.same(
    registry.print().map(line => line.split(' ')[0]),
    ['10.5.1.0-24', '10.5.4.0-24', '10.5.5.0-24', '10.5.6.0-24'],
  );
  t.equal(manager.fenced, false);
});

t.test('every deadline is told before its event, counted from the question', async t => {
  const { clock, registry, node } = stage();
  registry.latencyMs = 1000;
  const { manager, deadlines, start } = node('a');
  const acquired = manager.acquire(requestOf('a', '10.88.0.1'));
  await clock.advance(5000);
  await acquired;
  t.same(deadlines, [1000 + 89_820], 'create was sent at 1 s');
  start();
  const seen: number[] = [];
  manager.subscribe(event => {
    if (event.kind === 'renewed') seen.push(deadlines.at(-1)!);
  });
  await clock.advance(40_000);
  t.same(seen, [31_000 + 89_820]);
  t.match(manager.status, { fenced: false, trouble: undefined, deadlineInMs: 31_000 + 89_820 - clock.monotonicMs() });
});

t.test('with a TTL of a day the pause between attempts is 30 s at most', async t => {
  const { clock, registry, node } = stage(() => 0.999);
  const { manager, start } = node('a');
  await manager.acquire(requestOf('a', '10.88.0.1', 24 * 3600));
  start();
  registry.failure = 'unavailable';
  await clock.advance(24 * 3600 * 1000 - 3600 * 1000);
  const before = registry.calls.length;
  await clock.advance(1800 * 1000);
  t.ok(registry.calls.length - before >= 60, `${registry.calls.length - before} attempts in half an hour`);
  t.match(manager.status.trouble, { reason: /as the test wants it/ });
  t.ok(manager.status.trouble!.forMs >= 1_700_000);
  registry.failure = undefined;
  await clock.advance(31_000);
  t.equal(manager.status.trouble, undefined);
});

t.test('a registry that is read-only, full or talks nonsense: nothing is disturbed until the deadline', async t => {
  for (const how of ['denied', 'unavailable', 'corrupt', 'nonsense'] as const) {
    const { clock, registry, node } = stage();
    const { manager, start, state, deadlines } = node('a');
    const lease = await manager.acquire(requestOf('a', '10.88.0.1'));
    start();
    const update = registry.update;
    if (how !== 'nonsense') registry.failure = how;
    else
      registry.update = async (base, attributes, ttl) => ({
        ...(await update(base, attributes, ttl)),
        modRevision: Number.NaN,
      });
    await clock.advance(89_000);
    t.equal(manager.fenced, false, how);
    t.equal(state.end, undefined);
    t.same(deadlines, [89_820], 'no deadline was moved');
    t.ok(manager.status.trouble !== undefined);
    if (how === 'nonsense') continue;
    await clock.advance(1000);
    t.equal(manager.fenced, true);
    registry.failure = undefined;
    await clock.advance(31_000);
    t.equal(manager.fenced, false, 'and back');
    t.equal(subnetKey(manager.lease!), subnetKey(lease), 'with the same subnet');
  }
});

t.test('release finds a lease that a renewal wrote as run() ended', async t => {
  const { clock, registry, node } = stage();
  const { manager, start } = node('a');
  await manager.acquire(requestOf('a', '10.88.0.1'));
  const stop = start();
  registry.latencyMs = 500;
  await clock.advance(30_100);
  stop.abort();
  await clock.settle();
  const released = manager.release();
  await clock.advance(10_000);
  await released;
  t.same(registry.print(), []);
});
