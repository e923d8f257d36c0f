import t from 'tap';
import {
  type CaptureRecord,
  POINT_TUN_READ,
  POINT_TUN_WRITTEN,
  POINT_UDP_RECEIVED,
  POINT_UDP_SENT,
  RECORD_HAS_PEER,
  RECORD_PARTIAL,
  RECORD_REPLY,
} from '../../lib/datapath/capture-ring.ts';
import { RingSource } from '../../lib/datapath/capture-source.ts';
import { TapSwitch } from '../../lib/datapath/capture-tap.ts';
import { DROP_NAMES, readDrops } from '../../lib/datapath/counters.ts';
import { FORMAT_BARE, FORMAT_TULLE } from '../../lib/datapath/slab.ts';
import { get32 } from '../../lib/wire/bytes.ts';
import { formatAddress4 } from '../../lib/wire/ip4.ts';
import { VNET_HEADER_BYTES } from '../../lib/wire/vnet.ts';
import { BOTH, cidr, NETWORK, pair, peerOfNode, type TestNode } from '../support/node.ts';
import { tcpPacket, tunRead, udpPacket } from '../support/packets.ts';
import { below, pick, prng, randomBytes, testSeed } from '../support/prng.ts';

interface Seen extends Omit<CaptureRecord, 'bytes' | 'offset' | 'remote'> {
  data: Uint8Array;
  remote: string;
}

/** A capture of one node: as the main thread and the loop have it. */
function capture(node: TestNode, network = NETWORK) {
  const source = new RingSource(node.slab.ring, network, () => {});
  let time = 1000;
  const tap = new TapSwitch(node.slab, network, () => time++);
  return {
    set(settings: Parameters<typeof source.set>[0]) {
      source.set(settings);
      tap.look();
    },
    take(): Seen[] {
      const seen: Seen[] = [];
      source.drain(({ bytes, offset, remote, ...record }) => {
        const data = bytes.slice(offset, offset + record.captured);
        const address = bytes[remote] === 2 ? formatAddress4(get32(bytes, remote + 4)) : '';
        seen.push({ ...record, data, remote: address });
      }, 1e9);
      return seen;
    },
  };
}

/** Text is compared a hundred times faster than arrays. */
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const at = (point: number) => (record: Seen) => record.point === point && record.reason < 0;
const WHOLE = { snaplen: 65_536 };
const to2 = { source: '10.42.1.2', destination: '10.42.2.2' };

