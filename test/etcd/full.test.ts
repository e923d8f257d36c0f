// An etcd whose database is full refuses writes and answers everything else.
import t from 'tap';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { LeaseManager } from '../../lib/lease/manager.ts';
import { messageOf } from '../../lib/util/errors.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { bench, newLease, RawEtcd, requireEtcd, udpAttributes, until } from './support.ts';

requireEtcd();

const text = '{"Network":"10.5.0.0/16","Backend":{"Type":"udp"}}';
const FULL = /database is full: compact and defragment it, then "etcdctl alarm disarm"/;

t.test('a full etcd: what must be written waits and says why, what is there goes on', async t => {
  const made = await bench(t, { quotaBytes: 2 << 20 });
  await made.raw.put('/coreos.com/network/config').value(text);
  const registry = made.registry();
  const held = await registry.create(newLease('10.5.9.0-24'), 60);
  let refusal = '';
  for (let i = 0; i < 64 && refusal === ''; i++) {
    const put = made.raw.put('/rubbish').value(`${i}${'x'.repeat(1 << 18)}`);
    refusal = await put.exec().then(() => '', messageOf);
  }
  t.match(refusal, /database space exceeded/, 'it is full');

  await t.rejects(registry.create(newLease('10.5.10.0-24'), 60), { code: 'unavailable', message: FULL });
  t.equal((await registry.config()).text, text);
  const { leases } = await registry.list();
  t.same(
    leases.map(({ subnet }) => subnet),
    [held.subnet],
  );

  const warnings: string[] = [];
  const warn = (fields: object, message: string): void => void warnings.push(`${JSON.stringify(fields)} ${message}`);
  const manager = new LeaseManager({ registry: made.registry(), log: { ...silentLogger, warn } });
  const stop = new AbortController();
  const request = { config: parseNetworkConfig(text), nodeId: 'node2', attributes: udpAttributes, ttlSeconds: 60 };
  const waiting = manager.acquire({ ...request, attributes: { ...udpAttributes, PublicIP: '10.88.0.2' } }, stop.signal);
  waiting.catch(() => {});
  await until('it says why', () => warnings.some(line => line.includes('database is full')));

  // Room again, as the message says: compact, defragment, disarm.
  // (With another client: the first one's circuit breaker is open.)
  const raw = new RawEtcd({ hosts: made.server.endpoint });
  t.teardown(() => raw.close());
  const { kv, maintenance } = raw;
  const { header } = await kv.range({ key: Buffer.from('/rubbish') });
  await kv.compact({ revision: header.revision, physical: true });
  await maintenance.defragment();
  const { alarms } = await maintenance.alarm({ action: 'Get' });
  for (const { memberID } of alarms) await maintenance.alarm({ action: 'Deactivate', memberID, alarm: 'Nospace' });
  t.match((await waiting).attributes, { PublicIP: '10.88.0.2' }, 'and the node has its subnet');
  stop.abort();
});
