import t from 'tap';
import { growthOf } from '../../bench/growth.ts';

const series = (count: number, mb: (i: number) => number) =>
  Array.from({ length: count }, (_, i) => ({ seconds: i, mb: mb(i) }));

t.test('growth is told from start-up and noise', async t => {
  t.match(growthOf(series(600, i => (i < 100 ? 40 + i / 4 : 65 + (i % 7)))), { grows: false }, 'warm-up, then noise');
  t.match(growthOf(series(600, i => 60 + i / 20)), { grows: true, mostMb: 60 + 599 / 20 }, '3 MB a minute');
  t.match(growthOf(series(600, i => 60 + i / 200)), { grows: false }, 'less than the noise');
  t.equal(growthOf(series(7, () => 60)), undefined, 'too few to say');
});
