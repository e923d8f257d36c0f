// The watch of nodes: what a peer knows must be the truth again after whatever happened to the connection.
import t from 'tap';
import { spreadOf } from '../../lib/kube/follow.ts';
import { ApiError, expired, tooManyRequests } from '../../lib/lab/kube-api/objects.ts';
import { announced, follow, openBench, prefix, until } from './support.ts';

const address = (value: string): object => ({ metadata: { annotations: { [`${prefix}/public-ip`]: value } } });
const heartbeat = (second: number): object => ({
  status: { conditions: [{ type: 'Ready', lastHeartbeatTime: second }] },
});

t.test('nodes come, change, go, and come again', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  bench.addNode('node2', ['10.42.2.0/24']);
  const peer = follow(t, bench.registry(undefined));
  await until('the snapshot', () => peer.messages.length === 1);
  t.same(peer.view(), ['10.42.1.0-24 10.88.0.1'], 'a node without a daemon is no peer');

  bench.write('node2', { metadata: { annotations: announced('node2', '10.88.0.2') } });
  await until('node2', () => peer.view().length === 2);
  const before = peer.messages.length;
  for (let second = 0; second < 20; second++) bench.write('node2', heartbeat(second));
  bench.write('node1', address('10.88.0.11'));
  await until('the new address', () => peer.view().includes('10.42.1.0-24 10.88.0.11'));
  t.equal(peer.messages.length, before + 1, 'heartbeats are no news');

  bench.removeNode('node1');
  await until('it is gone', () => peer.view().length === 1);
  bench.addNode('node1', ['10.42.7.0/24'], announced('node1', '10.88.0.1'));
  await until('it is back with another subnet', () => peer.view().includes('10.42.7.0-24 10.88.0.1'));
  bench.addNode('node3', ['10.42.1.0/24'], announced('node3', '10.88.0.3'));
  await until('another node has the old one', () => peer.view().includes('10.42.1.0-24 10.88.0.3'));

  bench.write('node3', { metadata: { annotations: { [`${prefix}/backend-data`]: 'no JSON' } } });
  bench.write('node2', address('10.88.0.22'));
  await until('the next event', () => peer.view().includes('10.42.2.0-24 10.88.0.22'));
  t.ok(peer.view().includes('10.42.1.0-24 10.88.0.3'), 'what cannot be read leaves what was known');
  bench.write('node3', { metadata: { annotations: { [`${prefix}/kube-subnet-manager`]: null } } });
  await until('withdrawn', () => peer.view().length === 2);
  t.equal(peer.snapshots(), 1);
});

t.test('a dropped connection: nothing is lost, nothing is listed again', async t => {
  const bench = await openBench(t);
  for (let i = 1; i <= 3; i++) bench.addNode(`node${i}`, [`10.42.${i}.0/24`], announced(`node${i}`, `10.88.0.${i}`));
  const peer = follow(t, bench.registry(undefined));
  await until('the watch', () => bench.api.watches.size === 1);
  for (let round = 0; round < 5; round++) {
    bench.api.dropConnections();
    bench.write('node2', address(`10.88.1.${round}`));
    await until('the write', () => peer.view().includes(`10.42.2.0-24 10.88.1.${round}`));
    await until('the watch', () => bench.api.watches.size === 1);
  }
  t.equal(peer.snapshots(), 1);
  t.equal(bench.api.asked.filter(ask => ask.query.get('limit') === '500').length, 1);
});

t.test('a server that forgot: list again, and say what changed meanwhile', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  bench.addNode('node2', ['10.42.2.0/24'], announced('node2', '10.88.0.2'));
  let away = false;
  bench.api.options.intercept = () => (away ? 'drop' : undefined);
  const peer = follow(t, bench.registry(undefined));
  await until('the watch', () => bench.api.watches.size === 1);
  away = true;
  bench.api.dropConnections();
  bench.removeNode('node1');
  bench.write('node2', address('10.88.0.22'));
  bench.addNode('node3', ['10.42.3.0/24'], announced('node3', '10.88.0.3'));
  bench.api.store.compact();
  t.same(peer.view(), ['10.42.1.0-24 10.88.0.1', '10.42.2.0-24 10.88.0.2'], 'what is known stays in force');
  away = false;
  await until('the truth', () => peer.snapshots() === 2);
  t.same(peer.view(), ['10.42.2.0-24 10.88.0.22', '10.42.3.0-24 10.88.0.3']);
  t.ok(bench.lines.some(line => line.includes('gap') && line.includes('too old resource version')));

  // The same as the answer of an HTTP request and not as an event.
  let once = true;
  bench.api.options.intercept = ask => {
    if (ask.verb !== 'watch' || !once) return undefined;
    once = false;
    return expired('The resourceVersion for the provided watch is too old.');
  };
  bench.api.dropConnections();
  await until('another list', () => peer.snapshots() === 3);
});

