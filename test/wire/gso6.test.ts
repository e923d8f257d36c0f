import t from 'tap';
import { set16 } from '../../lib/wire/bytes.ts';
import * as either from '../../lib/wire/either.ts';
import { segmentCount, segmentPayload } from '../../lib/wire/gso.ts';
import { checkSegment6, checkSuperHeaders6, rewriteSegment6, superHeaderLength6 } from '../../lib/wire/gso6.ts';
import { checkIp6, findL4Ip6, l4Distance, l4Protocol } from '../../lib/wire/ip6.ts';
import { finishL4Checksum6, verifyL4Checksum6 } from '../../lib/wire/l4.ts';
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
import { TCP_ACK, TCP_CWR, TCP_FIN, TCP_PSH } from '../../lib/wire/tcp.ts';
import * as tulle from '../../lib/wire/tulle.ts';
import { tcpPacket, udpPacket } from '../support/packets.ts';
import { below, pick, prng, randomBytes, testSeed } from '../support/prng.ts';

const addresses = { source: 'fd00::1', destination: 'fd00::2' };

t.test('segments equal packets that were built one by one', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  for (let round = 0; round < 60; round++) {
    const payload = randomBytes(next, 1 + below(next, round < 50 ? 5000 : 60_000));
    const segmentSize = Math.max(1 + below(next, 1500), Math.ceil(payload.length / 500));
    const tcp = below(next, 2) === 0;
    const sequence = next();
    const extension = below(next, 3) === 0;
    const options = randomBytes(next, 4 * below(next, 11));
    const flags = TCP_ACK | TCP_PSH | (round % 2 === 0 ? TCP_FIN : 0) | (round % 3 === 0 ? TCP_CWR : 0);
    const build = (slice: Uint8Array, partial: boolean, at = 0, flagsOf = flags): Uint8Array =>
      tcp
        ? tcpPacket({
            ...addresses,
            extension,
            options,
            payload: slice,
            sequence: sequence + at,
            flags: flagsOf,
            partial,
          })
        : udpPacket({ ...addresses, extension, payload: slice, partial });
    const whole = build(payload, true);
    const headers = whole.length - payload.length;
    const count = segmentCount(payload.length, segmentSize);
    for (let i = 0; i < count; i++) {
      const at = i * segmentSize;
      const slice = payload.subarray(at, at + segmentPayload(payload.length, segmentSize, i));
      const isLast = i === count - 1;
      const datagram = new Uint8Array(tulle.HEADER_BYTES + headers + slice.length);
      const lastFlag = isLast ? tulle.FLAG_LAST_SEGMENT : 0;
      tulle.emitTulle(datagram, 0, tulle.KIND_SEGMENT, lastFlag | tulle.FLAG_PARTIAL_CHECKSUM, segmentSize, 42, 7, i);
      datagram.set(whole.subarray(0, headers), tulle.HEADER_BYTES);
      datagram.set(slice, tulle.HEADER_BYTES + headers);
      if (
        checkSegment6(datagram, 0, datagram.length) !== OK ||
        either.checkSegment(datagram, 0, datagram.length) !== OK
      ) {
        t.fail(`round ${round}, segment ${i} is refused`);
        return;
      }
      const got = datagram.slice(tulle.HEADER_BYTES);
      if (superHeaderLength6(got, 0) !== headers) t.fail('header length');
      rewriteSegment6(got, 0, headers, i, segmentSize, slice.length, isLast);
      const flagsOf = flags & ~(isLast ? 0 : TCP_FIN | TCP_PSH) & ~(i > 0 ? TCP_CWR : 0);
      const expected = build(slice, true, at, flagsOf);
      if (Buffer.compare(got, expected) !== 0) {
        t.same(got, expected, `round ${round}, segment ${i}`);
        return;
      }
      finishL4Checksum6(got, 0);
      if (!verifyL4Checksum6(got, 0)) t.fail('checksum');
    }
  }
});

