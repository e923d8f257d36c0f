// Transcripts: what happens to a manager over hours of virtual time, as the lines that it left.
import t from 'tap';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { type LeaseAttributes, parseSubnetKey, subnetKey } from '../../lib/lease/lease.ts';
import { type AcquireRequest, LeaseManager } from '../../lib/lease/manager.ts';
import { RegistryError } from '../../lib/lease/registry.ts';
import type { Logger } from '../../lib/util/log.ts';
import { createMemoryRegistry, type MemoryRegistry } from '../support/memory-registry.ts';
import { prng, testSeed } from '../support/prng.ts';
import { createVirtualClock, type VirtualClock } from '../support/virtual-clock.ts';

// Three subnets may be leased: 10.5.1.0/24 to 10.5.3.0/24.
const config = parseNetworkConfig('{"Network":"10.5.0.0/22"}');
const attributesOf = (address: string, nodeId: string): LeaseAttributes => ({
  PublicIP: address,
  PublicIPv6: null,
  BackendType: 'tulle',
  BackendData: { NodeID: nodeId },
});
const request = (nodeId = 'a', address = '10.88.0.1', ttlSeconds = 90): AcquireRequest => ({
  config,
  nodeId,
  attributes: attributesOf(address, nodeId),
  ttlSeconds,
});

interface Stage {
  clock: VirtualClock;
  registry: MemoryRegistry;
  manager: LeaseManager;
  /** What happened since the last call: the registry's calls, the manager's events and warnings, with seconds. */
  story(): string[];
  /** Starts run(); its end becomes a line of the story. */
  start(marginSeconds?: number): AbortController;
  /** As the daemon does: feeds the registry's watch to the manager. */
  watch(signal: AbortSignal): void;
}

function stage(options: { random?: () => number; registry?: MemoryRegistry; clock?: VirtualClock } = {}): Stage {
  const clock = options.clock ?? createVirtualClock();
  const registry = options.registry ?? createMemoryRegistry(clock);
  const lines: string[] = [];
  const say = (text: string): void => void lines.push(`${Math.round(clock.monotonicMs() / 1000)} ${text}`);
  const log: Logger = {
    debug: () => {},
    info: (_, message) => say(`info ${message}`),
    warn: (_, message) => say(`warn ${message}`),
    error: (_, message) => say(`error ${message}`),
  };
  const push = registry.calls.push.bind(registry.calls);
  registry.calls.push = (...texts) => {
    for (const text of texts) say(text);
    return push(...texts);
  };
  const manager = new LeaseManager({ registry, clock, random: options.random ?? (() => 0), log });
  manager.subscribe(event => {
    if (event.kind === 'lost') say(`LOST ${subnetKey(event.lease)}: ${event.reason}`);
    else say(`${event.kind.toUpperCase()} ${subnetKey(event.lease)} key ${event.lease.createRevision}`);
  });
  return {
    clock,
    registry,
    manager,
    story: () => lines.splice(0),
    start(marginSeconds = 3600) {
      const stop = new AbortController();
      void manager.run(stop.signal, { marginSeconds }).then(
        end => say(`run ended: ${end}`),
        error => say(`run threw ${error}`),
      );
      return stop;
    },
    watch(signal) {
      void (async () => {
        for await (const message of registry.watch(signal)) manager.observe(message);
      })();
    },
  };
}

t.test('acquire, renew every third of a short TTL, stop, release', async t => {
  const { clock, manager, story, start, registry } = stage();
  await manager.acquire(request());
  t.equal(manager.deadline, 89_820, 'the TTL less what two clocks may drift apart');
  const stop = start();
  await clock.advance(70_000);
  t.equal(manager.deadline, 149_820);
  stop.abort();
  await clock.settle();
  t.same(story(), [
    '0 list',
    '0 create 10.5.1.0-24',
    '30 update 10.5.1.0-24',
    '30 RENEWED 10.5.1.0-24 key 1',
    '60 update 10.5.1.0-24',
    '60 RENEWED 10.5.1.0-24 key 1',
    '70 run ended: stopped',
  ]);
  t.same(registry.print(), ['10.5.1.0-24 10.88.0.1 create 1 mod 3'], 'it stays after a clean stop');
  t.equal(clock.sleepers(), 0, 'nothing sleeps on');
  await manager.release();
  t.same(registry.print(), []);
  t.equal(manager.fenced, true);
});

