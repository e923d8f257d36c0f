/**
 * Captures of real overlays in two namespaces, as the control socket gives them: every transport and format, drops, filters,
 * several at once, slow readers.
 */
import { spawnSync } from 'node:child_process';
import t, { type Test } from 'tap';
import type { Overlay, OverlayOptions } from '../../lib/backend/overlay.ts';
import { ping } from '../../lib/lab/ping.ts';
import { describeCaptured } from '../../lib/observe/capture/print.ts';
import type { PacketLine } from '../../lib/observe/capture/routes.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { verifyIp4Checksum } from '../../lib/wire/ip4.ts';
import { checkIp6 } from '../../lib/wire/ip6.ts';
import { verifyL4Checksum4, verifyL4Checksum6 } from '../../lib/wire/l4.ts';
import { type CaptureServer, type FilePacket, nodeOf, readFile, serveCaptures } from '../support/captured.ts';
import { addressOf, bothLeaseOf, endpointOf6, leaseOf, NETWORK6, twoNodes } from '../support/overlays.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

const TEN = { count: 10, intervalMs: 1, timeoutMs: 5_000 };

async function until(done: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!done()) {
    if (performance.now() > deadline) throw new Error(`20 s passed and not ${what}`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

interface Stage {
  nodes: ReturnType<typeof twoNodes>;
  one: Overlay;
  two: Overlay;
  server: CaptureServer;
  /** The captures of node 2. */
  far: CaptureServer;
}

async function stage(t: Test, type: 'tulle' | 'udp' = 'tulle', options: Partial<OverlayOptions> = {}): Promise<Stage> {
  const nodes = twoNodes();
  const given = { backend: { type, port: 8285 }, ...options };
  const [one, two] = [await nodes.start(1, given), await nodes.start(2, given)];
  one.apply([{ kind: 'add', lease: leaseOf(2, type) }]);
  two.apply([{ kind: 'add', lease: leaseOf(1, type) }]);
  const server = await serveCaptures(nodeOf(one, 'node1', [leaseOf(2, type)]));
  const far = await serveCaptures(nodeOf(two, 'node2', [leaseOf(1, type)]));
  t.teardown(async () => {
    await Promise.all([server.close(), far.close(), one.stop(), two.stop()]);
    nodes.remove();
  });
  return { nodes, one, two, server, far };
}

const on = (packets: FilePacket[], name: string, direction: 'in' | 'out'): FilePacket[] =>
  packets.filter(packet => packet.on === name && packet.direction === direction);

for (const type of ['tulle', 'udp'] as const) {
  for (const transport of ['offload', 'batch', 'dgram'] as const) {
    t.test(`${type} over ${transport}: each ping is seen at all edges of both nodes`, async t => {
      const { nodes, server, far } = await stage(t, type, { transport });
      const files = [server.get('/capture?snaplen=0&count=40'), far.get('/capture?snaplen=0&count=40')];
      await until(() => server.captures.size === 1 && far.captures.size === 1, 'captured');
      t.equal((await ping(nodes.namespaces[0], addressOf(2), TEN)).received, 10);
      const [here, there] = (await Promise.all(files)).map(({ body }) => readFile(body));
      const payloadOf = ({ data }: FilePacket, headers: number): string =>
        Buffer.from(data.subarray(headers)).toString('hex');
      const outer = type === 'tulle' ? 40 : 28;
      for (const [node, packets] of [
        ['node1', here.packets],
        ['node2', there.packets],
      ] as const) {
        const sides = ['tulle0', 'underlay'].flatMap(name => [
          on(packets, `${node}:${name}`, 'out'),
          on(packets, `${node}:${name}`, 'in'),
        ]);
        t.same(
          sides.map(list => list.length),
          [10, 10, 10, 10],
          node,
        );
        const [read, written, sent, came] = sides;
        // The inner IP header differs by its TTL and its checksum; what is behind it does not.
        t.same(
          sent.map(packet => payloadOf(packet, outer + 20)),
          read.map(packet => payloadOf(packet, 20)),
        );
        t.same(
          came.map(packet => payloadOf(packet, outer)),
          written.map(packet => payloadOf(packet, 0)),
        );
        for (const { data, length } of [...sent, ...came]) {
          t.ok(verifyIp4Checksum(data, 0) && verifyL4Checksum4(data, 0), 'outer headers that are right');
          t.equal(data.length, length);
        }
        const times = packets.map(({ time }) => Number((time ?? 0n) / 1_000_000n));
        t.ok(times.every(time => Math.abs(time - Date.now()) < 60_000));
        t.same(times, times.toSorted(), 'in order');
        const other = node === 'node1' ? '2' : '1';
        const lease = `10.42.${other}.0/24`;
        t.ok(
          read.every(({ comments }) => comments[0]?.startsWith(`to lease ${lease}`)),
          read[0].comments.join(),
        );
        t.ok(came.every(({ comments }) => comments[0]?.startsWith(`from lease ${lease}`)));
        if (type === 'tulle') t.equal(read[0].comments[0], `to lease ${lease} of node${other}`);
      }
      // What left one node came to the other, byte for byte.
      t.same(
        on(there.packets, 'node2:underlay', 'in').map(packet => payloadOf(packet, 28)),
        on(here.packets, 'node1:underlay', 'out').map(packet => payloadOf(packet, 28)),
      );
      t.match(here.interfaces[0], { linkType: 12, name: 'node1:tulle0', statistics: { received: 20, lost: 0 } });
      await until(() => server.captures.size === 0, 'closed');
    });
  }
}

t.test('drops have their reasons, in a file and as lines', async t => {
  const { nodes, one, two, server, far } = await stage(t);
  const lines = await server.open('/drops');
  const heard: { reason: string; count: number; packet: string; node: string; why: string }[] = [];
  void (async () => {
    for (;;) {
      const text = (await lines.next()).toString();
      for (const line of text.trim().split('\n')) heard.push(JSON.parse(line));
    }
  })().catch(() => {});
  const [file, farFile] = [await server.open('/capture?id=a'), await far.open('/capture?id=b')];
  await until(() => server.captures.size === 2 && far.captures.size === 1, 'captured');
  const short = { ...TEN, timeoutMs: 50 };
  // Each step waits for the one before: the worker may be late, and would judge a packet by what is true then.
  await ping(nodes.namespaces[0], '10.42.77.1', short);
  await until(() => one.drops()['egress-no-lease'] === 10, 'dropped without a lease');
  one.setLease(leaseOf(1, 'tulle', 99));
  await ping(nodes.namespaces[0], addressOf(2), short);
  await until(() => two.drops()['ingress-stale-key'] === 10, 'dropped for a stale key');
  withNamespace(nodes.namespaces[0], () => spawnSync('bash', ['-c', 'printf stranger > /dev/udp/10.88.0.2/8285']));
  one.setDeadline(0);
  await ping(nodes.namespaces[0], addressOf(2), short); // fenced
  await until(
    () => (one.drops()['egress-fenced'] ?? 0) === 10 && two.drops()['ingress-unknown-sender'] === 1,
    'dropped',
  );
  await until(() => heard.reduce((sum, { count }) => sum + count, 0) >= 20, 'heard');
  // Ended from outside, as Ctrl-C does.
  await new Promise(resolve => setTimeout(resolve, 50));
  t.equal(await server.post('/capture/end?id=a'), 200);
  t.equal(await far.post('/capture/end?id=b'), 200);
  t.equal(await far.post('/capture/end?id=b'), 404);
  const here = readFile(await file.read());
  const there = readFile(await farFile.read());
  const drops = (packets: FilePacket[], name: string): string[] =>
    packets.filter(packet => packet.on === name).map(({ comments }) => comments[0].split(':')[1].trim());
  t.same(drops(here.packets, 'node1:tulle0 drops'), [
    ...Array(10).fill('egress-no-lease'),
    ...Array(10).fill('egress-fenced'),
  ]);
  t.same(drops(there.packets, 'node2:underlay drops'), [
    ...Array(10).fill('ingress-stale-key'),
    'ingress-unknown-sender',
  ]);
  const stranger = there.packets.filter(({ on }) => on === 'node2:underlay drops').at(-1);
  t.match(stranger?.comments, [/^dropped: ingress-unknown-sender: it came from no leaseholder's endpoint$/]);
  t.equal(Buffer.from(stranger?.data.subarray(28) ?? []).toString(), 'stranger');
  const icmp = here.packets.filter(({ comments }) => comments.includes('ICMP error of this node'));
  t.ok(icmp.length > 0 && icmp.every(({ on, direction }) => on === 'node1:tulle0' && direction === 'in'));
  t.match(heard[0], {
    node: 'node1',
    reason: 'egress-no-lease',
    packet: /^IP 10.42.1.0 > 10.42.77.1: ICMP echo request/,
  });
  t.ok(heard[0].why.includes('nobody holds a lease'));
  lines.destroy();
});

t.test('filters: a peer, an endpoint, a name, an expression', async t => {
  const { nodes, one, server } = await stage(t);
  const counts = async (query: string): Promise<Record<string, number>> => {
    const file = await server.open(`/capture?id=x&${query}`);
    await until(() => server.captures.size === 1, 'captured');
    const before = one.counters()['ingress-packets'];
    await ping(nodes.namespaces[0], addressOf(2), { ...TEN, count: 2 });
    await ping(nodes.namespaces[0], '10.42.77.1', { ...TEN, count: 2, timeoutMs: 50 });
    await until(() => one.counters()['ingress-packets'] === before + 2, 'there');
    await new Promise(resolve => setTimeout(resolve, 30));
    await server.post('/capture/end?id=x');
    const { packets } = readFile(await file.read());
    const found: Record<string, number> = {};
    for (const { on } of packets) found[on.slice(6)] = (found[on.slice(6)] ?? 0) + 1;
    return found;
  };
  const withPeer = { tulle0: 4, underlay: 4 };
  t.same(await counts('peer=10.42.2.0/24'), withPeer);
  t.same(await counts('peer=10.42.2.77'), withPeer, 'an address in it');
  t.same(await counts('peer=node2'), withPeer);
  t.same(await counts('peer=10.88.0.2'), withPeer);
  t.same(await counts('peer=10.88.0.2:8285'), withPeer);
  t.same(await counts('peer=10.88.0.2:9'), {});
  // What nobody holds: read, dropped, and reported to its sender.
  t.same(await counts('peer=10.42.77.0/24'), { tulle0: 2, 'tulle0 drops': 2 });
  t.same(await counts('inner=icmp+and+dst+10.42.2.0'), { tulle0: 2, underlay: 2 });
  t.same(await counts('inner=tcp'), {});
  const refused = async (query: string): Promise<string> => {
    const { status, body } = await server.get(`/capture?${query}`);
    t.equal(status, 400, query);
    return JSON.parse(body.toString()).error;
  };
  t.match(await refused('peer=node7'), /no peer is called "node7": this node knows node2/);
  t.match(await refused('inner=tcp+prt+80'), /column 5: .*\ntcp prt 80\n {4}\^/s);
  t.match(await refused('snaplen=-1'), /snaplen "-1": a number from 0 to/);
  t.match(await refused('count=0'), /count "0"/);
  t.equal(server.captures.size, 0);
});

t.test('several at once, each with its own filter and snaplen; too many are refused', async t => {
  const { nodes, server } = await stage(t);
  const whole = server.get('/capture?snaplen=0&count=4&inner=icmp');
  const cut = server.get('/capture?snaplen=30&count=4&inner=icmp');
  const none = await server.open('/capture?inner=tcp&id=none');
  const soon = server.get('/capture?seconds=1&inner=tcp');
  await until(() => server.captures.size === 4, 'captured');
  t.equal((await server.get('/capture')).status, 503);
  t.equal((await server.get('/capture?id=none')).status, 503);
  await ping(nodes.namespaces[0], addressOf(2), { ...TEN, count: 4 });
  const lengthsOf = async (file: Promise<{ body: Buffer }>): Promise<number[][]> =>
    readFile((await file).body).packets.map(({ data, length }) => [data.length, length]);
  const wholes = await lengthsOf(whole);
  t.ok(wholes.every(([captured, length]) => captured === length));
  t.same(
    (await lengthsOf(cut)).map(([captured]) => captured),
    wholes.map(([length]) => (length === wholes[0][0] ? 30 : 30 + 28)),
    'outer headers come on top',
  );
  t.same(readFile((await soon).body).packets, [], 'it ended by itself');
  none.destroy();
  await until(() => server.captures.size === 0, 'closed, though a client only went away');
  const again = await server.get('/capture?seconds=1');
  t.equal(again.status, 200);
});

t.test('packets as lines: the first of every second', async t => {
  const { nodes, server } = await stage(t);
  const stream = await server.open('/packets?snaplen=64');
  await until(() => server.captures.size === 1, 'captured');
  const pings = ping(nodes.namespaces[0], addressOf(2), { count: 400, intervalMs: 1, timeoutMs: 5_000 });
  const seen: PacketLine[] = [];
  let rest = '';
  while (seen.length < 200) {
    const lines = (rest + (await stream.next()).toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) seen.push(JSON.parse(line));
  }
  await pings;
  const seconds = new Map<number, number>();
  for (const { atUs } of seen) seconds.set(Math.floor(atUs / 1e6), (seconds.get(Math.floor(atUs / 1e6)) ?? 0) + 1);
  t.ok(
    [...seconds.values()].every(count => count <= 260),
    `${[...seconds.values()]}`,
  );
  t.match(seen[0], {
    node: 'node1',
    place: 'tun-read',
    length: 84,
    comment: /^to lease 10.42.2.0\/24 of node2/,
    text: /^IP 10.42.1.0 > 10.42.2.0: ICMP echo request/,
  });
  t.equal(Buffer.from(seen[0].base64, 'base64').length, 64);
  t.same(new Set(seen.map(({ place }) => place)), new Set(['tun-read', 'udp-send', 'udp-receive', 'tun-write']));
  t.ok(seen.some(({ text }) => text.startsWith('tulle packet key')));
  stream.destroy();
  await until(() => server.captures.size === 0, 'closed');
});

t.test('over IPv6: the outer headers are IPv6, and right', async t => {
  const nodes = twoNodes();
  const given = (k: number): Partial<OverlayOptions> => ({
    backend: { type: 'tulle', port: 8285, underlay: 6 },
    ...NETWORK6,
    own: bothLeaseOf(k),
    address: endpointOf6(k),
  });
  const [one, two] = [await nodes.start(1, given(1)), await nodes.start(2, given(2))];
  one.apply([{ kind: 'add', lease: bothLeaseOf(2) }]);
  two.apply([{ kind: 'add', lease: bothLeaseOf(1) }]);
  const server = await serveCaptures(nodeOf(one, 'node1', [bothLeaseOf(2)]));
  t.teardown(async () => {
    await Promise.all([server.close(), one.stop(), two.stop()]);
    nodes.remove();
  });
  const file = server.get(`/capture?snaplen=0&count=4&peer=[${endpointOf6(2)}]:8285`);
  await until(() => server.captures.size === 1, 'captured');
  t.equal((await ping(nodes.namespaces[0], addressOf(2), { ...TEN, count: 1 })).received, 1);
  const { packets } = readFile((await file).body);
  t.same(
    packets.map(({ on, direction }) => [on, direction]),
    [
      ['node1:tulle0', 'out'],
      ['node1:underlay', 'out'],
      ['node1:underlay', 'in'],
      ['node1:tulle0', 'in'],
    ],
  );
  for (const { data } of packets.slice(1, 3)) {
    t.equal(checkIp6(data, 0, data.length), 0);
    t.ok(verifyL4Checksum6(data, 0), 'the outer UDP checksum');
    t.ok(describeCaptured(data, data.length, true).includes('ICMP echo'), describeCaptured(data, data.length, true));
  }
  t.match(packets[1].comments, ['to lease 10.42.2.0/24 of node2']);
});
