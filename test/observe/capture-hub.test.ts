/** The readers of one ring, without a kernel: what the worker is told to capture, budgets, another overlay, loss. */
import t from 'tap';
import { RING_WORDS, type Ring, RingReader, RingWriter } from '../../lib/datapath/capture-ring.ts';
import type { CaptureSettings, CaptureSource } from '../../lib/datapath/capture-source.ts';
import { BoundedQueue } from '../../lib/observe/capture/queue.ts';
import { type CapturedPacket, Captures, MOST_CAPTURES } from '../../lib/observe/capture.ts';
import { formatCidr4 } from '../../lib/wire/cidr.ts';
import { cidr, NETWORK } from '../support/node.ts';
import { address, udpPacket } from '../support/packets.ts';

function makeSource() {
  const size = 1 << 16;
  const buffer = new SharedArrayBuffer(size);
  const ring: Ring = {
    bytes: new Uint8Array(buffer),
    words: new Int32Array(buffer),
    times: new Float64Array(buffer),
    control: new Int32Array(new SharedArrayBuffer(RING_WORDS * 4)),
    wanted: new Uint8Array(0),
    offset: 0,
    size,
  };
  const writer = new RingWriter(ring);
  const reader = new RingReader(ring);
  const told: (CaptureSettings | undefined)[] = [];
  const source: CaptureSource = {
    set: settings => void told.push(settings),
    drain: (take, most) => reader.drain(take, most),
    lost: () => reader.lost,
  };
  const put = (packet: Uint8Array, { time = 0, reason = -1, peer = '10.42.2.0' } = {}): void => {
    const at = writer.begin(0, 0, packet.length, packet.length, time);
    if (at < 0) return;
    ring.bytes.set(packet, at);
    writer.reason(reason);
    writer.peer(address(peer), 0xffff_ff00 | 0);
    writer.publish();
  };
  return { source, told, put };
}

type Source = ReturnType<typeof makeSource>;

function hub(first: Source | undefined) {
  let current = first;
  const peers = [2, 3].map(k => ({ subnet: cidr(`10.42.${k}.0/24`), node: `node${k}`, addresses: [`10.88.0.${k}`] }));
  const captures = new Captures({
    name: () => 'node1',
    overlay: () =>
      current && {
        source: current.source,
        device: 'tulle0',
        local: { address: '10.88.0.1', port: 8285 },
        network: NETWORK.network,
      },
    peers: () => peers,
  });
  t.teardown(() => captures.close());
  const replace = (next: Source | undefined): void => {
    current = next;
  };
  return { captures, replace };
}

async function until(done: () => boolean): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!done()) {
    if (performance.now() > deadline) throw new Error('20 s passed');
    await new Promise(resolve => setTimeout(resolve, 2));
  }
}

const packet = udpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: new Uint8Array(400) });

t.test('the worker captures the least that serves all readers, and nothing without one', async t => {
  const source = makeSource();
  const { captures } = hub(source);
  const told = (): unknown => {
    const last = source.told.at(-1);
    return last && { ...last, peers: last.peers?.map(formatCidr4) };
  };
  const onPacket = (): void => {};
  t.same(source.told, []);
  const one = captures.open({ onPacket, dropsOnly: true });
  t.same(told(), { snaplen: 256, dropsOnly: true, peers: undefined });
  const two = captures.open({ onPacket, peer: 'node2', snaplen: 400 });
  t.same(told(), { snaplen: 400, dropsOnly: false, peers: undefined });
  one.close();
  t.same(told(), { snaplen: 400, dropsOnly: false, peers: ['10.42.2.0/24'] });
  const three = captures.open({ onPacket, peer: '10.88.0.3', snaplen: 0 });
  t.same(told(), { snaplen: 0x7fff_ffff, dropsOnly: false, peers: ['10.42.2.0/24', '10.42.3.0/24'] });
  two.close();
  three.close();
  three.close();
  t.equal(told(), undefined);
  const all = Array.from({ length: MOST_CAPTURES }, () => captures.open({ onPacket }));
  t.throws(() => captures.open({ onPacket }), { code: 'busy' });
  for (const capture of all) capture.close();
});

