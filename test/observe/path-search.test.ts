import t from 'tap';
import { PathSearch } from '../../lib/observe/path-search.ts';
import { below, prng, testSeed } from '../support/prng.ts';

const OPTIONS = { least: 576, most: 1500, confirmMs: 30_000 };

/** Probes until nothing is due; returns how many it took. `width` 0: nothing crosses. */
function run(search: PathSearch, width: () => number, now: () => number, most = 200): number {
  for (let probes = 0; probes < most; probes++) {
    const size = search.next(now());
    if (size === undefined) return probes;
    if (size <= width()) search.crossed(size, now());
    else search.lost(size, now());
  }
  return most;
}

t.test('a path as wide as the underlay costs one probe', async t => {
  const search = new PathSearch(OPTIONS);
  t.equal(search.pathMtu, undefined);
  t.equal(
    run(
      search,
      () => 1500,
      () => 0,
    ),
    1,
  );
  t.equal(search.pathMtu, 1500);
  t.notOk(search.isNarrow);
});

t.test('every width is found exactly, by the kernel’s word or without it', async t => {
  for (const least of [576, 1280]) {
    for (let width = least; width <= 1500; width += 7) {
      const search = new PathSearch({ ...OPTIONS, least });
      t.ok(
        run(
          search,
          () => width,
          () => 0,
        ) <= 40,
        `${width} in few probes`,
      );
      t.equal(search.pathMtu, width);
      t.equal(search.isNarrow, width < 1500);
      const told = new PathSearch({ ...OPTIONS, least });
      for (let size = told.next(0); size !== undefined; size = told.next(0)) {
        if (size <= width) told.crossed(size, 0);
        else told.refused(size, 0);
      }
      t.equal(told.pathMtu, width, 'refused by the kernel');
    }
  }
});

t.test('three in a row are a fact, two are not', async t => {
  const search = new PathSearch(OPTIONS);
  search.lost(1500, 0);
  search.lost(1500, 0);
  t.equal(search.next(0), 1500, 'still the widest');
  search.crossed(1500, 0);
  t.equal(search.pathMtu, 1500);
  const lossy = new PathSearch(OPTIONS);
  for (let i = 0; i < 9; i++) lossy.lost(1500, 0, 10);
  t.equal(lossy.next(0), 1500, 'a lossy path is asked more often');
  lossy.lost(1500, 0, 10);
  t.equal(lossy.next(0), 1280, 'then the base');
});

t.test('a path that became narrow is noticed when it is confirmed, and a wide one after ten minutes', async t => {
  let [now, width] = [0, 1500];
  const search = new PathSearch(OPTIONS);
  const go = (): number =>
    run(
      search,
      () => width,
      () => now,
    );
  go();
  t.equal(search.next(now), undefined);
  width = 1400;
  now = 29_999;
  t.equal(search.next(now), undefined, 'not yet');
  now = 30_000;
  t.equal(search.next(now), 1500, 'now');
  t.ok(go() < 40);
  t.equal(search.pathMtu, 1400);
  t.ok(search.isNarrow);
  width = 1500;
  now += 30_000;
  go();
  t.equal(search.pathMtu, 1400, 'confirmed, not raised');
  now += 600_000;
  t.equal(search.next(now), 1400, 'what it builds upon first');
  search.crossed(1400, now);
  t.equal(search.next(now), 1500);
  t.equal(search.pathMtu, 1400, 'the old one counts while it searches');
  go();
  t.equal(search.pathMtu, 1500);
});

t.test('an answer that comes late counts, and one that nobody asked for does not harm', async t => {
  const search = new PathSearch(OPTIONS);
  for (let i = 0; i < 3; i++) search.lost(1500, 0);
  search.crossed(1500, 1);
  t.equal(search.pathMtu, 1500);
  search.crossed(600, 1);
  t.equal(search.pathMtu, 1500);
  search.lost(9000, 1);
  t.equal(search.pathMtu, 1500);
});

t.test('whatever happens it ends between least and most', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  for (let round = 0; round < 500; round++) {
    const search = new PathSearch(OPTIONS);
    let now = 0;
    for (let step = 0; step < 200; step++) {
      const size = below(next, 3) === 0 ? below(next, 2_000) : (search.next(now) ?? 1500);
      [() => search.crossed(Math.min(size, 1500), now), () => search.lost(size, now), () => search.refused(size, now)][
        below(next, 3)
      ]();
      now += below(next, 40_000);
      const mtu = search.pathMtu ?? 576;
      if (mtu < 576 || mtu > 1500) t.fail(`${mtu}`);
      const asked = search.next(now) ?? 576;
      if (asked < 576 || asked > 1500 || !Number.isInteger(asked)) t.fail(`asked ${asked}`);
    }
    // An honest path afterwards is found whatever was believed.
    now += 700_000;
    const width = 576 + below(next, 925);
    for (let i = 0; i < 4; i++) {
      run(
        search,
        () => width,
        () => now,
      );
      now += 700_000;
    }
    if (search.pathMtu !== width) t.fail(`found ${search.pathMtu}, not ${width}`);
  }
  t.pass('500 rounds');
});
