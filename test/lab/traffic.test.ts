import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import t from 'tap';
import { middleRate, receiveTraffic, seededFiller, sendTraffic } from '../../lib/lab/traffic.ts';

/** Both ends over loopback. */
async function transfer(load: Parameters<typeof sendTraffic>[1]) {
  let listening = (_port: number): void => {};
  const port = new Promise<number>(resolve => (listening = resolve));
  const sent = sendTraffic('127.0.0.1', load, listening);
  const received = await receiveTraffic('127.0.0.1', await port, { hash: 'bytes' in load, connectMs: 5000 });
  return { sent: await sent, received };
}

t.test('seeded data does not depend on how it is cut', async t => {
  const whole = new Uint8Array(1000);
  seededFiller(42)(whole);
  const pieces = new Uint8Array(1000);
  const fill = seededFiller(42);
  for (let from = 0, length = 1; from < 1000; from += length, length = (length * 7) % 31)
    fill(pieces.subarray(from, from + length));
  t.same(pieces, whole);
  const other = new Uint8Array(1000);
  seededFiller(43)(other);
  t.notSame(other, whole);
  t.ok(new Set(whole).size > 200, 'it is not constant');
});

t.test('a number of bytes', async t => {
  const { sent, received } = await transfer({ bytes: 3_000_001, seed: 5 });
  const expected = new Uint8Array(3_000_001);
  seededFiller(5)(expected);
  const sha256 = createHash('sha256').update(expected).digest('hex');
  t.same(sent, { bytes: 3_000_001, sha256 });
  t.match(received, { bytes: 3_000_001, sha256 });
});

t.test('a number of seconds', async t => {
  const { sent, received } = await transfer({ seconds: 1 });
  t.equal(received.bytes, sent.bytes);
  t.ok(received.gbps > 0);
  t.ok(received.ms >= 900);
});

t.test('the middle of the run', async t => {
  const at = (ms: number, bytes: number) => ({ ms, bytes });
  t.equal(middleRate([], 0), 0);
  t.equal(middleRate([at(1000, 125_000_000)], 0), 1, 'all of a run with one sample: 1 Gb in 1 s');
  // Slow for 300 ms, then 1 Gb/s (125 bytes a microsecond).
  t.equal(middleRate([at(100, 1), at(300, 1000), at(800, 62_501_000), at(1300, 125_001_000)], 0), 1);
  t.equal(middleRate([at(100, 0), at(400, 12_500_000)], 0), 0.25, 'a short run counts as a whole');
});

t.test('failures', async t => {
  await t.rejects(receiveTraffic('127.0.0.1', 1, { hash: false, connectMs: 1000 }), { code: 'ECONNREFUSED' });
  const silent = createServer(() => {});
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as { port: number };
  await t.rejects(receiveTraffic('127.0.0.1', port, { hash: false, connectMs: 50 }), {
    code: 'traffic',
    message: /no TCP data/,
  });
  silent.close();
});