t.test('a long TTL is renewed a margin before its end, as flannel does, less what clocks may drift', async t => {
  const { clock, manager, story, start } = stage();
  await manager.acquire(request('a', '10.88.0.1', 24 * 3600));
  const stop = start(3600);
  await clock.advance(24 * 3600 * 1000);
  stop.abort();
  await clock.settle();
  t.same(story().slice(2), ['82627 update 10.5.1.0-24', '82627 RENEWED 10.5.1.0-24 key 1', '86400 run ended: stopped']);
});

t.test(
  'an unavailable registry: retried with backoff, one warning a minute, fenced at the deadline, then back',
  async t => {
    const { clock, manager, story, start, registry } = stage({ random: () => 0.999999 });
    await manager.acquire(request());
    const stop = start();
    await clock.advance(20_000);
    registry.failure = 'unavailable';
    await clock.advance(69_000);
    t.equal(manager.fenced, false);
    await clock.advance(1000);
    t.equal(manager.fenced, true);
    await clock.advance(60_000);
    registry.failure = undefined;
    await clock.advance(30_000);
    stop.abort();
    await clock.settle();
    const lines = story();
    t.same(
      lines.filter(line => !/update.*unavailable/.test(line)),
      [
        '0 list',
        '0 create 10.5.3.0-24',
        '30 warn the lease could not be renewed, trying again',
        '90 FENCED 10.5.3.0-24 key 1',
        '91 warn the lease could not be renewed, trying again',
        '151 update 10.5.3.0-24: missing',
        '151 list',
        '151 create 10.5.3.0-24',
        '151 REACQUIRED 10.5.3.0-24 key 3',
        '151 info the lease registry is back',
        '180 run ended: stopped',
      ],
    );
    const attempts = lines.filter(line => /update.*unavailable/.test(line)).map(line => Number(line.split(' ')[0]));
    t.same(attempts, [30, 31, 33, 37, 45, 61, 91, 121], 'doubled up to 30 s');
  },
);

t.test('a frozen registry: the node is fenced while the call hangs, and a stop does not wait for it', async t => {
  const { clock, manager, story, start, registry } = stage();
  await manager.acquire(request());
  const stop = start();
  registry.frozen = true;
  await clock.advance(100_000);
  stop.abort();
  await clock.settle();
  t.same(story().slice(2), ['90 FENCED 10.5.1.0-24 key 1', '100 run ended: stopped']);
  registry.frozen = false;
  await clock.advance(100);
});

t.test('the deadline counts from when the renewal was sent, not from when it was answered', async t => {
  const { clock, manager, registry } = stage();
  registry.latencyMs = 8000;
  const acquired = manager.acquire(request());
  await clock.advance(20_000);
  const lease = await acquired;
  t.equal(manager.deadline, 8000 + 89_820);
  t.ok(lease.expiresAtMs! - clock.nowMs() + clock.monotonicMs() >= manager.deadline, 'before the registry forgets');
});

t.test('somebody deletes our key: the same subnet with a new lease key, at once when a watch saw it', async t => {
  const { clock, manager, story, start, registry, watch } = stage();
  await manager.acquire(request());
  const stop = start();
  watch(stop.signal);
  await clock.advance(10_000);
  registry.drop('10.5.1.0-24');
  await clock.advance(25_000);
  stop.abort();
  await clock.settle();
  t.same(story().slice(2), [
    '10 update 10.5.1.0-24: missing',
    '10 list',
    '10 create 10.5.1.0-24',
    '10 REACQUIRED 10.5.1.0-24 key 3',
    '35 run ended: stopped',
  ]);
  t.equal(manager.lease?.createRevision, 3);
});

t.test('somebody else has our subnet: lost', async t => {
  for (const how of ['same key', 'a part of it', 'unreadable'] as const) {
    const { clock, manager, story, start, registry } = stage();
    await manager.acquire(request());
    start();
    registry.drop('10.5.1.0-24');
    if (how === 'same key') registry.put('10.5.1.0-24', attributesOf('10.88.0.2', 'b'), 90);
    else if (how === 'a part of it') registry.put('10.5.1.128-25', { PublicIP: '10.88.0.2' }, 90);
    else registry.corrupt('10.5.1.0-24');
    await clock.advance(31_000);
    const lines = story().slice(2);
    if (how === 'unreadable') {
      t.match(lines[0], '30 update 10.5.1.0-24: corrupt', 'an operator may mend it before the deadline');
      t.match(lines[1], 'warn the lease could not be renewed');
      t.equal(manager.fenced, false);
      continue;
    }
    const reason = how === 'same key' ? '10.5.1.0/24 of node b (10.88.0.2)' : '10.5.1.128/25 of node 10.88.0.2';
    t.match(
      lines,
      [/update/, /list/, `30 LOST 10.5.1.0-24: the subnet is now in the lease ${reason}`, /run ended: lost/],
      how,
    );
    t.equal(manager.fenced, true);
  }
});

