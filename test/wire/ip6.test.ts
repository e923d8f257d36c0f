import t from 'tap';
import { parseAddress6 } from '../../lib/wire/address6.ts';
import { get16, set16 } from '../../lib/wire/bytes.ts';
import * as ip6 from '../../lib/wire/ip6.ts';
import { BAD_TOTAL_LENGTH, BAD_VERSION, OK, TOO_SHORT } from '../../lib/wire/reason.ts';
import { bordersIntact, CAPTURED, fromHex, poisoned, spoil } from './packets.ts';

const SOURCE = parseAddress6('fd00::1')!;
const DESTINATION = parseAddress6('fd00:0:0:2::2')!;

/** A packet whose payload is given as bytes; `next` names the first header in it. */
function withPayload(next: number, ...payload: number[]): Uint8Array {
  const packet = new Uint8Array(40 + payload.length);
  ip6.emitIp6(packet, 0, 0, 0, payload.length, next, 64, SOURCE, DESTINATION);
  packet.set(payload, 40);
  return packet;
}

t.test('what is emitted is read again, and nothing else is touched', async t => {
  const place = poisoned(40);
  const { bytes, offset } = place;
  t.equal(ip6.emitIp6(bytes, offset, 0xb9, 0xfedcb, 1420, 6, 63, SOURCE, DESTINATION), 40);
  t.equal(ip6.ip6Version(bytes, offset), 6);
  t.equal(ip6.ip6TrafficClass(bytes, offset), 0xb9);
  t.equal(ip6.ip6FlowLabel(bytes, offset), 0xfedcb);
  t.equal(ip6.ip6PayloadLength(bytes, offset), 1420);
  t.equal(ip6.ip6TotalLength(bytes, offset), 1460);
  t.equal(ip6.ip6NextHeader(bytes, offset), 6);
  t.equal(ip6.ip6HopLimit(bytes, offset), 63);
  t.ok(bordersIntact(place));
  t.equal(ip6.printIp6(bytes, offset), 'fd00::1 > fd00:0:0:2::2 next 6 hops 63 length 1460');
  ip6.setIp6PayloadLength(bytes, offset, 8);
  t.equal(ip6.ip6TotalLength(bytes, offset), 48);
});

t.test('one spoiled field, one reason', async t => {
  const packet = fromHex(CAPTURED.udp6);
  t.equal(ip6.checkIp6(packet, 0, packet.length), OK);
  t.equal(ip6.checkIp6(packet, 0, packet.length + 9), OK, 'padding behind the packet');
  t.equal(ip6.checkIp6(packet, 0, packet.length - 1), BAD_TOTAL_LENGTH);
  t.equal(ip6.checkIp6(packet, 0, 39), TOO_SHORT);
  t.equal(
    ip6.checkIp6(
      spoil(packet, bytes => bytes.fill(0x45, 0, 1)),
      0,
      packet.length,
    ),
    BAD_VERSION,
  );
  t.equal(
    ip6.checkIp6(
      spoil(packet, bytes => set16(bytes, 4, 15)),
      0,
      packet.length,
    ),
    BAD_TOTAL_LENGTH,
  );
});

t.test('hops', async t => {
  const packet = fromHex(CAPTURED.udp6);
  t.equal(ip6.decrementHopLimit(packet, 0), 63);
  t.equal(ip6.ip6HopLimit(packet, 0), 63);
  for (const last of [0, 1]) {
    packet[7] = last;
    t.equal(ip6.decrementHopLimit(packet, 0), 0);
    t.equal(packet[7], last, 'left as it came');
  }
});

t.test('extension headers are walked', async t => {
  const eight = (next: number, length = 0): number[] => [next, length, 0, 0, 0, 0, 0, 0];
  const expectL4 = (packet: Uint8Array, protocol: number, distance: number, name: string): void => {
    const found = ip6.findL4Ip6(packet, 0);
    t.same([ip6.l4Protocol(found), ip6.l4Distance(found)], [protocol, distance], name);
  };
  expectL4(withPayload(6), 6, 40, 'none');
  expectL4(withPayload(59), 59, 40, 'no next header');
  expectL4(withPayload(50, 1, 2, 3), 50, 40, 'ESP ends the walk');
  expectL4(withPayload(0, ...eight(43), ...eight(60), ...eight(17)), 17, 64, 'three of 8 bytes');
  expectL4(withPayload(60, 6, 1, ...new Array<number>(14).fill(0)), 6, 56, 'one of 16 bytes');
  expectL4(withPayload(51, 6, 4, ...new Array<number>(22).fill(0)), 6, 64, 'AH counts words');
  expectL4(withPayload(44, 17, 0, 0, 1, 0, 0, 0, 9), 17, 48, 'the first fragment has the L4 header');
  expectL4(withPayload(44, 17, 0, 0, 8, 0, 0, 0, 9), 44, 40, 'a later fragment has none');
  expectL4(withPayload(0, ...eight(44), 17, 0, 0, 9, 0, 0, 0, 9), 44, 48, 'behind hop-by-hop');
  t.equal(ip6.findL4Ip6(withPayload(0), 0), -1, 'a header that is not there');
  t.equal(ip6.findL4Ip6(withPayload(0, 6, 0, 0, 0, 0, 0, 0), 0), -1, 'cut');
  t.equal(ip6.findL4Ip6(withPayload(0, ...eight(6, 1)), 0), -1, 'longer than the packet');
  t.equal(ip6.findL4Ip6(withPayload(51, ...eight(6, 1)), 0), -1, 'AH longer than the packet');

  t.equal(ip6.isFragment6(withPayload(6), 0), false);
  t.equal(ip6.isFragment6(withPayload(44, 17, 0, 0, 1, 0, 0, 0, 9), 0), true);
  t.equal(ip6.isFragment6(withPayload(0, ...eight(44), 17, 0, 0, 9, 0, 0, 0, 9), 0), true);
  t.equal(ip6.isFragment6(withPayload(0, ...eight(6)), 0), false);
  t.equal(ip6.isFragment6(withPayload(0), 0), false);
});

t.test('the longest chain still fits the packed answer', async t => {
  const packet = new Uint8Array(40 + 65_535);
  ip6.emitIp6(packet, 0, 0, 0, 65_535, 60, 64, SOURCE, DESTINATION);
  let at = 40;
  while (at + 2048 <= packet.length) {
    packet.fill(60, at, at + 1).fill(255, at + 1, at + 2);
    at += 2048;
  }
  packet[at] = 140;
  packet[at + 1] = (packet.length - at - 8) >> 3;
  const end = at + ((packet[at + 1] + 1) << 3);
  set16(packet, end, 0xfe00); // protocol 254 behind the last of them
  packet[at] = 254;
  const found = ip6.findL4Ip6(packet, 0);
  t.equal(ip6.l4Protocol(found), 254);
  t.equal(ip6.l4Distance(found), end);
  t.ok(end > 65_535, `${end}, more than 16 bits`);
  t.equal(get16(packet, end), 0xfe00);
});
