// The watch against a real etcd that stops, freezes, forgets and comes back.
import { subnetKey } from '../../lib/lease/lease.ts';
import type { Logger } from '../../lib/util/log.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { freeze } from '../support/freeze.ts';
import {
  type Bench,
  bench,
  follow,
  newLease,
  RawEtcd,
  requireEtcd,
  runSlow,
  slow,
  udpAttributes,
  until,
} from './support.ts';

requireEtcd();
const subnets = '/coreos.com/network/subnets/';
const value = (publicIp: string): string => `{"PublicIP":"${publicIp}","PublicIPv6":null}`;

/** Writes with a client of its own, so that the connections under test stay as they are. */
async function edit(bench: Bench, puts: Record<string, string>, removals: string[] = []): Promise<void> {
  const raw = new RawEtcd({ hosts: bench.server.endpoint });
  try {
    for (const [key, publicIp] of Object.entries(puts)) await raw.put(subnets + key).value(value(publicIp));
    for (const key of removals) await raw.delete().key(subnets + key);
  } finally {
    raw.close();
  }
}

slow('a snapshot, then events', async t => {
  const made = await bench(t);
  await edit(made, { '10.5.1.0-24': '10.88.0.1' });
  const reg = made.registry();
  const follower = follow(t, reg, subnetKey);
  await until('the snapshot', () => follower.messages.length === 1);
  t.match(follower.messages[0], { kind: 'snapshot', leases: [{ attributes: { PublicIP: '10.88.0.1' } }] });

  await edit(made, { '10.5.2.0-24': '10.88.0.2', 'not-a-lease': 'x', '10.5.1.0-24': '10.88.0.9' }, ['10.5.2.0-24']);
  const lease = await made.registry().create(newLease('10.5.3.0-24&fd00:5:3::-64'), 60);
  await until('all', () => follower.view.has('10.5.3.0-24&fd00:5:3::-64'));
  t.same(Object.fromEntries(follower.view), { '10.5.1.0-24': '10.88.0.9', '10.5.3.0-24&fd00:5:3::-64': '10.88.0.1' });
  t.equal(follower.snapshots(), 1, 'one snapshot only');
  const events = follower.messages.flatMap(message => (message.kind === 'events' ? message.events : []));
  t.match(events.at(-1), {
    kind: 'put',
    lease: { createRevision: lease.createRevision, modRevision: lease.modRevision },
  });
  t.ok(events.some(event => event.kind === 'removed'));
  await follower.stop();
});

slow('a malformed value does not remove a peer that is well', async t => {
  const made = await bench(t);
  await edit(made, { '10.5.1.0-24': '10.88.0.1' });
  const follower = follow(t, made.registry(), subnetKey);
  await until('the snapshot', () => follower.messages.length === 1);
  await made.raw.put(`${subnets}10.5.1.0-24`).value('garbage');
  await edit(made, { '10.5.2.0-24': '10.88.0.2' });
  await until('the event after it', () => follower.view.has('10.5.2.0-24'));
  t.equal(follower.view.get('10.5.1.0-24'), '10.88.0.1');
});

slow('an expired lease is an event', async t => {
  const made = await bench(t);
  await made.registry().create(newLease('10.5.1.0-24'), 2);
  const follower = follow(t, made.registry(), subnetKey);
  await until('it is there', () => follower.view.size === 1);
  await until('it is gone', () => follower.view.size === 0);
  t.equal(follower.snapshots(), 1);
});

slow('etcd away for 5 s and back: no event lost, no second snapshot, two lines in the log', async t => {
  const made = await bench(t);
  const lines: string[] = [];
  const say = (_: object, message: string): void => void lines.push(message);
  const reg = made.registry({ log: { ...silentLogger, info: say, warn: say } satisfies Logger });
  const follower = follow(t, reg, subnetKey);
  await until('the snapshot', () => follower.messages.length === 1);
  await made.server.stop();
  await t.rejects(reg.list(), { code: 'unavailable', message: /^etcd at http:\/\/127\.0\.0\.1:\d+ does not answer: / });
  await new Promise(done => setTimeout(done, 5_000));
  await made.restart();
  await edit(made, { '10.5.1.0-24': '10.88.0.1', '10.5.2.0-24': '10.88.0.2' }, ['10.5.1.0-24']);
  await until('the events', () => follower.view.has('10.5.2.0-24') && !follower.view.has('10.5.1.0-24'));
  const events = follower.messages.flatMap(message => (message.kind === 'events' ? message.events : []));
  t.same(
    events.map(event => event.kind),
    ['put', 'put', 'removed'],
    'also the one that came and went',
  );
  t.equal(follower.snapshots(), 1);
  t.equal(lines.length, 2, lines.join(' | '));
  t.ok((await reg.list()).leases.length === 1, 'calls work again, no breaker is open');
});

