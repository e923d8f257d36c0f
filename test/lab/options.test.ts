import t from 'tap';
import { type OptionTable, parseOptions } from '../../lib/lab/options.ts';

const table: OptionTable = {
  once: { flag: true },
  name: { text: 'NAME' },
  nodes: { numbers: [2, 50] },
  registry: { words: ['file', 'etcd'] },
};
const parse = (...args: string[]) => parseOptions(args, table, 'tulle lab up --help');

t.test('what is accepted', async t => {
  const options = parse(
    '--nodes',
    '3',
    '-once',
    '--name=x=y',
    'pod1',
    '--registry',
    'etcd',
    '--',
    'ls',
    '--nodes',
    '--',
  );
  t.same([...options.flags], ['once']);
  t.same(
    [...options.values],
    [
      ['nodes', '3'],
      ['name', 'x=y'],
      ['registry', 'etcd'],
    ],
  );
  t.equal(options.numbers.get('nodes'), 3);
  t.same(options.positional, ['pod1']);
  t.same(options.rest, ['ls', '--nodes', '--'], 'what follows -- is not looked at');
  t.equal(parse().rest, undefined);
  t.same(parse('-').positional, ['-']);
});

t.test('what is refused, in one line', async t => {
  const cases: [string[], string][] = [
    [['--wrong'], 'unknown option --wrong: see "tulle lab up --help"'],
    [['--toString'], 'unknown option --toString: see "tulle lab up --help"'],
    [['--nodes'], '--nodes needs a value: see "tulle lab up --help"'],
    [['--nodes='], '--nodes needs a value: see "tulle lab up --help"'],
    [['--nodes', 'two'], '--nodes is a whole number from 2 to 50, not "two"'],
    [['--nodes', '1'], '--nodes is a whole number from 2 to 50, not "1"'],
    [['--nodes', '51'], '--nodes is a whole number from 2 to 50, not "51"'],
    [['--nodes', '-3'], '--nodes is a whole number from 2 to 50, not "-3"'],
    [['--nodes', '2.5'], '--nodes is a whole number from 2 to 50, not "2.5"'],
    [['--once=yes'], '--once takes no value: see "tulle lab up --help"'],
    [['--registry', 'consul'], '--registry is one of file, etcd, not "consul"'],
  ];
  for (const [args, message] of cases) t.throws(() => parse(...args), { code: 'usage', message }, args.join(' '));
});
