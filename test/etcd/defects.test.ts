// flannel's defects in its etcd manager, one test each, by the names of the project's notes: ours does not have them.
// (B1 is in race.test.ts, where the latency is; B8 is about traffic rules, in test/host.)
import t, { type Test } from 'tap';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { type Lease, parseSubnetKey, subnetKey } from '../../lib/lease/lease.ts';
import { type AcquireRequest, LeaseManager, type ManagerEvent } from '../../lib/lease/manager.ts';
import { emptyView, type PeerChange, type PeerView, reconcile } from '../../lib/lease/reconcile.ts';
import type { Registry } from '../../lib/lease/registry.ts';
import { type Bench, bench, RawEtcd, requireEtcd, until } from './support.ts';

requireEtcd();
const subnets = '/coreos.com/network/subnets/';
const config = parseNetworkConfig('{"Network":"10.5.0.0/16","Backend":{"Type":"tulle"}}');

function requestOf(node: string, publicIp: string, ttlSeconds = 60): AcquireRequest {
  const attributes = {
    PublicIP: publicIp,
    PublicIPv6: null,
    BackendType: 'tulle',
    BackendData: { Version: 1, Port: 8285, NodeID: node },
  };
  return { config, nodeId: node, attributes, ttlSeconds };
}

/** The manager's loops and its watch, as the daemon runs them; ended with the test. */
function keep(t: Test, registry: Registry, manager: LeaseManager, marginSeconds = 40) {
  const events: ManagerEvent[] = [];
  manager.subscribe(event => void events.push(event));
  const stopper = new AbortController();
  const run = manager.run(stopper.signal, { marginSeconds });
  const watch = (async () => {
    for await (const message of registry.watch(stopper.signal)) manager.observe(message);
  })();
  const stop = async (): Promise<string> => {
    stopper.abort();
    await watch;
    return run;
  };
  t.teardown(stop);
  return { events, run, stop, kinds: () => events.map(event => event.kind) };
}

const etcdLeases = async ({ raw }: Bench): Promise<number> => (await raw.leaseClient.leaseLeases()).leases.length;

t.test('B2: a reservation stays without a TTL, also when its node has taken it, renewed it and restarted', async t => {
  const made = await bench(t);
  const key = `${subnets}10.5.7.0-24`;
  await made.raw.put(key).value('{"PublicIP":"10.88.0.1","PublicIPv6":null}');
  for (let start = 0; start < 3; start++) {
    const registry = made.registry();
    const manager = new LeaseManager({ registry });
    const lease = await manager.acquire(requestOf('n1', '10.88.0.1', 9));
    t.equal(subnetKey(lease), '10.5.7.0-24', 'it gets what is reserved for it');
    t.equal(lease.expiresAtMs, null);
    t.equal(manager.deadline, Number.POSITIVE_INFINITY);
    const kept = keep(t, registry, manager, 6);
    const { kvs } = await made.raw.kv.range({ key: Buffer.from(key) });
    t.equal(kvs[0].lease, '0', 'the key hangs on no etcd lease');
    t.equal(await kept.stop(), 'stopped');
    await manager.release(); // a clean stop with --release-on-exit
    t.equal(await made.raw.getAll().prefix(subnets).count(), 1, "and is not given back: it is the operator's");
    await registry.close();
  }
  t.equal(await etcdLeases(made), 0);
});

