/** Egress and ingress with IPv6 inside, over endpoints of either version. */
import { constants } from 'node:os';
import t from 'tap';
import { dropIndex, flowIndex, readDrops } from '../../lib/datapath/counters.ts';
import { CONTROL_COALESCE_OFF } from '../../lib/datapath/slab.ts';
import { IP6_HEADER_BYTES, ip6HopLimit } from '../../lib/wire/ip6.ts';
import { verifyL4Checksum6 } from '../../lib/wire/l4.ts';
import { TCP_ACK, TCP_CWR, TCP_PSH, tcpSequence } from '../../lib/wire/tcp.ts';
import {
  FLAG_PARTIAL_CHECKSUM,
  HEADER_BYTES,
  KIND_BUNDLE,
  KIND_SEGMENT,
  tulleFlags,
  tulleKind,
} from '../../lib/wire/tulle.ts';
import { VNET_GSO_NONE, VNET_GSO_TCPV6, VNET_GSO_UDP_L4, VNET_HEADER_BYTES, vnetGsoType } from '../../lib/wire/vnet.ts';
import { packetsOf } from '../support/kernel.ts';
import { pair, peerOfNode, subnet6Of, type TestNode } from '../support/node.ts';
import { address6, type PacketOptions, tcpPacket, tunRead, udpPacket } from '../support/packets.ts';
import { below, prng, randomBytes, testSeed } from '../support/prng.ts';

const random = prng(5);
const from1 = { source: 'fd00:42:0:1::2', destination: 'fd00:42:0:2::2' };
const endpoint1 = { address: '10.88.0.1', port: 8285 };
const six = (): [TestNode, TestNode] => pair(undefined, true);
const cross = (a: TestNode, b: TestNode): void =>
  b.receive(a.takeSent().map(({ datagrams }) => ({ from: endpoint1, datagrams })));
const udp = (size: number, more: Partial<PacketOptions> = {}): Uint8Array =>
  udpPacket({ ...from1, payload: randomBytes(random, size), ...more });

t.test('a packet crosses, one hop older', async t => {
  for (const extension of [false, true]) {
    const [a, b] = six();
    const packet = udp(100, { extension });
    a.read([tunRead(packet)]);
    cross(a, b);
    const [got] = b.takeWritten().flatMap(packetsOf);
    t.equal(ip6HopLimit(got, 0), 63);
    got[7]++;
    t.same(got, packet, extension ? 'with an extension header' : 'plain');
  }
});

t.test('a partial checksum travels as such, behind an extension header too; elsewhere it is finished', async t => {
  for (const extension of [false, true]) {
    const [a, b] = six();
    a.read([tunRead(udp(99, { partial: true, extension }), { partial: true })]);
    const [train] = a.takeSent();
    t.equal(tulleFlags(train.datagrams[0], 0), FLAG_PARTIAL_CHECKSUM);
    b.receive([{ from: endpoint1, datagrams: train.datagrams }]);
    const [got] = b.takeWritten().flatMap(packetsOf);
    t.ok(verifyL4Checksum6(got, 0));
  }
});

t.test('a super-packet comes out as it went in, but for its hop limit', async t => {
  for (const make of ['tcp', 'udp'] as const) {
    for (const extension of [false, true]) {
      const [a, b] = six();
      const options = { ...from1, payload: randomBytes(random, 47_300), partial: true, extension };
      const flags = TCP_ACK | TCP_PSH | TCP_CWR;
      const read = tunRead(make === 'tcp' ? tcpPacket({ ...options, flags }) : udpPacket(options), {
        segmentSize: 1000,
      });
      a.read([read]);
      const sent = a.takeSent();
      t.ok(sent.every(train => train.datagrams.every(datagram => tulleKind(datagram, 0) === KIND_SEGMENT)));
      b.receive(sent.map(({ datagrams }) => ({ from: endpoint1, datagrams })));
      const [written, ...rest] = b.takeWritten();
      t.same(rest, []);
      t.equal(vnetGsoType(written, 0) & 0x7f, make === 'tcp' ? VNET_GSO_TCPV6 : VNET_GSO_UDP_L4);
      written[VNET_HEADER_BYTES + 7]++;
      t.same(written.slice(VNET_HEADER_BYTES), read.slice(VNET_HEADER_BYTES), make);
    }
  }
});

