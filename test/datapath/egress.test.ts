import { constants } from 'node:os';
import t from 'tap';
import { dropIndex, flowIndex, readDrops } from '../../lib/datapath/counters.ts';
import { CONTROL_TRAINS_OFF, CONTROL_UNDERLAY_ERROR, FORMAT_BARE } from '../../lib/datapath/slab.ts';
import { ip4Ttl, verifyIp4Checksum } from '../../lib/wire/ip4.ts';
import { verifyL4Checksum4 } from '../../lib/wire/l4.ts';
import {
  FLAG_LAST_SEGMENT,
  FLAG_PARTIAL_CHECKSUM,
  HEADER_BYTES,
  KIND_BUNDLE,
  KIND_PACKET,
  KIND_SEGMENT,
  tulleFlags,
  tulleId,
  tulleIndex,
  tulleKey,
  tulleKind,
  tulleSegmentSize,
} from '../../lib/wire/tulle.ts';
import { pair, peerOfNode } from '../support/node.ts';
import { tcpPacket, tunRead, udpPacket } from '../support/packets.ts';
import { prng, randomBytes } from '../support/prng.ts';

const random = prng(1);
const to2 = { source: '10.42.1.2', destination: '10.42.2.2' };
const packetOf = (size: number) => udpPacket({ ...to2, payload: randomBytes(random, size) });

t.test('a packet leaves behind a tulle header, its TTL decremented once', async t => {
  const [a] = pair();
  const packet = packetOf(100);
  a.read([tunRead(packet)]);
  const [train] = a.takeSent();
  t.equal(train.datagrams.length, 1);
  const [datagram] = train.datagrams;
  t.same([...train.to.slice(4)], [10, 88, 0, 2]);
  t.equal(tulleKind(datagram, 0), KIND_PACKET);
  t.equal(tulleKey(datagram, 0), 101);
  t.equal(tulleFlags(datagram, 0), 0);
  const inner = datagram.slice(HEADER_BYTES);
  t.equal(ip4Ttl(inner, 0), 63);
  t.ok(verifyIp4Checksum(inner, 0));
  t.same(inner.slice(20), packet.slice(20));
});

t.test("flannel's format is the bare packet, with a finished checksum", async t => {
  const [a] = pair(FORMAT_BARE);
  a.read([tunRead(udpPacket({ ...to2, payload: randomBytes(random, 99), partial: true }), { partial: true })]);
  const [inner] = a.takeSent()[0].datagrams;
  t.equal(inner[0], 0x45);
  t.ok(verifyL4Checksum4(inner, 0));
});

t.test('a partial checksum travels as such', async t => {
  const [a] = pair();
  a.read([tunRead(tcpPacket({ ...to2, payload: randomBytes(random, 99), partial: true }), { partial: true })]);
  t.equal(tulleFlags(a.takeSent()[0].datagrams[0], 0), FLAG_PARTIAL_CHECKSUM);
});

t.test('neighbours of one size to one peer are a train; a shorter one ends it; another peer breaks it', async t => {
  const [a] = pair();
  a.table.update([peerOfNode(3)], []);
  const to3 = udpPacket({ source: '10.42.1.2', destination: '10.42.3.9', payload: randomBytes(random, 64) });
  a.read([64, 64, 64, 10, 64, 64].map(size => tunRead(packetOf(size))));
  t.same(
    a.takeSent().map(train => train.datagrams.length),
    [4, 2],
  );
  a.read([tunRead(packetOf(64)), tunRead(to3), tunRead(packetOf(64)), tunRead(packetOf(1400))]);
  t.same(
    a.takeSent().map(train => train.datagrams.length),
    [1, 1, 1, 1],
  );
  a.slab.control[CONTROL_TRAINS_OFF] = 1;
  a.read([64, 64, 64].map(size => tunRead(packetOf(size))));
  t.same(
    a.takeSent().map(train => train.datagrams.length),
    [1, 1, 1],
    'no trains where they are off',
  );
});

t.test('small neighbours of unequal size to one peer are a bundle, as many as fit', async t => {
  const [a, b] = pair();
  const sizes = [100, 200, 300, 1000, 1001];
  const packets = sizes.map(size => packetOf(size));
  a.read(packets.map(packet => tunRead(packet)));
  const trains = a.takeSent();
  t.same(
    trains.map(({ datagrams }) => datagrams.map(datagram => [tulleKind(datagram, 0), tulleIndex(datagram, 0)])),
    [[[KIND_BUNDLE, 3]], [[KIND_PACKET, 0]], [[KIND_PACKET, 0]]],
  );
  t.equal(trains[0].datagrams[0].length, HEADER_BYTES + 3 * 30 + 600);
  b.receive(trains.map(({ datagrams }) => ({ from: { address: '10.88.0.1', port: 8285 }, datagrams })));
  t.same(
    b.takeWritten().map(bytes => bytes.slice(10 + 20)),
    packets.map(packet => packet.slice(20)),
  );
  a.read([
    tunRead(packetOf(50)),
    tunRead(tcpPacket({ ...to2, payload: packets[0], partial: true }), { partial: true }),
  ]);
  t.same(
    a.takeSent().map(({ datagrams }) => tulleKind(datagrams[0], 0)),
    [KIND_PACKET, KIND_PACKET],
    'a bundle has one kind of checksum',
  );
});

