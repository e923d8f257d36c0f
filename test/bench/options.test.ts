import t from 'tap';
import { HELP_TEXT, parseBenchOptions } from '../../bench/options.ts';
import { TUNNELS } from '../../bench/tunnels/all.ts';

t.test('what is measured', async t => {
  const all = parseBenchOptions([]);
  t.equal(all.cells.length, 2 * TUNNELS.length);
  t.match(all, { rounds: 5, seconds: 3, quick: false, whole: true, fetch: true });
  const few = parseBenchOptions(['--only', 'fastd,tulle', '--underlay', 'nic', '--rounds=2']);
  t.same(
    few.cells,
    ['vxlan', 'tulle', 'fastd'].map(tunnel => ({ tunnel, underlay: 'nic' })),
    'with the baseline, in order',
  );
  t.match(few, { rounds: 2, whole: false });
  const quick = parseBenchOptions(['--quick']);
  t.match(quick, { seconds: 1, rounds: 3, whole: false });
  for (const { tunnel } of quick.cells)
    t.ok(
      TUNNELS.some(({ name }) => name === tunnel),
      tunnel,
    );
});

t.test('what is refused', async t => {
  for (const args of [['--only', 'nothing'], ['--rounds', '0'], ['--underlay', 'wifi'], ['more'], ['--name', '../x']]) {
    t.throws(() => parseBenchOptions(args), { code: 'usage' }, args.join(' '));
  }
});

t.test('the help names every tunnel and every option', async t => {
  for (const { name } of TUNNELS) t.match(HELP_TEXT, `\n  ${name} `);
  for (const option of ['quick', 'only', 'rounds', 'seconds', 'underlay', 'no-fetch', 'out', 'draw', 'name'])
    t.match(HELP_TEXT, `\n  --${option} `);
});
