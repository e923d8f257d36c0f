// The lease registry on a cluster of three that loses members, its leader, a cable, and its majority:
//
//   namespace "hub": this process, br0 10.89.0.254/24
//      port-a ──veth── eth0 10.89.0.1, namespace "a": etcd
//      port-b ──veth── eth0 10.89.0.2, namespace "b": etcd
//      port-c ──veth── eth0 10.89.0.3, namespace "c": etcd
//
// Setting a port down cuts a cable: nothing arrives any more, and no connection is closed.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openEtcdRegistry } from '../../etcd/registry.ts';
import { type EtcdServer, type EtcdServerOptions, startEtcd } from '../../etcd/server.ts';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { subnetKey } from '../../lib/lease/lease.ts';
import { LeaseManager, type ManagerEvent } from '../../lib/lease/manager.ts';
import { registryCodeOf } from '../../lib/lease/registry.ts';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace } from '../../lib/sys/sys.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { follow, newLease, RawEtcd, requireEtcd, until } from './support.ts';

requireEtcd();
const folder = process.argv[2];
const names = ['a', 'b', 'c'];
const addressOf = (name: string): string => `10.89.0.${names.indexOf(name) + 1}`;
const endpoints = names.map(name => `http://${addressOf(name)}:2379`);
const patienceMs = 90_000; // elections on a loaded machine

withRtnetlink(undefined, hub => {
  hub.createBridge({ name: 'br0' });
  hub.addAddress('br0', '10.89.0.254/24');
  hub.setLink('br0', { up: true });
});
for (const name of names) {
  const namespace = join(folder, name);
  makeNamespace(namespace);
  t.teardown(() => removeNamespace(namespace));
  withRtnetlink(undefined, hub => {
    hub.createVeth({ name: `port-${name}`, peerName: 'eth0', peerNamespace: namespace });
    hub.setLink(`port-${name}`, { master: 'br0', up: true });
  });
  withRtnetlink(namespace, member => {
    member.addAddress('eth0', `${addressOf(name)}/24`);
    member.setLink('eth0', { up: true });
  });
}
const plug = (name: string, up: boolean): void => withRtnetlink(undefined, hub => hub.setLink(`port-${name}`, { up }));

const members = new Map<string, EtcdServer>();
const optionsOf = (name: string): EtcdServerOptions => ({
  directory: join(folder, `etcd-${name}`),
  clientAddress: addressOf(name),
  namespace: join(folder, name),
  name,
  cluster: Object.fromEntries(names.map(other => [other, `http://${addressOf(other)}:2380`])),
  dontWait: true,
});
async function start(name: string): Promise<void> {
  members.set(name, await startEtcd(optionsOf(name)));
}
t.teardown(() => Promise.all([...members.values()].map(member => member.stop())));

/** The name of the member that leads, asked at all of them. */
async function leader(): Promise<string | undefined> {
  for (const name of names) {
    const raw = new RawEtcd({ hosts: `http://${addressOf(name)}:2379`, grpcOptions: { 'grpc.enable_retries': 0 } });
    try {
      const status = await raw.maintenance.status({ deadline: Date.now() + 1000 });
      if (status.header.member_id === status.leader) return name;
    } catch {
      // dead or cut off
    } finally {
      raw.close();
    }
  }
  return undefined;
}

/** The members that sockets of this namespace are connected to (proc(5): remote address little-endian, port 2379, state 01). */
function connectedTo(): string[] {
  const rows = readFileSync('/proc/thread-self/net/tcp', 'utf8').split('\n');
  return rows.flatMap(row => {
    const match = /^\s*\d+: \S+ ([0-9A-F]{2})00590A:094B 01 /.exec(row);
    return match === null ? [] : names.filter(name => addressOf(name).endsWith(`.${Number.parseInt(match[1], 16)}`));
  });
}

await Promise.all(names.map(start));
await Promise.all([...members.values()].map(member => member.ready()));