t.test('a refused coalesced write: every segment arrives', async t => {
  const [a, b] = six();
  b.refusePacket = bytes => (vnetGsoType(bytes, 0) === VNET_GSO_NONE ? 0 : constants.errno.EINVAL);
  const payload = randomBytes(random, 4500);
  for (const round of ['refused', 'off from the start']) {
    a.read([tunRead(tcpPacket({ ...from1, payload, sequence: 5, partial: true }), { segmentSize: 1000 })]);
    cross(a, b);
    const packets = b.takeWritten().flatMap(packetsOf);
    t.same(
      packets.map(packet => tcpSequence(packet, IP6_HEADER_BYTES)),
      [5, 1005, 2005, 3005, 4005],
      round,
    );
    t.ok(packets.every(packet => verifyL4Checksum6(packet, 0)));
    t.same(Uint8Array.from(packets.flatMap(packet => [...packet.slice(60)])), payload);
    t.equal(b.slab.control[CONTROL_COALESCE_OFF], 1);
  }
});

t.test('neighbours of a flow become one write; a version, a label or an address apart do not', async t => {
  const [a, b] = six();
  a.read([64, 64, 64, 10].map(size => tunRead(udp(size))));
  cross(a, b);
  t.equal(b.takeWritten().length, 1);
  const four = { source: '10.42.1.2', destination: '10.42.2.2' };
  const others: Partial<PacketOptions>[] = [{ id: 2 }, { tos: 4 }, { ttl: 9 }, { destination: 'fd00:42:0:2::3' }, four];
  for (const other of others) {
    a.read([tunRead(udp(64)), tunRead(udp(64, other))]);
    cross(a, b);
    t.equal(b.takeWritten().length, 2, JSON.stringify(other));
  }
  const segment = (i: number): Uint8Array =>
    tcpPacket({ ...from1, payload: randomBytes(random, 500), sequence: 500 * i, flags: TCP_ACK });
  const segments = [segment(0), segment(1), segment(2)];
  a.read(segments.map(packet => tunRead(packet)));
  cross(a, b);
  const [run, ...rest] = b.takeWritten();
  t.same(rest, []);
  t.equal(vnetGsoType(run, 0), VNET_GSO_TCPV6);
  t.same(
    packetsOf(run).map(packet => [...packet.slice(40)]),
    segments.map(packet => [...packet.slice(40)]),
  );
  const damaged = segment(1);
  damaged[70] ^= 1;
  a.read([segment(0), damaged].map(packet => tunRead(packet)));
  cross(a, b);
  t.equal(b.takeWritten().length, 2, 'a damaged one is never made good');
});

t.test('both versions share a bundle', async t => {
  const [a, b] = six();
  const four = udpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: randomBytes(random, 30) });
  a.read([tunRead(four), tunRead(udp(90))]);
  const [train] = a.takeSent();
  t.equal(tulleKind(train.datagrams[0], 0), KIND_BUNDLE);
  b.receive([{ from: endpoint1, datagrams: train.datagrams }]);
  t.equal(b.takeWritten().length, 2);
});

t.test('what cannot be forwarded is counted under its reason', async t => {
  const [a] = six();
  const cases: [Parameters<typeof dropIndex>[0], Partial<PacketOptions>][] = [
    ['egress-link-local', { destination: 'ff02::2' }],
    ['egress-link-local', { destination: 'fe80::1' }],
    ['egress-link-local', { source: 'fe80::1' }],
    ['egress-link-local', { source: '::' }],
    ['egress-link-local', { destination: '::1' }],
    ['egress-outside-network', { destination: '2001:db8::1' }],
    ['egress-outside-network', { destination: 'fd00:43::1' }],
    ['egress-no-lease', { destination: 'fd00:42:0:77::1' }],
    ['egress-no-lease', { destination: 'fd00:42:0:ffff::1' }],
    ['egress-own-subnet', { destination: 'fd00:42:0:1::9' }],
    ['egress-ttl-exceeded', { ttl: 1 }],
  ];
  for (const [reason, options] of cases) {
    const before = a.slab.counters[dropIndex(reason)];
    a.read([tunRead(udp(30, options))]);
    t.equal(a.slab.counters[dropIndex(reason)], before + 1, `${reason} ${JSON.stringify(options)}`);
  }
  a.read([tunRead(udp(30)).slice(0, 60)]);
  t.equal(a.slab.counters[dropIndex('egress-malformed')], 1);
  t.same(a.takeSent(), []);
  const [four] = pair();
  four.read([tunRead(udp(30))]);
  t.equal(four.slab.counters[dropIndex('egress-not-ipv4')], 1, 'in a network of IPv4 alone');
});

