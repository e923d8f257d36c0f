/**
 * Hostile input to the data path: nothing throws, nothing is delivered that should not be, and every datagram and every
 * packet is accounted for: delivered, or counted under one reason.
 */
import t from 'tap';
import { readDrops, readFlows } from '../../lib/datapath/counters.ts';
import { FORMAT_BARE, FORMAT_TULLE } from '../../lib/datapath/slab.ts';
import { contains4 } from '../../lib/wire/cidr.ts';
import { checkIp4, ip4Destination, ip4HeaderLength, ip4Protocol, ip4Source, PROTOCOL_TCP } from '../../lib/wire/ip4.ts';
import { VNET_GSO_NONE, VNET_HEADER_BYTES, vnetGsoSize, vnetGsoType } from '../../lib/wire/vnet.ts';
import { cidr, NETWORK, pair, type Received, type TestNode } from '../support/node.ts';
import { tcpPacket, tunRead, udpPacket } from '../support/packets.ts';
import { below, pick, prng, randomBytes, testSeed } from '../support/prng.ts';

const ROUNDS = 4_000;
type Random = () => number;

const total = (counts: Record<string, number>, prefix: string): number =>
  Object.entries(counts).reduce((sum, [name, count]) => (name.startsWith(prefix) ? sum + count : sum), 0);

/** A read that is whole, or whole once and then spoilt. */
function someRead(next: Random): Uint8Array {
  const source = pick(next, ['10.42.1.2', '192.0.2.1']);
  const destination = pick(next, ['10.42.2.2', '10.42.2.255', '10.42.9.9', '10.42.1.9', '8.8.8.8', '255.255.255.255']);
  const payload = randomBytes(next, below(next, pick(next, [10, 2_000, 60_000])));
  const make = pick(next, [tcpPacket, udpPacket]);
  const options = make === tcpPacket ? randomBytes(next, 4 * below(next, 11)) : undefined;
  const packet = make({
    source,
    destination,
    payload,
    ttl: below(next, 4),
    partial: true,
    ...(options && { options }),
  });
  const segmentSize = pick(next, [0, 0, 1, 8, 500, 1_408, 65_535]);
  return tunRead(packet, { segmentSize, partial: segmentSize > 0 || below(next, 2) === 0 });
}

function spoil(next: Random, bytes: Uint8Array): Uint8Array {
  const spoilt = bytes.slice(0, below(next, 3) === 0 ? below(next, bytes.length + 1) : bytes.length);
  // The first 60 bytes are where the headers are.
  for (let i = below(next, 4); i > 0 && spoilt.length > 0; i--)
    spoilt[below(next, Math.min(60, spoilt.length))] = next();
  return spoilt;
}

/** Datagrams that a packet in the TUN came from. */
const segmentsOf = (written: Uint8Array): number => {
  if (vnetGsoType(written, 0) === VNET_GSO_NONE) return 1;
  const headers = written[2] | (written[3] << 8);
  return Math.ceil((written.length - VNET_HEADER_BYTES - headers) / vnetGsoSize(written, 0));
};

t.test('hostile reads from the TUN', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  for (const format of [FORMAT_TULLE, FORMAT_BARE]) {
    const [a] = pair(format);
    let reads = 0;
    let datagrams = 0;
    for (let round = 0; round < ROUNDS / 4; round++) {
      const batch = Array.from({ length: 1 + below(next, 16) }, () => {
        const read = someRead(next);
        return below(next, 2) === 0 ? read : spoil(next, read);
      });
      reads += batch.length;
      a.read(batch);
      for (const train of a.takeSent()) {
        datagrams += train.datagrams.length;
        if ([...train.to.slice(4)].join('.') !== '10.88.0.2') t.fail('a datagram to nobody’s endpoint');
        const sizes = train.datagrams.map(datagram => datagram.length);
        if (sizes.some((size, i) => (i < sizes.length - 1 ? size !== sizes[0] : size > sizes[0])))
          t.fail(`uneven train: ${sizes}`);
        if (sizes.length > 64 || sizes.reduce((sum, size) => sum + size, 0) > 65_507)
          t.fail(`too large a train: ${sizes}`);
      }
    }
    const flows = readFlows(a.slab.counters);
    t.equal(
      flows['egress-packets'] + total(readDrops(a.slab.counters), 'egress-'),
      reads,
      'every packet is accounted for',
    );
    t.equal(flows['egress-datagrams'], datagrams);
    t.ok(flows['egress-packets'] > 0, 'some were forwarded');
  }
});

/** A datagram as node 1 sends it, made by its own egress. */
function someTrain(next: Random, a: TestNode): Received[] {
  const to2 = { source: '10.42.1.2', destination: '10.42.2.2' };
  const growing = [10, 20, 30].map(size => tunRead(udpPacket({ ...to2, payload: randomBytes(next, size) })));
  a.read(below(next, 4) === 0 ? growing : Array.from({ length: 1 + below(next, 4) }, () => someRead(next)));
  return a.takeSent().map(({ datagrams }) => ({ from: { address: '10.88.0.1', port: 8285 }, datagrams }));
}

t.test('hostile datagrams from the underlay', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const own = cidr('10.42.2.0/24');
  const sender = cidr('10.42.1.0/24');
  for (const format of [FORMAT_TULLE, FORMAT_BARE]) {
    const [a, b] = pair(format);
    let received = 0;
    let delivered = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const trains = below(next, 5) === 0 ? [{ datagrams: [randomBytes(next, below(next, 100))] }] : someTrain(next, a);
      for (const train of trains) {
        if (below(next, 2) === 0) {
          const victim = below(next, train.datagrams.length);
          train.datagrams[victim] = spoil(next, train.datagrams[victim]);
          // A receiver cuts by the stride, so a train whose datagrams differ in length is one that it never sees.
          if (train.datagrams.length > 1) train.datagrams = [train.datagrams[victim]];
        }
        if (below(next, 8) === 0)
          train.from = { address: pick(next, ['10.88.0.3', '10.88.0.1']), port: 8280 + below(next, 8) };
        received += train.datagrams.length;
      }
      b.receive(trains);
      for (const written of b.takeWritten()) {
        delivered += segmentsOf(written);
        const ip = VNET_HEADER_BYTES;
        if (checkIp4(written, ip, written.length - ip) !== 0) t.fail('wrote what is no packet');
        const [source, destination] = [ip4Source(written, ip), ip4Destination(written, ip)];
        if (contains4(NETWORK.network, source) && !contains4(sender, source)) t.fail('delivered a spoofed source');
        if (contains4(NETWORK.network, destination) && !contains4(own, destination))
          t.fail('delivered what is not ours');
        const checksumStart = written[6] | (written[7] << 8);
        if ((written[0] & 1) === 1 && checksumStart !== ip4HeaderLength(written, ip)) t.fail('a vnet header that lies');
        if (vnetGsoType(written, 0) === 1 && ip4Protocol(written, ip) !== PROTOCOL_TCP)
          t.fail('a super-packet of another protocol');
      }
    }
    const flows = readFlows(b.slab.counters);
    const packets = received + flows['ingress-bundled'];
    t.equal(delivered + total(readDrops(b.slab.counters), 'ingress-'), packets, 'every datagram is accounted for');
    t.equal(flows['ingress-datagrams'], received);
    t.ok(delivered > 0, 'some were delivered');
    t.equal(flows['ingress-bundled'] > 0, format === FORMAT_TULLE, 'some of them in bundles');
  }
});
