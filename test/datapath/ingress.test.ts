import { constants } from 'node:os';
import t from 'tap';
import { dropIndex, flowIndex, readDrops } from '../../lib/datapath/counters.ts';
import { CONTROL_COALESCE_OFF, FORMAT_BARE, FORMAT_TULLE } from '../../lib/datapath/slab.ts';
import { finishPartial } from '../../lib/wire/checksum.ts';
import { formatAddress4, ip4Source, ip4TotalLength, setIp4Checksum, verifyIp4Checksum } from '../../lib/wire/ip4.ts';
import { verifyL4Checksum4 } from '../../lib/wire/l4.ts';
import { TCP_ACK, TCP_CWR, TCP_FIN, TCP_PSH, tcpFlags, tcpSequence } from '../../lib/wire/tcp.ts';
import { HEADER_BYTES } from '../../lib/wire/tulle.ts';
import {
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_UDP_L4,
  VNET_HEADER_BYTES,
  vnetGsoSize,
  vnetGsoType,
} from '../../lib/wire/vnet.ts';
import { pair, type TestNode, type Train } from '../support/node.ts';
import { tcpPacket, tunRead, udpPacket } from '../support/packets.ts';
import { below, prng, randomBytes, testSeed } from '../support/prng.ts';

const random = prng(2);
const from1 = { source: '10.42.1.2', destination: '10.42.2.2' };
const endpoint1 = { address: '10.88.0.1', port: 8285 };

/** What crosses between the two: the trains as they were sent, with node 1 as their sender. */
const cross = (trains: readonly Train[], b: TestNode): void =>
  b.receive(trains.map(({ datagrams }) => ({ from: endpoint1, datagrams })));

const superPacket = (segments: number, more: Partial<Parameters<typeof tcpPacket>[0]> = {}): Uint8Array => {
  const payload = randomBytes(random, segments * 1000 - 300);
  return tunRead(tcpPacket({ ...from1, payload, partial: true, ...more }), { segmentSize: 1000 });
};

/** Cuts what the TUN got into the packets that a pod without offloads would see, checksums finished, as the kernel does. */
function packetsOf(written: Uint8Array): Uint8Array[] {
  const packet = written.slice(VNET_HEADER_BYTES);
  const partial = (written[0] & 1) !== 0;
  if (vnetGsoType(written, 0) === VNET_GSO_NONE) {
    if (partial) finishPartial(packet, written[6], written[8], packet.length);
    return [packet];
  }
  const size = vnetGsoSize(written, 0);
  const headers = written[2] | (written[3] << 8);
  const cut: Uint8Array[] = [];
  for (let at = headers, i = 0; at < packet.length; at += size, i++) {
    const piece = Uint8Array.from([...packet.slice(0, headers), ...packet.slice(at, at + size)]);
    cut.push(piece);
    const view = new DataView(piece.buffer);
    view.setUint16(2, piece.length);
    view.setUint16(4, view.getUint16(4) + i);
    if (packet[9] === 6) {
      view.setUint32(24, view.getUint32(24) + i * size);
      if (at + size < packet.length) piece[33] &= ~(TCP_FIN | TCP_PSH);
      if (i > 0) piece[33] &= ~TCP_CWR;
    }
    setIp4Checksum(piece, 0);
  }
  return cut;
}

t.test('a super-packet comes out as it went in, but for its TTL', async t => {
  const [a, b] = pair();
  const read = superPacket(47, { flags: TCP_ACK | TCP_PSH | TCP_CWR });
  a.read([read]);
  cross(a.takeSent(), b);
  const [written, ...rest] = b.takeWritten();
  t.same(rest, []);
  t.equal(vnetGsoType(written, 0) & 0x7f, VNET_GSO_TCPV4);
  t.equal(vnetGsoSize(written, 0), 1000);
  t.ok(verifyIp4Checksum(written, VNET_HEADER_BYTES));
  const expected = read.slice(VNET_HEADER_BYTES);
  const got = written.slice(VNET_HEADER_BYTES);
  for (const bytes of [expected, got]) bytes.fill(0, 8, 9).fill(0, 10, 12);
  t.same(got, expected);
  t.equal(b.slab.counters[flowIndex('ingress-super-packets')], 1);
});

