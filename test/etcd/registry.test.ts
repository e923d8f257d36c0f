// The verbs against a real etcd, and what they leave in it, byte by byte.
import { openEtcdRegistry } from '../../etcd/registry.ts';
import type { Lease } from '../../lib/lease/lease.ts';
import type { Logger } from '../../lib/util/log.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { bench, newLease, requireEtcd, runSlow, slow, udpAttributes, until } from './support.ts';

requireEtcd();
const subnets = '/coreos.com/network/subnets/';

slow('config', async t => {
  const { raw, registry } = await bench(t);
  const reg = registry();
  await t.rejects(reg.config(), { code: 'no-config', message: /\/coreos\.com\/network\/config/ });
  const put = await raw.put('/coreos.com/network/config').value('{"Network":"10.5.0.0/16"}');
  t.same(await reg.config(), { text: '{"Network":"10.5.0.0/16"}', revision: Number(put.header.revision) });
  await raw.put('/other/config').value('{}');
  t.equal((await registry({ prefix: '/other/' }).config()).text, '{}', 'the prefix is joined as a path');
});

slow("keys and values are flannel's, byte for byte", async t => {
  const { raw, registry } = await bench(t);
  const reg = registry();
  await reg.create(newLease('10.5.1.0-24'), 60);
  await reg.create(newLease('10.5.2.0-24&fd00:12:13::-64', { ...udpAttributes, PublicIPv6: 'fd88::1' }), 60);
  const tulle = { ...udpAttributes, BackendType: 'tulle', BackendData: { Version: 1, Port: 8285, NodeID: 'n1' } };
  await reg.create(newLease('10.5.3.0-24', tulle), 60);
  t.same(await raw.getAll().prefix('').strings(), {
    [`${subnets}10.5.1.0-24`]: '{"PublicIP":"10.88.0.1","PublicIPv6":null}',
    [`${subnets}10.5.2.0-24&fd00:12:13::-64`]: '{"PublicIP":"10.88.0.1","PublicIPv6":"fd88::1"}',
    [`${subnets}10.5.3.0-24`]:
      '{"PublicIP":"10.88.0.1","PublicIPv6":null,"BackendType":"tulle","BackendData":{"Version":1,"Port":8285,"NodeID":"n1"}}',
  });
  const { leases } = await raw.leaseClient.leaseLeases();
  t.equal(leases.length, 1, 'the keys of one registry object share one etcd lease');
});

slow('create, list, update, remove', async t => {
  const { raw, registry } = await bench(t);
  const [one, two] = [registry(), registry()];
  const made = await one.create(newLease('10.5.1.0-24'), 60);
  t.equal(made.createRevision, made.modRevision);
  t.ok(Math.abs((made.expiresAtMs ?? 0) - Date.now() - 60_000) < 10_000, 'expires in a minute');
  await t.rejects(two.create(newLease('10.5.1.0-24'), 60), { code: 'taken' });
  await t.rejects(one.create(newLease('10.5.1.0-24'), 60), { code: 'taken' }, 'also for its own maker');
  await t.rejects(two.create(newLease('10.5.0.0-23'), 60), { code: 'taken', message: /overlaps.*10\.5\.1\.0\/24/ });
  t.equal((await raw.leaseClient.leaseLeases()).leases.length, 1, 'the losers left no etcd lease');
  t.same(await raw.getAll().prefix(subnets).keys(), [`${subnets}10.5.1.0-24`], 'and no key');

  const { leases, revision } = await two.list();
  t.match(leases, [{ subnet: made.subnet, attributes: udpAttributes, modRevision: made.modRevision }]);
  t.ok(revision >= made.modRevision);

  const moved = await one.update(made, { ...udpAttributes, PublicIP: '10.88.0.9' }, 60);
  t.equal(moved.createRevision, made.createRevision);
  t.ok(moved.modRevision > made.modRevision);
  await t.rejects(one.update(made, udpAttributes, 60), { code: 'conflict' }, 'the old token is no good');
  await t.rejects(two.update(made, udpAttributes, 60), { code: 'conflict' });
  await t.rejects(two.remove(made), { code: 'conflict' });

  await two.remove(moved);
  await two.remove(moved); // removing what is missing succeeds
  await t.rejects(one.update(moved, udpAttributes, 60), { code: 'missing' });
  t.same((await one.list()).leases, []);
  await until('no etcd lease is left', async () => (await raw.leaseClient.leaseLeases()).leases.length === 0);
});

slow('a renewal that changes nothing writes nothing, but renews', async t => {
  const { raw, registry } = await bench(t);
  const reg = registry();
  const made = await reg.create(newLease('10.5.1.0-24'), 5);
  let lease = made;
  const end = performance.now() + 7_000;
  while (performance.now() < end) {
    lease = await reg.update(lease, udpAttributes, 5);
    await new Promise(done => setTimeout(done, 500));
  }
  t.equal(lease.modRevision, made.modRevision);
  t.ok((lease.expiresAtMs ?? 0) > (made.expiresAtMs ?? 0) + 5_000);
  t.equal(await raw.getAll().prefix(subnets).count(), 1, 'alive past its TTL');
});

slow('a lease that is not renewed ends; renewing it then says so', async t => {
  const { raw, registry } = await bench(t);
  const reg = registry();
  const lease = await reg.create(newLease('10.5.1.0-24'), 2);
  await until('the key expired', async () => (await raw.getAll().prefix(subnets).count()) === 0);
  await t.rejects(reg.update(lease, udpAttributes, 2), { code: 'missing' });
  t.same((await raw.leaseClient.leaseLeases()).leases, [], 'and leaves nothing behind');
  const again = await reg.create(newLease('10.5.1.0-24'), 60);
  t.ok(again.createRevision > lease.createRevision, 'another lease, another key');
});