t.test('a cluster that was restored from a backup counts from an older version', async t => {
  const bench = await openBench(t);
  for (let i = 0; i < 20; i++) bench.addNode(`gone${i}`);
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  const registry = bench.registry(undefined);
  const peer = follow(t, registry);
  await until('the watch', () => bench.api.watches.size === 1);
  const restored = await openBench(t);
  restored.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.9'));
  const { store } = bench.api;
  // The same address, another store: a watch from a version that it does not have is silent.
  const known = peer.messages[0].revision;
  store.restore(restored.api.store);
  bench.api.dropConnections();
  await until('the restored node', () => peer.view().includes('10.42.1.0-24 10.88.0.9'));
  t.ok(bench.lines.some(line => line.includes('restored from a backup')));
  t.ok(peer.messages.at(-1)!.revision > known, 'what comes is newer all the same');
  // Some versions of the server say it.
  let once = true;
  bench.api.options.intercept = ask => {
    if (ask.verb !== 'watch' || !once) return undefined;
    once = false;
    return new ApiError(504, 'Timeout', 'Too large resource version: 99999, current: 1001');
  };
  bench.api.dropConnections();
  await until('another list', () => peer.snapshots() === 3);
});

t.test('a watch that stalls without an end', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  const times = { idleMs: 300, spreadMs: 10, firstPauseMs: 10, longestPauseMs: 100 };
  const peer = follow(t, bench.registry(undefined, { times }));
  await until('the watch', () => bench.api.watches.size === 1);
  for (const watch of bench.api.watches) watch.freeze();
  bench.write('node1', address('10.88.0.11'));
  await until('the new address', () => peer.view().includes('10.42.1.0-24 10.88.0.11'));
  t.equal(peer.snapshots(), 1, 'from where it stood');
  t.ok(bench.lines.some(line => line.includes('no answer in time')));
});

t.test('a server that allows a watch and ends it at once: the waits grow, and it is said once', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  const peer = follow(t, bench.registry(undefined));
  const said = (text: string): number => bench.lines.filter(line => line.includes(text)).length;
  const watched = (): number => bench.api.asked.filter(ask => ask.verb === 'watch').length;
  for (let round = 0; round < 5; round++) {
    await until('the watch', () => bench.api.watches.size === 1);
    const before = watched();
    bench.api.dropConnections();
    await until('another watch', () => watched() > before);
  }
  t.same([said('is interrupted'), said('is back')], [1, 0]);
  await until('the watch', () => bench.api.watches.size === 1);
  bench.write('node1', address('10.88.0.11'));
  await until('the new address', () => peer.view().includes('10.42.1.0-24 10.88.0.11'));
  t.same([said('is interrupted'), said('is back')], [1, 1], 'what it brings proves it');

  const times = { spreadMs: 10, firstPauseMs: 10, longestPauseMs: 100, provenMs: 20 };
  const quiet = await openBench(t);
  follow(t, quiet.registry(undefined, { times }));
  await until('the watch', () => quiet.api.watches.size === 1);
  quiet.api.dropConnections();
  await until('it is back', () => quiet.lines.some(line => line.includes('is back')));
});

t.test('the first snapshot waits for a watch that is refused, and for nothing else', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  let answer: ApiError | 'drop' | undefined = new ApiError(403, 'Forbidden', 'nodes is forbidden');
  bench.api.options.intercept = ask => (ask.verb === 'watch' ? answer : undefined);
  const refused = follow(t, bench.registry(undefined));
  await until('it is said', () => bench.lines.some(line => line.includes('allow "watch" on "nodes"')));
  t.match(bench.lines.join('\n'), /so this node is not ready/);
  t.equal(refused.messages.length, 0);
  answer = undefined;
  await until('the snapshot', () => refused.messages.length === 1);
  answer = 'drop';
  const alone = follow(t, bench.registry(undefined));
  await until('what was listed', () => alone.messages.length === 1);
  t.same(alone.view(), ['10.42.1.0-24 10.88.0.1']);
});

t.test('the wait before a list grows with the cluster', async t => {
  t.same(
    [0, 3, 400, 5000].map(nodes => spreadOf(nodes, 5000)),
    [5000, 5000, 5000, 60_000],
  );
});

t.test('bookmarks keep a quiet watch alive and its version young', async t => {
  const bench = await openBench(t, { bookmarkMs: 20 });
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  const times = { idleMs: 10_000, spreadMs: 10, firstPauseMs: 10, longestPauseMs: 100 };
  const peer = follow(t, bench.registry(undefined, { times }));
  await until('the watch', () => bench.api.watches.size === 1);
  // Things happen in the cluster that are none of ours, and are forgotten again.
  for (let i = 0; i < 5; i++) bench.addPod(`pod${i}`);
  const version = bench.api.store.revision;
  const bookmarked = (): boolean => {
    bench.api.dropConnections();
    const last = bench.api.asked.findLast(ask => ask.verb === 'watch');
    return Number(last?.query.get('resourceVersion')) >= version;
  };
  await until('a watch from a bookmark', async () => {
    await new Promise(resolve => setTimeout(resolve, 100));
    return bookmarked();
  });
  bench.api.store.compact(version);
  bench.api.dropConnections();
  bench.write('node1', address('10.88.0.11'));
  await until('the new address', () => peer.view().includes('10.42.1.0-24 10.88.0.11'));
  t.equal(peer.snapshots(), 1);
});