for (const [name, format] of [
  ['tulle', FORMAT_TULLE],
  ['bare', FORMAT_BARE],
] as const) {
  t.test(`${name}: all four edges, byte for byte`, async t => {
    const seed = testSeed();
    t.comment(`seed ${seed}`);
    const random = prng(seed);
    const [a, b] = pair(format);
    const [one, two] = [capture(a), capture(b)];
    one.set(WHOLE);
    two.set(WHOLE);
    /** The numbers of the trains that were sent and received, each once. */
    const trains: [number[], number[]] = [[], []];
    for (let round = 0; round < 40; round++) {
      const reads = Array.from({ length: 1 + below(random, 16) }, () => {
        const kind = below(random, 3);
        const payload = randomBytes(random, 1 + below(random, kind === 0 ? 30_000 : 900));
        if (kind === 0) return tunRead(tcpPacket({ ...to2, payload, partial: true }), { segmentSize: 1408 });
        return tunRead(udpPacket({ ...to2, payload, partial: kind === 1 }), { partial: kind === 1 });
      });
      const packets = reads.map(read => read.slice(VNET_HEADER_BYTES));
      a.read(reads);
      const sent = a.takeSent();
      const seen = one.take();
      const readRecords = seen.filter(at(POINT_TUN_READ));
      t.same(
        readRecords.map(record => hex(record.data)),
        packets.map(hex),
        'what was read, before its TTL went down',
      ) || t.bailout();
      t.same(
        readRecords.map(record => [(record.flags & RECORD_PARTIAL) !== 0, record.segmentSize]),
        reads.map(read => [read[0] === 1, read[1] === 0 ? 0 : 1408]),
      );
      const datagrams = seen.filter(at(POINT_UDP_SENT));
      t.same(
        datagrams.map(record => hex(record.data)),
        sent.flatMap(train => train.datagrams.map(hex)),
        'what left',
      ) || t.bailout();
      t.same(
        datagrams.map(record => [record.index, record.count]),
        sent.flatMap(({ datagrams }) =>
          datagrams.map((_, i) => (datagrams.length > 1 ? [i, datagrams.length] : [0, 0])),
        ),
        'its place in its train',
      );
      trains[0].push(...datagrams.filter(({ index, count }) => count > 1 && index === 0).map(({ train }) => train));
      t.ok(datagrams.every(({ train, count }) => count === 0 || trains[0].includes(train)));
      t.ok(
        seen.every(
          ({ flags, remote, subnet }) => flags & RECORD_HAS_PEER && remote === '10.88.0.2' && subnet === 0x0a2a0200,
        ),
        'whose they are',
      );

      b.receive(sent.map(({ datagrams }) => ({ from: { address: '10.88.0.1', port: 8285 }, datagrams })));
      const written = b.takeWritten();
      const came = two.take();
      t.same(
        came.filter(at(POINT_UDP_RECEIVED)).map(record => hex(record.data)),
        sent.flatMap(train => train.datagrams.map(hex)),
        'what came',
      ) || t.bailout();
      const inTrains = came.filter(at(POINT_UDP_RECEIVED)).filter(({ count }) => count > 1);
      trains[1].push(...inTrains.filter(({ index }) => index === 0).map(({ train }) => train));
      t.ok(inTrains.every(({ train }) => trains[1].includes(train)));
      const records = came.filter(at(POINT_TUN_WRITTEN));
      t.same(
        records.map(record => hex(record.data)),
        written.map(bytes => hex(bytes.slice(VNET_HEADER_BYTES))),
        'what was written',
      ) || t.bailout();
      t.same(
        records.map(record => record.segmentSize > 0),
        written.map(bytes => bytes[1] !== 0),
      );
      t.ok(came.every(record => record.remote === '10.88.0.1' && record.subnet === 0x0a2a0100));
      t.ok(came.every(record => record.reason < 0));
    }
    for (const numbers of trains) t.equal(new Set(numbers).size, numbers.length, 'no two trains have one number');
  });
}

t.test('every drop is there, with its reason', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const random = prng(seed);
  const [a, b] = pair(FORMAT_TULLE, true);
  const [one, two] = [capture(a, BOTH), capture(b, BOTH)];
  one.set({ snaplen: 200 });
  two.set({ snaplen: 200 });
  const counted = new Map<string, number>();
  const count = (seen: Seen[]): void => {
    for (const { reason } of seen) {
      if (reason >= 0) counted.set(DROP_NAMES[reason], (counted.get(DROP_NAMES[reason]) ?? 0) + 1);
    }
  };
  const destinations = ['10.42.2.2', '10.42.2.3', '10.42.77.1', '10.42.1.9', '192.0.2.1'];
  const errnos = [0, 0, 0, 11, 90, 101, 22, 5];
  for (let round = 0; round < 400; round++) {
    const errno = pick(random, errnos);
    a.refuseMessage = () => (below(random, 3) === 0 ? errno : 0);
    b.refusePacket = () => (below(random, 5) === 0 ? pick(random, [5, 22]) : 0);
    const reads = Array.from({ length: 1 + below(random, 16) }, () => {
      const superPacket = below(random, 3) === 0;
      const payload = randomBytes(random, 1 + below(random, superPacket ? 9_000 : 900));
      const options = { ...to2, destination: pick(random, destinations), payload, ttl: pick(random, [1, 64, 64]) };
      const packet = superPacket ? tcpPacket({ ...options, partial: true }) : udpPacket(options);
      if (below(random, 8) === 0) packet[below(random, 40)] ^= 1 << below(random, 8);
      return tunRead(packet, superPacket ? { segmentSize: 1000 } : {});
    });
    a.read(reads);
    count(one.take());
    const from = { address: pick(random, ['10.88.0.1', '10.88.0.1', '10.88.0.1', '10.88.0.9']), port: 8285 };
    const trains = a.takeSent().map(({ datagrams }) => {
      const spoilt = datagrams.map(datagram => datagram.slice());
      if (below(random, 4) === 0) spoilt[0][below(random, Math.min(60, spoilt[0].length))] ^= 1 << below(random, 8);
      return { from, datagrams: spoilt };
    });
    b.receive(trains);
    b.takeWritten();
    count(two.take());
  }
  const drops = Object.entries({ ...readDrops(a.slab.counters) }).concat(Object.entries(readDrops(b.slab.counters)));
  const expected = new Map<string, number>();
  for (const [name, number] of drops) if (number > 0) expected.set(name, (expected.get(name) ?? 0) + number);
  // A refused coalesced write is one record and as many drops as it had segments; the others are one each.
  const failed = counted.get('ingress-write-failed') ?? 0;
  t.ok(failed > 0 && failed <= (expected.get('ingress-write-failed') ?? 0));
  counted.delete('ingress-write-failed');
  expected.delete('ingress-write-failed');
  t.same(Object.fromEntries([...counted].sort()), Object.fromEntries([...expected].sort()));
  t.ok(expected.size >= 10, `${[...expected.keys()].join(', ')}`);
});

