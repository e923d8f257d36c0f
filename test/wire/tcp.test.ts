import t from 'tap';
import { BAD_HEADER_LENGTH, OK, TOO_SHORT } from '../../lib/wire/reason.ts';
import * as tcp from '../../lib/wire/tcp.ts';
import { bordersIntact, CAPTURED, fromHex, poisoned, spoil } from './packets.ts';

t.test('what is emitted is read again, and nothing else is touched', async t => {
  const place = poisoned(20);
  const { bytes, offset } = place;
  const flags = tcp.TCP_AE | tcp.TCP_ACK | tcp.TCP_PSH;
  t.equal(tcp.emitTcp(bytes, offset, 65_535, 1, 0xffff_fff0, 0x8000_0000, 20, flags, 502), 20);
  t.equal(tcp.tcpSourcePort(bytes, offset), 65_535);
  t.equal(tcp.tcpDestinationPort(bytes, offset), 1);
  t.equal(tcp.tcpSequence(bytes, offset), 0xffff_fff0);
  t.equal(tcp.tcpAcknowledgement(bytes, offset), 0x8000_0000);
  t.equal(tcp.tcpHeaderLength(bytes, offset), 20);
  t.equal(tcp.tcpFlags(bytes, offset), flags);
  t.equal(tcp.tcpWindow(bytes, offset), 502);
  t.equal(tcp.tcpChecksum(bytes, offset), 0);
  t.equal(tcp.tcpUrgent(bytes, offset), 0);
  t.ok(bordersIntact(place));
  t.equal(tcp.printTcp(bytes, offset), '65535 > 1 Flags [P.e] seq 4294967280 ack 2147483648 win 502');
});

t.test('options are the caller’s bytes', async t => {
  const place = poisoned(32);
  tcp.emitTcp(place.bytes, place.offset, 1, 2, 3, 4, 32, tcp.TCP_SYN, 5);
  t.equal(tcp.tcpHeaderLength(place.bytes, place.offset), 32);
  t.ok(place.bytes.subarray(place.offset + 20).every(byte => byte === 0xa5));
});

t.test('setters', async t => {
  const { bytes, offset } = poisoned(20);
  tcp.emitTcp(bytes, offset, 1, 2, 3, 4, 20, 0x1ff, 5);
  bytes[offset + 12] |= 0x0e; // reserved bits
  tcp.setTcpFlags(bytes, offset, tcp.TCP_ACK);
  t.equal(tcp.tcpFlags(bytes, offset), tcp.TCP_ACK);
  t.equal(bytes[offset + 12], 0x5e, 'data offset and reserved bits stay');
  tcp.setTcpSequence(bytes, offset, 0xffff_ffff + 9);
  t.equal(tcp.tcpSequence(bytes, offset), 8, 'sequence numbers wrap');
  tcp.setTcpChecksum(bytes, offset, 0xabcd);
  t.equal(tcp.tcpChecksum(bytes, offset), 0xabcd);
});

t.test('one spoiled field, one reason', async t => {
  const header = new Uint8Array(32);
  tcp.emitTcp(header, 0, 1, 2, 3, 4, 32, tcp.TCP_ACK, 5);
  const withWords = (words: number): Uint8Array => spoil(header, bytes => bytes.fill(words << 4, 12, 13));
  t.equal(tcp.checkTcp(header, 0, 32), OK);
  t.equal(tcp.checkTcp(header, 0, 1000), OK);
  t.equal(tcp.checkTcp(header, 0, 31), BAD_HEADER_LENGTH);
  t.equal(tcp.checkTcp(header, 0, 19), TOO_SHORT);
  t.equal(tcp.checkTcp(withWords(4), 0, 32), BAD_HEADER_LENGTH);
  t.equal(tcp.checkTcp(withWords(9), 0, 32), BAD_HEADER_LENGTH);
  t.equal(tcp.checkTcp(withWords(5), 0, 20), OK);
});

t.test('the options of a SYN that the kernel made', async t => {
  const packet = fromHex(CAPTURED.tcp4);
  t.equal(tcp.checkTcp(packet, 20, packet.length - 20), OK);
  t.equal(tcp.tcpMss(packet, 20), 1420, 'inner MTU 1460');
  const kinds: number[] = [];
  let at = tcp.nextTcpOption(packet, 20, 20 + tcp.TCP_HEADER_BYTES);
  for (; at >= 0; at = tcp.nextTcpOption(packet, 20, at + packet[at + 1])) kinds.push(packet[at]);
  t.same(kinds, [
    tcp.TCP_OPTION_MSS,
    tcp.TCP_OPTION_SACK_PERMITTED,
    tcp.TCP_OPTION_TIMESTAMPS,
    tcp.TCP_OPTION_WINDOW_SCALE,
  ]);
  t.equal(packet[tcp.findTcpOption(packet, 20, tcp.TCP_OPTION_WINDOW_SCALE) + 2], 10);
  t.equal(tcp.findTcpOption(packet, 20, tcp.TCP_OPTION_SACK), -1);
  t.equal(tcp.printTcp(packet, 20), '40001 > 80 Flags [S] seq 512477680 win 65320');
});

t.test('a walk ends at malformed options', async t => {
  const withOptions = (...options: number[]): Uint8Array => {
    const header = new Uint8Array(24 + 8).fill(0x02);
    tcp.emitTcp(header, 0, 1, 2, 3, 4, 24, tcp.TCP_SYN, 5);
    header.set(options, 20);
    return header;
  };
  t.equal(tcp.tcpMss(withOptions(2, 4, 5, 0xb4), 0), 1460);
  t.equal(tcp.tcpMss(withOptions(2, 3, 5, 0xb4), 0), 0, 'an MSS of a wrong length');
  t.equal(tcp.nextTcpOption(withOptions(2, 5, 0, 0), 0, 20), -1, 'longer than the header');
  t.equal(tcp.nextTcpOption(withOptions(2, 1, 0, 0), 0, 20), -1, 'shorter than an option');
  t.equal(tcp.nextTcpOption(withOptions(2, 0, 0, 0), 0, 20), -1, 'a length of zero does not hang');
  t.equal(tcp.nextTcpOption(withOptions(1, 1, 1, 2), 0, 20), -1, 'a kind without room for a length');
  t.equal(tcp.nextTcpOption(withOptions(1, 1, 1, 1), 0, 20), -1, 'only padding');
  t.equal(tcp.nextTcpOption(withOptions(0, 2, 2, 2), 0, 20), -1, 'end of list');
  t.equal(tcp.nextTcpOption(withOptions(1, 1, 4, 2), 0, 20), 22);
});

t.test('flags as text', async t => {
  t.equal(tcp.formatTcpFlags(0), 'none');
  t.equal(tcp.formatTcpFlags(tcp.TCP_SYN | tcp.TCP_ACK), 'S.');
  t.equal(tcp.formatTcpFlags(0x1ff), 'FSRP.UEWe');
});
