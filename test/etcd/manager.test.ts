// The lease manager on a real etcd: daemons that start at once, restart, and lose etcd for a while.
import t from 'tap';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { type Lease, subnetKey } from '../../lib/lease/lease.ts';
import { type AcquireRequest, LeaseManager, type ManagerEvent } from '../../lib/lease/manager.ts';
import { bench, RawEtcd, requireEtcd, until } from './support.ts';

requireEtcd();
const config = parseNetworkConfig('{"Network":"10.5.0.0/20","SubnetLen":24,"Backend":{"Type":"tulle"}}'); // 15 subnets

function request(node: number, ttlSeconds = 60): AcquireRequest {
  const attributes = {
    PublicIP: `10.88.0.${node}`,
    PublicIPv6: null,
    BackendType: 'tulle',
    BackendData: { Version: 1, Port: 8285, NodeID: `node-${node}` },
  };
  return { config, nodeId: `node-${node}`, attributes, ttlSeconds };
}

t.test('fifteen daemons at once for the last fifteen subnets, then all restart: each keeps its own', async t => {
  const { raw, registry } = await bench(t);
  const nodes = Array.from({ length: 15 }, (_, index) => index + 1);
  const start = (): Promise<Lease[]> =>
    Promise.all(nodes.map(node => new LeaseManager({ registry: registry() }).acquire(request(node))));
  const first = await start();
  t.equal(new Set(first.map(subnetKey)).size, 15, 'no subnet twice');
  t.same((await start()).map(subnetKey), first.map(subnetKey));
  t.equal((await raw.leaseClient.leaseLeases()).leases.length, 15, 'one etcd lease for each daemon');
  await t.rejects(new LeaseManager({ registry: registry() }).acquire(request(99)), /out of subnets|no free subnet/i);
  t.equal((await raw.leaseClient.leaseLeases()).leases.length, 15);
});

t.test('renews while it runs, and goes on after an outage', async t => {
  const made = await bench(t);
  const manager = new LeaseManager({ registry: made.registry({ deadlineMs: 1_000 }) });
  const lease = await manager.acquire(request(1, 6));
  const events: ManagerEvent['kind'][] = [];
  manager.subscribe(event => void events.push(event.kind));
  const stopper = new AbortController();
  const run = manager.run(stopper.signal, { marginSeconds: 4 });
  t.teardown(() => stopper.abort());
  await until('two renewals', () => events.filter(kind => kind === 'renewed').length >= 2);
  await made.server.stop();
  await new Promise(done => setTimeout(done, 2_000));
  await made.restart();
  const before = events.length;
  await until('renewed after it', () => events.length > before);
  t.notOk(manager.fenced);
  t.equal(manager.lease && subnetKey(manager.lease), subnetKey(lease));
  t.equal(manager.lease?.createRevision, lease.createRevision, 'it is the same lease');
  stopper.abort();
  await run;
});

t.test('etcd restored from a backup that is older than our lease: looked at now, not at the next renewal', async t => {
  for (const isTaken of [true, false]) {
    const made = await bench(t);
    for (let i = 0; i < 20; i++) await made.raw.put('/elsewhere').value(`${i}`);
    const registry = made.registry();
    const manager = new LeaseManager({ registry });
    const lease = await manager.acquire(request(1, 24 * 3600));
    const key = `/coreos.com/network/subnets/${subnetKey(lease)}`;
    const kinds: ManagerEvent['kind'][] = [];
    manager.subscribe(event => void kinds.push(event.kind));
    const stopper = new AbortController();
    t.teardown(() => stopper.abort());
    let messages = 0;
    const watch = (async () => {
      for await (const message of registry.watch(stopper.signal)) {
        messages++;
        manager.observe(message);
      }
    })();
    const run = manager.run(stopper.signal, { marginSeconds: 3600 });
    await until('the snapshot', () => messages === 1);

    // The other history begins where the watcher does not see it.
    await made.server.stop();
    const { clientPort, peerPort } = made.options;
    delete made.options.clientPort;
    made.options.directory = `${made.directory}/restored`;
    await made.restart();
    const raw = new RawEtcd({ hosts: made.server.endpoint });
    const other = JSON.stringify(request(2).attributes);
    await raw.put(isTaken ? key : '/elsewhere').value(other);
    raw.close();
    await made.server.stop();
    Object.assign(made.options, { clientPort, peerPort });
    await made.restart();

    if (isTaken) t.equal(await run, 'lost');
    else await until('made again', () => kinds.includes('reacquired'));
    t.equal(manager.fenced, isTaken);
    stopper.abort();
    await Promise.all([run, watch]);
  }
});

t.test('etcd emptied, and another node on our subnet at the very revision of our lease: no renewal', async t => {
  const made = await bench(t);
  const registry = made.registry();
  const manager = new LeaseManager({ registry });
  const lease = await manager.acquire(request(1));
  await made.server.stop();
  made.options.directory = `${made.directory}/empty`;
  await made.restart();
  const other = JSON.stringify(request(2).attributes);
  await made.raw.put(`/coreos.com/network/subnets/${subnetKey(lease)}`).value(other);
  const { leases } = await registry.list();
  t.equal(leases[0].modRevision, lease.modRevision);
  await t.rejects(registry.update(lease, lease.attributes, 60), { code: 'conflict' });
  t.match(
    await registry.list(),
    { leases: [{ attributes: { PublicIP: '10.88.0.2' } }] },
    'nothing was written over it',
  );
});
