import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { callsOf, folder, pretend, root, runNode } from './support.ts';

const fetch = (home: string): ReturnType<typeof runNode> =>
  runNode(home, [join(root, 'scripts/fetch-debian.mjs'), 'lib0', 'tulle-no-such-program']);

/** Packages lib0, lib1, …, each of which depends on the next; the first holds the program, which misses `missing`. */
const archive = (missing: string): Record<string, string> => ({
  'apt-get': 'case "$*" in *download*) for name; do :; done; touch $name.deb;; esac',
  'dpkg-deb': `case "$1" in
--extract) mkdir -p $3/usr/bin && cp /bin/true $3/usr/bin/tulle-no-such-program;;
--field) number=$(basename $2 .deb | tr -dc 0-9); echo "Depends: lib$((number + 1))";;
esac`,
  'dpkg-query': 'exit 1',
  ldd: missing === '' ? 'exit 0' : `echo "	${missing} => not found"`,
});

t.test('a program that runs is kept', async t => {
  const home = folder(t);
  pretend(home, archive(''));
  const { status, stdout, stderr } = fetch(home);
  t.equal(status, 0, stderr);
  t.equal(stdout.trim(), join(home, 'cache/tulle/lib0/usr/bin/tulle-no-such-program'));
});

t.test('one whose libraries are not to be found is not, however deep they were looked for', async t => {
  const home = folder(t);
  pretend(home, archive('libdeep.so.1'));
  const { status, stdout, stderr } = fetch(home);
  t.equal(status, 1);
  t.equal(stdout, '');
  t.match(stderr, /^tulle: tulle-no-such-program misses libdeep\.so\.1$/m);
  t.ok(callsOf(home).filter(line => line.startsWith('apt-get') && line.includes('download')).length > 3);
  t.same(readdirSync(join(home, 'cache/tulle')), [], 'nothing of it stays');
});

t.test('what a killed fetch left is removed when it is a day old', async t => {
  const home = folder(t);
  pretend(home, archive(''));
  const [old, young] = ['.fetch-old', '.fetch-young'].map(name => join(home, 'cache/tulle', name));
  for (const path of [old, young]) {
    mkdirSync(join(path, 'root'), { recursive: true });
    writeFileSync(join(path, 'root/file'), '');
  }
  const yesterday = new Date(Date.now() - 25 * 3600 * 1000);
  utimesSync(old, yesterday, yesterday);
  t.equal(fetch(home).status, 0);
  t.notOk(existsSync(old));
  t.ok(existsSync(young), 'another process may be at work in it');
});
