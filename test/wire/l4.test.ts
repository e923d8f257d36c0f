import t from 'tap';
import { get16, set16 } from '../../lib/wire/bytes.ts';
import { finishPartial } from '../../lib/wire/checksum.ts';
import { emitIp4, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from '../../lib/wire/ip4.ts';
import * as l4 from '../../lib/wire/l4.ts';
import { prng, randomBytes, testSeed } from '../support/prng.ts';
import { buildTcp4, buildUdp4, CAPTURED, fromHex, spoil, toHex } from './packets.ts';

// Where the checksum field stands in each captured packet.
const FIELD = { udp4: 26, tcp4: 36, icmp4: 22, unreachable4: 22 } as const;
const FIELD6 = { udp6: 46, icmp6: 42 } as const;

t.test('checksums that the kernel computed are right, and ours are the same', async t => {
  for (const [name, field] of Object.entries(FIELD)) {
    const packet = fromHex(CAPTURED[name as keyof typeof FIELD]);
    t.ok(l4.verifyL4Checksum4(packet, 0), name);
    const cleared = spoil(packet, bytes => set16(bytes, field, 0xdead));
    t.equal(l4.l4Checksum4(cleared, 0), get16(packet, field));
    t.ok(l4.finishL4Checksum4(cleared, 0));
    t.same(cleared, packet);
  }
  for (const [name, field] of Object.entries(FIELD6)) {
    const packet = fromHex(CAPTURED[name as keyof typeof FIELD6]);
    t.ok(l4.verifyL4Checksum6(packet, 0), name);
    const cleared = spoil(packet, bytes => set16(bytes, field, 0xdead));
    t.equal(l4.l4Checksum6(cleared, 0), get16(packet, field));
    t.ok(l4.finishL4Checksum6(cleared, 0));
    t.same(cleared, packet);
  }
});

t.test('every flipped bit of what is covered is noticed', async t => {
  const packet = buildTcp4({ payload: randomBytes(prng(7), 9) });
  for (let bit = 12 * 8; bit < packet.length * 8; bit++) {
    const flipped = spoil(packet, bytes => {
      bytes[bit >> 3] ^= 1 << (bit & 7);
    });
    if (l4.verifyL4Checksum4(flipped, 0)) t.fail(`bit ${bit}`);
  }
  t.ok(l4.verifyL4Checksum4(packet, 0));
});

t.test('a started checksum, finished, is the whole one', async t => {
  const next = prng(8);
  for (const length of [0, 1, 2, 1408]) {
    const packet = buildTcp4({ payload: randomBytes(next, length) });
    const started = packet.slice();
    l4.startL4Checksum4(started, 0, 20, started.length - 20);
    finishPartial(started, 20, 16, started.length);
    t.same(started, packet);
  }
});

t.test('UDP: none is right, and a computed 0 is sent as 0xffff', async t => {
  const packet = buildUdp4(fromHex('0000'));
  t.ok(
    l4.verifyL4Checksum4(
      spoil(packet, bytes => set16(bytes, 26, 0)),
      0,
    ),
    'no checksum',
  );
  t.notOk(
    l4.verifyL4Checksum4(
      spoil(packet, bytes => set16(bytes, 26, 1)),
      0,
    ),
  );
  // The payload that makes the sum 0xffff is the check itself.
  const check = l4.l4Checksum4(packet, 0);
  const full = spoil(packet, bytes => set16(bytes, 28, check));
  t.equal(l4.l4Checksum4(full, 0), 0xffff);
  t.ok(l4.finishL4Checksum4(full, 0));
  t.ok(l4.verifyL4Checksum4(full, 0));
  const packet6 = fromHex(CAPTURED.udp6);
  t.notOk(
    l4.verifyL4Checksum6(
      spoil(packet6, bytes => set16(bytes, 46, 0)),
      0,
    ),
    'over IPv6 none is wrong',
  );
});

t.test('an echo reply of zeros has the checksum 0xffff', async t => {
  const packet = new Uint8Array(28);
  emitIp4(packet, 0, 0, 28, 0, 0, 64, PROTOCOL_ICMP, 0, 0);
  t.equal(l4.l4Checksum4(packet, 0), 0xffff);
  t.notOk(l4.verifyL4Checksum4(packet, 0));
  t.ok(l4.finishL4Checksum4(packet, 0));
  t.ok(l4.verifyL4Checksum4(packet, 0));
});

t.test('padding behind the packet does not count', async t => {
  const packet = buildUdp4(fromHex('010203'));
  t.ok(l4.verifyL4Checksum4(Uint8Array.from([...packet, 9, 9, 9]), 0));
});

t.test('what has no checksum of ours is said so and left alone', async t => {
  const next = prng(testSeed());
  const header = (protocol: number, length: number): Uint8Array => {
    const packet = randomBytes(next, length);
    emitIp4(packet, 0, 0, length, 0, 0, 64, protocol, 1, 2);
    return packet;
  };
  const short = [header(47, 60), header(PROTOCOL_TCP, 39), header(PROTOCOL_UDP, 27), header(PROTOCOL_ICMP, 27)];
  for (const packet of short) {
    const before = toHex(packet);
    t.equal(l4.l4Checksum4(packet, 0), -1);
    t.notOk(l4.verifyL4Checksum4(packet, 0));
    t.notOk(l4.finishL4Checksum4(packet, 0));
    t.equal(toHex(packet), before);
  }
  const cut6 = fromHex(CAPTURED.udp6);
  cut6[6] = 43; // a routing header that is longer than the packet
  t.equal(
    l4.l4Checksum6(
      spoil(cut6, bytes => bytes.fill(255, 41, 42)),
      0,
    ),
    -1,
  );
});
