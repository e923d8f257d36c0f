import { constants } from 'node:os';
import t from 'tap';
import { readDrops, readFlows } from '../../lib/datapath/counters.ts';
import { replySource4, replySource6 } from '../../lib/datapath/icmp-reply.ts';
import { CONTROL_TRAINS_OFF, FORMAT_BARE } from '../../lib/datapath/slab.ts';
import { set16 } from '../../lib/wire/bytes.ts';
import { icmpCode, icmpMtu, icmpType } from '../../lib/wire/icmp.ts';
import {
  checkIp4,
  ip4Destination,
  ip4FragmentOffset,
  ip4MoreFragments,
  ip4Source,
  ip4TotalLength,
  ip4Ttl,
  setIp4Checksum,
  verifyIp4Checksum,
} from '../../lib/wire/ip4.ts';
import { checkIp6, formatAddress6, HEADER_DESTINATION_OPTIONS } from '../../lib/wire/ip6.ts';
import { verifyL4Checksum4, verifyL4Checksum6 } from '../../lib/wire/l4.ts';
import { HEADER_BYTES, KIND_PACKET, tulleKind } from '../../lib/wire/tulle.ts';
import { VNET_HEADER_BYTES } from '../../lib/wire/vnet.ts';
import { BOTH, cidr, pair, subnet6Of, type TestNode } from '../support/node.ts';
import { address, type PacketOptions, tcpPacket, tunRead, udpPacket } from '../support/packets.ts';
import { prng, randomBytes } from '../support/prng.ts';

const random = prng(6);
const to2 = { source: '10.42.1.2', destination: '10.42.2.2' };
const to2six = { source: 'fd00:42:0:1::2', destination: 'fd00:42:0:2::2' };
const udp = (size: number, more: Partial<PacketOptions> = {}): Uint8Array =>
  udpPacket({ ...to2, payload: randomBytes(random, size), ...more });
const six = (): TestNode => pair(undefined, true)[0];

interface Told {
  type: number;
  code: number;
  mtu: number;
  packet: Uint8Array;
  quoted: Uint8Array;
}

/** The reports that a node wrote, each a whole packet with right checksums. */
function told(t: { ok(value: unknown, message: string): unknown }, node: TestNode): Told[] {
  return node.takeReplies().map(reply => {
    const packet = reply.slice(VNET_HEADER_BYTES);
    const four = packet[0] >>> 4 === 4;
    t.ok(
      reply.slice(0, VNET_HEADER_BYTES).every(byte => byte === 0),
      'nothing is left undone',
    );
    if (four) t.ok(checkIp4(packet, 0, packet.length) === 0 && verifyIp4Checksum(packet, 0), 'a sound header');
    else t.ok(checkIp6(packet, 0, packet.length) === 0, 'a sound header');
    t.ok(four ? verifyL4Checksum4(packet, 0) : verifyL4Checksum6(packet, 0), 'a right checksum');
    const at = four ? 20 : 40;
    const quoted = packet.slice(at + 8);
    return { type: icmpType(packet, at), code: icmpCode(packet, at), mtu: icmpMtu(packet, at), packet, quoted };
  });
}

t.test('where a report comes from: of the pod network, and not of our own subnet', async t => {
  const own = { subnet: cidr('10.42.1.0/24'), subnet6: subnet6Of(1) };
  t.equal(replySource4(BOTH, own), address('10.42.0.0'));
  t.equal(replySource4(BOTH, { subnet: cidr('10.42.0.0/24') }), address('10.42.255.255'));
  t.equal(formatAddress6(replySource6(BOTH, own)!), 'fd00:42::');
  t.equal(formatAddress6(replySource6(BOTH, { ...own, subnet6: subnet6Of(0) })!), 'fd00:42:0:ffff:ffff:ffff:ffff:ffff');
});