t.test('a leader that dies, a cut cable, a lost majority: no event lost, the lease kept', async t => {
  const open = (deadlineMs = 5_000) => {
    const registry = openEtcdRegistry({ endpoints, log: silentLogger, deadlineMs });
    t.teardown(() => registry.close());
    return registry;
  };
  // Writes of another node, tried until the cluster takes them.
  const other = open();
  let written = 0;
  async function write(): Promise<string> {
    const lease = newLease(`10.6.${++written}.0-24`);
    await until(
      'a write goes through',
      () =>
        other.create(lease, 600).then(
          () => true,
          error => registryCodeOf(error) === 'taken', // the write before, whose answer was lost for good
        ),
      patienceMs,
    );
    return subnetKey(lease);
  }

  const follower = follow(t, open(), subnetKey);
  await until('the snapshot', () => follower.messages.length === 1, patienceMs);
  const watched = connectedTo();
  t.equal(watched.length, 1, 'one connection, to one member');

  const config = parseNetworkConfig('{"Network":"10.5.0.0/16","Backend":{"Type":"tulle"}}');
  const attributes = { PublicIP: '10.88.0.1', PublicIPv6: null, BackendType: 'tulle', BackendData: { NodeID: 'n1' } };
  const manager = new LeaseManager({ registry: open(2_000) });
  const lease = await manager.acquire({ config, nodeId: 'n1', attributes, ttlSeconds: 15 });
  const events: ManagerEvent['kind'][] = [];
  manager.subscribe(event => void events.push(event.kind));
  const stopper = new AbortController();
  const run = manager.run(stopper.signal, { marginSeconds: 12 });
  const seen = (key: string): Promise<void> => until(`${key} is seen`, () => follower.view.has(key), patienceMs);

  // SIGKILL of the leader: another is elected.
  const first = (await leader()) as string;
  process.kill((members.get(first) as EtcdServer).pid, 'SIGKILL');
  await seen(await write());
  await start(first);
  const next = await leader();
  t.not(next, first, `${next} leads after ${first}`);

  // The cable of the member that carries the watch: half open, nobody says goodbye.
  await until(
    'three members again',
    async () => {
      await (members.get(first) as EtcdServer).ready();
      return true;
    },
    patienceMs,
  );
  const fresh = follow(t, open(), subnetKey);
  const before = connectedTo();
  await until('another watch', () => fresh.messages.length === 1, patienceMs);
  const cut = connectedTo().find(name => !before.includes(name)) ?? before[0];
  plug(cut, false);
  const cutAt = performance.now();
  const key = await write();
  await Promise.all([seen(key), until(`${key} is seen too`, () => fresh.view.has(key), patienceMs)]);
  t.comment(`a cut cable cost ${((performance.now() - cutAt) / 1000).toFixed(1)} s`);
  plug(cut, true);

  // Two of three gone: nothing can be proven, so the node stops in time; then it goes on with the lease that it had.
  await until('renewed since', () => !manager.fenced && events.at(-1) === 'renewed', patienceMs);
  for (const name of ['b', 'c']) plug(name, false);
  await until('fenced', () => events.at(-1) === 'fenced', patienceMs);
  t.ok(manager.fenced);
  await t.rejects(
    open(1_000).create(newLease('10.6.200.0-24'), 60),
    { code: 'unavailable' },
    'nobody else gets one either',
  );
  for (const name of ['b', 'c']) plug(name, true);
  await until('it goes on', () => !manager.fenced, patienceMs);
  await seen(await write());
  t.equal(manager.lease && subnetKey(manager.lease), subnetKey(lease), 'the same subnet');
  t.notOk(events.includes('lost'));
  t.equal(follower.snapshots(), 1, 'and the watch never needed a second snapshot');
  t.same([...follower.view.keys()].sort(), [...new Set([...(await other.list()).leases.map(subnetKey)])].sort());
  stopper.abort();
  await run;
});
