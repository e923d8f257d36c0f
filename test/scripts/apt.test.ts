import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { callsOf, folder, pretend, root, runNode } from './support.ts';

const module = pathToFileURL(join(root, 'scripts/apt.mjs')).href;
const install = (home: string): ReturnType<typeof runNode> =>
  runNode(home, [
    '--input-type=module',
    '-e',
    `import { installPackages } from '${module}'; installPackages(['a', 'b'])`,
  ]);
/** As apt 2.6 says it. */
const locked = (file: string): string =>
  `echo "E: Could not get lock ${file}. It is held by process 1 (apt-get)" >&2; exit 100`;

t.test('another apt-get is waited for, and that is said once', async t => {
  const home = folder(t);
  pretend(home, {
    'apt-get': `[ $(wc -l < $HOME_FOLDER/calls) -ge 3 ] || { ${locked('/var/lib/dpkg/lock-frontend')}; }`,
  });
  const { status, stderr } = install(home);
  t.equal(status, 0, stderr);
  t.equal(stderr, 'tulle: another program has the lock of apt-get: waiting for its end\n');
  t.same(callsOf(home), Array(3).fill('apt-get -qq -y --no-install-recommends install a b'));
});

t.test('the lists are updated when they do not hold the package, after whoever updates them now', async t => {
  const home = folder(t);
  const update = `[ -e $HOME_FOLDER/once ] || { touch $HOME_FOLDER/once; ${locked('/var/lib/apt/lists/lock')}; }; touch $HOME_FOLDER/lists`;
  pretend(home, {
    'apt-get': `case "$*" in
*update) ${update};;
*) [ -e $HOME_FOLDER/lists ] || { echo "E: Unable to locate package a" >&2; exit 100; };;
esac`,
  });
  const { stderr } = install(home);
  t.equal(stderr, 'tulle: another program has the lock of apt-get: waiting for its end\n');
  t.same(
    callsOf(home).map(line => line.split(' ').find(word => word === 'update' || word === 'install')),
    ['install', 'update', 'update', 'install'],
  );
});

t.test("what cannot be installed is said, with apt-get's reason", async t => {
  const home = folder(t);
  pretend(home, { 'apt-get': 'echo "E: Unable to locate package a" >&2; exit 100' });
  const { stderr } = install(home);
  t.match(stderr, 'E: Unable to locate package a\n');
  t.match(stderr, /^tulle: apt-get could not install a and b: is the package archive within reach\?$/m);
  t.equal(callsOf(home).length, 3);
});