t.test('each reason has its message, which quotes the packet as it came', async t => {
  const cases: [Partial<PacketOptions>, number, number][] = [
    [{ destination: '10.42.77.1' }, 3, 0],
    [{ destination: '10.42.1.9' }, 3, 1],
    [{ ttl: 1 }, 11, 0],
  ];
  for (const [options, type, code] of cases) {
    const [a] = pair();
    const packet = udp(100, options);
    a.read([tunRead(packet)]);
    const [report, ...rest] = told(t, a);
    t.same(rest, []);
    t.same([report.type, report.code], [type, code]);
    t.equal(ip4Source(report.packet, 0), address('10.42.0.0'));
    t.equal(ip4Destination(report.packet, 0), address('10.42.1.2'));
    t.same(report.quoted, packet);
    t.equal(readFlows(a.slab.counters)['icmp-sent'], 1);
  }
  const cases6: [Partial<PacketOptions>, number, number][] = [
    [{ destination: 'fd00:42:0:77::1' }, 1, 0],
    [{ destination: 'fd00:42:0:1::9' }, 1, 3],
    [{ ttl: 1 }, 3, 0],
  ];
  for (const [options, type, code] of cases6) {
    const a = six();
    const packet = udp(100, { ...to2six, ...options });
    a.read([tunRead(packet)]);
    const [report] = told(t, a);
    t.same([report.type, report.code], [type, code]);
    t.same(report.quoted, packet);
  }
});

t.test('a report is short, and a super-packet is quoted as its first segment', async t => {
  const [a] = pair();
  a.read([tunRead(udp(1400, { ttl: 1 }))]);
  t.equal(told(t, a)[0].packet.length, 576);
  const options = { ...to2, destination: '10.42.77.1', sequence: 9, partial: true };
  a.read([tunRead(tcpPacket({ ...options, payload: randomBytes(random, 30_000) }), { segmentSize: 1000 })]);
  const [{ quoted, packet }] = told(t, a);
  t.equal(packet.length, 576);
  t.equal(ip4TotalLength(quoted, 0), 1040);
  t.ok(verifyIp4Checksum(quoted, 0));

  const b = six();
  b.read([
    tunRead(tcpPacket({ ...to2six, ttl: 1, partial: true, payload: randomBytes(random, 30_000) }), {
      segmentSize: 1400,
    }),
  ]);
  const [report] = told(t, b);
  t.equal(report.packet.length, 1280);
  t.equal((report.quoted[4] << 8) | report.quoted[5], 1420);
});

t.test('of extension headers longer than a report nothing is written beside the quotation', async t => {
  const a = six();
  const base = tcpPacket({ ...to2six, ttl: 1, partial: true, payload: randomBytes(random, 30_000) });
  const extension = new Uint8Array(2_048);
  extension.set([base[6], 255]); // its own length in units of 8 bytes beyond the first (RFC 8200 §4.6)
  const packet = Uint8Array.from([...base.slice(0, 40), ...extension, ...base.slice(40)]);
  packet[6] = HEADER_DESTINATION_OPTIONS;
  set16(packet, 4, packet.length - 40);
  const beside = a.slab.bytes.subarray(a.slab.errandsOffset, a.slab.errandsOffset + 4_096).fill(0xaa);
  a.read([tunRead(packet, { segmentSize: 1_000 })]);
  const [{ type, quoted }] = told(t, a);
  t.equal(type, 3);
  t.same(quoted, packet.slice(0, quoted.length));
  t.ok(
    beside.every(byte => byte === 0xaa),
    'a canary',
  );
});

