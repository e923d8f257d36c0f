import t from 'tap';
import {
  answerArp,
  concerns,
  ETHERNET_BYTES,
  ip4Bytes,
  macAt,
  macOf,
  tooLong,
  translate,
} from '../../lib/lab/fault-frame.ts';
import { get16, set16 } from '../../lib/wire/bytes.ts';
import { finishPartial, pseudoSum4, sum } from '../../lib/wire/checksum.ts';
import {
  checkIp4,
  emitIp4,
  formatAddress4,
  IP4_DONT_FRAGMENT,
  ip4Destination,
  ip4FragmentOffset,
  ip4MoreFragments,
  ip4Source,
  ip4TotalLength,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  parseAddress4,
  setIp4FragmentWord,
  verifyIp4Checksum,
} from '../../lib/wire/ip4.ts';
import { below, fillRandom, pick, prng, randomBytes, testSeed } from '../support/prng.ts';

const A = { mac: macOf('02:00:00:00:00:01'), address: parseAddress4('10.88.0.1')! };
const B = { mac: macOf('fe:dc:ba:98:76:54'), address: parseAddress4('10.88.0.2')! };
const NAT = parseAddress4('10.88.0.200')!;
const ROUTER = parseAddress4('10.88.0.254')!;
const IP = ETHERNET_BYTES;

/** A frame from A to B with an IPv4 packet of `total` bytes, its L4 checksum right. */
function frame(next: () => number, protocol: number, total: number, flags = 0): Uint8Array {
  const bytes = new Uint8Array(IP + total);
  fillRandom(next, bytes);
  bytes.set([0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 2, 0, 0, 0, 0, 1, 8, 0]);
  emitIp4(bytes, IP, 0, total, 7, flags, 64, protocol, A.address, B.address);
  const l4 = IP + 20;
  if (protocol === PROTOCOL_UDP) set16(bytes, l4 + 4, total - 20);
  const place = protocol === PROTOCOL_UDP ? 6 : 16;
  set16(bytes, l4 + place, pseudoSum4(bytes, IP, protocol, total - 20));
  finishPartial(bytes, l4, place, bytes.length);
  return bytes;
}

const l4IsRight = (bytes: Uint8Array): boolean => {
  const length = ip4TotalLength(bytes, IP) - 20;
  return sum(bytes, IP + 20, length, pseudoSum4(bytes, IP, bytes[IP + 9], length)) === 0xffff;
};

t.test('MAC addresses are numbers', async t => {
  t.equal(macAt(Uint8Array.of(9, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54), 1), B.mac);
  for (const text of ['', '1:2:3:4:5:6', '02:00:00:00:00:0g', '02:00:00:00:00:01:02'])
    t.ok(Number.isNaN(macOf(text)), text);
});

t.test('whom a frame concerns', async t => {
  const bytes = frame(prng(1), PROTOCOL_UDP, 100);
  t.equal(concerns(bytes, bytes.length, true, B), true);
  t.equal(concerns(bytes, bytes.length, false, A), true);
  t.equal(concerns(bytes, bytes.length, true, A), false);
  t.equal(concerns(bytes, 13, true, B), false, 'no frame');
  const question = arp(1, A.mac, A.address, B.address);
  t.equal(concerns(question, question.length, true, B), true, 'a question about it counts');
  t.equal(concerns(question, question.length, true, { mac: 5, address: NAT }), false);
});

function arp(operation: number, mac: number, sender: number, target: number): Uint8Array {
  const bytes = new Uint8Array(42).fill(0xff, 0, 6);
  const view = new DataView(bytes.buffer);
  for (const offset of [6, 22]) {
    view.setUint16(offset, Math.floor(mac / 2 ** 32));
    view.setUint32(offset + 2, mac % 2 ** 32);
  }
  bytes.set([8, 6, 0, 1, 8, 0, 6, 4, 0, operation], 12);
  view.setUint32(28, sender);
  view.setUint32(38, target);
  return bytes;
}

t.test('an answer for an address that nobody has', async t => {
  const question = arp(1, B.mac, B.address, NAT);
  const answer = answerArp(question, question.length, { mac: A.mac, address: NAT })!;
  const expected = arp(2, A.mac, NAT, B.address);
  expected.set([0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54], 0);
  expected.set([0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54], 32);
  t.same([...answer], [...expected]);
  for (const [why, other] of [
    ['another address', arp(1, B.mac, B.address, ROUTER)],
    ['an answer', arp(2, B.mac, B.address, NAT)],
    ['somebody asks whether it is free for himself', arp(1, B.mac, NAT, NAT)],
  ] as const)
    t.equal(answerArp(other, other.length, { mac: A.mac, address: NAT }), undefined, why);
  t.equal(answerArp(question, 41, { mac: A.mac, address: NAT }), undefined, 'cut');
});