t.test('two super-packets do not mix, and a gap closes a run', async t => {
  const [a, b] = pair();
  a.read([superPacket(3), superPacket(3, { sequence: 90_000 })]);
  cross(a.takeSent(), b);
  t.same(
    b.takeWritten().map(bytes => ip4TotalLength(bytes, VNET_HEADER_BYTES)),
    [2740, 2740],
  );

  a.read([superPacket(6, { sequence: 1, flags: TCP_ACK | TCP_FIN | TCP_CWR })]);
  const datagrams = a.takeSent().flatMap(train => train.datagrams);
  b.receive([[0, 1], [3], [4, 5]].map(indexes => ({ from: endpoint1, datagrams: indexes.map(i => datagrams[i]) })));
  const runs = b.takeWritten();
  t.same(
    runs.map(bytes => tcpSequence(bytes, VNET_HEADER_BYTES + 20)),
    [1, 3001],
    'the gap is where segment 2 was',
  );
  t.same(
    runs.map(bytes => tcpFlags(bytes, VNET_HEADER_BYTES + 20)),
    [TCP_ACK | TCP_CWR, TCP_ACK | TCP_FIN],
  );
});

t.test('an old segment whose id came round again does not join', async t => {
  const [a, b] = pair();
  a.read([superPacket(3), superPacket(3, { sequence: 70_000 })]);
  const [first, second] = a.takeSent().map(train => train.datagrams);
  second[1].set(first[1].slice(8, 10), 8);
  b.receive([{ from: endpoint1, datagrams: [first[0], second[1]] }]);
  t.equal(b.takeWritten().length, 2);
});

t.test('a refused coalesced write turns coalescing off, and every segment arrives', async t => {
  const [a, b] = pair();
  const payload = randomBytes(random, 4500);
  b.refusePacket = bytes => (vnetGsoType(bytes, 0) === VNET_GSO_NONE ? 0 : constants.errno.EINVAL);
  const read = tunRead(tcpPacket({ ...from1, payload, sequence: 5, flags: TCP_ACK | TCP_PSH, partial: true }), {
    segmentSize: 1000,
  });
  for (const round of ['refused', 'off from the start']) {
    a.read([read]);
    cross(a.takeSent(), b);
    const packets = b.takeWritten().flatMap(packetsOf);
    t.same(
      packets.map(packet => tcpSequence(packet, 20)),
      [5, 1005, 2005, 3005, 4005],
      round,
    );
    t.ok(packets.every(packet => verifyIp4Checksum(packet, 0) && verifyL4Checksum4(packet, 0)));
    t.same(
      packets.map(packet => tcpFlags(packet, 20) & TCP_PSH),
      [0, 0, 0, 0, TCP_PSH],
    );
    t.same(Uint8Array.from(packets.flatMap(packet => [...packet.slice(40)])), payload);
    t.equal(b.slab.control[CONTROL_COALESCE_OFF], 1);
  }
});

t.test('of a refused run only headers that were checked are written', async t => {
  const [a, b] = pair();
  const payload = randomBytes(random, 2500);
  a.read([tunRead(tcpPacket({ ...from1, payload, sequence: 5, partial: true }), { segmentSize: 1000 })]);
  const [{ datagrams }] = a.takeSent();
  for (const datagram of datagrams.slice(1)) datagram.set([10, 42, 9, 9], HEADER_BYTES + 12); // another node's pod
  b.refusePacket = bytes => (vnetGsoType(bytes, 0) === VNET_GSO_NONE ? 0 : constants.errno.EINVAL);
  cross([{ to: new Uint8Array(8), datagrams }], b);
  const packets = b.takeWritten().flatMap(packetsOf);
  t.equal(packets.length, 3);
  t.ok(packets.every(packet => formatAddress4(ip4Source(packet, 0)) === '10.42.1.2'));
  t.ok(packets.every(packet => verifyIp4Checksum(packet, 0) && verifyL4Checksum4(packet, 0)));
  t.same(Uint8Array.from(packets.flatMap(packet => [...packet.slice(40)])), payload);
});