t.test('nothing is said about what must not be answered', async t => {
  const cases: [string, Partial<PacketOptions>, (bytes: Uint8Array) => void][] = [
    ['a fragment that is not the first', {}, bytes => set16(bytes, 6, 100)],
    ['a multicast source', { source: '224.0.0.5' }, () => {}],
    ['no source', { source: '0.0.0.0' }, () => {}],
    ['a broadcast source', { source: '255.255.255.255' }, () => {}],
    ['a loopback source', { source: '127.0.0.1' }, () => {}],
    [
      'an ICMP error',
      {},
      bytes => {
        bytes[9] = 1;
        bytes[20] = 3;
      },
    ],
    [
      'an ICMP redirect',
      {},
      bytes => {
        bytes[9] = 1;
        bytes[20] = 5;
      },
    ],
  ];
  for (const [name, options, spoil] of cases) {
    const [a] = pair();
    const packet = udp(40, { ttl: 1, ...options });
    spoil(packet);
    setIp4Checksum(packet, 0);
    a.read([tunRead(packet)]);
    t.same(a.takeReplies(), [], name);
    t.equal(readDrops(a.slab.counters)['egress-ttl-exceeded'], 1, 'it is counted all the same');
  }
  const a = six();
  const error = udp(40, { ...to2six, ttl: 1 });
  error[6] = 58;
  error[40] = 1;
  a.read([tunRead(error)]);
  t.same(a.takeReplies(), [], 'an ICMPv6 error');
  const [b] = pair();
  const echo = udp(40, { ttl: 1 });
  echo[9] = 1;
  echo[20] = 8;
  setIp4Checksum(echo, 0);
  b.read([tunRead(echo)]);
  t.equal(told(t, b).length, 1, 'but an echo request is answered: that is what traceroute -I sends');
});

t.test('too many at once are not sent, and counted', async t => {
  const [a] = pair();
  const lost = tunRead(udp(40, { ttl: 1 }));
  const many = (count: number): number => {
    a.read(Array.from({ length: count }, () => lost));
    return told(t, a).length;
  };
  t.equal(many(80), 50, 'a burst');
  t.equal(many(5), 0);
  t.equal(readFlows(a.slab.counters)['icmp-limited'], 35);
  a.now += 10;
  t.equal(many(20), 10, 'then one each millisecond');
  a.now += 3_600_000;
  t.equal(many(80), 50, 'an hour of silence saves no more than a burst');
});

t.test('a datagram that the underlay finds too long: its sender is told, the next one is not even sent', async t => {
  for (const format of [undefined, FORMAT_BARE]) {
    const overhead = format === FORMAT_BARE ? 28 : 40;
    const [a] = pair(format);
    a.pathMtu = 1300;
    a.refuseMessage = train => (Math.max(...train.datagrams.map(d => d.length)) > 1272 ? constants.errno.EMSGSIZE : 0);
    const long = udp(1400);
    a.read([tunRead(long)]);
    const [report] = told(t, a);
    t.same([report.type, report.code, report.mtu], [3, 4, 1300 - overhead]);
    t.equal(ip4Ttl(report.quoted, 0), 63);
    t.same(report.quoted.slice(20), long.slice(20, 548));
    a.refuseMessage = () => t.fail('it is not tried again') as never;
    a.read([tunRead(long)]);
    t.equal(told(t, a)[0].mtu, 1300 - overhead);
    a.refuseMessage = () => 0;
    a.read([tunRead(udp(1300 - overhead - 28))]);
    t.equal(a.takeSent().length, 1, 'what fits is sent');
    a.now += 600_000;
    a.read([tunRead(long)]);
    t.equal(a.takeSent().length, 1, 'after ten minutes it is tried again');
    t.equal(readDrops(a.slab.counters)['egress-too-big'], 2);
  }
});

