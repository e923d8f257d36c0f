/** From a record of the ring to what people and files get: outer headers, comments, lines; and that nothing hostile breaks it. */
import t from 'tap';
import {
  type CaptureRecord,
  POINT_TUN_READ,
  POINT_UDP_RECEIVED,
  POINT_UDP_SENT,
  RECORD_HAS_PEER,
  RECORD_PARTIAL,
} from '../../lib/datapath/capture-ring.ts';
import { DROP_NAMES } from '../../lib/datapath/counters.ts';
import { writeEndpoint } from '../../lib/datapath/peers.ts';
import { CaptureFile } from '../../lib/observe/capture/file.ts';
import { commentsOf, packetOf } from '../../lib/observe/capture/packet.ts';
import { peerFilter } from '../../lib/observe/capture/peer-filter.ts';
import { describeCaptured, printCaptured } from '../../lib/observe/capture/print.ts';
import { TulleError } from '../../lib/util/errors.ts';
import { verifyIp4Checksum } from '../../lib/wire/ip4.ts';
import { verifyL4Checksum4, verifyL4Checksum6 } from '../../lib/wire/l4.ts';
import { readPcapng } from '../../lib/wire/pcapng-read.ts';
import { emitTulle, HEADER_BYTES, KIND_BUNDLE, KIND_PACKET } from '../../lib/wire/tulle.ts';
import { cidr, NETWORK } from '../support/node.ts';
import { address, address6, tcpPacket, udpPacket } from '../support/packets.ts';
import { below, pick, prng, randomBytes, testSeed } from '../support/prng.ts';

const LOCAL = { address: '10.88.0.1', port: 8285 };
const context = { local: LOCAL, epoch: 1_795_238_400_000_000_000n, nodeOf: () => 'node2' };
const packet = udpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: new Uint8Array(60) });

/** A record as the ring gives it. */
function recordOf(data: Uint8Array, fields: Partial<CaptureRecord> = {}, remote = '10.88.0.2'): CaptureRecord {
  const bytes = new Uint8Array(64 + data.length);
  writeEndpoint(bytes, 0, remote.includes(':') ? address6(remote) : address(remote), 8286);
  bytes.set(data, 64);
  const sizes = { offset: 64, captured: data.length, length: data.length, remote: 0, bytes };
  const none = { train: 0, index: 0, count: 0, segmentSize: 0, reason: -1, lost: 0, time: 0, flags: RECORD_HAS_PEER };
  return { ...none, ...sizes, point: POINT_TUN_READ, subnet: address('10.42.2.0'), mask: 0xffff_ff00, ...fields };
}

const datagram = (kind: number, index: number, ...parts: Uint8Array[]): Uint8Array => {
  const header = new Uint8Array(HEADER_BYTES);
  emitTulle(header, 0, kind, 0, 0, 7, 0, index);
  return Uint8Array.from(Buffer.concat([header, ...parts]));
};

t.test('times have nanoseconds, subnets any length', async t => {
  const record = recordOf(packet, { time: 3_600_000.000_123 });
  t.equal(packetOf(record, context).time - context.epoch, 3_600_000_000_123n);
  t.equal(packetOf(record, context).peer?.subnet, '10.42.2.0/24');
  t.equal(packetOf({ ...record, mask: 0xffff_ffff }, context).peer?.subnet, '10.42.2.0/32');
  t.equal(packetOf({ ...record, mask: 0xffff_0000 }, context).peer?.subnet, '10.42.2.0/16');
  t.equal(packetOf({ ...record, flags: 0 }, context).peer, undefined);
});

t.test('outer headers: both ways, both versions, whole and cut', async t => {
  const data = datagram(KIND_PACKET, 0, packet);
  const sent = packetOf(recordOf(data, { point: POINT_UDP_SENT }), context);
  t.equal(sent.bytes.length, 28 + data.length);
  t.ok(verifyIp4Checksum(sent.bytes, 0) && verifyL4Checksum4(sent.bytes, 0));
  t.match(describeCaptured(sent.bytes, sent.length, true), /^tulle packet key 00000007 \| IP 10\.42\.1\.2/);
  t.equal(sent.endpoint, '10.88.0.2:8286');
  const came = packetOf(recordOf(data, { point: POINT_UDP_RECEIVED }), context);
  t.same([...came.bytes.subarray(12, 24)], [10, 88, 0, 2, 10, 88, 0, 1, 0x20, 0x5e, 0x20, 0x5d]);

  const six = { ...context, local: { address: '2001:db8:88::1', port: 8285 } };
  const sent6 = packetOf(recordOf(data, { point: POINT_UDP_SENT }, '2001:db8:88::2'), six);
  t.ok(verifyL4Checksum6(sent6.bytes, 0));
  t.equal(sent6.endpoint, '[2001:db8:88::2]:8286');

  const cut = packetOf(recordOf(data, { point: POINT_UDP_SENT, captured: 40 }), context);
  t.same([cut.bytes.length, cut.length], [68, 28 + data.length]);
  t.same([...cut.bytes.subarray(26, 28)], [0, 0], 'no checksum for what is not here');
  t.match(describeCaptured(cut.bytes, cut.length, true), /length 60$/);
});