slow('compaction while disconnected: listed again, and watched from there', async t => {
  const made = await bench(t);
  await edit(made, { '10.5.1.0-24': '10.88.0.1', '10.5.2.0-24': '10.88.0.2' });
  const follower = follow(t, made.registry(), subnetKey);
  await until('the snapshot', () => follower.view.size === 2);

  // Another etcd on other ports but on the same data: the watcher cannot see it.
  await made.server.stop();
  const { clientPort, peerPort } = made.options;
  delete made.options.clientPort;
  await made.restart();
  await edit(made, { '10.5.1.0-24': '10.88.0.77', '10.5.3.0-24': '10.88.0.3' }, ['10.5.2.0-24']);
  const raw = new RawEtcd({ hosts: made.server.endpoint });
  const { header } = await raw.kv.range({ key: Buffer.from('x') });
  await raw.kv.compact({ revision: header.revision, physical: true });
  raw.close();
  await made.server.stop();
  Object.assign(made.options, { clientPort, peerPort });
  await made.restart();

  await until('the second snapshot', () => follower.snapshots() === 2);
  t.same(Object.fromEntries(follower.view), { '10.5.1.0-24': '10.88.0.77', '10.5.3.0-24': '10.88.0.3' });
  await edit(made, { '10.5.4.0-24': '10.88.0.4' });
  await until('events after it', () => follower.view.has('10.5.4.0-24'));
});

slow('a frozen etcd is noticed within 10 s, and what it missed arrives', async t => {
  const made = await bench(t);
  const lines: string[] = [];
  const log: Logger = { ...silentLogger, warn: (_, message) => void lines.push(message) };
  const follower = follow(t, made.registry({ log }), subnetKey);
  await until('the snapshot', () => follower.messages.length === 1);
  await freeze(made.server.pid);
  const frozenAt = performance.now();
  await until('it is noticed', () => lines.length > 0, 15_000);
  const seconds = (performance.now() - frozenAt) / 1000;
  t.ok(seconds < 10, `noticed after ${seconds.toFixed(1)} s`);
  process.kill(made.server.pid, 'SIGCONT');
  await edit(made, { '10.5.1.0-24': '10.88.0.1' });
  await until('the event', () => follower.view.has('10.5.1.0-24'));
  t.equal(follower.snapshots(), 1);
});

slow('another history behind the same address: a new snapshot', async t => {
  const made = await bench(t);
  await edit(
    made,
    Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`10.5.${index + 1}.0-24`, '10.88.0.1'])),
  );
  const follower = follow(t, made.registry(), subnetKey);
  await until('the snapshot', () => follower.view.size === 20);
  await made.server.stop();
  made.options.directory = `${made.directory}/restored`;
  await made.restart();
  await edit(made, { '10.5.99.0-24': '10.88.0.9' });
  await until('the new history', () => follower.view.size === 1 && follower.view.has('10.5.99.0-24'));
});

slow('ends when it is told to, also while etcd is away, and when the registry closes', async t => {
  const made = await bench(t);
  const reg = made.registry();
  const stopped = follow(t, reg, subnetKey);
  await until('the snapshot', () => stopped.messages.length === 1);
  await stopped.stop();
  await made.server.stop();
  const away = follow(t, reg, subnetKey);
  await new Promise(done => setTimeout(done, 300));
  await away.stop();
  const closed = follow(t, reg, subnetKey);
  await reg.close();
  await closed.stop();
  const late = reg.watch(new AbortController().signal)[Symbol.asyncIterator]();
  t.same(await late.next(), { value: undefined, done: true });
});

slow('10,000 leases in one snapshot', async t => {
  const made = await bench(t);
  const text = JSON.stringify({ ...udpAttributes, BackendType: 'tulle', BackendData: { NodeID: 'x'.repeat(400) } });
  for (let start = 0; start < 10_000; start += 100) {
    const success = Array.from({ length: 100 }, (_, offset) => {
      const index = start + offset;
      const key = Buffer.from(`${subnets}10.${index >> 8}.${index & 255}.0-24`);
      return { request_put: { key, value: Buffer.from(text) } };
    });
    await made.raw.kv.txn({ success });
  }
  const { leases } = await made.registry().list();
  t.equal(leases.length, 10_000);
});

runSlow();