t.test('only the peers that somebody wants, and what belongs to none', async t => {
  const [a] = pair();
  a.table.update([peerOfNode(3)], []);
  const one = capture(a);
  one.set({ snaplen: 200, peers: [cidr('10.42.3.0/24')] });
  const payload = new Uint8Array(100);
  a.read(
    ['10.42.2.2', '10.42.3.2', '10.42.77.2'].map(destination => tunRead(udpPacket({ ...to2, destination, payload }))),
  );
  const seen = one.take();
  t.same(
    seen.map(({ point, reason, subnet, flags }) => [
      point,
      DROP_NAMES[reason] ?? '',
      flags & RECORD_HAS_PEER ? formatAddress4(subnet) : '',
      (flags & RECORD_REPLY) !== 0,
    ]),
    [
      [POINT_TUN_READ, '', '10.42.3.0', false],
      [POINT_TUN_READ, '', '', false],
      [POINT_TUN_READ, 'egress-no-lease', '', false],
      [POINT_UDP_SENT, '', '10.42.3.0', false],
      [POINT_TUN_WRITTEN, '', '', true],
    ],
  );
});

t.test('a snaplen cuts what is kept, not what is said', async t => {
  const [a] = pair();
  const one = capture(a);
  one.set({ snaplen: 300 });
  a.read([tunRead(tcpPacket({ ...to2, payload: new Uint8Array(20_000), partial: true }), { segmentSize: 1408 })]);
  const seen = one.take();
  t.same(
    seen.filter(at(POINT_TUN_READ)).map(({ captured, length }) => [captured, length]),
    [[300, 20_040]],
  );
  const datagrams = seen.filter(at(POINT_UDP_SENT));
  t.ok(datagrams.every(({ captured }) => captured === 300 || captured < 300));
  t.equal(
    datagrams.reduce((sum, { length }) => sum + length, 0),
    20_000 + 15 * 52,
  );
});

t.test('nobody captures: the ring is not touched', async t => {
  const [a] = pair();
  const one = capture(a);
  a.read([tunRead(udpPacket({ ...to2, payload: new Uint8Array(100) }))]);
  t.equal(a.slab.tap, undefined);
  one.set(WHOLE);
  a.read([tunRead(udpPacket({ ...to2, payload: new Uint8Array(100) }))]);
  one.set(undefined);
  t.equal(a.slab.tap, undefined);
  const { control } = a.slab.ring;
  const head = control[0];
  t.ok(head > 0);
  a.read([tunRead(udpPacket({ ...to2, payload: new Uint8Array(100) }))]);
  t.equal(control[0], head);
  t.equal(
    a.slab.bytes.subarray(a.slab.ring.offset + head).every(byte => byte === 0),
    true,
    'not a byte of it',
  );
  one.set(WHOLE);
  t.same(one.take(), [], 'what an earlier capture left is not shown to the next');
});