t.test('a slow stream in small pieces, with text of several bytes a letter', async t => {
  const bench = await openBench(t, { chunkBytes: 7 });
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  const peer = follow(t, bench.registry(undefined));
  await until('the watch', () => bench.api.watches.size === 1);
  bench.write('node1', { metadata: { labels: { city: 'Zürich→東京' } } });
  bench.write('node1', address('10.88.0.11'));
  await until('the new address', () => peer.view().includes('10.42.1.0-24 10.88.0.11'));
  t.equal(bench.lines.filter(line => line.startsWith('warn')).length, 0);
});

t.test('5,000 nodes in pages, and a page that is gone', async t => {
  const bench = await openBench(t);
  for (let i = 0; i < 5000; i++) {
    const subnet = `10.${64 + (i >> 8)}.${i & 255}.0/24`;
    bench.addNode(`node${i}`, [subnet], announced(`node${i}`, `10.88.${i >> 8}.${i & 255}`));
  }
  let pages = 0;
  bench.api.options.intercept = ask => {
    if (ask.verb !== 'list') return undefined;
    pages++;
    if (pages === 4) bench.api.store.compact(bench.api.store.revision + 1);
    if (pages === 4) bench.write('node4999', address('10.99.9.9'));
    return undefined;
  };
  const { leases } = await bench.registry(undefined).list();
  t.equal(leases.length, 5000);
  t.ok(
    leases.some(lease => lease.attributes.PublicIP === '10.99.9.9'),
    'at one version, the newer one',
  );
  t.ok(pages >= 13, `${pages} pages: three, one that was gone, ten`);
  t.ok(bench.api.asked.every(ask => ask.query.get('limit') === '500'));
});

t.test('a server that is too busy says when to come again', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  const times: number[] = [];
  bench.api.options.intercept = ask => {
    if (ask.verb !== 'list') return undefined;
    times.push(performance.now());
    return times.length <= 2 ? tooManyRequests(1) : undefined;
  };
  const { leases } = await bench.registry(undefined).list();
  t.equal(leases.length, 1);
  t.equal(times.length, 3);
  t.ok(times[1] - times[0] >= 990 && times[2] - times[1] >= 990, 'not sooner than it asked for');
  bench.api.options.intercept = () => tooManyRequests(3600);
  const registry = bench.registry(undefined, { deadlineMs: 500 });
  await t.rejects(registry.list(), { code: 'unavailable', message: /is busy \(429\)/ });
});

t.test('garbage on the stream', async t => {
  const bench = await openBench(t);
  const watched = (): number => bench.api.asked.filter(ask => ask.verb === 'watch').length;
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  const peer = follow(t, bench.registry(undefined));
  await until('the watch', () => bench.api.watches.size === 1);
  for (const line of ['{"type":', '[]', 'null', '{"type":"ADDED","object":{}}', '{"type":"ADDED"}']) {
    const before = watched();
    bench.lines.length = 0;
    for (const watch of bench.api.watches) watch.send(`${line}\n`);
    await until(`another watch after ${line}`, () => watched() > before && bench.api.watches.size === 1);
    t.match(bench.lines.join('\n'), /^warn .*sends no watch event/, line);
    bench.write('node1', address(`10.88.1.${before}`)); // it works, so the next trouble is a new one
    await until('the write', () => peer.view().includes(`10.42.1.0-24 10.88.1.${before}`));
  }
  bench.write('node1', address('10.88.0.11'));
  await until('the new address', () => peer.view().includes('10.42.1.0-24 10.88.0.11'));
});

t.test('a look at the net-conf costs no call while a watch runs', async t => {
  const bench = await openBench(t);
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  const registry = bench.registry('node1');
  await registry.config();
  const peer = follow(t, registry);
  await until('the snapshot', () => peer.messages.length === 1);
  const asked = bench.api.asked.length;
  t.match(JSON.parse((await registry.config()).text), { SubnetLen: 24 });
  t.equal(bench.api.asked.filter(ask => ask.verb === 'get').length, 1, 'the one of the start');
  t.ok(bench.api.asked.length <= asked + 1, 'but for the watch itself');
  bench.removeNode('node1');
  await until('it is gone', () => peer.view().length === 0);
  await t.rejects(registry.config(), { code: 'no-config', message: /no node node1/ });
});
