import t from 'tap';
import { formatAddress6, parseAddress6 } from '../../lib/wire/address6.ts';
import * as icmp from '../../lib/wire/icmp.ts';
import {
  checkIp4,
  ip4Destination,
  parseAddress4,
  setIp4Checksum,
  setIp4FragmentWord,
  setIp4Id,
  verifyIp4Checksum,
} from '../../lib/wire/ip4.ts';
import { checkIp6, emitIp6, ip6TotalLength } from '../../lib/wire/ip6.ts';
import { verifyL4Checksum4, verifyL4Checksum6 } from '../../lib/wire/l4.ts';
import { OK, TOO_SHORT } from '../../lib/wire/reason.ts';
import { bordersIntact, buildTcp4, CAPTURED, contentOf, fromHex, poisoned, spoil, toHex } from './packets.ts';

const NODE = parseAddress4('10.5.1.0')!;
const NODE6 = parseAddress6('fd00::ff')!;

t.test('an echo request as the kernel makes it', async t => {
  const captured = fromHex(CAPTURED.icmp4);
  const place = poisoned(15);
  place.bytes.set(captured.subarray(28), place.offset + 8);
  t.equal(icmp.emitEcho4(place.bytes, place.offset, icmp.ICMP4_ECHO_REQUEST, 0xca23, 2, 7), 15);
  t.equal(toHex(contentOf(place)), toHex(captured.subarray(20)));
  t.ok(bordersIntact(place));
  t.equal(icmp.checkIcmp(captured, 20, 15), OK);
  t.equal(icmp.checkIcmp(captured, 20, 7), TOO_SHORT);
  t.equal(icmp.icmpEchoId(captured, 20), 0xca23);
  t.equal(icmp.icmpEchoSequence(captured, 20), 2);
  t.equal(icmp.icmpChecksum(captured, 20), 0x9cac);
  t.equal(icmp.printIcmp4(captured, 20), 'ICMP echo request, id 51747, seq 2');
});

t.test('an error as the kernel makes it, but for IP id and DF', async t => {
  const captured = fromHex(CAPTURED.unreachable4);
  const about = fromHex(CAPTURED.unroutable);
  const place = poisoned(captured.length);
  const { bytes, offset } = place;
  const source = parseAddress4('10.5.1.2')!;
  const length = icmp.emitUnreachable4(bytes, offset, icmp.ICMP4_NET_UNREACHABLE, source, about, 0, about.length);
  t.equal(length, captured.length);
  t.equal(checkIp4(bytes, offset, length), OK);
  t.ok(verifyIp4Checksum(bytes, offset));
  t.ok(verifyL4Checksum4(bytes, offset));
  t.ok(bordersIntact(place));
  setIp4Id(bytes, offset, 0x7f0f);
  setIp4FragmentWord(bytes, offset, 0);
  setIp4Checksum(bytes, offset);
  t.equal(toHex(contentOf(place)), CAPTURED.unreachable4);
});

t.test('errors about big and cut packets', async t => {
  const about = buildTcp4({ payload: new Uint8Array(1460).fill(3) });
  const place = poisoned(icmp.ICMP4_ERROR_MAX_BYTES);
  const { bytes, offset } = place;
  t.equal(icmp.emitFragmentationNeeded4(bytes, offset, 1460, NODE, about, 0, about.length), 576);
  t.ok(bordersIntact(place));
  t.equal(checkIp4(bytes, offset, 576), OK);
  t.ok(verifyL4Checksum4(bytes, offset));
  t.equal(ip4Destination(bytes, offset), parseAddress4('10.5.1.2'));
  t.equal(icmp.icmpMtu(bytes, offset + 20), 1460);
  t.same(bytes.slice(offset + 28, offset + 576), about.slice(0, 548));
  t.equal(icmp.printIcmp4(bytes, offset + 20), 'ICMP unreachable, fragmentation needed, mtu 1460');

  t.equal(icmp.emitTimeExceeded4(bytes, offset, NODE, about, 0, 60), 88, 'no more than what is at hand');
  t.ok(verifyL4Checksum4(bytes, offset));
  t.equal(icmp.printIcmp4(bytes, offset + 20), 'ICMP time exceeded');
  const padded = Uint8Array.from([...buildTcp4(), ...new Array<number>(6).fill(0)]);
  t.equal(icmp.emitTimeExceeded4(bytes, offset, NODE, padded, 0, padded.length), 68, 'without padding');
});

