import t from 'tap';
import { set16 } from '../../lib/wire/bytes.ts';
import * as ip4 from '../../lib/wire/ip4.ts';
import { BAD_HEADER_LENGTH, BAD_TOTAL_LENGTH, BAD_VERSION, OK, TOO_SHORT } from '../../lib/wire/reason.ts';
import { prng, testSeed } from '../support/prng.ts';
import { bordersIntact, buildTcp4, CAPTURED, fromHex, poisoned, spoil } from './packets.ts';

t.test('what is emitted is read again, and nothing else is touched', async t => {
  const place = poisoned(20);
  const { bytes, offset } = place;
  t.equal(ip4.emitIp4(bytes, offset, 0xb8, 1500, 0xbeef, 0x4000, 63, 6, 0xfffefdfc, 0x80000001), 20);
  t.equal(ip4.ip4Version(bytes, offset), 4);
  t.equal(ip4.ip4HeaderLength(bytes, offset), 20);
  t.equal(ip4.ip4Tos(bytes, offset), 0xb8);
  t.equal(ip4.ip4TotalLength(bytes, offset), 1500);
  t.equal(ip4.ip4Id(bytes, offset), 0xbeef);
  t.equal(ip4.ip4FragmentWord(bytes, offset), 0x4000);
  t.equal(ip4.ip4DontFragment(bytes, offset), true);
  t.equal(ip4.isFragment4(bytes, offset), false);
  t.equal(ip4.ip4Ttl(bytes, offset), 63);
  t.equal(ip4.ip4Protocol(bytes, offset), 6);
  t.equal(ip4.ip4Source(bytes, offset), 0xfffefdfc);
  t.equal(ip4.ip4Destination(bytes, offset), 0x80000001);
  t.ok(ip4.verifyIp4Checksum(bytes, offset));
  t.ok(bordersIntact(place));
  t.equal(ip4.printIp4(bytes, offset), '255.254.253.252 > 128.0.0.1 proto 6 ttl 63 id 48879 DF length 1500');
});

t.test('setters change their field only', async t => {
  const packet = buildTcp4();
  ip4.setIp4TotalLength(packet, 0, 1234);
  ip4.setIp4Id(packet, 0, 0x1_0001);
  ip4.setIp4FragmentWord(packet, 0, 0x2000);
  ip4.setIp4Ttl(packet, 0, 9);
  ip4.setIp4Source(packet, 0, 0xc0a80001);
  ip4.setIp4Destination(packet, 0, 0xc0a80002);
  ip4.setIp4Checksum(packet, 0);
  t.equal(ip4.printIp4(packet, 0), '192.168.0.1 > 192.168.0.2 proto 6 ttl 9 id 1 fragment 0+ length 1234');
  t.ok(ip4.verifyIp4Checksum(packet, 0));
});

t.test('a known header: the checksum of 45 00 00 73 … is b8 61', async t => {
  const header = fromHex('4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7');
  t.ok(ip4.verifyIp4Checksum(header, 0));
  t.equal(ip4.ip4Checksum(header, 0), 0xb861);
  set16(header, 10, 0);
  ip4.setIp4Checksum(header, 0);
  t.equal(ip4.ip4Checksum(header, 0), 0xb861);
});

t.test('packets that the kernel made pass', async t => {
  for (const hex of [CAPTURED.udp4, CAPTURED.tcp4, CAPTURED.icmp4, CAPTURED.unreachable4, CAPTURED.unroutable]) {
    const packet = fromHex(hex);
    t.equal(ip4.checkIp4(packet, 0, packet.length), OK);
    t.ok(ip4.verifyIp4Checksum(packet, 0));
  }
});

