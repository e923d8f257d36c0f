import t from 'tap';
import { set16 } from '../../lib/wire/bytes.ts';
import { finishPartial } from '../../lib/wire/checksum.ts';
import * as gso from '../../lib/wire/gso.ts';
import {
  checkIp4,
  ip4TotalLength,
  setIp4FragmentWord,
  setIp4TotalLength,
  verifyIp4Checksum,
} from '../../lib/wire/ip4.ts';
import { startL4Checksum4, verifyL4Checksum4 } from '../../lib/wire/l4.ts';
import {
  BAD_HEADER_LENGTH,
  BAD_PROTOCOL,
  BAD_SEGMENT,
  BAD_SEGMENT_SIZE,
  BAD_TOTAL_LENGTH,
  BAD_VERSION,
  FRAGMENT,
  OK,
  TOO_SHORT,
} from '../../lib/wire/reason.ts';
import { TCP_ACK, TCP_CWR, TCP_FIN, TCP_PSH, tcpFlags, tcpSequence } from '../../lib/wire/tcp.ts';
import * as tulle from '../../lib/wire/tulle.ts';
import { below, prng, randomBytes, testSeed } from '../support/prng.ts';
import { buildTcp4, buildUdp4, spoil, type Tcp4Fields } from './packets.ts';

/** What a sender puts on the wire for a super-packet: the super's headers as they are, and each slice. */
function datagramsOf(superPacket: Uint8Array, headerLength: number, segmentSize: number): Uint8Array[] {
  const payloadLength = superPacket.length - headerLength;
  const count = gso.segmentCount(payloadLength, segmentSize);
  return Array.from({ length: count }, (_, index) => {
    const slice = gso.segmentPayload(payloadLength, segmentSize, index);
    const bytes = new Uint8Array(tulle.HEADER_BYTES + headerLength + slice);
    const flags = index === count - 1 ? tulle.FLAG_LAST_SEGMENT : 0;
    tulle.emitTulle(bytes, 0, tulle.KIND_SEGMENT, flags | tulle.FLAG_PARTIAL_CHECKSUM, segmentSize, 42, 7, index);
    bytes.set(superPacket.subarray(0, headerLength), tulle.HEADER_BYTES);
    const start = headerLength + index * segmentSize;
    bytes.set(superPacket.subarray(start, start + slice), tulle.HEADER_BYTES + headerLength);
    return bytes;
  });
}

/** What a receiver makes of one of them: an IP packet that stands alone, with every checksum finished. */
function packetOf(datagram: Uint8Array): Uint8Array {
  const packet = datagram.slice(tulle.HEADER_BYTES);
  const headerLength = gso.superHeaderLength4(packet, 0);
  const isLast = (tulle.tulleFlags(datagram, 0) & tulle.FLAG_LAST_SEGMENT) !== 0;
  const size = tulle.tulleSegmentSize(datagram, 0);
  const index = tulle.tulleIndex(datagram, 0);
  gso.rewriteSegment4(packet, 0, headerLength, index, size, packet.length - headerLength, isLast);
  finishPartial(packet, 20, packet[9] === 17 ? 6 : 16, packet.length);
  return packet;
}

t.test('segments equal packets that were built one by one', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  for (let round = 0; round < 60; round++) {
    const payload = randomBytes(next, 1 + below(next, round < 50 ? 5000 : 65_000));
    const segmentSize = Math.max(1 + below(next, 1500), Math.ceil(payload.length / 1000));
    const options = randomBytes(next, 4 * below(next, 11));
    const fields: Tcp4Fields = {
      id: next() & 0xffff,
      sequence: next(),
      acknowledgement: next(),
      source: next(),
      destination: next(),
      options,
      flags: TCP_ACK | TCP_PSH | (round % 2 === 0 ? TCP_FIN : 0) | (round % 3 === 0 ? TCP_CWR : 0),
    };
    const superPacket = buildTcp4({ ...fields, payload });
    const headerLength = 40 + options.length;
    // As the kernel hands it over: the checksum holds the pseudo-header sum only.
    startL4Checksum4(superPacket, 0, 20, superPacket.length - 20);
    const datagrams = datagramsOf(superPacket, headerLength, segmentSize);
    const rejoined: number[] = [];
    for (const [index, datagram] of datagrams.entries()) {
      if (tulle.checkTulle(datagram, 0, datagram.length) !== OK) t.fail('checkTulle');
      if (gso.checkSegment4(datagram, 0, datagram.length) !== OK) t.fail('checkSegment4');
      const packet = packetOf(datagram);
      const isLast = index === datagrams.length - 1;
      let flags = fields.flags ?? 0;
      if (!isLast) flags &= ~(TCP_PSH | TCP_FIN);
      if (index > 0) flags &= ~TCP_CWR;
      const expected = buildTcp4({
        ...fields,
        flags,
        id: ((fields.id ?? 0) + index) % 65_536,
        sequence: ((fields.sequence ?? 0) + index * segmentSize) % 2 ** 32,
        payload: payload.slice(index * segmentSize, (index + 1) * segmentSize),
      });
      if (Buffer.compare(packet, expected) !== 0) t.fail(`round ${round} segment ${index}`);
      if (checkIp4(packet, 0, packet.length) !== OK || !verifyIp4Checksum(packet, 0)) t.fail('IP header');
      if (!verifyL4Checksum4(packet, 0)) t.fail('TCP checksum');
      rejoined.push(...packet.subarray(headerLength));
    }
    if (Buffer.compare(Uint8Array.from(rejoined), payload) !== 0) t.fail(`round ${round}: other payload`);
  }
});

