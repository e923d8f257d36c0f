import t from 'tap';
import { median, quantile, ratios, summarize } from '../../bench/statistics.ts';
import { below as belowOf, prng } from '../support/prng.ts';

t.test('median and quantile against counting', async t => {
  const random = prng(20261121);
  for (let i = 0; i < 300; i++) {
    const values = Array.from({ length: 1 + belowOf(random, 12) }, () => belowOf(random, 50));
    const middle = median(values)!;
    const below = values.filter(value => value < middle).length;
    const above = values.filter(value => value > middle).length;
    t.ok(below <= values.length / 2 && above <= values.length / 2, `${middle} is in the middle of ${values}`);
    for (const q of [0, 0.5, 0.9, 0.99, 1]) {
      const found = quantile(values, q)!;
      t.ok(values.includes(found) && values.filter(value => value <= found).length >= q * values.length);
      t.notOk(
        values.some(
          value => value < found && values.filter(other => other <= value).length >= q * values.length && q > 0,
        ),
      );
    }
  }
  t.equal(median([3, 1]), 2);
  t.equal(median([]), null);
  t.equal(quantile([], 0.5), null);
  const given = [3, 1, 2];
  median(given);
  quantile(given, 0.5);
  t.same(given, [3, 1, 2], 'the input stays as it is');
});

t.test('rounds without a value are left out', async t => {
  t.same(summarize([null, 5, 1, 3]), { median: 3, min: 1, max: 5, count: 3 });
  t.equal(summarize([null, null]), null);
  t.equal(summarize([]), null);
});

t.test('ratios are made within a round', async t => {
  t.same(ratios([10, 20, null, 40], [5, null, 3, 0]), [2, null, null, null]);
  // A machine twice as slow in the second round changes nothing, where the ratio of medians would.
  t.same(summarize(ratios([8, 4, 8], [16, 8, 16])), { median: 0.5, min: 0.5, max: 0.5, count: 3 });
  t.same(ratios([1, 2], [1]), [1, null], 'a baseline that ended early');
});
