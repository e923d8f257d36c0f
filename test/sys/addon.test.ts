import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import t from 'tap';
import { addonPath } from '../../lib/sys/sys.ts';
import { fixture, folder, root, run } from './support.ts';

const platform = `linux-${process.arch}`;

t.test('the addon is found, and a missing or broken one is one clear line at the first call', async t => {
  t.ok(existsSync(addonPath()));
  const broken = join(folder(t), 'broken.node');
  writeFileSync(broken, 'not a library\n');
  for (const path of [broken, '/nowhere/tulle.node']) {
    const { status, stdout } = run(process.execPath, [fixture('open-tun')], { TULLE_ADDON: path });
    t.equal(status, 0, 'importing it did not fail');
    t.match(JSON.parse(stdout), {
      code: 'ENOADDON',
      message: /^the C addon .* does not load \(.*\): run "npm rebuild tulle"/,
    });
    t.notMatch(JSON.parse(stdout).message, '\n');
  }
});

/** A package as npm unpacks it: sources, scripts and the headers' package, no compiled addon. */
function unpacked(home: string): string {
  const to = join(home, 'tulle');
  mkdirSync(join(to, 'lib'), { recursive: true });
  for (const name of ['package.json', 'scripts']) cpSync(join(root, name), join(to, name), { recursive: true });
  cpSync(join(root, 'lib/sys'), join(to, 'lib/sys'), { recursive: true });
  mkdirSync(join(home, 'node_modules'));
  const headers = dirname(createRequire(join(root, 'package.json')).resolve('node-api-headers/package.json'));
  symlinkSync(headers, join(home, 'node_modules/node-api-headers'));
  return to;
}

const build = (to: string, environment: Record<string, string> = {}) =>
  run(process.execPath, [join(to, 'scripts/build-addon.mjs')], environment);

const noCompiler =
  ['cc', 'gcc', 'clang'].every(name => spawnSync(name, ['--version']).status !== 0) && 'SKIPPED: no C compiler here';

t.test('an installed package builds its addon, and a prebuilt one is preferred', { skip: noCompiler }, async t => {
  const to = unpacked(folder(t));
  const built = join(to, 'build', platform, 'tulle.node');
  t.same(build(to), { status: 0, signal: null, stdout: '', stderr: '' });
  t.ok(existsSync(built));
  t.equal(build(to).status, 0, 'and again, over itself');

  const other = unpacked(folder(t));
  mkdirSync(join(other, 'prebuilds', platform), { recursive: true });
  writeFileSync(join(other, 'prebuilds', platform, 'tulle.node'), 'of another machine');
  t.equal(build(other).status, 0, 'a prebuilt one that does not load is passed over');
  t.ok(existsSync(join(other, 'build', platform, 'tulle.node')));

  const third = unpacked(folder(t));
  mkdirSync(join(third, 'prebuilds', platform), { recursive: true });
  copyFileSync(built, join(third, 'prebuilds', platform, 'tulle.node'));
  t.same(build(third, { PATH: '/nowhere' }), { status: 0, signal: null, stdout: '', stderr: '' }, 'no compiler needed');
  t.notOk(existsSync(join(third, 'build')));
});

t.test('what is missing is named in one line', async t => {
  const to = unpacked(folder(t));
  const bare = build(to, { PATH: '/nowhere' });
  t.equal(bare.status, 1);
  t.match(bare.stderr, /^tulle: no C compiler .*"apt-get install gcc libc6-dev", then "npm rebuild".*\n$/);
  t.equal(bare.stderr.split('\n').length, 2, bare.stderr);
  t.notOk(existsSync(join(to, 'build')));
});

t.test('$CC is honoured, and a compiler that fails is reported', { skip: noCompiler }, async t => {
  const to = unpacked(folder(t));
  const failing = join(to, 'failing-cc');
  writeFileSync(
    failing,
    '#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "node_api.h:1: fatal error: stdio.h: No such file or directory" >&2; exit 1\n',
    { mode: 0o755 },
  );
  const child = build(to, { CC: failing });
  t.equal(child.status, 1);
  t.match(child.stderr, /tulle: .*failing-cc could not compile the addon: run "apt-get install gcc libc6-dev"/);
  t.notOk(existsSync(join(to, 'build', platform, 'tulle.node')));
});
