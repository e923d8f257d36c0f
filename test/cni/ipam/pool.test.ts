import t from 'tap';
import { Pool } from '../../../lib/cni/ipam/pool.ts';
import { parseRangeSets } from '../../../lib/cni/ipam/range.ts';
import type { IpRange } from '../../../lib/cni/plugin.ts';

class Bench {
  readonly taken = new Set<string>();
  readonly pool: Pool;

  constructor(set: IpRange[], before: string[] = []) {
    for (const address of before) this.taken.add(address);
    this.pool = new Pool(parseRangeSets([set])[0], address => this.taken.has(address), before);
  }

  take(address = this.pool.next()?.address): string | undefined {
    if (address === undefined) return undefined;
    this.taken.add(address);
    this.pool.noteTaken(address);
    return address;
  }

  release(address: string): void {
    this.taken.delete(address);
    this.pool.noteReleased(address);
  }
}

t.test('in order, without the gateway, until nothing is left', async t => {
  const bench = new Bench([{ subnet: '10.5.1.0/29', gateway: '10.5.1.3' }]);
  t.equal(bench.pool.free, 5n);
  t.same(
    Array.from({ length: 6 }, () => bench.take()),
    ['10.5.1.1', '10.5.1.2', '10.5.1.4', '10.5.1.5', '10.5.1.6', undefined],
  );
  t.equal(bench.pool.free, 0n);
});

t.test('a freed address is the last to come back', async t => {
  const bench = new Bench([{ subnet: '10.5.1.0/29' }]);
  for (let i = 0; i < 3; i++) bench.take(); // 2 3 4
  bench.release('10.5.1.3');
  bench.release('10.5.1.2');
  t.same(
    Array.from({ length: 5 }, () => bench.take()),
    ['10.5.1.5', '10.5.1.6', '10.5.1.3', '10.5.1.2', undefined],
  );
});

t.test('one that is freed before the frontier reaches it waits all the same', async t => {
  const bench = new Bench([{ subnet: '10.5.1.0/29' }]);
  bench.take('10.5.1.3');
  bench.release('10.5.1.3');
  t.same([bench.take(), bench.take()], ['10.5.1.2', '10.5.1.4']);
});

t.test('goes on behind the last one after a restart, and finds what was freed before it', async t => {
  const bench = new Bench([{ subnet: '10.5.1.0/29' }], ['10.5.1.4']);
  bench.pool.startAfter('10.5.1.5');
  t.same(
    Array.from({ length: 5 }, () => bench.take()),
    ['10.5.1.6', '10.5.1.2', '10.5.1.3', '10.5.1.5', undefined],
  );
  bench.pool.startAfter('10.77.0.1');
  t.equal(bench.take(), undefined, 'an address of elsewhere says nothing');
});

t.test('several ranges in one set', async t => {
  const bench = new Bench([
    { subnet: '10.5.1.0/30' },
    { subnet: '10.6.0.0/16', rangeStart: '10.6.9.9', rangeEnd: '10.6.9.10' },
  ]);
  t.same(
    Array.from({ length: 4 }, () => bench.take()),
    ['10.5.1.2', '10.6.9.9', '10.6.9.10', undefined],
  );
});

t.test('a pool whose frontier never ends still gives back what rested, and forgets nothing', async t => {
  const bench = new Bench([{ subnet: 'fd00::/64' }]);
  const first = bench.take();
  bench.release(first!);
  let returned = -1;
  for (let i = 0; i < 70_000 && returned < 0; i++) {
    const address = bench.take();
    if (address === first) returned = i;
    else bench.release(address!);
  }
  t.equal(returned, 65_535, 'after as many others as may rest');
});

t.test('a candidate that was not taken is not lost', async t => {
  const bench = new Bench([{ subnet: '10.5.1.0/30' }]);
  const candidate = bench.pool.next();
  t.equal(candidate?.address, '10.5.1.2');
  bench.pool.giveBack('10.5.1.2');
  t.equal(bench.take(), '10.5.1.2');
});

t.test('an address that is asked for again and again leaves no trail', async t => {
  const bench = new Bench([{ subnet: '10.5.1.0/24' }]);
  for (let i = 0; i < 50_000; i++) {
    bench.take('10.5.1.77');
    bench.release('10.5.1.77');
  }
  t.equal(bench.pool.free, 253n);
  t.equal(bench.take(), '10.5.1.2');
});