t.test('our key written by an operator is adopted; a reservation is kept without TTL', async t => {
  const { clock, manager, story, start, registry, watch } = stage();
  await manager.acquire(request());
  const stop = start();
  watch(stop.signal);
  await clock.settle();
  registry.put('10.5.1.0-24', { ...attributesOf('10.88.0.1', 'a'), Rack: 'r7' }, null);
  await clock.advance(29_000);
  t.same(story().slice(2), [
    '0 update 10.5.1.0-24: conflict',
    '0 list',
    "0 warn somebody wrote this node's lease and left it to us, taking it back",
    '0 update 10.5.1.0-24',
    '0 RENEWED 10.5.1.0-24 key 1',
  ]);
  t.equal(manager.deadline, Number.POSITIVE_INFINITY);
  t.equal(manager.lease?.attributes['Rack'], 'r7', 'unknown keys are kept');
  stop.abort();
  await manager.release();
  t.equal(registry.print().length, 1, 'a reservation is not released');
});

t.test('a reservation is taken and stays one', async t => {
  const { clock, manager, registry, start } = stage();
  registry.put('10.5.2.0-24', { PublicIP: '10.88.0.1', Rack: 'r7' }, null);
  const lease = await manager.acquire(request());
  t.equal(subnetKey(lease), '10.5.2.0-24');
  t.equal(lease.expiresAtMs, null);
  t.match(lease.attributes, { Rack: 'r7', BackendData: { NodeID: 'a' } });
  const stop = start();
  await clock.advance(10 * 24 * 3600 * 1000);
  stop.abort();
  t.match(registry.print(), [/^10\.5\.2\.0-24 10\.88\.0\.1 create 1 mod \d+ reserved$/]);
});

t.test('lost answers: what was done is found again, never done twice', async t => {
  const { clock, manager, story, start, registry } = stage();
  registry.loseAnswerOf = 'create';
  const acquired = manager.acquire(request());
  await clock.advance(2000);
  await acquired;
  registry.loseAnswerOf = 'update';
  const stop = start();
  await clock.advance(40_000);
  stop.abort();
  await clock.settle();
  t.same(story(), [
    '0 list',
    '0 create 10.5.1.0-24: unavailable',
    '0 warn the lease registry is unavailable, trying again',
    '1 list',
    '1 update 10.5.1.0-24',
    '31 update 10.5.1.0-24: unavailable',
    '31 warn the lease could not be renewed, trying again',
    '31 update 10.5.1.0-24: conflict',
    '31 list',
    '31 update 10.5.1.0-24',
    '31 RENEWED 10.5.1.0-24 key 1',
    '31 info the lease registry is back',
    '42 run ended: stopped',
  ]);
});

t.test('errors that a person must see', async t => {
  const { manager, registry, clock } = stage();
  for (const n of [1, 2, 3]) registry.put(`10.5.${n}.0-24`, attributesOf(`10.88.1.${n}`, `n${n}`), 90);
  await t.rejects(manager.acquire(request()), {
    code: 'out-of-subnets',
    message: /^out of subnets: .*10\.5\.0\.0\/22 \(3 leases\)/,
  });
  await t.rejects(manager.acquire(request('a', '10.88.1.2')), {
    code: 'address-conflict',
    message: /10\.88\.1\.2 .*node n2/,
  });
  registry.failure = 'denied';
  await t.rejects(manager.acquire(request()), { code: 'denied' });
  registry.failure = 'unavailable';
  const stop = new AbortController();
  const waiting = manager.acquire(request(), stop.signal);
  await clock.advance(200_000);
  stop.abort();
  await t.rejects(waiting, { code: 'aborted' });
  await t.rejects(new LeaseManager({ registry, clock }).run(stop.signal, { marginSeconds: 1 }), { code: 'no-lease' });
});