t.test('comments', async t => {
  const comments = (record: CaptureRecord): string[] => commentsOf(packetOf(record, context));
  t.same(comments(recordOf(packet, { reason: DROP_NAMES.indexOf('egress-no-lease') })), [
    "dropped: egress-no-lease: nobody holds a lease for the destination's subnet",
    'to lease 10.42.2.0/24 of node2',
  ]);
  const segments = tcpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: new Uint8Array(2_801) });
  t.same(comments(recordOf(segments, { segmentSize: 1400, flags: RECORD_PARTIAL })), [
    'super-packet: 3 segments of 1400 bytes',
    'checksum left partial',
  ]);
  const train = { point: POINT_UDP_RECEIVED, train: 9, index: 1, count: 3, segmentSize: 1472 };
  t.same(comments(recordOf(packet, train)), [
    'from lease 10.42.2.0/24 of node2',
    'train 9: datagram 2 of 3, 1472 bytes each',
  ]);
});

t.test('a cut bundle is printed as far as it goes', async t => {
  const counted = Uint8Array.from([0, packet.length, ...packet]);
  const data = datagram(KIND_BUNDLE, 3, counted, counted, counted);
  const whole = packetOf(recordOf(data, { point: POINT_UDP_SENT }), context);
  t.equal(describeCaptured(whole.bytes, whole.length, true).split(' | ').length, 4);
  const part = whole.bytes.subarray(0, 28 + HEADER_BYTES + counted.length + 5);
  t.match(describeCaptured(part, whole.length, true), /^tulle bundle .* \| IP 10\.42\.1\.2.* \| 2 more, cut$/);
});

t.test('colours for a terminal, a line for what was lost', async t => {
  const file = new CaptureFile({ node: 'n', device: 'tulle0', local: LOCAL, snaplen: 0, comment: '' }, 0n);
  const blocks: Uint8Array[] = [file.header()];
  const put = (block: Uint8Array): boolean => blocks.push(block) > 0;
  file.packet(packetOf(recordOf(packet, { reason: 3 }), context), 5, put);
  file.packet(packetOf(recordOf(packet), context), 0, () => false);
  blocks.push(file.end(6));
  const { packets, interfaces, fault } = readPcapng(Buffer.concat(blocks));
  t.equal(fault, undefined);
  t.match(interfaces[0], { name: 'n:tulle0', statistics: { received: 1, delivered: 0, lost: 6 } });
  t.match(interfaces[2], { name: 'n:tulle0 drops', statistics: { received: 1, delivered: 1 } });
  const line = printCaptured(packets[0], interfaces[packets[0].interface], false);
  t.match(
    line,
    /^\(5 lost by the capture\)\n\d\d:\d\d:\d\d\.000000 drop {2}IP 10.* \(dropped: egress-no-lease: .*\)\n$/,
  );
  const coloured = printCaptured(packets[0], interfaces[packets[0].interface], true);
  t.ok(coloured.includes('\x1b[1;31mdrop \x1b[0m IP'));
});

t.test('fuzz: whatever is captured can be copied, filtered, commented, written and printed', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const random = prng(seed);
  const file = new CaptureFile({ node: undefined, device: 'x', local: LOCAL, snaplen: 0, comment: '' }, 0n);
  const peers = [{ subnet: cidr('10.42.2.0/24'), node: 'node2', addresses: ['10.88.0.2'] }];
  const filters = ['node2', '10.42.2.0/24', '10.42.0.0/16', '10.88.0.2:8286', '10.88.0.2'].map(text =>
    peerFilter(text, NETWORK.network, peers),
  );
  const good = [
    packet,
    datagram(KIND_PACKET, 0, packet),
    datagram(KIND_BUNDLE, 1, Uint8Array.of(0, packet.length), packet),
  ];
  for (let round = 0; round < 20_000; round++) {
    const data = below(random, 3) === 0 ? randomBytes(random, below(random, 80)) : pick(random, good).slice();
    for (let i = below(random, 4); i > 0 && data.length > 0; i--) data[below(random, data.length)] = random();
    const captured = below(random, data.length + 1);
    const record = recordOf(data, {
      point: below(random, 4),
      captured,
      reason: below(random, 3) === 0 ? below(random, DROP_NAMES.length) : -1,
      flags: below(random, 8),
      segmentSize: below(random, 3) * 700,
      ...(below(random, 2) === 0 && { train: 3, index: 1, count: 2 }),
    });
    for (const filter of filters) filter.matches(record);
    const copy = packetOf(record, context);
    if (copy.bytes.length > copy.length) t.fail('more bytes than the packet has');
    const outer = copy.place === 'udp-send' || copy.place === 'udp-receive';
    describeCaptured(copy.bytes, copy.length, outer);
    file.packet(copy, 0, block => {
      const { packets, interfaces } = readPcapng(Buffer.concat([file.header(), block]));
      printCaptured(packets[0], interfaces[packets[0].interface], below(random, 2) === 0);
      return true;
    });
  }
  const words = [
    '10.42.2.0/24',
    'node2',
    '10.88.0.2',
    ':',
    '8285',
    '[',
    ']',
    '::1',
    '/',
    '999',
    ' ',
    'é',
    '10.42.2.2',
    '0',
  ];
  let refused = 0;
  for (let round = 0; round < 5_000; round++) {
    const text = Array.from({ length: 1 + below(random, 4) }, () => pick(random, words)).join('');
    try {
      peerFilter(text, NETWORK.network, peers).subnets(peers);
    } catch (error) {
      if (!(error instanceof TulleError) || error.code !== 'bad-peer') throw error;
      refused++;
    }
  }
  t.ok(refused > 1_000 && refused < 5_000, `${refused} peers were refused`);
});