t.test('one spoiled field, one reason', async t => {
  const packet = buildTcp4({ payload: new Uint8Array(40) });
  const reasonOf = (change: (bytes: Uint8Array) => void, available = packet.length): number =>
    ip4.checkIp4(spoil(packet, change), 0, available);
  const nothing = (): void => {};
  t.equal(reasonOf(nothing), OK);
  t.equal(reasonOf(nothing, packet.length + 4), OK, 'padding behind the packet');
  t.equal(reasonOf(nothing, 0), TOO_SHORT);
  t.equal(reasonOf(nothing, 19), TOO_SHORT);
  t.equal(reasonOf(nothing, packet.length - 1), BAD_TOTAL_LENGTH);
  t.equal(
    reasonOf(bytes => bytes.fill(0x65, 0, 1)),
    BAD_VERSION,
  );
  t.equal(
    reasonOf(bytes => bytes.fill(0x44, 0, 1)),
    BAD_HEADER_LENGTH,
  );
  t.equal(
    reasonOf(bytes => bytes.fill(0x4f, 0, 1), 40),
    BAD_HEADER_LENGTH,
  );
  t.equal(
    reasonOf(bytes => set16(bytes, 2, 19)),
    BAD_TOTAL_LENGTH,
  );
  t.equal(
    reasonOf(bytes => set16(bytes, 2, 20)),
    OK,
    'a packet without payload',
  );
  t.equal(
    ip4.verifyIp4Checksum(
      spoil(packet, bytes => set16(bytes, 4, 8)),
      0,
    ),
    false,
  );
});

t.test('fragments', async t => {
  const packet = buildTcp4();
  const withWord = (word: number): Uint8Array => spoil(packet, bytes => ip4.setIp4FragmentWord(bytes, 0, word));
  t.equal(ip4.isFragment4(withWord(0x4000), 0), false, 'DF alone');
  t.equal(ip4.isFragment4(withWord(0x8000), 0), false, 'the reserved bit');
  const first = withWord(0x2000);
  t.equal(ip4.isFragment4(first, 0), true);
  t.equal(ip4.ip4MoreFragments(first, 0), true);
  t.equal(ip4.ip4FragmentOffset(first, 0), 0);
  const last = withWord(0x1fff);
  t.equal(ip4.isFragment4(last, 0), true);
  t.equal(ip4.ip4MoreFragments(last, 0), false);
  t.equal(ip4.ip4FragmentOffset(last, 0), 65_528);
});

t.test('a TTL is decremented with its checksum, for every TTL and other bytes around it', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  for (let ttl = 2; ttl < 256; ttl++) {
    const packet = buildTcp4({ ttl, id: next() & 0xffff, source: next(), destination: next() });
    if (ip4.decrementTtl(packet, 0) !== ttl - 1) t.fail(`result for ${ttl}`);
    if (ip4.ip4Ttl(packet, 0) !== ttl - 1 || !ip4.verifyIp4Checksum(packet, 0)) t.fail(`header for ${ttl}`);
  }
  for (const ttl of [0, 1]) {
    const packet = buildTcp4({ ttl });
    const before = packet.slice();
    t.equal(ip4.decrementTtl(packet, 0), 0);
    t.same(packet, before, 'a packet that ends here is left as it came');
  }
});

t.test('addresses as text', async t => {
  const next = prng(4);
  for (let round = 0; round < 1000; round++) {
    const address = next();
    const text = ip4.formatAddress4(address);
    const naive = [24, 16, 8, 0].map(shift => Math.floor(address / 2 ** shift) % 256).join('.');
    if (text !== naive || ip4.parseAddress4(text) !== address) t.fail(text);
  }
  t.equal(ip4.parseAddress4('0.0.0.0'), 0);
  t.equal(ip4.parseAddress4('255.255.255.255'), 0xffff_ffff);
  const wrong = [
    '',
    '1',
    '1.2.3',
    '1.2.3.4.5',
    '01.2.3.4',
    '1.2.3.04',
    '1.2.3.256',
    '1.2.3.-4',
    '+1.2.3.4',
    '1.2.3.4 ',
  ];
  wrong.push(' 1.2.3.4', '1.2.3.4\n', '1..3.4', '1.2.3.', '0x1.2.3.4', '1e1.2.3.4', '1.2.3.4/8', '١.2.3.4', '00.0.0.0');
  for (const text of wrong) t.equal(ip4.parseAddress4(text), undefined, JSON.stringify(text));
});
