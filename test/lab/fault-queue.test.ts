import t from 'tap';
import { FrameQueue, type Waiting } from '../../lib/lab/fault-queue.ts';
import { below, prng, testSeed } from '../support/prng.ts';

t.test('as a sorted list, but faster', async t => {
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const next = prng(seed);
  const queue = new FrameQueue(100);
  const list: (Waiting & { order: number })[] = [];
  let refused = 0;
  for (let round = 0; round < 20_000; round++) {
    if (below(next, 5) < 3) {
      const waiting = { frame: new Uint8Array(1), dueMs: below(next, 50), side: round & 1 };
      const added = queue.add(waiting);
      if (added !== list.length < 100) return void t.fail(`round ${round}: a queue of ${list.length} said ${added}`);
      if (added) list.push({ ...waiting, order: round });
      else refused++;
    } else {
      list.sort((a, b) => a.dueMs - b.dueMs || a.order - b.order);
      const now = below(next, 50);
      const expected = list.length > 0 && list[0].dueMs <= now ? list.shift() : undefined;
      if (queue.take(now)?.frame !== expected?.frame) return void t.fail(`round ${round}: another frame came`);
    }
    const least = list.reduce<number | undefined>(
      (a, { dueMs }) => (a === undefined ? dueMs : Math.min(a, dueMs)),
      undefined,
    );
    if (queue.length !== list.length || queue.nextMs !== least) return void t.fail(`round ${round}: it lost count`);
  }
  t.ok(refused > 10, 'it was full now and then');
});

t.test('frames of one time leave in the order in which they came', async t => {
  const queue = new FrameQueue(1000);
  for (let i = 0; i < 1000; i++) queue.add({ frame: Uint8Array.of(i >> 8, i), dueMs: 5, side: 0 });
  const seen = Array.from({ length: 1000 }, () => queue.take(5)!.frame).map(([high, low]) => (high << 8) | low);
  t.same(
    seen,
    Array.from({ length: 1000 }, (_, i) => i),
  );
  t.equal(queue.take(1e9), undefined);
});
