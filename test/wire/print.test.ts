import t from 'tap';
import { set16 } from '../../lib/wire/bytes.ts';
import { setIp4FragmentWord } from '../../lib/wire/ip4.ts';
import { describeDatagram, describePacket } from '../../lib/wire/print.ts';
import * as reason from '../../lib/wire/reason.ts';
import { TCP_ACK, TCP_PSH } from '../../lib/wire/tcp.ts';
import {
  emitTulle,
  FLAG_PARTIAL_CHECKSUM,
  KIND_BUNDLE,
  KIND_PACKET,
  KIND_PROBE,
  KIND_SEGMENT,
} from '../../lib/wire/tulle.ts';
import { buildTcp4, buildUdp4, CAPTURED, fromHex, spoil } from './packets.ts';

const describe = (packet: Uint8Array): string => describePacket(packet, 0, packet.length);
const described = (datagram: Uint8Array): string => describeDatagram(datagram, 0, datagram.length);
const behind = (kind: number, size: number, index: number, content: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(12 + content.length);
  emitTulle(bytes, 0, kind, kind === KIND_SEGMENT ? FLAG_PARTIAL_CHECKSUM : 0, size, 42, 7, index);
  bytes.set(content, 12);
  return bytes;
};

t.test('captured packets', async t => {
  t.equal(describe(fromHex(CAPTURED.udp4)), 'IP 10.5.1.2.40000 > 10.5.2.2.53: UDP, length 5');
  t.equal(
    describe(fromHex(CAPTURED.tcp4)),
    'IP 10.5.1.2.40001 > 10.5.2.2.80: Flags [S], seq 512477680, win 65320, length 0',
  );
  t.equal(describe(fromHex(CAPTURED.icmp4)), 'IP 10.5.1.2 > 10.5.2.2: ICMP echo request, id 51747, seq 2, length 15');
  t.equal(describe(fromHex(CAPTURED.udp6)), 'IP6 fd00::1.40000 > fd00::2.53: UDP, length 6');
  t.equal(describe(fromHex(CAPTURED.icmp6)), 'IP6 fd00::1 > fd00::2: ICMP6 echo request, id 51748, seq 2, length 15');
  t.equal(describe(fromHex(CAPTURED.unreachable4)), 'IP 10.5.1.2 > 10.5.2.2: ICMP unreachable, net, length 36');
});

t.test('built packets', async t => {
  const packet = buildTcp4({ payload: new Uint8Array(100), flags: TCP_ACK | TCP_PSH, sequence: 0xffff_fff0 });
  t.equal(
    describe(packet),
    'IP 10.5.1.2.40000 > 10.5.2.2.80: Flags [P.], seq 4294967280:84, ack 2000, win 502, length 100',
  );
  const fragment = (word: number): string => describe(spoil(packet, bytes => setIp4FragmentWord(bytes, 0, word)));
  t.match(fragment(0x2000), /length 100, fragment 0\+ of id 7$/);
  t.equal(fragment(0x0010), 'IP 10.5.1.2 > 10.5.2.2: length 120, fragment 128 of id 7');
  t.equal(describe(spoil(packet, bytes => bytes.fill(47, 9, 10))), 'IP 10.5.1.2 > 10.5.2.2: protocol 47, length 120');
});

t.test('damaged packets are said to be damaged', async t => {
  const packet = buildTcp4();
  t.equal(describe(new Uint8Array(0)), 'empty');
  t.equal(describe(fromHex('ff')), 'not IP, 1 bytes');
  t.equal(describe(packet.slice(0, 39)), 'IP malformed (bad-total-length), 39 bytes');
  t.equal(describe(fromHex('60')), 'IP6 malformed (too-short), 1 bytes');
  t.equal(
    describe(spoil(packet, bytes => bytes.fill(0, 32, 33))),
    'IP 10.5.1.2 > 10.5.2.2: TCP malformed (bad-header-length), 20 bytes',
  );
});

t.test('datagrams', async t => {
  const udp = buildUdp4(new Uint8Array(5));
  const line = 'IP 10.5.1.2.40000 > 10.5.2.2.53: UDP, length 5';
  t.equal(described(udp), line, 'flannel’s format');
  t.equal(described(behind(KIND_PACKET, 0, 0, udp)), `tulle packet key 0000002a | ${line}`);
  const record = Uint8Array.from([0, udp.length, ...udp]);
  t.equal(
    described(behind(KIND_BUNDLE, 0, 2, Uint8Array.from([...record, ...record]))),
    `tulle bundle key 0000002a packets 2 | ${line} | ${line}`,
  );
  const superPacket = buildTcp4({ payload: new Uint8Array(250) });
  t.equal(
    described(behind(KIND_SEGMENT, 100, 1, superPacket.slice(0, 140))),
    'tulle segment key 0000002a size 100 id 7 index 1 partial slice 100' +
      ' | IP 10.5.1.2.40000 > 10.5.2.2.80: Flags [.], seq 1000:1250, ack 2000, win 502, length 250',
  );
  t.match(
    described(behind(KIND_SEGMENT, 100, 1, superPacket.slice(0, 30))),
    / \| IP malformed \(too-short\), 30 bytes$/,
  );
  t.equal(described(behind(KIND_PROBE, 0, 0, new Uint8Array(8))), 'tulle probe key 0000002a sequence 7');
  t.equal(described(behind(9, 0, 0, udp)), 'tulle malformed (bad-kind), 45 bytes');
  t.equal(
    described(spoil(behind(KIND_BUNDLE, 0, 1, record), bytes => set16(bytes, 12, 1))),
    'tulle malformed (bad-bundle), 47 bytes',
  );
});

t.test('every reason has a name of its own', async t => {
  const codes: [string, number][] = [];
  for (const [name, value] of Object.entries(reason)) if (typeof value === 'number') codes.push([name, value]);
  t.same(
    codes.map(([, code]) => code).sort((a, b) => a - b),
    reason.REASON_NAMES.map((_, code) => code),
  );
  for (const [name, code] of codes) t.equal(reason.REASON_NAMES[code], name.toLowerCase().replaceAll('_', '-'));
});