t.test('each reader gets what it wants of it, cut as it wants it', async t => {
  const source = makeSource();
  const { captures } = hub(source);
  const seen: Record<string, CapturedPacket[]> = { all: [], cut: [], drops: [], peer3: [] };
  const into = (name: string) => (packet: CapturedPacket) => void seen[name].push(packet);
  captures.open({ onPacket: into('all'), snaplen: 0 });
  captures.open({ onPacket: into('cut'), snaplen: 50, inner: 'udp' });
  captures.open({ onPacket: into('drops'), dropsOnly: true });
  captures.open({ onPacket: into('peer3'), peer: '10.42.3.0/24' });
  source.put(packet);
  source.put(packet, { reason: 3 });
  source.put(packet, { peer: '10.42.3.0' });
  await until(() => seen['all'].length === 3);
  t.same(
    Object.values(seen).map(list => list.length),
    [3, 3, 1, 1],
  );
  t.equal(seen['all'][0].bytes.length, 428);
  t.same([seen['cut'][0].bytes.length, seen['cut'][0].length], [50, 428]);
  t.match(seen['drops'][0], { drop: 'egress-no-lease', peer: { subnet: '10.42.2.0/24', node: 'node2' } });
});

t.test('a budget is for a second, and when all is spent nothing is captured until the next', async t => {
  const source = makeSource();
  const { captures } = hub(source);
  const seen: number[] = [];
  captures.open({ perSecond: 3, onPacket: () => void seen.push(Math.floor(Date.now() / 1000)) });
  // Not near the end of a second.
  await until(() => Date.now() % 1000 < 300);
  await new Promise(resolve => setTimeout(resolve, 20));
  for (let i = 0; i < 10; i++) source.put(packet);
  await until(() => seen.length === 3);
  await until(() => source.told.at(-1) === undefined);
  const { length } = source.told;
  await until(() => source.told.length > length);
  t.not(source.told.at(-1), undefined, 'the next second');
  for (let i = 0; i < 10; i++) source.put(packet);
  await until(() => seen.length >= 6);
  const perSecond = [...new Set(seen)].map(second => seen.filter(each => each === second).length);
  t.ok(
    perSecond.every(count => count <= 3),
    perSecond.join(),
  );
});

t.test('another overlay gets the settings of the first; while there is none nothing can be opened', async t => {
  const [first, second] = [makeSource(), makeSource()];
  const { captures, replace } = hub(undefined);
  const seen: CapturedPacket[] = [];
  const onPacket = (packet: CapturedPacket): void => void seen.push(packet);
  t.throws(() => captures.open({ onPacket }), { code: 'unavailable' });
  replace(first);
  const capture = captures.open({ onPacket });
  first.put(packet);
  await until(() => seen.length === 1);
  replace(undefined);
  await new Promise(resolve => setTimeout(resolve, 20));
  replace(second);
  await until(() => second.told.length === 1);
  t.same(second.told, [first.told[0]]);
  second.put(packet);
  await until(() => seen.length === 2);
  capture.close();
});

t.test('what the ring lost is told to each reader', async t => {
  const source = makeSource();
  const { captures } = hub(source);
  const told: number[] = [];
  const capture = captures.open({ onPacket: (_, lost) => void told.push(lost) });
  for (let i = 0; i < 1000; i++) source.put(packet); // at once: the reader has no turn between
  await until(() => capture.lost > 0);
  t.equal(told.length + capture.lost, 1000, 'also what no record came behind to tell of');
  const before = told.length;
  source.put(packet);
  await until(() => told.length > before);
  t.equal(told[0], 0);
  t.equal(told.at(-1), capture.lost);
  t.equal(told.length + capture.lost, 1001);
});

t.test('a queue is bounded: it refuses the newest, or forgets the oldest', async t => {
  const chunk = (value: number): Uint8Array => new Uint8Array(10).fill(value);
  const never = new AbortController().signal;
  const refuse = new BoundedQueue(30, 'refuse');
  t.same(
    [1, 2, 3, 4].map(value => refuse.push(chunk(value))),
    [true, true, true, false],
  );
  t.equal(refuse.push(chunk(9), true), true, 'but the end of a stream goes in');
  refuse.end();
  t.equal(refuse.push(chunk(5)), false);
  const out: number[] = [];
  await refuse.pump(async bytes => void out.push(...bytes.filter((_, i) => i % 10 === 0)), never);
  t.same(out, [1, 2, 3, 9]);

  const forget = new BoundedQueue(30, 'forget');
  for (let value = 1; value <= 6; value++) forget.push(chunk(value));
  forget.end();
  const kept: number[] = [];
  await forget.pump(async bytes => void kept.push(...bytes.filter((_, i) => i % 10 === 0)), never);
  t.same(kept, [4, 5, 6]);

  const stop = new AbortController();
  const waiting = new BoundedQueue(30, 'forget').pump(async () => {}, stop.signal);
  stop.abort();
  await waiting;
});