t.test('only what its sender may send is delivered', async t => {
  const [a, b] = six();
  a.read([tunRead(udp(40))]);
  const [good] = a.takeSent()[0].datagrams;
  a.read([tunRead(tcpPacket({ ...from1, payload: randomBytes(random, 1900), partial: true }), { segmentSize: 1000 })]);
  const [segment] = a.takeSent()[0].datagrams;
  const withAddress = (datagram: Uint8Array, at: number, text: string): Uint8Array => {
    const bytes = Uint8Array.from(datagram);
    bytes.set(address6(text), HEADER_BYTES + at);
    return bytes;
  };
  const cases: [Parameters<typeof dropIndex>[0], Uint8Array][] = [
    ['ingress-spoofed-source', withAddress(good, 8, 'fd00:42:0:9::2')],
    ['ingress-spoofed-source', withAddress(good, 8, 'fd00:42:0:2::2')],
    ['ingress-spoofed-source', withAddress(segment, 8, 'fd00:42:0:9::2')],
    ['ingress-spoofed-source', withAddress(good, 8, 'fe80::1')],
    ['ingress-spoofed-source', withAddress(good, 8, '::')],
    ['ingress-not-ours', withAddress(good, 24, 'fd00:42:0:9::2')],
    ['ingress-not-ours', withAddress(good, 24, 'ff02::1')],
    ['ingress-not-ours', withAddress(good, 24, 'fe80::1')],
    ['ingress-malformed', good.slice(0, 60)],
    ['ingress-malformed', segment.slice(0, -1)],
  ];
  for (const [reason, datagram] of cases) {
    const before = b.slab.counters[dropIndex(reason)];
    b.receive([{ from: endpoint1, datagrams: [datagram] }]);
    t.equal(b.slab.counters[dropIndex(reason)], before + 1, reason);
    t.same(b.takeWritten(), [], reason);
  }
  b.receive([{ from: endpoint1, datagrams: [withAddress(good, 8, '2001:db8::7')] }]);
  t.equal(b.takeWritten().length, 1, 'a source outside the pod network is nobody’s subnet');
  const [, four] = pair();
  for (const datagram of [good, segment]) {
    const bytes = Uint8Array.from(datagram);
    four.receive([{ from: endpoint1, datagrams: [bytes] }]);
  }
  t.equal(four.slab.counters[dropIndex('ingress-not-ipv4')], 2, 'in a network of IPv4 alone');
});

t.test('endpoints of IPv6', async t => {
  const [a, b] = six();
  const at = (k: number) => ({ address: address6(`2001:db8::${k}`), subnet6: subnet6Of(k) });
  a.table.update([{ ...peerOfNode(2), ...at(2) }], []);
  b.table.update([{ ...peerOfNode(1), ...at(1) }], []);
  a.read([tunRead(udp(40))]);
  const [train] = a.takeSent();
  t.same([...train.to.slice(0, 4)], [10, 0, 8285 >> 8, 8285 & 255], 'a sockaddr_in6');
  const from = { address: '2001:db8::1', port: 8285 };
  b.receive([{ from, datagrams: train.datagrams }]);
  t.equal(b.takeWritten().length, 1);
  b.receive([{ from: { ...from, address: '2001:db8:1::1' }, datagrams: train.datagrams }]);
  b.receive([{ from: { ...from, port: 8286 }, datagrams: train.datagrams }]);
  b.receive([{ from: endpoint1, datagrams: train.datagrams }]);
  t.equal(b.slab.counters[dropIndex('ingress-unknown-sender')], 3);
});

t.test('whatever the underlay does, what is delivered is what was sent', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const [a, b] = six();
  const stream = randomBytes(next, 200_000);
  for (let at = 0; at < stream.length; ) {
    const payload = stream.subarray(at, at + 1 + below(next, 9_000));
    const size = 200 + below(next, 1200);
    const packet = tcpPacket({ ...from1, payload, sequence: at, partial: true });
    a.read([payload.length > size ? tunRead(packet, { segmentSize: size }) : tunRead(packet, { partial: true })]);
    at += payload.length;
  }
  const datagrams = a.takeSent().flatMap(train => train.datagrams);
  const kept = datagrams.flatMap(datagram =>
    below(next, 40) === 0 ? [] : below(next, 40) === 0 ? [datagram, datagram] : [datagram],
  );
  b.receive(kept.map(datagram => ({ from: endpoint1, datagrams: [datagram] })));
  const delivered = new Set<number>();
  for (const packet of b.takeWritten().flatMap(packetsOf)) {
    const sequence = tcpSequence(packet, IP6_HEADER_BYTES);
    const payload = packet.slice(60);
    if (!verifyL4Checksum6(packet, 0) || !payload.every((byte, i) => byte === stream[sequence + i])) {
      t.fail(`bytes differ at ${sequence}`);
      return;
    }
    for (let i = 0; i < payload.length; i++) delivered.add(sequence + i);
  }
  t.ok(delivered.size > 0.9 * stream.length && delivered.size < stream.length);
  t.ok(b.slab.counters[flowIndex('ingress-super-packets')] > 0);
  t.ok(Object.values(readDrops(b.slab.counters)).every(count => count === 0));
});
