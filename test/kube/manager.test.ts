// The lease rules on Kubernetes: no TTL, no choice. What holds a lease is the Node object; what ends it is its end.
import t, { type Test } from 'tap';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { leaseKeyOf, printSubnets } from '../../lib/lease/lease.ts';
import { LeaseManager, type ManagerEvent } from '../../lib/lease/manager.ts';
import { announced, attributesOf, type Bench, openBench, prefix, until } from './support.ts';

interface Stage {
  manager: LeaseManager;
  events: ManagerEvent[];
  outcome(): string | undefined;
}

/** A node with a manager that runs, as in the daemon. */
async function run(t: Test, bench: Bench, node: string): Promise<Stage> {
  const registry = bench.registry(node);
  const { text } = await registry.config();
  const manager = new LeaseManager({ registry, log: bench.log });
  const request = {
    config: parseNetworkConfig(text),
    nodeId: node,
    attributes: attributesOf(node, '10.88.0.1'),
    ttlSeconds: 86_400,
    // What subnet.env says counts for nothing here.
    previousSubnet: { subnet: { address: 0x0a2a6300, prefixLength: 24 } },
  };
  await manager.acquire(request);
  const events: ManagerEvent[] = [];
  manager.subscribe(event => events.push(event));
  const stop = new AbortController();
  let outcome: string | undefined;
  const running = manager.run(stop.signal, { marginSeconds: 3600 }).then(result => {
    outcome = result;
  });
  let first = (): void => {};
  const started = new Promise<void>(resolve => {
    first = resolve;
  });
  const watching = (async () => {
    for await (const message of registry.watch(stop.signal)) {
      manager.observe(message);
      first();
    }
  })();
  t.teardown(async () => {
    stop.abort();
    await Promise.all([running, watching]);
  });
  await started;
  return { manager, events, outcome: () => outcome };
}

t.test('a lease without an end', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.0.0/24']);
  const { manager, events } = await run(t, bench, 'node1');
  t.equal(printSubnets(manager.lease!), '10.42.0.0/24', 'the pod CIDR and no other');
  t.equal(manager.deadline, Number.POSITIVE_INFINITY);
  // An API server that is away takes nothing from us.
  bench.api.options.intercept = () => 'drop';
  bench.api.dropConnections();
  await until('the watch to notice', () => bench.lines.some(line => line.includes('interrupted')));
  t.equal(manager.fenced, false);
  bench.api.options.intercept = () => undefined;
  await until('the watch', () => bench.api.watches.size === 1);
  await manager.release();
  t.equal(bench.annotations('node1')['public-ip'], '10.88.0.1', 'a release takes nothing from the node');
  t.same(
    events.filter(event => event.kind !== 'renewed'),
    [],
  );
});

t.test('heartbeats of a kubelet are no rival', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24']);
  const { manager, events, outcome } = await run(t, bench, 'node1');
  for (let i = 0; i < 100; i++) {
    bench.write('node1', { status: { conditions: [{ type: 'Ready', status: 'True', lastHeartbeatTime: i }] } });
  }
  bench.addNode('node2', ['10.42.2.0/24'], announced('node2', '10.88.0.2'));
  await until('they are all seen', () => bench.api.watches.size === 1);
  t.equal(outcome(), undefined);
  t.equal(manager.fenced, false);
  t.same(
    events.filter(event => event.kind === 'lost'),
    [],
  );
});

t.test('somebody else writes our annotations: they are ours again', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24']);
  await run(t, bench, 'node1');
  bench.write('node1', { metadata: { annotations: { [`${prefix}/public-ip`]: '192.0.2.99' } } });
  await until('the address', () => bench.annotations('node1')['public-ip'] === '10.88.0.1');
  bench.write('node1', { metadata: { annotations: { [`${prefix}/kube-subnet-manager`]: null } } });
  await until('the mark', () => bench.annotations('node1')['kube-subnet-manager'] === 'true');
  bench.write('node1', { metadata: { annotations: { [`${prefix}/public-ip-overwrite`]: '192.0.2.7' } } });
  await until('an overwrite is followed', () => bench.annotations('node1')['public-ip'] === '192.0.2.7');
});

t.test('the node is deleted: forwarding ends at once, and goes on when it is made again', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24']);
  const { manager, events, outcome } = await run(t, bench, 'node1');
  const before = leaseKeyOf(manager.lease!);
  bench.removeNode('node1');
  await until('fenced', () => events.some(event => event.kind === 'fenced'));
  t.equal(manager.fenced, true);
  t.equal(outcome(), undefined, 'it waits');
  bench.addNode('node1', ['10.42.1.0/24']);
  await until('reacquired', () => events.some(event => event.kind === 'reacquired'));
  t.equal(manager.fenced, false);
  t.not(leaseKeyOf(manager.lease!), before, 'another key');
  t.equal(bench.annotations('node1')['public-ip'], '10.88.0.1');
});

t.test('the node is made again with another pod CIDR: the lease is lost', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24']);
  const { events, outcome } = await run(t, bench, 'node1');
  bench.removeNode('node1');
  bench.addNode('node1', ['10.42.9.0/24']);
  await until('lost', () => outcome() === 'lost');
  const lost = events.find(event => event.kind === 'lost');
  t.match(lost, { reason: 'the registry gives this node 10.42.9.0/24 now, not 10.42.1.0/24' });
});

t.test('the node is deleted and its pod CIDR given to another: the lease is lost', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24']);
  const { events, outcome } = await run(t, bench, 'node1');
  bench.removeNode('node1');
  bench.addNode('node2', ['10.42.1.0/24'], announced('node2', '10.88.0.2'));
  await until('lost', () => outcome() === 'lost');
  const lost = events.find(event => event.kind === 'lost');
  t.match(lost, { reason: /the subnet is now in the lease 10\.42\.1\.0\/24 of node node2 \(10\.88\.0\.2\)/ });
});

t.test('a patch that meets the writes of others', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24']);
  let writes = 0;
  bench.api.options.intercept = ask => {
    // The kubelet writes between each of our reads and writes, for a while.
    if (ask.verb === 'patch' && writes++ < 3) bench.write('node1', { metadata: { labels: { write: `${writes}` } } });
    return undefined;
  };
  const { manager } = await run(t, bench, 'node1');
  t.equal(manager.lease?.attributes.PublicIP, '10.88.0.1');
  t.equal(writes, 4, 'three conflicts and one success');
  t.equal(bench.getNode('node1').metadata.labels?.['write'], '3', "and the others' writes are there");
});