t.test('an own lease that does not fit any more is replaced', async t => {
  const { manager, registry, story } = stage();
  registry.put('10.5.1.0-25', attributesOf('10.88.0.1', 'a'), 90);
  t.equal(subnetKey(await manager.acquire(request())), '10.5.1.0-24');
  t.same(story(), [
    '0 list',
    '0 warn own lease does not fit the network configuration, replacing it',
    '0 remove 10.5.1.0-25',
    '0 create 10.5.1.0-24',
  ]);
});

t.test('two nodes race for the last subnet: one gets it, the other is told', async t => {
  for (let round = 0; round < 50; round++) {
    const clock = createVirtualClock();
    const registry = createMemoryRegistry(clock);
    registry.latencyMs = 150;
    registry.put('10.5.1.0-24', attributesOf('10.88.0.8', 'x'), 900);
    registry.put('10.5.3.0-24', attributesOf('10.88.0.9', 'y'), 900);
    const race = Promise.allSettled(
      ['a', 'b'].map((id, i) => new LeaseManager({ registry, clock }).acquire(request(id, `10.88.0.${i + 1}`))),
    );
    await clock.advance(60_000);
    const outcomes = await race;
    const codes = outcomes.map(end => (end.status === 'fulfilled' ? subnetKey(end.value) : end.reason.code)).sort();
    t.same(codes, ['10.5.2.0-24', 'out-of-subnets']);
  }
});

t.test('500 managers at once from 500 subnets: all different', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const clock = createVirtualClock();
  const registry = createMemoryRegistry(clock);
  registry.latencyMs = 20;
  const many = parseNetworkConfig('{"Network":"10.0.0.0/12","SubnetMin":"10.0.1.0","SubnetMax":"10.1.244.0"}');
  const managers = Array.from({ length: 500 }, (_, i) => {
    const manager = new LeaseManager({ registry, clock, random: () => next() / 2 ** 32 });
    const address = `10.88.${i >> 8}.${i & 255}`;
    return manager.acquire({ ...request(`n${i}`, address, 900), config: many });
  });
  const all = Promise.all(managers);
  await clock.advance(60_000);
  const keys = new Set((await all).map(subnetKey));
  t.equal(keys.size, 500);
});

t.test('a registry that was restored from a backup, or emptied: we look at once, whatever its revision', async t => {
  for (const how of ['gone', 'foreign', 'ours as it was'] as const) {
    const { clock, manager, story, start, registry, watch } = stage();
    const restoreOld = registry.backup();
    registry.put('10.5.3.0-24', attributesOf('10.88.0.3', 'c'), null);
    await manager.acquire(request('a', '10.88.0.1', 24 * 3600));
    const restoreOurs = registry.backup();
    const stop = start();
    watch(stop.signal);
    await clock.advance(23 * 3600 * 1000 + 1000); // renewed once
    for (let i = 0; i < 5; i++) registry.put('10.5.3.0-24', attributesOf('10.88.0.3', 'c'), null);
    await clock.settle();
    story();
    const restore = how === 'ours as it was' ? restoreOurs : restoreOld;
    restore();
    if (how === 'foreign') registry.put('10.5.1.0-24', attributesOf('10.88.0.2', 'b'), 24 * 3600);
    await clock.settle();
    const expected = {
      gone: [/update.*: missing/, /list/, /create/, /REACQUIRED 10.5.1.0-24 key 1$/],
      foreign: [/FENCED/, /update.*: conflict/, /list/, /LOST 10.5.1.0-24: .*node b/, /ended: lost/],
      'ours as it was': [/update.*: conflict/, /list/, /update/, /RENEWED 10.5.1.0-24 key 2$/],
    };
    t.match(story(), expected[how], how);
    t.equal(manager.fenced, how === 'foreign');
    stop.abort();
    await clock.settle();
  }
});

