import t from 'tap';
import { get16, set16, set32 } from '../../lib/wire/bytes.ts';
import {
  finish,
  finishPartial,
  fold,
  pseudoSum4,
  pseudoSum6,
  sum,
  update16,
  update32,
} from '../../lib/wire/checksum.ts';
import { below, prng, randomBytes, testSeed } from '../support/prng.ts';
import { fromHex } from './packets.ts';

/** The naive twin: the bytes as one big number modulo 2^16 - 1, where all bits set stands for a non-zero multiple. */
function naiveSum(bytes: Uint8Array): number {
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  if (bytes.length % 2 === 1) value <<= 8n;
  if (value === 0n) return 0;
  return Number(value % 65535n) || 65535;
}

t.test('the example of RFC 1071 §3', async t => {
  const bytes = fromHex('0001 f203 f4f5 f6f7');
  t.equal(sum(bytes, 0, 8), 0xddf2);
  t.equal(finish(sum(bytes, 0, 8)), 0x220d);
});

t.test('the example of RFC 1624 §4', async t => {
  t.equal(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
});

t.test('fold', async t => {
  t.equal(fold(0), 0);
  t.equal(fold(0xffff), 0xffff);
  t.equal(fold(0x10000), 1);
  t.equal(fold(0x1ffff), 1);
  t.equal(fold(0xffff_ffff), 0xffff);
});

t.test('sum equals the naive twin at every length and alignment', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const bytes = randomBytes(next, 400);
  for (let length = 0; length < 130; length++) {
    const offset = below(next, 200);
    const expected = naiveSum(bytes.subarray(offset, offset + length));
    if (sum(bytes, offset, length) !== expected) t.fail(`offset ${offset} length ${length}`);
  }
  const big = randomBytes(next, 65_536);
  for (const length of [65_536, 65_535, 65_521]) t.equal(sum(big, 0, length), naiveSum(big.subarray(0, length)));
  t.equal(sum(new Uint8Array(64), 0, 64), 0, 'zeros stay zero');
  t.equal(sum(new Uint8Array(1 << 20).fill(0xff), 0, 1 << 20), 0xffff, 'a megabyte of ones does not overflow');
});

t.test('a sum may be taken in even pieces', async t => {
  const bytes = randomBytes(prng(1), 301);
  const whole = sum(bytes, 0, 301);
  for (let cut = 0; cut <= 300; cut += 2) {
    if (sum(bytes, cut, 301 - cut, sum(bytes, 0, cut)) !== whole) t.fail(`cut at ${cut}`);
  }
});

t.test('sum reads only its range', async t => {
  const bytes = randomBytes(prng(2), 99);
  const before = sum(bytes, 16, 33);
  bytes.fill(0xff, 0, 16).fill(0xff, 49);
  t.equal(sum(bytes, 16, 33), before);
});

t.test('incremental updates equal a new computation', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  for (let round = 0; round < 2000; round++) {
    const bytes = randomBytes(next, 40);
    const check = finish(sum(bytes, 0, 40));
    const at = below(next, 18) * 2;
    const before16 = get16(bytes, at);
    const after16 = next() & 0xffff;
    const after = bytes.slice();
    set16(after, at, after16);
    if (update16(check, before16, after16) !== finish(sum(after, 0, 40))) t.fail(`16 bits, round ${round}`);
    const before32 = ((before16 << 16) | get16(bytes, at + 2)) >>> 0;
    const after32 = next();
    set32(after, at, after32);
    if (update32(check, before32, after32) !== finish(sum(after, 0, 40))) t.fail(`32 bits, round ${round}`);
  }
});

t.test('pseudo-headers are the sums of the drawn ones', async t => {
  const next = prng(3);
  const packet = randomBytes(next, 60);
  const drawn4 = new Uint8Array(12);
  drawn4.set(packet.subarray(12, 20));
  drawn4[9] = 17;
  set16(drawn4, 10, 65_515);
  t.equal(pseudoSum4(packet, 0, 17, 65_515), naiveSum(drawn4));
  const drawn6 = new Uint8Array(40);
  drawn6.set(packet.subarray(8, 40));
  set32(drawn6, 32, 70_000);
  drawn6[39] = 58;
  t.equal(pseudoSum6(packet, 0, 58, 70_000), naiveSum(drawn6));
});

t.test('finishPartial', async t => {
  const bytes = fromHex('ffff 0000 1234 0000');
  set16(bytes, 2, 0x1111);
  finishPartial(bytes, 2, 0, 8);
  t.equal(get16(bytes, 2), ~(0x1111 + 0x1234) & 0xffff);
  const zero = fromHex('ffff 0000 0000');
  finishPartial(zero, 0, 2, 6);
  t.equal(get16(zero, 2), 0xffff, 'a check of 0 is stored as 0xffff');
});