t.test('translation keeps every checksum right, and back again is what it was', async t => {
  const next = prng(testSeed());
  for (let i = 0; i < 500; i++) {
    const protocol = pick(next, [PROTOCOL_TCP, PROTOCOL_UDP]);
    const bytes = frame(next, protocol, 40 + below(next, 1460));
    const before = bytes.slice();
    t.ok(translate(bytes, bytes.length, true, A.address, NAT));
    const good = ip4Source(bytes, IP) === NAT && verifyIp4Checksum(bytes, IP) && l4IsRight(bytes);
    if (!good) return void t.fail(`round ${i}: protocol ${protocol}, ${bytes.length} bytes`);
    t.notOk(translate(bytes, bytes.length, true, A.address, NAT), 'once only');
    translate(bytes, bytes.length, true, NAT, A.address);
    if (Buffer.compare(bytes, before) !== 0) return void t.fail(`round ${i}: not what it was`);
  }
  const inward = frame(next, PROTOCOL_UDP, 80);
  t.ok(translate(inward, inward.length, false, B.address, A.address));
  t.equal(ip4Destination(inward, IP), A.address);
  const unsummed = frame(next, PROTOCOL_UDP, 80);
  set16(unsummed, IP + 26, 0);
  translate(unsummed, unsummed.length, true, A.address, NAT);
  t.equal(get16(unsummed, IP + 26), 0, 'no UDP checksum stays none');
  const later = frame(next, PROTOCOL_UDP, 80);
  setIp4FragmentWord(later, IP, 10);
  const payload = later.slice(IP + 20);
  translate(later, later.length, true, A.address, NAT);
  t.same(later.slice(IP + 20), payload, 'a later fragment has no checksum');
});

t.test('too long: fragments that make the packet again', async t => {
  const next = prng(testSeed());
  for (let i = 0; i < 200; i++) {
    const bytes = frame(next, PROTOCOL_UDP, 600 + below(next, 901));
    const mtu = 576 + below(next, 600);
    const { forward, back } = tooLong(bytes, bytes.length, mtu, ROUTER);
    t.equal(back, undefined);
    const whole = new Uint8Array(bytes.length).fill(0);
    for (const [n, piece] of forward.entries()) {
      const ok =
        checkIp4(piece, IP, piece.length - IP) === 0 &&
        verifyIp4Checksum(piece, IP) &&
        ip4Bytes(piece, piece.length) <= mtu;
      if (!ok || ip4MoreFragments(piece, IP) !== n < forward.length - 1) return void t.fail(`round ${i}, piece ${n}`);
      whole.set(piece.subarray(IP + 20), IP + 20 + ip4FragmentOffset(piece, IP));
    }
    if (Buffer.compare(whole.subarray(IP + 20), bytes.subarray(IP + 20)) !== 0)
      return void t.fail(`round ${i}: bytes differ`);
  }
});

t.test('too long with DF: the sender hears of it', async t => {
  const bytes = frame(prng(3), PROTOCOL_UDP, 1500, IP4_DONT_FRAGMENT);
  const { forward, back } = tooLong(bytes, bytes.length, 1400, ROUTER);
  t.same(forward, []);
  t.equal(macAt(back!, 0), A.mac, 'to the sender');
  t.equal(formatAddress4(ip4Source(back!, IP)), '10.88.0.254');
  t.equal(ip4Destination(back!, IP), A.address);
  t.same([...back!.subarray(IP + 20, IP + 22)], [3, 4], 'fragmentation needed');
  t.equal(get16(back!, IP + 26), 1400);
  t.same(back!.subarray(IP + 28, IP + 48), bytes.subarray(IP, IP + 20), 'quotes the packet');
  t.same(tooLong(back!, back!.length, 100, ROUTER), { forward: [], back: undefined }, 'no error about an error');
});

t.test('whatever the wire brings', async t => {
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const next = prng(seed);
  for (let i = 0; i < 50_000; i++) {
    const bytes = pick(next, [randomBytes, (n: () => number, length: number) => frame(n, PROTOCOL_UDP, 40 + length)])(
      next,
      below(next, 120),
    );
    for (let spoil = below(next, 4); spoil > 0 && bytes.length > 0; spoil--) bytes[below(next, bytes.length)] = next();
    const length = below(next, bytes.length + 1);
    concerns(bytes, length, i % 2 === 0, B);
    answerArp(bytes, length, { mac: A.mac, address: B.address });
    translate(bytes, length, i % 2 === 0, A.address, NAT);
    const total = ip4Bytes(bytes, length);
    if (total > length - IP && total !== 0) return void t.fail(`round ${i}: a packet beyond its frame`);
    if (total > 76) tooLong(bytes, length, 76, ROUTER);
  }
  t.pass();
});