t.test(
  'our key in the hands of another: fenced as soon as the watch tells it, also in the pause after a failure',
  async t => {
    const { clock, manager, story, start, registry, watch } = stage({ random: () => 0.999999 });
    await manager.acquire(request('a', '10.88.0.1', 24 * 3600));
    const stop = start();
    watch(stop.signal);
    registry.failure = 'unavailable';
    await clock.advance(23 * 3600 * 1000 + 100_000); // pauses of 30 s by now
    t.equal(manager.fenced, false, 'a registry that is away moves no deadline');
    story();
    registry.drop('10.5.3.0-24');
    registry.put('10.5.3.0-24', attributesOf('10.88.0.2', 'b'), 90);
    await clock.settle();
    t.equal(manager.fenced, true);
    t.match(story(), [/FENCED/, /update 10.5.3.0-24: unavailable/], 'and it looks at once');
    registry.failure = undefined;
    await clock.advance(31_000);
    t.match(story().at(-1), 'run ended: lost');
  },
);

t.test('a key that is gone and cannot be made again: fenced, whatever time was left', async t => {
  const { clock, manager, story, start, registry, watch } = stage();
  await manager.acquire(request('a', '10.88.0.1', 24 * 3600));
  const stop = start();
  watch(stop.signal);
  await clock.advance(1000);
  story();
  registry.failure = 'denied'; // its disk is full, or we may only read
  registry.drop('10.5.1.0-24');
  await clock.settle();
  t.equal(manager.fenced, true);
  t.match(story(), [/update.*: denied/, /warn/, /FENCED 10.5.1.0-24/]);
  registry.failure = undefined;
  await clock.advance(31_000);
  t.equal(manager.fenced, false);
  t.match(story().at(-2), /REACQUIRED/);
  // Nobody watches: the answer alone tells it.
  const { create } = registry;
  registry.create = async () => {
    throw new RegistryError('denied', 'as the test wants it');
  };
  stop.abort();
  await clock.settle();
  const blind = start();
  registry.drop('10.5.1.0-24');
  await clock.advance(23 * 3600 * 1000);
  t.equal(manager.fenced, true);
  registry.create = create;
  await clock.advance(31_000);
  t.equal(manager.fenced, false);
  blind.abort();
  await clock.settle();
});

t.test('an answer that was under way when our key was taken opens nothing', async t => {
  const { clock, manager, story, start, registry, watch } = stage();
  await manager.acquire(request());
  const stop = start();
  watch(stop.signal);
  registry.latencyMs = 2000;
  await clock.advance(31_500); // the renewal was done at 31 s, and is answered at 32 s
  registry.drop('10.5.1.0-24');
  registry.put('10.5.1.0-24', attributesOf('10.88.0.2', 'b'), 90);
  await clock.advance(400);
  t.equal(manager.fenced, true);
  await clock.advance(200);
  t.equal(manager.fenced, true, 'answered');
  await clock.advance(10_000);
  t.match(story().at(-1), 'run ended: lost');
});

t.test('observe looks only when it must', async t => {
  const { clock, manager, story, start, registry } = stage();
  const lease = await manager.acquire(request());
  const stop = start();
  story();
  const subnets = parseSubnetKey('10.5.1.0-24')!;
  manager.observe({ kind: 'snapshot', leases: [lease], revision: 1 });
  manager.observe({ kind: 'events', events: [{ kind: 'put', lease }], revision: 1 });
  manager.observe({ kind: 'events', events: [{ kind: 'put', lease }], revision: 5 });
  manager.observe({
    kind: 'events',
    events: [
      { kind: 'removed', ...subnets },
      { kind: 'put', lease },
    ],
    revision: 5,
  });
  manager.observe({ kind: 'events', events: [{ kind: 'removed', ...parseSubnetKey('10.5.2.0-24')! }], revision: 6 });
  await clock.settle();
  t.same(story(), []);
  manager.observe({ kind: 'snapshot', leases: [], revision: 6 });
  await clock.settle();
  t.same(story(), ['0 update 10.5.1.0-24', '0 RENEWED 10.5.1.0-24 key 1']);
  const foreign = { ...manager.lease!, modRevision: 7 };
  manager.observe({ kind: 'events', events: [{ kind: 'put', lease: foreign }], revision: 7 });
  await clock.settle();
  t.same(story(), ['0 update 10.5.1.0-24', '0 RENEWED 10.5.1.0-24 key 1'], 'a write that is not ours: once');
  registry.drop('10.5.1.0-24');
  manager.observe({ kind: 'events', events: [{ kind: 'removed', ...subnets }], revision: 8 });
  await clock.settle();
  t.match(story(), [/missing/, /list/, /create/, /REACQUIRED/]);
  stop.abort();
  await clock.settle();
});