t.test('only what its sender may send is delivered', async t => {
  const [a, b] = pair();
  a.read([tunRead(udpPacket({ ...from1, payload: randomBytes(random, 40) }))]);
  const [good] = a.takeSent()[0].datagrams;
  a.read([superPacket(2)]);
  const [segment] = a.takeSent()[0].datagrams;
  const spoil = (datagram: Uint8Array, change: (bytes: Uint8Array) => void): Uint8Array => {
    const bytes = Uint8Array.from(datagram);
    change(bytes);
    return bytes;
  };
  const cases: [Parameters<typeof dropIndex>[0], Uint8Array, { address: string; port: number }?][] = [
    ['ingress-unknown-sender', good, { address: '10.88.0.9', port: 8285 }],
    ['ingress-unknown-sender', good, { address: '10.88.0.1', port: 8286 }],
    [
      'ingress-stale-key',
      spoil(good, bytes => {
        bytes[7] ^= 1;
      }),
    ],
    [
      'ingress-stale-key',
      spoil(segment, bytes => {
        bytes[7] ^= 1;
      }),
    ],
    [
      'ingress-spoofed-source',
      spoil(good, bytes => {
        bytes[HEADER_BYTES + 14] = 9;
      }),
    ],
    [
      'ingress-spoofed-source',
      spoil(segment, bytes => {
        bytes[HEADER_BYTES + 14] = 9;
      }),
    ],
    [
      'ingress-not-ours',
      spoil(good, bytes => {
        bytes[HEADER_BYTES + 18] = 9;
      }),
    ],
    [
      'ingress-wrong-version',
      spoil(good, bytes => {
        bytes[0] = 0x20;
      }),
    ],
    ['ingress-wrong-format', good.slice(HEADER_BYTES)],
    [
      'ingress-unknown-kind',
      spoil(good, bytes => {
        bytes[0] = 0x1e;
      }),
    ],
    ['ingress-unknown-kind', Uint8Array.from([0x60, 0, 0])],
    ['ingress-malformed', good.slice(0, 11)],
    ['ingress-malformed', good.slice(0, 40)],
    ['ingress-malformed', new Uint8Array(0)],
    ['ingress-malformed', segment.slice(0, -1)],
    [
      'ingress-malformed',
      spoil(segment, bytes => {
        bytes[11] = 7;
      }),
    ],
    [
      'ingress-malformed',
      spoil(segment, bytes => {
        bytes[1] = 0;
      }),
    ],
    [
      'ingress-malformed',
      spoil(segment, bytes => {
        bytes[HEADER_BYTES + 9] = 47;
      }),
    ],
  ];
  for (const [reason, datagram, from = endpoint1] of cases) {
    const before = b.slab.counters[dropIndex(reason)];
    b.receive([{ from, datagrams: [datagram] }]);
    t.equal(b.slab.counters[dropIndex(reason)], before + 1, reason);
    t.same(b.takeWritten(), [], reason);
  }
  b.receive([{ from: endpoint1, datagrams: [good] }]);
  t.equal(b.takeWritten().length, 1, 'the good one is delivered');
  b.receive([
    {
      from: endpoint1,
      datagrams: [
        spoil(good, bytes => {
          bytes.set([192, 0, 2, 1], HEADER_BYTES + 12);
        }),
      ],
    },
  ]);
  t.equal(b.takeWritten().length, 1, 'a source outside the pod network is nobody’s subnet');
});

