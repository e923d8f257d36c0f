/** When something is built again: in a tree of stand-ins, whose scripts only write what they would build. */
import { existsSync, mkdirSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { callsOf, folder, pretend, root, runNode } from './support.ts';

const module = pathToFileURL(join(root, 'scripts/prepare.mjs')).href;
const PAST = new Date(Date.now() - 3_600_000);
const ADDON = `build/linux-${process.arch}/tulle.node`;
const CNI = 'dist/cmd/tulle-cni';

/** A tree whose files and folders are an hour old. */
function tree(t: { teardown(action: () => void): void }): {
  home: string;
  path(name: string): string;
  run(call: string): ReturnType<typeof runNode>;
} {
  const home = folder(t);
  const path = (name: string): string => join(home, name);
  const write = (name: string, text = ''): void => {
    mkdirSync(dirname(path(name)), { recursive: true });
    writeFileSync(path(name), text);
  };
  const builder = (target: string): string =>
    `import { mkdirSync, writeFileSync } from 'node:fs';
mkdirSync('${dirname(target)}', { recursive: true });
writeFileSync('${target}', '');`;
  pretend(home, { cc: '' });
  write('scripts/build-addon.mjs', builder(ADDON));
  write('scripts/build-cni.mjs', builder(CNI));
  for (const name of ['lib/sys/a.c', 'lib/sys/b.c', 'cmd/tulle-cni/main.c', 'scripts/compiler.mjs', 'package.json'])
    write(name);
  for (const name of ['lib/sys', 'cmd/tulle-cni', 'scripts']) age(path(name));
  for (const name of ['lib/sys/a.c', 'lib/sys/b.c', 'cmd/tulle-cni/main.c', 'package.json']) age(path(name));
  for (const name of ['compiler', 'build-addon', 'build-cni']) age(path(`scripts/${name}.mjs`));
  const run = (call: string): ReturnType<typeof runNode> =>
    runNode(home, ['--input-type=module', '-e', `import * as prepare from '${module}'; prepare.${call}('${home}')`]);
  return { home, path, run };
}

const age = (path: string, seconds = 0): void => utimesSync(path, PAST, new Date(PAST.getTime() + seconds * 1000));

t.test('a binary is built again when what it is made of has changed, and only then', async t => {
  const { path, run } = tree(t);
  /** Whether the call builds one that was right half an hour ago. */
  const builds = (call: string, target: string): boolean => {
    age(path(target), 1800);
    const { status, stderr } = run(call);
    t.equal(status, 0, stderr);
    return statSync(path(target)).mtimeMs > PAST.getTime() + 1_800_000;
  };
  const addon = (): boolean => builds('ensureAddon', ADDON);
  const cni = (): boolean => builds('ensureCniPlugin', CNI);
  run('ensureAddon');
  run('ensureCniPlugin');
  t.ok(existsSync(path(ADDON)) && existsSync(path(CNI)), 'the first time');
  t.notOk(addon() || cni(), 'nothing changed');

  age(path('lib/sys/a.c'), 2000);
  t.same([addon(), cni()], [true, false], 'a source');
  age(path('lib/sys/a.c'));
  rmSync(path('lib/sys/b.c'));
  t.same([addon(), cni()], [true, false], 'a source that is gone');
  age(path('lib/sys'));
  age(path('scripts/compiler.mjs'), 2000);
  t.same([addon(), cni()], [true, true], 'the flags');
  age(path('scripts/compiler.mjs'));
  age(path('package.json'), 2000);
  t.same([addon(), cni()], [false, true], 'the version');
});

t.test('what was compiled is not taken for right because somebody checked the types', async t => {
  const { home, path, run } = tree(t);
  const compiler = 'node_modules/typescript/bin/tsc';
  mkdirSync(path(dirname(compiler)), { recursive: true });
  writeFileSync(
    path(compiler),
    "const fs = require('node:fs'); fs.mkdirSync('dist/cmd', { recursive: true }); fs.appendFileSync('compiled', 'x');",
  );
  for (const name of ['tsconfig.json', 'package-lock.json', 'node_modules/.package-lock.json', 'lib/a.ts']) {
    writeFileSync(path(name), '{}');
    age(path(name));
  }
  for (const name of ['lib', 'cmd']) age(path(name));
  mkdirSync(path('dist/page'), { recursive: true });
  writeFileSync(path('dist/page/tulle.html'), '');
  const compiled = (): number => {
    const { status, stderr } = run('ensureBuilt');
    t.equal(status, 0, stderr);
    return existsSync(join(home, 'compiled')) ? statSync(join(home, 'compiled')).size : 0;
  };
  t.equal(compiled(), 1);
  t.equal(compiled(), 1, 'nothing changed');
  writeFileSync(path('lib/a.ts'), 'changed');
  writeFileSync(path('dist/.tsbuildinfo'), 'what tsc --noEmit leaves');
  t.equal(compiled(), 2);
  rmSync(path('lib/a.ts'));
  t.equal(compiled(), 3, 'a source that is gone: what was made of it must go, too');
});

t.test("another clone's packages are left alone", async t => {
  const { home, path, run } = tree(t);
  pretend(home, { npm: '' });
  writeFileSync(path('package-lock.json'), '{}');
  mkdirSync(path('elsewhere'));
  symlinkSync('elsewhere', path('node_modules'));
  const { status, stderr } = run('ensureDependencies');
  t.equal(status, 0, stderr);
  t.notOk(callsOf(home).some(call => call.startsWith('npm ')));
  rmSync(path('node_modules'));
  run('ensureDependencies');
  t.ok(callsOf(home).includes('npm ci --no-audit --no-fund --loglevel=error'));
});
