/**
 * Hostile input to the data path: nothing throws, nothing is delivered that should not be, and every datagram and every
 * packet is accounted for: delivered, or counted under one reason.
 */
import { constants } from 'node:os';
import t from 'tap';
import { readDrops, readFlows } from '../../lib/datapath/counters.ts';
import { CONTROL_COALESCE_OFF, CONTROL_UDP_COALESCE_OFF, FORMAT_BARE, FORMAT_TULLE } from '../../lib/datapath/slab.ts';
import { set16 } from '../../lib/wire/bytes.ts';
import { contains4 } from '../../lib/wire/cidr.ts';
import { isIp6, l4DistanceOf, protocolOf } from '../../lib/wire/either.ts';
import {
  checkIp4,
  ip4Destination,
  ip4Source,
  PROTOCOL_TCP,
  setIp4Checksum,
  verifyIp4Checksum,
} from '../../lib/wire/ip4.ts';
import { checkIp6, formatAddress6 } from '../../lib/wire/ip6.ts';
import { verifyL4Checksum4, verifyL4Checksum6 } from '../../lib/wire/l4.ts';
import {
  emitTulle,
  HEADER_BYTES,
  KIND_PROBE,
  KIND_PROBE_REPLY,
  KIND_TRACED,
  PROBE_BYTES,
  tulleKind,
} from '../../lib/wire/tulle.ts';
import {
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_HEADER_BYTES,
  vnetGsoSize,
  vnetGsoType,
} from '../../lib/wire/vnet.ts';
import { cidr, NETWORK, pair, type Received, type TestNode } from '../support/node.ts';
import { tcpPacket, tunRead, udpPacket } from '../support/packets.ts';
import { below, pick, prng, randomBytes, testSeed } from '../support/prng.ts';

const ROUNDS = 4_000;
type Random = () => number;

const total = (counts: Record<string, number>, prefix: string): number =>
  Object.entries(counts).reduce((sum, [name, count]) => (name.startsWith(prefix) ? sum + count : sum), 0);

/** A read that is whole, of either version of IP. */
function someRead(next: Random): Uint8Array {
  const six = below(next, 3) === 0;
  const source = six
    ? pick(next, ['fd00:42:0:1::2', '2001:db8::1', 'fe80::1', '::'])
    : pick(next, ['10.42.1.2', '192.0.2.1', '224.0.0.1']);
  const destination = six
    ? pick(next, ['fd00:42:0:2::2', 'fd00:42:0:9::9', 'fd00:42:0:1::9', '2001:db8::9', 'ff02::1', 'fe80::9'])
    : pick(next, ['10.42.2.2', '10.42.2.255', '10.42.9.9', '10.42.1.9', '8.8.8.8', '255.255.255.255']);
  const payload = randomBytes(next, below(next, pick(next, [10, 2_000, 60_000])));
  const make = pick(next, [tcpPacket, udpPacket]);
  const options = make === tcpPacket ? randomBytes(next, 4 * below(next, 11)) : undefined;
  const packet = make({
    source,
    destination,
    payload,
    ttl: below(next, 4),
    partial: true,
    extension: below(next, 4) === 0,
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
    const [a] = pair(format, true);
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
    t.ok(a.replies.length > 0 && a.replies.length === flows['icmp-sent'], 'some senders were told');
    t.ok(a.replies.every(isReport), 'what was told is sound');
  }
});

/** Whether a write is an ICMP error to somebody who may get one: whole, with right checksums, not longer than it may be. */
function isReport(written: Uint8Array): boolean {
  const packet = written.slice(VNET_HEADER_BYTES);
  if (written.slice(0, VNET_HEADER_BYTES).some(byte => byte !== 0)) return false;
  if (isIp6(packet, 0)) {
    if (checkIp6(packet, 0, packet.length) !== 0 || packet.length > 1280 || !verifyL4Checksum6(packet, 0)) return false;
    return packet[6] === 58 && packet[40] < 128 && packet[24] !== 0xff;
  }
  if (checkIp4(packet, 0, packet.length) !== 0 || packet.length > 576 || !verifyL4Checksum4(packet, 0)) return false;
  return verifyIp4Checksum(packet, 0) && packet[9] === 1 && [3, 11].includes(packet[20]) && packet[16] < 224;
}

t.test('an underlay that is narrow now and wide again later', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  for (const format of [FORMAT_TULLE, FORMAT_BARE]) {
    const [a] = pair(format, true);
    let width = 65_507;
    let [sent, refused] = [0, 0];
    a.refuseMessage = train => {
      const fits = train.datagrams.every(datagram => datagram.length <= width);
      if (fits) sent += train.datagrams.length;
      else refused++;
      return fits ? 0 : constants.errno.EMSGSIZE;
    };
    for (let round = 0; round < ROUNDS / 4; round++) {
      if (below(next, 10) === 0) {
        a.pathMtu = pick(next, [0, 68, 600, 1_000, 1_400, 1_500, 9_000]);
        width = Math.max(548, a.pathMtu - 28);
        a.now += pick(next, [1, 100, 700_000]);
      }
      a.read(
        Array.from({ length: 1 + below(next, 16) }, () => {
          const read = someRead(next);
          if (below(next, 2) === 0 && read[10] === 0x45) {
            set16(read, 16, 0); // without DF
            setIp4Checksum(read, 10);
          }
          return below(next, 4) === 0 ? spoil(next, read) : read;
        }),
      );
      if (a.takeSent().some(train => train.datagrams.some(datagram => datagram.length > width))) t.fail('too long');
      if (!a.takeReplies().every(isReport)) t.fail('an unsound report');
    }
    const flows = readFlows(a.slab.counters);
    t.equal(flows['egress-datagrams'], sent, 'every datagram that left is counted');
    t.ok(refused > 0 && readDrops(a.slab.counters)['egress-too-big'] > 0);
    t.ok(flows['egress-fragments'] > 0, 'some left in fragments');
  }
});