t.test(
  "flannel's format: a train of bare packets, none of which is touched by its neighbour's vnet header",
  async t => {
    const [a, b] = pair(FORMAT_BARE);
    const packets = [50, 50, 50, 20].map(size => udpPacket({ ...from1, payload: randomBytes(random, size) }));
    a.read(packets.map(packet => tunRead(packet)));
    const trains = a.takeSent();
    t.equal(trains.length, 1);
    cross(trains, b);
    const [written, ...rest] = b.takeWritten();
    t.same(rest, [], 'one gathered write');
    t.equal(vnetGsoType(written, 0), VNET_GSO_UDP_L4);
    const got = packetsOf(written);
    t.same(
      got.map(bytes => bytes.slice(28)),
      packets.map(packet => packet.slice(28)),
    );
    b.slab.control[CONTROL_COALESCE_OFF] = 1;
    a.read(packets.map(packet => tunRead(packet)));
    cross(a.takeSent(), b);
    const single = b.takeWritten().map(bytes => bytes.slice(VNET_HEADER_BYTES));
    t.same(
      single.map(bytes => bytes.slice(20)),
      packets.map(packet => packet.slice(20)),
    );
    t.ok(single.every(bytes => verifyIp4Checksum(bytes, 0) && verifyL4Checksum4(bytes, 0)));
  },
);

for (const [name, format] of Object.entries({ tulle: FORMAT_TULLE, bare: FORMAT_BARE })) {
  t.test(`whatever the underlay does, what is delivered is what was sent (${name})`, async t => {
    const seed = testSeed();
    t.comment(`seed ${seed}`);
    const next = prng(seed);
    const [a, b] = pair(format);
    const delivered = new Map<number, number>();
    const stream = randomBytes(next, 400_000);
    const reads: Uint8Array[] = [];
    for (let at = 0; at < stream.length; ) {
      const payload = stream.subarray(at, at + 1 + below(next, 9_000));
      const size = 200 + below(next, 1200);
      const packet = tcpPacket({ ...from1, payload, sequence: at, id: below(next, 65_536), partial: true });
      reads.push(payload.length > size ? tunRead(packet, { segmentSize: size }) : tunRead(packet, { partial: true }));
      at += payload.length;
    }
    a.read(reads);
    let trains = a.takeSent().map(({ datagrams }) => ({ from: endpoint1, datagrams }));
    // Loss and duplication of datagrams, reordering of trains, trains that arrive in pieces.
    trains = trains.flatMap(({ from, datagrams }) => {
      const pieces: { from: typeof endpoint1; datagrams: Uint8Array[] }[] = [{ from, datagrams: [] }];
      for (const datagram of datagrams) {
        const fate = below(next, 40);
        if (fate === 0) continue;
        const piece = pieces[pieces.length - 1];
        const previous = piece.datagrams[piece.datagrams.length - 1];
        if (fate === 1 || (previous !== undefined && previous.length !== piece.datagrams[0].length))
          pieces.push({ from, datagrams: [] });
        pieces[pieces.length - 1].datagrams.push(datagram);
        if (fate === 2) pieces.push({ from, datagrams: [datagram] }, { from, datagrams: [] });
      }
      return pieces.filter(piece => piece.datagrams.length > 0);
    });
    for (let i = 0; i < trains.length; i += 7) {
      const j = below(next, trains.length);
      [trains[i], trains[j]] = [trains[j], trains[i]];
    }
    b.receive(trains);
    for (const packet of b.takeWritten().flatMap(packetsOf)) {
      const sequence = tcpSequence(packet, 20);
      const payload = packet.slice(40);
      if (!payload.every((byte, i) => byte === stream[sequence + i])) {
        t.fail(`bytes differ at ${sequence}`);
        return;
      }
      if (!verifyIp4Checksum(packet, 0)) {
        t.fail(`IP checksum at ${sequence}`);
        return;
      }
      for (let i = 0; i < payload.length; i++) delivered.set(sequence + i, 1);
    }
    const share = delivered.size / stream.length;
    t.ok(share > 0.9 && share < 1, `${share} of the stream arrived`);
    t.ok(
      Object.values(readDrops(b.slab.counters)).every(count => count === 0),
      'and nothing was refused',
    );
  });
}