t.test('what no error is sent about', async t => {
  t.ok(icmp.mayReport4(buildTcp4(), 0));
  t.ok(icmp.mayReport4(fromHex(CAPTURED.icmp4), 0), 'an echo request');
  t.notOk(icmp.mayReport4(fromHex(CAPTURED.unreachable4), 0), 'an error');
  t.notOk(
    icmp.mayReport4(
      spoil(fromHex(CAPTURED.icmp4), bytes => bytes.fill(5, 20, 21)),
      0,
    ),
    'a redirect',
  );
  t.notOk(
    icmp.mayReport4(
      spoil(fromHex(CAPTURED.icmp4), bytes => bytes.fill(24, 3, 4)),
      0,
    ),
    'a cut ICMP header',
  );
  for (const address of ['0.0.0.0', '0.1.2.3', '127.0.0.1', '224.0.0.1', '240.0.0.1', '255.255.255.255']) {
    t.notOk(icmp.mayReport4(buildTcp4({ source: parseAddress4(address)! }), 0), `from ${address}`);
  }
  for (const address of ['224.0.0.1', '255.255.255.255']) {
    t.notOk(icmp.mayReport4(buildTcp4({ destination: parseAddress4(address)! }), 0), `to ${address}`);
  }
  const withWord = (word: number): Uint8Array => spoil(buildTcp4(), bytes => setIp4FragmentWord(bytes, 0, word));
  t.ok(icmp.mayReport4(withWord(0x2000), 0), 'the first fragment');
  t.notOk(icmp.mayReport4(withWord(0x2001), 0), 'a later fragment');
});

t.test('ICMPv6 errors', async t => {
  const about = fromHex(CAPTURED.udp6);
  const place = poisoned(48 + about.length);
  const { bytes, offset } = place;
  const length = icmp.emitError6(bytes, offset, icmp.ICMP6_PACKET_TOO_BIG, 0, 1440, NODE6, about, 0, about.length);
  t.equal(length, 48 + about.length);
  t.ok(bordersIntact(place));
  t.equal(checkIp6(bytes, offset, length), OK);
  t.ok(verifyL4Checksum6(bytes, offset));
  t.equal(formatAddress6(bytes, offset + 8), 'fd00::ff');
  t.equal(formatAddress6(bytes, offset + 24), 'fd00::1');
  t.same(bytes.slice(offset + 48, offset + length), about);
  t.equal(icmp.printIcmp6(bytes, offset + 40), 'ICMP6 packet too big, mtu 1440');

  const big = new Uint8Array(3000);
  emitIp6(big, 0, 0, 0, 2960, 6, 64, NODE6, NODE6);
  const answer = new Uint8Array(1280);
  t.equal(
    icmp.emitError6(answer, 0, icmp.ICMP6_UNREACHABLE, icmp.ICMP6_ADDRESS_UNREACHABLE, 0, NODE6, big, 0, 3000),
    1280,
  );
  t.equal(ip6TotalLength(answer, 0), 1280);
  t.ok(verifyL4Checksum6(answer, 0));
  t.equal(icmp.printIcmp6(answer, 40), 'ICMP6 unreachable, code 3');
});

t.test('an ICMPv6 echo as the kernel makes it', async t => {
  const captured = fromHex(CAPTURED.icmp6);
  const packet = captured.slice().fill(0, 40, 48);
  icmp.emitEcho6(packet, 40, icmp.ICMP6_ECHO_REQUEST, 0xca24, 2);
  t.ok(verifyL4Checksum6(captured, 0));
  t.equal(icmp.printIcmp6(packet, 40), 'ICMP6 echo request, id 51748, seq 2');
  t.same(
    spoil(captured, bytes => bytes.fill(0, 42, 44)),
    packet,
  );
});

t.test('what no ICMPv6 error is sent about', async t => {
  const may = (packet: Uint8Array, type: number = icmp.ICMP6_UNREACHABLE): boolean => icmp.mayReport6(packet, 0, type);
  const udp = fromHex(CAPTURED.udp6);
  const echo = fromHex(CAPTURED.icmp6);
  t.ok(may(udp));
  t.ok(may(echo));
  t.notOk(may(spoil(echo, bytes => bytes.fill(1, 40, 41))), 'an error');
  t.notOk(may(spoil(echo, bytes => bytes.fill(137, 40, 41))), 'a redirect');
  t.notOk(may(spoil(echo, bytes => bytes.fill(7, 5, 6))), 'a cut ICMP header');
  t.notOk(may(spoil(udp, bytes => bytes.fill(0, 8, 24))), 'from nowhere');
  t.notOk(may(spoil(udp, bytes => bytes.fill(0xff, 8, 9))), 'from multicast');
  const toMulticast = spoil(udp, bytes => bytes.fill(0xff, 24, 25));
  t.notOk(may(toMulticast));
  t.ok(may(toMulticast, icmp.ICMP6_PACKET_TOO_BIG), 'but a Packet Too Big is');
  t.notOk(may(spoil(udp, bytes => bytes.fill(44, 6, 7).fill(0xff, 42, 44))), 'a later fragment');
  t.notOk(may(spoil(udp, bytes => bytes.fill(0, 6, 7).fill(0xff, 41, 42))), 'a broken chain');
});