t.test('what is no super-packet is refused for its reason', async t => {
  const good = tcpPacket({ ...addresses, payload: new Uint8Array(100) });
  const check = (change: (bytes: Uint8Array) => void, available = good.length): number => {
    const bytes = Uint8Array.from(good);
    change(bytes);
    return checkSuperHeaders6(bytes, 0, available);
  };
  t.equal(
    check(() => {}),
    OK,
  );
  t.equal(
    check(() => {}, 39),
    TOO_SHORT,
  );
  t.equal(
    check(() => {}, 59),
    TOO_SHORT,
  );
  t.equal(
    check(() => {}, 60),
    OK,
    'the payload need not be there',
  );
  t.equal(
    check(bytes => {
      bytes[0] = 0x45;
    }),
    BAD_VERSION,
  );
  t.equal(
    check(bytes => {
      bytes[6] = 44;
    }),
    FRAGMENT,
  );
  t.equal(
    check(bytes => {
      bytes[6] = 58;
    }),
    BAD_PROTOCOL,
  );
  t.equal(
    check(bytes => {
      bytes[6] = 60;
      bytes[41] = 255;
    }),
    BAD_HEADER_LENGTH,
    'a chain that leads out',
  );
  t.equal(
    check(bytes => set16(bytes, 4, 20)),
    BAD_TOTAL_LENGTH,
    'no payload',
  );
  t.equal(
    check(bytes => {
      bytes[52] = 0x40;
    }),
    BAD_HEADER_LENGTH,
    'a TCP header of four words',
  );
  const udp = udpPacket({ ...addresses, payload: new Uint8Array(100) });
  t.equal(checkSuperHeaders6(udp, 0, 47), TOO_SHORT);
  set16(udp, 44, 99);
  t.equal(checkSuperHeaders6(udp, 0, udp.length), BAD_TOTAL_LENGTH);

  const datagram = new Uint8Array(tulle.HEADER_BYTES + 60 + 50);
  datagram.set(good.subarray(0, 60), tulle.HEADER_BYTES);
  const segment = (size: number, index: number, flags: number, length = datagram.length): number => {
    tulle.emitTulle(datagram, 0, tulle.KIND_SEGMENT, flags, size, 1, 1, index);
    return checkSegment6(datagram, 0, length);
  };
  t.equal(segment(50, 0, 1), OK);
  t.equal(segment(50, 1, 3), OK);
  t.equal(segment(0, 0, 1), BAD_SEGMENT_SIZE);
  t.equal(segment(50, 2, 3), BAD_SEGMENT, 'past the end');
  t.equal(segment(50, 1, 1), BAD_SEGMENT, 'the last without its flag');
  t.equal(segment(50, 0, 3), BAD_SEGMENT, 'the flag on another');
  t.equal(segment(50, 0, 1, datagram.length - 1), BAD_SEGMENT, 'a byte is missing');
});

t.test('random headers never lead outside, and the walk is that of findL4Ip6', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  let accepted = 0;
  for (let round = 0; round < 20_000; round++) {
    const build = pick(next, [tcpPacket, udpPacket]);
    const bytes = build({
      ...addresses,
      extension: below(next, 2) === 0,
      payload: randomBytes(next, 1 + below(next, 60)),
    });
    for (let i = below(next, 3); i > 0; i--)
      bytes[below(next, 70) % bytes.length] = pick(next, [next(), 0, 43, 60, 6, 17]);
    const available = below(next, bytes.length + 1);
    if (checkSuperHeaders6(bytes, 0, available) !== OK) continue;
    accepted++;
    const headers = superHeaderLength6(bytes, 0);
    if (headers > available) {
      t.fail(`headers of ${headers} bytes, ${available} are there`);
      return;
    }
    if (checkIp6(bytes, 0, bytes.length) !== OK) continue;
    const found = findL4Ip6(bytes, 0);
    if (either.l4DistanceOf(bytes, 0) !== l4Distance(found) || either.protocolOf(bytes, 0) !== l4Protocol(found)) {
      t.fail('the walks differ');
      return;
    }
  }
  t.ok(accepted > 1_000, `${accepted} were accepted`);
});
