import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import * as sys from '../../lib/sys/sys.ts';
import { fixture, folder, namespace, noNamespaces, run } from './support.ts';

const here = (): string => readlinkSync('/proc/thread-self/ns/net');

t.test('a namespace is made, entered, left and removed', { skip: noNamespaces }, async t => {
  const path = join(folder(t), 'ns');
  const home = here();
  sys.createNamespace(path);
  t.equal(here(), home, 'making one moves nobody');
  const inside = sys.withNamespace(path, here);
  t.not(inside, home);
  t.equal(here(), home);
  t.throws(() => sys.createNamespace(path), { code: 'EEXIST' });
  t.equal(sys.withNamespace(path, here), inside, 'and the failed one did no harm');

  const child = sys.withNamespace(path, () => execFileSync('readlink', ['/proc/self/ns/net'], { encoding: 'utf8' }));
  t.equal(child.trim(), inside, 'a child is born inside');
  t.match(
    sys.withNamespace(path, () => readFileSync('/proc/thread-self/net/dev', 'utf8')),
    /lo:/,
  );

  sys.removeNamespace(path);
  t.notOk(existsSync(path));
  t.throws(() => sys.withNamespace(path, here), {
    code: 'ENOENT',
    message: `open ${path}: ENOENT (no such file or directory)`,
  });
  t.equal(here(), home);
});

t.test('what goes wrong inside comes out, and the thread is home', { skip: noNamespaces }, async t => {
  const path = namespace(t);
  const other = namespace(t);
  const home = here();
  t.throws(
    () =>
      sys.withNamespace(path, () => {
        throw new RangeError('mine');
      }),
    { name: 'RangeError', message: 'mine' },
  );
  t.equal(here(), home);
  t.throws(() => sys.withNamespace(path, async () => 1), { name: 'TypeError' });
  t.throws(() => sys.withNamespace(path, () => Promise.reject(new Error('unheard'))), { name: 'TypeError' });
  const nested = sys.withNamespace(path, () => [sys.withNamespace(other, here), here()]);
  t.same(nested, [sys.withNamespace(other, here), sys.withNamespace(path, here)], 'they nest');
  t.not(nested[0], nested[1]);
  t.equal(here(), home);
  const file = join(folder(t), 'plain');
  writeFileSync(file, '');
  t.throws(() => sys.withNamespace(file, here), { code: 'EINVAL', syscall: 'setns' });
  t.throws(() => sys.withNamespace('/proc/self/ns/mnt', here), { code: 'EINVAL' }, 'a namespace of another kind');
  t.throws(() => sys.withNamespace(3 as unknown as string, here), { code: 'EINVAL' });
  t.equal(here(), home);
});

t.test('removal takes only what creation leaves', { skip: noNamespaces }, async t => {
  const home = folder(t);
  sys.removeNamespace(join(home, 'never-made'));
  sys.removeNamespace(join(home, 'no', 'folder'));
  const letter = join(home, 'letter');
  writeFileSync(letter, 'dear');
  t.throws(() => sys.removeNamespace(letter), { code: 'EINVAL' });
  t.equal(readFileSync(letter, 'utf8'), 'dear');
  mkdirSync(join(home, 'dir'));
  t.throws(() => sys.removeNamespace(join(home, 'dir')), { code: 'EINVAL' });
  const crashed = join(home, 'crashed'); // between the file and the mount
  writeFileSync(crashed, '');
  sys.removeNamespace(crashed);
  t.notOk(existsSync(crashed));
  t.throws(() => sys.createNamespace(join(home, 'no', 'folder')), { code: 'ENOENT', syscall: 'open' });
});

t.test('a namespace lives on while a handle of it is open', { skip: noNamespaces }, async t => {
  const path = join(folder(t), 'ns');
  sys.createNamespace(path);
  const handle = sys.openNetlink({ protocol: 0, namespace: path });
  sys.removeNamespace(path);
  t.notOk(existsSync(path));
  sys.close(handle);
});

const noUserNamespaces =
  spawnSync('unshare', ['-Urnm', 'true']).status !== 0 && 'SKIPPED: user namespaces are not allowed here';

t.test('in a user namespace', { skip: noUserNamespaces }, async t => {
  const own = run('unshare', ['-Urnm', process.execPath, fixture('user-namespace'), 'own', folder(t)]);
  t.equal(own.status, 0, own.stderr);
  const borrowed = run('unshare', ['-Urm', process.execPath, fixture('user-namespace'), 'borrowed', folder(t)]);
  t.equal(borrowed.status, 0, borrowed.stderr);
});

t.test('no thread is left behind', { skip: noNamespaces }, async t => {
  const { status, stderr } = run(process.execPath, [fixture('threads'), namespace(t)]);
  t.equal(status, 0, stderr);
});
