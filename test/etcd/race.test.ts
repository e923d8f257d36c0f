// Many nodes and little left: who loses ends with another subnet or with a clear word, and no two ever win.
import t from 'tap';
import { openEtcdRegistry } from '../../etcd/registry.ts';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { type Lease, subnetKey } from '../../lib/lease/lease.ts';
import { type AcquireRequest, LeaseManager } from '../../lib/lease/manager.ts';
import { createOverlapIndex } from '../../lib/lease/overlap.ts';
import { codeOf, messageOf } from '../../lib/util/errors.ts';
import { type Logger, silentLogger } from '../../lib/util/log.ts';
import { type DelayProxy, startDelayProxy } from '../support/delay-proxy.ts';
import { bench, requireEtcd } from './support.ts';

requireEtcd();

function requestOf(network: string, node: number): AcquireRequest {
  const attributes = {
    PublicIP: `10.88.${node >> 8}.${node & 255}`,
    PublicIPv6: null,
    BackendType: 'tulle',
    BackendData: { Version: 1, Port: 8285, NodeID: `node-${node}` },
  };
  return { config: parseNetworkConfig(network), nodeId: `node-${node}`, attributes, ttlSeconds: 60 };
}

t.test('150 ms of latency, two nodes, the last subnet: 50 rounds of 50', async t => {
  const made = await bench(t);
  const target = { host: '127.0.0.1', port: made.options.clientPort as number };
  // Rounds do not touch each other (a prefix of its own each), so they run side by side.
  const proxies = await Promise.all([startDelayProxy(target, 75), startDelayProxy(target, 75)]);
  t.teardown(() => Promise.all(proxies.map(proxy => proxy.close())));
  const open = ({ port }: DelayProxy, prefix: string) =>
    made.registry({ endpoints: [`http://127.0.0.1:${port}`], prefix, deadlineMs: 10_000 });

  // A /22 of /24s: .1 and .2 are taken, .3 is the last (the first subnet of a network is never given).
  const network = '{"Network":"10.5.0.0/22","SubnetLen":24,"Backend":{"Type":"tulle"}}';
  const outcomes = new Map<string, number>();
  let collisions = 0;
  const log: Logger = {
    ...silentLogger,
    debug(_, message) {
      if (message.includes('choosing again')) collisions++;
    },
  };
  async function round(number: number): Promise<void> {
    const prefix = `/race/${number}`;
    for (const third of [1, 2]) {
      await made.raw.put(`${prefix}/subnets/10.5.${third}.0-24`).value(`{"PublicIP":"10.99.0.${third}"}`);
    }
    const registries = proxies.map(proxy => open(proxy, prefix));
    const results = await Promise.all(
      registries.map((registry, index) =>
        new LeaseManager({ registry, log }).acquire(requestOf(network, index + 1)).then(
          lease => `got ${subnetKey(lease)}`,
          error => `${codeOf(error)}: ${messageOf(error)}`,
        ),
      ),
    );
    const winners = results.filter(result => result === 'got 10.5.3.0-24');
    const losers = results.filter(result => result.startsWith('out-of-subnets: out of subnets: no free one is left'));
    const outcome = `${winners.length} winner, ${losers.length} clear loser`;
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    if (winners.length !== 1 || losers.length !== 1) t.fail(`round ${number}`, { results });
    await Promise.all(registries.map(registry => registry.close()));
  }
  const numbers = Array.from({ length: 50 }, (_, index) => index).values();
  await Promise.all(
    Array.from({ length: 10 }, async () => {
      for (const number of numbers) await round(number);
    }),
  );
  t.same([...outcomes], [['1 winner, 1 clear loser', 50]]);
  t.ok(collisions > 25, `in ${collisions} rounds both really wanted the same subnet at the same time`);
  const left = await made.raw.getAll().prefix('/race/').count();
  t.equal(left, 150, 'the losers left no key');
});

t.test(
  'B1: who loses the race for a subnet chooses again: 150 ms of latency, two nodes, two subnets, 20 rounds of 20',
  async t => {
    const made = await bench(t);
    const target = { host: '127.0.0.1', port: made.options.clientPort as number };
    const proxies = await Promise.all([startDelayProxy(target, 75), startDelayProxy(target, 75)]);
    t.teardown(() => Promise.all(proxies.map(proxy => proxy.close())));
    const network = '{"Network":"10.5.0.0/22","SubnetLen":24,"SubnetMin":"10.5.2.0","Backend":{"Type":"tulle"}}';
    const subnets = await Promise.all(
      Array.from({ length: 20 }, async (_, number) => {
        const leases = await Promise.all(
          proxies.map(({ port }, index) => {
            const registry = made.registry({
              endpoints: [`http://127.0.0.1:${port}`],
              prefix: `/two/${number}`,
              deadlineMs: 10_000,
            });
            // Both want the same one first.
            return new LeaseManager({ registry, random: () => 0 }).acquire(requestOf(network, index + 1));
          }),
        );
        return leases.map(subnetKey).sort().join(' ');
      }),
    );
    t.same([...new Set(subnets)], ['10.5.2.0-24 10.5.3.0-24']);
  },
);

t.test('500 daemons acquire at once: 500 subnets', async t => {
  const made = await bench(t);
  const network = '{"Network":"10.16.0.0/12","SubnetLen":24,"Backend":{"Type":"tulle"}}';
  const count = 500;
  // A registry each, as each daemon has one; but few sockets to one etcd of a test machine at a time to open.
  const registries = Array.from({ length: count }, () =>
    openEtcdRegistry({ endpoints: [made.server.endpoint], log: silentLogger, deadlineMs: 30_000 }),
  );
  t.teardown(() => Promise.all(registries.map(registry => registry.close())));
  const start = performance.now();
  const leases: Lease[] = await Promise.all(
    registries.map((registry, node) => new LeaseManager({ registry }).acquire(requestOf(network, node + 1))),
  );
  const seconds = (performance.now() - start) / 1000;
  t.comment(`${count} managers acquired ${count} leases in ${seconds.toFixed(1)} s`);
  t.equal(new Set(leases.map(subnetKey)).size, count, 'no subnet twice');
  const index = createOverlapIndex<Lease>();
  for (const lease of leases) {
    if (index.find(lease) !== undefined) t.fail(`${subnetKey(lease)} overlaps another`);
    index.add(lease, lease);
  }
  t.equal((await made.registry().list()).leases.length, count);
  t.equal((await made.raw.leaseClient.leaseLeases()).leases.length, count, 'one etcd lease each, none left over');
});