t.test('UDP super-packets', async t => {
  const payload = randomBytes(prng(5), 3000);
  const datagrams = datagramsOf(buildUdp4(payload, 65_535), 28, 1400);
  t.equal(datagrams.length, 3);
  for (const [index, datagram] of datagrams.entries()) {
    t.equal(gso.checkSegment4(datagram, 0, datagram.length), OK);
    const slice = payload.slice(index * 1400, (index + 1) * 1400);
    t.same(packetOf(datagram), buildUdp4(slice, (65_535 + index) % 65_536));
  }
});

t.test('a run of segments gets one header', async t => {
  const payload = randomBytes(prng(6), 1000);
  const superPacket = buildTcp4({ payload, flags: TCP_ACK | TCP_PSH | TCP_CWR, sequence: 0xffff_ff00 });
  const middle = superPacket.slice(0, 40 + 600);
  gso.rewriteSegment4(middle, 0, 40, 2, 100, 600, false);
  t.equal(ip4TotalLength(middle, 0), 640);
  t.equal(tcpSequence(middle, 20), (0xffff_ff00 + 200) % 2 ** 32);
  t.equal(tcpFlags(middle, 20), TCP_ACK);
  middle.set(payload.subarray(200, 800), 40);
  finishPartial(middle, 20, 16, middle.length);
  t.ok(verifyIp4Checksum(middle, 0));
  t.ok(verifyL4Checksum4(middle, 0));
  const whole = superPacket.slice();
  gso.rewriteSegment4(whole, 0, 40, 0, 100, 1000, true);
  finishPartial(whole, 20, 16, whole.length);
  t.same(whole, superPacket, 'the run of all segments is the super-packet');
});

t.test('CWR stays on the first segment alone', async t => {
  for (const [index, flags] of [TCP_ACK | TCP_CWR, TCP_ACK].entries()) {
    const header = buildTcp4({ flags: TCP_ACK | TCP_CWR, payload: new Uint8Array(300) });
    gso.rewriteSegment4(header, 0, 40, index, 100, 100, false);
    t.equal(tcpFlags(header, 20), flags);
  }
});

t.test('the headers’ borders stay untouched', async t => {
  const packet = buildTcp4({ payload: new Uint8Array(300).fill(1) });
  const wide = new Uint8Array(packet.length + 64).fill(0xa5);
  wide.set(packet, 32);
  gso.rewriteSegment4(wide, 32, 40, 1, 100, 100, false);
  t.ok(wide.subarray(0, 32).every(byte => byte === 0xa5));
  t.ok(wide.subarray(72, 372).every(byte => byte === 1));
  t.ok(wide.subarray(372).every(byte => byte === 0xa5));
});

