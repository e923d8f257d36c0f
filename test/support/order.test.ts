import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { LONG, longestFirst } from './order.ts';

t.test('the long files come first, the others by their names', async t => {
  t.same(longestFirst(['a/a', 'etcd/client', 'cmd/tulle', 'wire/ip4', 'cmd/tulle-lab', 'b/b']), [
    'cmd/tulle-lab',
    'etcd/client',
    'a/a',
    'b/b',
    'cmd/tulle',
    'wire/ip4',
  ]);
});

t.test('each of them is there', async t => {
  const gone = LONG.filter(name => !existsSync(fileURLToPath(new URL(`../${name}.test.js`, import.meta.url))));
  t.same(gone, [], 'take the name out of test/support/order.ts, or say the new one');
  t.equal(new Set(LONG).size, LONG.length);
});
