import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import {
  RECORD_BYTES,
  RECORD_HAS_PEER,
  RING_WORDS,
  type Ring,
  RingReader,
  RingWriter,
} from '../../lib/datapath/capture-ring.ts';
import { below, prng, testSeed } from '../support/prng.ts';

function makeRing(size: number): Ring {
  const buffer = new SharedArrayBuffer(64 + size);
  return {
    bytes: new Uint8Array(buffer),
    words: new Int32Array(buffer),
    times: new Float64Array(buffer),
    control: new Int32Array(new SharedArrayBuffer(RING_WORDS * 4)),
    wanted: new Uint8Array(0),
    offset: 64,
    size,
  };
}

t.test('a ring is a queue of bounded bytes: against a naive twin', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const random = prng(seed);
  const size = 4096;
  const ring = makeRing(size);
  // Counters that are about to come round.
  ring.control[0] = -2048;
  ring.control[1] = -2048;
  const writer = new RingWriter(ring);
  const reader = new RingReader(ring);
  /** The twin: what is inside, with the room that each takes, the gap at the ring's end included. */
  const inside: { number: number; captured: number; room: number; lost: number }[] = [];
  let [head, lost] = [2048, 0];
  for (let number = 0; number < 20_000; number++) {
    const captured = below(random, 700);
    const total = Math.ceil((RECORD_BYTES + captured) / 8) * 8;
    const toEnd = size - (head % size);
    const room = total <= toEnd ? total : toEnd + total;
    const fits = inside.reduce((sum, each) => sum + each.room, 0) + room <= size;
    const at = writer.begin(number & 3, 0, captured, captured, number);
    if (at >= 0 !== fits) t.bailout(`record ${number}: room is counted wrongly`);
    if (fits) {
      head += room;
      ring.bytes.fill(number, at, at + captured);
      inside.push({ number, captured, room, lost });
    } else lost++;
    writer.publish();
    if (below(random, 3) > 0) continue;
    const most = below(random, 8);
    const expected = inside.splice(0, most);
    const seen: unknown[] = [];
    reader.drain(record => {
      const bytes = ring.bytes.subarray(record.offset, record.offset + record.captured);
      if (!bytes.every(byte => byte === (record.time & 0xff))) t.fail('bytes of another record');
      seen.push({ number: record.time, captured: record.captured, lost: record.lost });
    }, most);
    const wanted = expected.map(({ number, captured, lost }) => ({ number, captured, lost }));
    if (JSON.stringify(seen) !== JSON.stringify(wanted)) t.same(seen, wanted);
  }
  t.equal(reader.lost, lost);
  t.ok(lost > 100, `${lost} did not fit`);
});

t.test('two threads: every record comes whole and in order, or is counted as lost', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const ring = makeRing(1 << 16);
  const [count, mostBytes] = [200_000, 300];
  const worker = new Worker(new URL('./fixtures/ring-writer.js', import.meta.url), {
    workerData: { ring, seed, count, mostBytes },
  });
  let ended = false;
  void once(worker, 'exit').then(() => {
    ended = true;
  });
  const reader = new RingReader(ring);
  const wrong: string[] = [];
  let [seen, next] = [0, 0];
  const take = (): number =>
    reader.drain(record => {
      const number = record.train;
      const is = (what: string, good: boolean): void => void (good || wrong.push(`${what} of ${number}`));
      is('order', number >= next);
      is('lost', number === seen + record.lost);
      is('fields', record.index === number + 1 && record.count === number + 2 && record.segmentSize === number + 3);
      is('more fields', record.reason === number + 4 && record.time === number / 7 && record.point === (number & 3));
      is('length', record.length === record.captured + number);
      if (number % 3 === 0)
        is(
          'peer',
          record.subnet === number + 5 && record.mask === number + 6 && (record.flags & RECORD_HAS_PEER) !== 0,
        );
      let good = true;
      for (let i = 0; i < record.captured; i++) good &&= record.bytes[record.offset + i] === ((number + i) & 0xff);
      is('bytes', good);
      seen++;
      next = number + 1;
    }, 500);
  for (let last = false; !last; ) {
    last = ended;
    while (take() > 0);
    // Now and then the reader is away, so that the ring fills.
    await new Promise(resolve => setTimeout(resolve, seen % 3));
  }
  t.same(wrong.slice(0, 5), []);
  t.equal(seen + reader.lost, count);
  t.ok(seen > 100, `${seen} came, ${reader.lost} were lost`);
});