slow('a second process with the same identity meets a conflict', async t => {
  const { registry } = await bench(t);
  const [old, young] = [registry(), registry()];
  const lease = await old.create(newLease('10.5.1.0-24'), 60);
  const seen = (await young.list()).leases[0];
  await young.update(seen, udpAttributes, 60); // takes the lease over: the same values, but a new token
  await t.rejects(old.update(lease, udpAttributes, 60), { code: 'conflict' });
});

slow('reservations keep having no TTL', async t => {
  const { raw, registry } = await bench(t);
  await raw.put(`${subnets}10.5.7.0-24`).value('{"PublicIP":"10.88.0.1","PublicIPv6":null}');
  const reg = registry();
  const reserved = (await reg.list()).leases[0];
  t.equal(reserved.expiresAtMs, null);
  const attributes = { ...udpAttributes, BackendType: 'tulle' };
  const taken = await reg.update(reserved, attributes, null);
  t.equal(taken.expiresAtMs, null);
  t.equal((await raw.kv.range({ key: Buffer.from(`${subnets}10.5.7.0-24`) })).kvs[0].lease, '0');
  t.same((await raw.leaseClient.leaseLeases()).leases, []);
  const leased = await reg.update(taken, attributes, 60);
  t.not(leased.expiresAtMs, null, 'a TTL that is asked for is given');
  t.equal((await reg.update(leased, attributes, null)).expiresAtMs, null, 'and taken away');
  t.same((await raw.leaseClient.leaseLeases()).leases, [], 'with its etcd lease');
});

slow('five restarts with the same node leave one etcd lease', async t => {
  const { raw, server } = await bench(t);
  const open = () => openEtcdRegistry({ endpoints: [server.endpoint], log: silentLogger });
  let reg = open();
  let lease: Lease = await reg.create(newLease('10.5.1.0-24'), 60);
  for (let start = 0; start < 5; start++) {
    await reg.close();
    reg = open();
    lease = (await reg.list()).leases[0];
    lease = await reg.update(lease, { ...udpAttributes, PublicIP: `10.88.0.${start + 2}` }, 60);
  }
  t.equal((await raw.leaseClient.leaseLeases()).leases.length, 1);
  t.equal(await raw.getAll().prefix(subnets).count(), 1);
  await reg.close();
  reg = open();
  lease = await reg.update((await reg.list()).leases[0], udpAttributes, 90);
  t.equal((await raw.leaseClient.leaseLeases()).leases.length, 1, 'also with another TTL');
  await reg.remove(lease);
  t.equal((await raw.leaseClient.leaseLeases()).leases.length, 0);
  await reg.close();
});

slow('an etcd lease with keys of others is left alone', async t => {
  const { raw, registry } = await bench(t);
  const shared = raw.lease(60, { autoKeepAlive: false });
  await shared.put(`${subnets}10.5.1.0-24`).value('{"PublicIP":"10.88.0.1"}');
  await shared.put('/somebody/else').value('x');
  const reg = registry();
  await reg.update((await reg.list()).leases[0], udpAttributes, 60);
  t.equal((await raw.leaseClient.leaseLeases()).leases.length, 2);
  t.equal(await raw.get('/somebody/else').string(), 'x');
});

slow("others' malformed keys and values are told once and skipped; their subnets stay taken", async t => {
  const { raw, registry } = await bench(t);
  await raw.put(`${subnets}10.5.1.0-24`).value('{"PublicIP":');
  await raw.put(`${subnets}nonsense`).value('{}');
  await raw.put(`${subnets}10.5.2.0-24`).value('{"PublicIP":"10.88.0.2"}');
  const said: object[] = [];
  const log: Logger = { ...silentLogger, warn: fields => said.push(fields) };
  const reg = registry({ log });
  for (let times = 0; times < 3; times++) {
    const { leases, unreadable } = await reg.list();
    t.match(leases, [{ attributes: { PublicIP: '10.88.0.2' } }]);
    t.match(unreadable, [{ subnet: { prefixLength: 24 } }]);
  }
  t.equal(said.length, 2, 'two bad keys, two lines');
  await t.rejects(reg.create(newLease('10.5.1.0-24'), 60), { code: 'taken' });
});

slow('expiry is estimated without a call for each key, or asked for', async t => {
  const { registry } = await bench(t);
  await registry().create(newLease('10.5.1.0-24'), 60);
  const guessed = (await registry().list()).leases[0].expiresAtMs ?? 0;
  t.ok(guessed > Date.now() + 23 * 3600_000, 'no later than a day from now');
  const exact = (await registry({ exactExpiry: true }).list()).leases[0].expiresAtMs ?? 0;
  t.ok(exact > Date.now() + 30_000 && exact < Date.now() + 62_000);
});

slow('fifty at once for ten subnets: ten winners, no leftovers', async t => {
  const { raw, registry } = await bench(t);
  const results = await Promise.all(
    Array.from({ length: 50 }, (_, index) =>
      registry()
        .create(newLease(`10.5.${(index % 10) + 1}.0-24`), 60)
        .then(
          () => 'made',
          error => error.code,
        ),
    ),
  );
  t.equal(results.filter(result => result === 'made').length, 10);
  t.equal(results.filter(result => result === 'taken').length, 40);
  t.equal((await raw.leaseClient.leaseLeases()).leases.length, 10);
});

runSlow(5);