t.test('a super-packet becomes even trains of segments that say all that a receiver needs', async t => {
  const [a] = pair();
  const payload = randomBytes(random, 46 * 1408 + 500);
  const options = randomBytes(random, 12);
  a.read([tunRead(tcpPacket({ ...to2, payload, options, partial: true }), { segmentSize: 1408 })]);
  const trains = a.takeSent();
  t.same(
    trains.map(train => train.datagrams.length),
    [24, 23],
    'one UDP_SEGMENT send holds 65,507 bytes',
  );
  const datagrams = trains.flatMap(train => train.datagrams);
  const gathered: number[] = [];
  datagrams.forEach((datagram, i) => {
    const last = i === datagrams.length - 1;
    t.equal(tulleKind(datagram, 0), KIND_SEGMENT);
    t.equal(tulleIndex(datagram, 0), i);
    t.equal(tulleId(datagram, 0), 0);
    t.equal(tulleSegmentSize(datagram, 0), 1408);
    t.equal(tulleFlags(datagram, 0), last ? FLAG_PARTIAL_CHECKSUM | FLAG_LAST_SEGMENT : FLAG_PARTIAL_CHECKSUM);
    t.equal(datagram.length, HEADER_BYTES + 52 + (last ? 500 : 1408));
    gathered.push(...datagram.slice(HEADER_BYTES + 52));
  });
  t.same(Uint8Array.from(gathered), payload);
});

t.test('a refused train turns trains off, and nothing of it is lost', async t => {
  for (const make of ['super-packet', 'run'] as const) {
    const [a] = pair();
    a.refuseMessage = train => (train.datagrams.length > 1 ? constants.errno.EIO : 0);
    const reads =
      make === 'run'
        ? [packetOf(64), packetOf(64), packetOf(20)].map(packet => tunRead(packet))
        : [tunRead(tcpPacket({ ...to2, payload: randomBytes(random, 3000), partial: true }), { segmentSize: 1000 })];
    a.read(reads);
    t.same(
      a.takeSent().map(train => train.datagrams.length),
      [1, 1, 1],
      make,
    );
    t.equal(a.slab.control[CONTROL_TRAINS_OFF], 1);
    t.equal(a.slab.counters[flowIndex('egress-datagrams')], 3);
    t.ok(Object.values(readDrops(a.slab.counters)).every(count => count === 0));
  }
});

t.test('a closed underlay is not taken for a refused train', async t => {
  const [a] = pair();
  a.refuseMessage = () => constants.errno.EINVAL;
  a.read([packetOf(64), packetOf(64)].map(packet => tunRead(packet)));
  t.equal(a.slab.control[CONTROL_TRAINS_OFF], 0);
  t.equal(a.slab.control[CONTROL_UNDERLAY_ERROR], constants.errno.EINVAL);
  t.equal(a.slab.counters[dropIndex('egress-send-failed')], 2);
  a.refuseMessage = () => 0;
  a.read([tunRead(packetOf(64))]);
  t.equal(a.slab.control[CONTROL_UNDERLAY_ERROR], 0, 'and it is open again with the first datagram that leaves');
});

t.test('what cannot be forwarded is counted under its reason', async t => {
  const [a] = pair();
  const good = packetOf(30);
  const spoil = (change: (bytes: Uint8Array) => void): Uint8Array => {
    const bytes = Uint8Array.from(good);
    change(bytes);
    return tunRead(bytes);
  };
  const cases = [
    ['egress-malformed', tunRead(good).slice(0, 9)],
    ['egress-malformed', tunRead(good).slice(0, 20)],
    [
      'egress-malformed',
      spoil(bytes => {
        bytes[0] = 0x4f;
      }),
    ],
    [
      'egress-malformed',
      spoil(bytes => {
        bytes[2] = 0xff;
      }),
    ],
    ['egress-malformed', tunRead(good, { segmentSize: 8 }).fill(7, 1, 2)],
    ['egress-malformed', tunRead(tcpPacket({ ...to2, payload: good }), { segmentSize: 9 }).fill(0, 4, 6)],
    [
      'egress-not-ipv4',
      spoil(bytes => {
        bytes[0] = 0x60;
      }),
    ],
    [
      'egress-outside-network',
      spoil(bytes => {
        bytes[17] = 43;
      }),
    ],
    [
      'egress-no-lease',
      spoil(bytes => {
        bytes[18] = 77;
      }),
    ],
    [
      'egress-own-subnet',
      spoil(bytes => {
        bytes[18] = 1;
      }),
    ],
    [
      'egress-ttl-exceeded',
      spoil(bytes => {
        bytes[8] = 1;
      }),
    ],
  ] as const;
  for (const [reason, read] of cases) {
    const before = a.slab.counters[dropIndex(reason)];
    a.read([read]);
    t.equal(a.slab.counters[dropIndex(reason)], before + 1, reason);
  }
  t.same(a.takeSent(), []);
  for (const [errno, reason] of [
    [constants.errno.EMSGSIZE, 'egress-too-big'],
    [constants.errno.EAGAIN, 'egress-queue-full'],
    [constants.errno.ENETUNREACH, 'egress-send-failed'],
  ] as const) {
    a.refuseMessage = () => errno;
    a.read([tunRead(packetOf(30)), tunRead(packetOf(30))]);
    t.equal(a.slab.counters[dropIndex(reason)], 2, reason);
  }
});