t.test('one spoiled field, one reason', async t => {
  const superPacket = buildTcp4({ payload: new Uint8Array(250) });
  const [first, , last] = datagramsOf(superPacket, 40, 100);
  const inner = tulle.HEADER_BYTES;
  const check = (bytes: Uint8Array): number => gso.checkSegment4(bytes, 0, bytes.length);
  t.equal(check(first), OK);
  t.equal(check(last), OK);
  t.equal(last.length, inner + 40 + 50);
  t.equal(check(first.slice(0, -1)), BAD_SEGMENT, 'a cut slice');
  t.equal(check(Uint8Array.from([...first, 0])), BAD_SEGMENT, 'a byte too many');
  t.equal(check(last.slice(0, -1)), BAD_SEGMENT, 'a cut last slice');
  t.equal(check(spoil(first, b => set16(b, tulle.TULLE_INDEX, 3))), BAD_SEGMENT, 'an index past the end');
  t.equal(check(spoil(first, b => set16(b, tulle.TULLE_INDEX, 65_535))), BAD_SEGMENT);
  t.equal(check(spoil(first, b => set16(b, tulle.TULLE_INDEX, 1))), OK, 'the middle one has the same length');
  t.equal(check(spoil(first, b => b.fill(tulle.FLAG_LAST_SEGMENT, 1, 2))), BAD_SEGMENT, 'last, but it is not');
  t.equal(check(spoil(last, b => b.fill(0, 1, 2))), BAD_SEGMENT, 'not last, but it is');
  t.equal(check(spoil(first, b => set16(b, tulle.TULLE_SEGMENT_SIZE, 0))), BAD_SEGMENT_SIZE);
  t.equal(check(spoil(first, b => set16(b, tulle.TULLE_SEGMENT_SIZE, 99))), BAD_SEGMENT);
  t.equal(check(spoil(first, b => setIp4TotalLength(b, inner, 40))), BAD_TOTAL_LENGTH, 'no payload');
  t.equal(check(spoil(first, b => setIp4TotalLength(b, inner, 0))), BAD_TOTAL_LENGTH);
  t.equal(check(spoil(first, b => setIp4FragmentWord(b, inner, 0x2000))), FRAGMENT);
  t.equal(check(spoil(first, b => b.fill(0x65, inner, inner + 1))), BAD_VERSION);
  t.equal(check(spoil(first, b => b.fill(0x44, inner, inner + 1))), BAD_HEADER_LENGTH);
  t.equal(check(spoil(first, b => b.fill(1, inner + 9, inner + 10))), BAD_PROTOCOL);
  t.equal(check(spoil(first, b => b.fill(0x40, inner + 32, inner + 33))), BAD_HEADER_LENGTH, 'TCP');
  t.equal(check(first.slice(0, inner + 19)), TOO_SHORT);
  t.equal(check(first.slice(0, inner + 39)), TOO_SHORT);
  const exact = datagramsOf(buildTcp4({ payload: new Uint8Array(200) }), 40, 100)[1];
  const empty = spoil(exact, b => set16(b, tulle.TULLE_INDEX, 2)).slice(0, inner + 40);
  t.equal(check(exact), OK);
  t.equal(check(empty), BAD_SEGMENT, 'an empty slice just past the end');
  const udp = datagramsOf(buildUdp4(new Uint8Array(250)), 28, 100)[0];
  t.equal(check(udp), OK);
  t.equal(check(spoil(udp, b => set16(b, inner + 24, 257))), BAD_TOTAL_LENGTH, 'UDP length');
  t.equal(check(udp.slice(0, inner + 27)), TOO_SHORT);
});

t.test('the arithmetic of docs/wire.md', async t => {
  const innerMtu = 1500 - 20 - 8 - tulle.HEADER_BYTES;
  t.equal(innerMtu, 1460);
  const segmentSize = innerMtu - 20 - 32;
  t.equal(segmentSize, 1408, 'MSS with timestamps');
  const datagramBytes = tulle.HEADER_BYTES + 52 + segmentSize;
  t.equal(datagramBytes, 1472, 'the most that a UDP datagram may carry over an MTU of 1500');
  const fullPayload = 46 * segmentSize;
  t.equal(fullPayload, 64_768);
  t.equal(gso.segmentCount(fullPayload, segmentSize), 46);
  t.equal(gso.segmentCount(65_535 - 52, segmentSize), 47);
  t.equal(gso.segmentPayload(65_535 - 52, segmentSize, 46), 715);
  t.equal(46 * datagramBytes, 67_712);
  t.equal(Math.floor(gso.MAX_TRAIN_BYTES / datagramBytes), 44);
  t.equal(gso.trainSends(46, datagramBytes), 2);
  t.equal(gso.trainSends(47, datagramBytes), 2);
});

t.test('counts and lengths against a naive twin', async t => {
  for (let payloadLength = 0; payloadLength < 60; payloadLength++) {
    for (let segmentSize = 1; segmentSize < 20; segmentSize++) {
      const lengths: number[] = [];
      for (let left = payloadLength; left > 0; left -= segmentSize) lengths.push(Math.min(left, segmentSize));
      const found = lengths.map((_, index) => gso.segmentPayload(payloadLength, segmentSize, index));
      if (gso.segmentCount(payloadLength, segmentSize) !== lengths.length) t.fail(`${payloadLength} / ${segmentSize}`);
      if (found.join() !== lengths.join()) t.fail(`${payloadLength} / ${segmentSize}: ${found}`);
      if (gso.segmentPayload(payloadLength, segmentSize, lengths.length) !== 0) t.fail('past the end');
    }
  }
  for (const datagramBytes of [20, 64, 1023, 1024, 1472, 9000, 65_507]) {
    for (let count = 1; count < 300; count++) {
      const sends = gso.trainSends(count, datagramBytes);
      const each = Math.ceil(count / sends);
      if (each > gso.MAX_TRAIN_DATAGRAMS || each * datagramBytes > gso.MAX_TRAIN_BYTES)
        t.fail(`${count} × ${datagramBytes}`);
      const fewer = Math.ceil(count / (sends - 1 || 1));
      if (sends > 1 && fewer <= gso.MAX_TRAIN_DATAGRAMS && fewer * datagramBytes <= gso.MAX_TRAIN_BYTES)
        t.fail('more than needed');
    }
  }
});