t.test('B3: listing again after a compaction updates a peer that moved, and never drops our own lease', async t => {
  const made = await bench(t);
  const registry = made.registry();
  const manager = new LeaseManager({ registry });
  const own = await manager.acquire(requestOf('n1', '10.88.0.1'));
  const value = (ip: string): string =>
    `{"PublicIP":"${ip}","PublicIPv6":null,"BackendType":"tulle","BackendData":{"NodeID":"n2"}}`;
  const peerKey = subnetKey(own) === '10.5.200.0-24' ? '10.5.201.0-24' : '10.5.200.0-24';
  await made.raw.put(subnets + peerKey).value(value('10.88.0.2'));

  // What the daemon does with a watch, and what comes of it.
  let view: PeerView = emptyView({ nodeId: 'n1', lease: own });
  const changes: PeerChange[] = [];
  let snapshots = 0;
  const kept = keep(t, registry, manager);
  const stopper = new AbortController();
  t.teardown(() => stopper.abort());
  void (async () => {
    for await (const message of registry.watch(stopper.signal)) {
      if (message.kind === 'snapshot') snapshots++;
      const result = reconcile(view, message);
      view = result.view;
      changes.push(...result.changes);
    }
  })();
  await until('the peer', () => view.peers.size === 1);

  // While nobody watches: the peer moves and the history is compacted away.
  await made.server.stop();
  const { clientPort, peerPort } = made.options;
  delete made.options.clientPort;
  await made.restart();
  const raw = new RawEtcd({ hosts: made.server.endpoint });
  await raw.put(subnets + peerKey).value(value('10.88.0.22'));
  const { header } = await raw.put('/x').value('x');
  await raw.kv.compact({ revision: header.revision, physical: true });
  raw.close();
  await made.server.stop();
  Object.assign(made.options, { clientPort, peerPort });
  await made.restart();

  await until('the list after the gap', () => snapshots === 2);
  t.same(
    changes.map(({ kind, lease }) => `${kind} ${subnetKey(lease)} ${lease.attributes.PublicIP}`),
    [`add ${peerKey} 10.88.0.2`, `update ${peerKey} 10.88.0.22`],
    'an update for the peer, and not a word about our own',
  );
  t.notOk(
    kept.kinds().some(kind => kind === 'lost' || kind === 'reacquired'),
    kept.kinds().join(),
  );
});

t.test(
  'B4: a lease that cannot be read or is gone just when keeping it begins is kept all the same; a stop stops',
  async t => {
    const made = await bench(t);
    // Gone.
    const registry = made.registry({ deadlineMs: 1_000 });
    const manager = new LeaseManager({ registry });
    const lease = await manager.acquire(requestOf('n1', '10.88.0.1'));
    await made.raw.delete().key(subnets + subnetKey(lease));
    const kept = keep(t, registry, manager);
    await until('made again', () => kept.kinds().includes('reacquired'));
    t.same(manager.lease && subnetKey(manager.lease), subnetKey(lease));
    t.ok((manager.lease as Lease).createRevision > lease.createRevision);
    t.equal(await kept.stop(), 'stopped');

    // etcd away at that very moment.
    const second = new LeaseManager({ registry });
    const again = await second.acquire(requestOf('n1', '10.88.0.1', 6));
    await made.server.stop();
    const keptAgain = keep(t, registry, second, 5);
    await new Promise(done => setTimeout(done, 500));
    await made.restart();
    await until('renewed', () => keptAgain.kinds().includes('renewed'));
    t.equal(second.lease && subnetKey(second.lease), subnetKey(again));

    // And again away when it is told to stop: the first time of telling is enough.
    await made.server.stop();
    t.equal(await keptAgain.stop(), 'stopped');
  },
);

t.test('B5: starts and renewals leave one etcd lease a node, and none when it has given its own back', async t => {
  const made = await bench(t);
  for (let start = 0; start < 4; start++) {
    for (const node of [1, 2]) {
      const registry = made.registry();
      const manager = new LeaseManager({ registry });
      await manager.acquire(requestOf(`n${node}`, `10.88.0.${node}`, 6));
      const kept = keep(t, registry, manager, 5.5); // renews every 2 s at the earliest
      if (start === 3) await until('a renewal', () => kept.kinds().includes('renewed'));
      await kept.stop();
      if (start === 3 && node === 2) await manager.release();
      await registry.close();
    }
    t.equal(await etcdLeases(made), start === 3 ? 1 : 2, `after start ${start + 1}`);
  }
});

t.test('B6: a node that comes back after its TTL does not write over the one that took its subnet', async t => {
  const made = await bench(t);
  const registry = made.registry();
  const old = new LeaseManager({ registry });
  const lease = await old.acquire(requestOf('old', '10.88.0.1', 5));
  // It hears nothing of what follows (no watch, no renewal yet): its lease ends and another node takes the subnet.
  await made.raw.delete().key(subnets + subnetKey(lease));
  const young = new LeaseManager({ registry: made.registry() });
  const taken = await young.acquire({
    ...requestOf('young', '10.88.0.2'),
    previousSubnet: parseSubnetKey(subnetKey(lease))!,
  });
  t.equal(subnetKey(taken), subnetKey(lease));

  const reasons: string[] = [];
  old.subscribe(event => {
    if (event.kind === 'lost') reasons.push(event.reason);
  });
  t.equal(await old.run(new AbortController().signal, { marginSeconds: 4 }), 'lost');
  t.match(reasons, [/young.*10\.88\.0\.2/]);
  t.ok(old.fenced);
  const [found] = (await registry.list()).leases;
  t.equal(found.modRevision, taken.modRevision, "the young one's value was not touched");
  await t.rejects(registry.update(lease, lease.attributes, 60), { code: 'conflict' });
  await t.rejects(registry.remove(lease), { code: 'conflict' });
});

