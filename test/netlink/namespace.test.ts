import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace } from '../../lib/sys/sys.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

t.test('a namespace with its directory, lo up, and gone again', { skip }, async t => {
  const path = join(sandbox.directory, 'deep/down/ns');
  makeNamespace(path);
  t.teardown(() => removeNamespace(path));
  t.equal(
    withRtnetlink(path, netlink => netlink.link('lo')?.up),
    true,
  );
  t.throws(() => makeNamespace(path), { code: 'EEXIST' });
  t.equal(
    withRtnetlink(path, netlink => netlink.links().length),
    1,
    'the first one is untouched',
  );
  removeNamespace(path);
  removeNamespace(path);
  t.equal(existsSync(path), false);
  t.same(readdirSync(join(sandbox.directory, 'deep/down')), []);
});