t.test('super-packets, runs and bundles that are too long', async t => {
  const limit = 1272;
  const narrow = (): TestNode => {
    const [a] = pair(undefined, true);
    a.pathMtu = limit + 28;
    a.refuseMessage = train => (Math.max(...train.datagrams.map(d => d.length)) > limit ? constants.errno.EMSGSIZE : 0);
    return a;
  };
  for (const addresses of [to2, to2six]) {
    const a = narrow();
    const read = tunRead(tcpPacket({ ...addresses, payload: randomBytes(random, 40_000), partial: true }), {
      segmentSize: 1400,
    });
    a.read([read]);
    t.ok(
      told(t, a).every(({ mtu, type }) => mtu === (type === 2 ? 1280 : 1260)),
      'told once for each train at most',
    );
    t.same(a.takeSent(), []);
    const drops = readDrops(a.slab.counters)['egress-too-big'];
    t.equal(drops, Math.ceil(40_000 / 1400), 'each datagram is counted');
    a.read([read]);
    t.equal(told(t, a).length, 1);
    t.equal(readDrops(a.slab.counters)['egress-too-big'], drops + 1, 'and then the packet, before it is cut');
  }
  const run = narrow();
  run.read([1400, 1400, 600].map(size => tunRead(udp(size))));
  t.equal(told(t, run).length, 2, 'of a run those that are too long');
  t.same(
    run.takeSent().map(train => train.datagrams.map(datagram => datagram.length)),
    [[640]],
    'and the others leave',
  );
  t.equal(run.slab.control[CONTROL_TRAINS_OFF], 0, 'trains stay on');

  const bundle = narrow();
  bundle.read([tunRead(udp(500)), tunRead(udp(800))]);
  t.same(told(t, bundle), []);
  const sent = bundle.takeSent().flatMap(train => train.datagrams);
  t.same(
    sent.map(datagram => [tulleKind(datagram, 0), datagram.length]),
    [
      [KIND_PACKET, 540],
      [KIND_PACKET, 840],
    ],
    'the packets of a bundle that is too long leave by themselves',
  );
  t.ok(sent.every(datagram => verifyL4Checksum4(datagram.slice(HEADER_BYTES), 0)));
});

t.test('what is learnt has bounds', async t => {
  for (const [pathMtu, six, expected] of [
    [68, false, 536],
    [576, false, 536],
    [1200, true, 1280],
  ] as const) {
    const [a] = pair(undefined, true);
    a.pathMtu = pathMtu;
    a.refuseMessage = () => constants.errno.EMSGSIZE;
    a.read([tunRead(udp(1300, six ? to2six : {}))]);
    t.equal(told(t, a)[0].mtu, expected, `${pathMtu}`);
  }
  const [b] = pair();
  b.pathMtu = 0;
  b.refuseMessage = train => (train.datagrams[0].length > 900 ? constants.errno.EMSGSIZE : 0);
  b.read([tunRead(udp(1400))]);
  t.equal(told(t, b)[0].mtu, 714, 'half, when the kernel does not say');
  b.read([tunRead(udp(600))]);
  t.equal(b.takeSent().length, 1);
});

t.test('a packet that may be fragmented is, and comes out whole', async t => {
  for (const format of [undefined, FORMAT_BARE]) {
    const [a, b] = pair(format);
    a.pathMtu = 1000;
    a.refuseMessage = train => (train.datagrams[0].length > 972 ? constants.errno.EMSGSIZE : 0);
    a.read([tunRead(udp(1400))]);
    a.takeReplies();
    const payload = randomBytes(random, 1400);
    const packet = udpPacket({ ...to2, payload, partial: true });
    set16(packet, 6, 0);
    setIp4Checksum(packet, 0);
    a.read([tunRead(packet, { partial: true })]);
    t.same(a.takeReplies(), []);
    const sent = a.takeSent();
    t.equal(sent.length, 2);
    b.receive(sent.map(({ datagrams }) => ({ from: { address: '10.88.0.1', port: 8285 }, datagrams })));
    const whole = new Uint8Array(1428).fill(0xcc);
    for (const [i, written] of b.takeWritten().entries()) {
      const fragment = written.slice(VNET_HEADER_BYTES);
      t.ok(verifyIp4Checksum(fragment, 0));
      t.equal(ip4Ttl(fragment, 0), 63);
      t.equal(ip4MoreFragments(fragment, 0), i === 0);
      whole.set(fragment.slice(20), 20 + ip4FragmentOffset(fragment, 0));
      if (i === 0) whole.set(fragment.slice(0, 20));
    }
    set16(whole, 2, 1428);
    set16(whole, 6, 0);
    t.same(whole.slice(28), payload);
    t.ok(verifyL4Checksum4(whole, 0), 'its checksum was finished first');
    t.equal(readFlows(a.slab.counters)['egress-fragments'], 2);
  }
});