/** What carries no packet, or one that is traced. */
function someAside(next: Random): Uint8Array {
  const kind = KIND_PROBE + below(next, 4);
  const packet = udpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: randomBytes(next, 30) });
  const content = kind === KIND_TRACED ? packet : randomBytes(next, 8 + below(next, 1_500));
  const datagram = new Uint8Array(HEADER_BYTES + content.length);
  emitTulle(datagram, 0, kind, below(next, 2), kind === KIND_TRACED ? next() & 0xffff : 0, 101, next() & 0xffff, 1);
  datagram.set(content, HEADER_BYTES);
  return datagram;
}

/** A datagram as node 1 sends it, made by its own egress. */
function someTrain(next: Random, a: TestNode): Received[] {
  const to2 = { source: '10.42.1.2', destination: '10.42.2.2' };
  if (below(next, 6) === 0) return [{ from: { address: '10.88.0.1', port: 8285 }, datagrams: [someAside(next)] }];
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
    const [a, b] = pair(format, true);
    let received = 0;
    let delivered = 0;
    let delivered6 = 0;
    let mails = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const trains = below(next, 5) === 0 ? [{ datagrams: [randomBytes(next, below(next, 100))] }] : someTrain(next, a);
      // Some kernels refuse some coalesced writes, so that their segments are written one by one.
      const refuses = below(next, 4) === 0;
      b.refusePacket = bytes =>
        refuses && vnetGsoType(bytes, 0) !== VNET_GSO_NONE && below(next, 2) === 0 ? constants.errno.EINVAL : 0;
      b.slab.control[CONTROL_COALESCE_OFF] = 0;
      b.slab.control[CONTROL_UDP_COALESCE_OFF] = 0;
      const damaged = trains.flatMap(train => {
        if (below(next, 2) === 0) return [train];
        const victim = below(next, train.datagrams.length);
        train.datagrams[victim] = spoil(next, train.datagrams[victim]);
        // A receiver cuts by the stride, so a train whose datagrams differ in length is one that it never sees.
        if (train.datagrams.length === 1) return [train];
        const first = below(next, 2) === 0 ? 0 : victim;
        return train.datagrams
          .slice(first, victim + 1)
          .map((datagram): Received => ({ ...train, datagrams: [datagram] }));
      });
      for (const train of damaged) {
        if (below(next, 8) === 0)
          train.from = { address: pick(next, ['10.88.0.3', '10.88.0.1']), port: 8280 + below(next, 8) };
        received += train.datagrams.length;
      }
      b.receive(damaged);
      // Nobody is asked for more than he listens to, and nobody gets more than he sent.
      b.now += pick(next, [0, 0, 50, 2_000]);
      const answers = b.takeSent().flatMap(train => train.datagrams);
      if (answers.some(answer => answer.length !== PROBE_BYTES || tulleKind(answer, 0) !== KIND_PROBE_REPLY))
        t.fail('no reply');
      if (answers.length > damaged.length) t.fail('more answers than datagrams');
      if (below(next, 20) === 0) mails += b.link.take().length;
      for (const written of b.takeWritten()) {
        delivered += segmentsOf(written);
        const ip = VNET_HEADER_BYTES;
        const checksumStart = written[6] | (written[7] << 8);
        if ((written[0] & 1) === 1 && checksumStart !== l4DistanceOf(written, ip)) t.fail('a vnet header that lies');
        const isTcp = protocolOf(written, ip) === PROTOCOL_TCP;
        if ([VNET_GSO_TCPV4, VNET_GSO_TCPV6].includes(vnetGsoType(written, 0) & 0x7f) && !isTcp)
          t.fail('a super-packet of another protocol');
        if (isIp6(written, ip)) {
          if (checkIp6(written, ip, written.length - ip) !== 0) t.fail('wrote what is no packet');
          const [from, to] = [formatAddress6(written, ip + 8), formatAddress6(written, ip + 24)];
          if (/^(fe[89ab]|ff|::1?$)/.test(from) || /^(fe[89ab]|ff|::1?$)/.test(to))
            t.fail(`delivered ${from} to ${to}`);
          if (from.startsWith('fd00:42:0:') && !from.startsWith('fd00:42:0:1:')) t.fail('delivered a spoofed source');
          if (to.startsWith('fd00:42:0:') && !to.startsWith('fd00:42:0:2:')) t.fail('delivered what is not ours');
          delivered6++;
          continue;
        }
        if (checkIp4(written, ip, written.length - ip) !== 0) t.fail('wrote what is no packet');
        const [source, destination] = [ip4Source(written, ip), ip4Destination(written, ip)];
        if (contains4(NETWORK.network, source) && !contains4(sender, source)) t.fail('delivered a spoofed source');
        if (contains4(NETWORK.network, destination) && !contains4(own, destination))
          t.fail('delivered what is not ours');
      }
    }
    const flows = readFlows(b.slab.counters);
    const packets = received + flows['ingress-bundled'];
    const aside = flows['side-received'];
    t.equal(
      delivered + aside + total(readDrops(b.slab.counters), 'ingress-'),
      packets,
      'every datagram is accounted for',
    );
    t.equal(aside > 0 && mails > 0, format === FORMAT_TULLE, 'some were no packets');
    t.equal(flows['ingress-datagrams'], received);
    t.ok(delivered > 0, 'some were delivered');
    t.equal(delivered6 > 0, format === FORMAT_TULLE, 'IPv6 in our format alone');
    t.equal(flows['ingress-bundled'] > 0, format === FORMAT_TULLE, 'some of them in bundles');
  }
});
