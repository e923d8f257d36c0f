// For every TTL and margin that the flags allow: a renewal is due while the lease is still trusted.
import t from 'tap';
import { renewAfterMs, trustMs } from '../../lib/lease/deadline.ts';

const day = 24 * 3600;

t.test('a renewal is due clearly before the trust ends, and not before a third of the TTL', async t => {
  const ttls = [3, 4, 10, 59, 60, 61, 90, 119, 600, 3600, day, 30 * day, 365 * day, 2 ** 31];
  for (let ttl = 5; ttl < 2 ** 31; ttl = Math.ceil(ttl * 1.3)) ttls.push(ttl);
  const margins = [1, 2, 3, 5, 10, 30, 60, 120, 600, 1439].map(minutes => minutes * 60); // flannel's flag: 1 to 1439
  let pairs = 0;
  for (const ttl of ttls) {
    // options.ts: a margin as long as the TTL is refused, the default becomes two thirds of it.
    for (const margin of [Math.ceil((ttl * 2) / 3), ...margins.filter(margin => margin < ttl)]) {
      const [due, trust] = [renewAfterMs(ttl, margin), trustMs(ttl)];
      const text = `TTL ${ttl} s, margin ${margin} s: due after ${due} ms, trusted for ${trust} ms`;
      if (due > trust - Math.min(60_000, ttl * 100)) t.fail(`too late: ${text}`);
      if (due < (ttl * 1000) / 3 - 1000) t.fail(`too early: ${text}`);
      pairs++;
    }
  }
  t.ok(pairs > 500, `${pairs} pairs`);
});

t.test('the margin counts from where our trust ends', async t => {
  t.equal(renewAfterMs(day, 3600), trustMs(day) - 3_600_000);
  t.equal(renewAfterMs(day, 60), trustMs(day) - 60_000);
  t.equal(renewAfterMs(1000 * 3600, 3600), trustMs(1000 * 3600) - 3_600_000);
  t.equal(renewAfterMs(90, 3600), 30_000, 'a third of a short one');
});