t.test(
  'B7: two nodes with one public address do not share a lease: the second one is told, with the name of the first',
  async t => {
    const made = await bench(t);
    const first = await new LeaseManager({ registry: made.registry() }).acquire(requestOf('alpha', '10.0.2.15'));
    await t.rejects(new LeaseManager({ registry: made.registry() }).acquire(requestOf('beta', '10.0.2.15')), {
      code: 'address-conflict',
      message: /10\.0\.2\.15.*alpha/,
    });
    const { leases } = await made.registry().list();
    t.same(
      leases.map(lease => [subnetKey(lease), lease.modRevision]),
      [[subnetKey(first), first.modRevision]],
      "alpha's is untouched",
    );
  },
);

t.test('B7 with Backend udp, whose leases name no node: who runs keeps its lease, who comes back gets it', async t => {
  const made = await bench(t);
  const udp = { ...requestOf('', '10.0.2.15'), attributes: { PublicIP: '10.0.2.15', PublicIPv6: null } };
  const registry = made.registry();
  const manager = new LeaseManager({ registry });
  const first = await manager.acquire({ ...udp, nodeId: 'alpha' });
  const kept = keep(t, registry, manager);
  const second = made.registry();
  await t.rejects(new LeaseManager({ registry: second }).acquire({ ...udp, nodeId: 'beta' }), {
    code: 'address-conflict',
    message:
      /10\.0\.2\.15 is also the PublicIP of the lease 10\.5\.\d+\.0\/24 of node 10\.0\.2\.15, and another process/,
  });
  await second.close();
  t.equal(manager.fenced, false);
  t.equal(manager.lease?.createRevision, first.createRevision, 'the same lease as before');
  t.notOk(kept.kinds().includes('lost'));
  t.equal(await etcdLeases(made), 1, 'nothing is left of the second');

  // The machine reboots, and with it goes its subnet.env.
  await kept.stop();
  await registry.close();
  const again = await new LeaseManager({ registry: made.registry() }).acquire({ ...udp, nodeId: 'alpha' });
  t.equal(subnetKey(again), subnetKey(first));
  t.equal(await etcdLeases(made), 1);
});

t.test('B9: no TimeToLive call for each key of a list, nor for each event of a watch', async t => {
  const made = await bench(t);
  const count = 300;
  const put = async (index: number): Promise<unknown> =>
    await made.raw
      .lease(600, { autoKeepAlive: false })
      .put(`${subnets}10.6.${index % 256}.0-${24 + (index >> 8)}`)
      .value(`{"PublicIP":"10.88.1.${index % 250}"}`);
  for (let index = 0; index < count; index += 50) {
    await Promise.all(Array.from({ length: 50 }, (_, offset) => put(index + offset)));
  }
  /** How often etcd has answered a method. */
  const calls = async (method: string): Promise<number> => {
    const text = await (await fetch(`${made.server.endpoint}/metrics`)).text();
    const lines = text.match(new RegExp(`^grpc_server_started_total\\{grpc_method="${method}".*$`, 'gm')) ?? [];
    return lines.reduce((total, line) => total + Number(line.split(' ').at(-1)), 0);
  };
  const before = { range: await calls('Range'), ttl: await calls('LeaseTimeToLive') };
  const registry = made.registry();
  const stopper = new AbortController();
  let events = 0;
  const watch = (async () => {
    for await (const message of registry.watch(stopper.signal))
      events += message.kind === 'events' ? message.events.length : 0.001;
  })();
  await until('the snapshot', () => events > 0);
  t.ok((await registry.list()).leases.length > 250);
  for (let index = 0; index < 20; index++) await put(index);
  await until('the events', () => events >= 20);
  stopper.abort();
  await watch;
  t.equal((await calls('Range')) - before.range, 2, 'two lists are two calls');
  t.equal((await calls('LeaseTimeToLive')) - before.ttl, 0);
  // Only who shows them to people asks, and once for each etcd lease.
  const exact = await made.registry({ exactExpiry: true }).list();
  t.equal((await calls('LeaseTimeToLive')) - before.ttl, exact.leases.length);
});
