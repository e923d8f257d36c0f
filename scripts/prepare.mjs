// What must exist before a program of this repository can run: the dependencies, the addon, the compiled TypeScript.
// Each step looks first and does nothing when there is nothing to do. Only Node's own modules may be used here:
// in a fresh clone there is nothing else.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, lstatSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { installPackages } from './apt.mjs';
import { findCompiler } from './compiler.mjs';

const say = text => process.stderr.write(`${text}\n`);

/** Runs a command with its output on our stderr; exits with one line when it fails. */
function must(command, args, root, hint) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', process.stderr, process.stderr] });
  if (error === undefined && status === 0) return;
  say(`tulle: "${command} ${args.join(' ')}" failed${error ? ` (${error.message})` : ''}: ${hint}`);
  process.exit(1);
}

/** The time of the last change of a file or below a folder, 0 where there is none. */
function newest(path) {
  const entry = statSync(path, { throwIfNoEntry: false });
  if (entry === undefined) return 0;
  let time = entry.mtimeMs; // a folder's own: a file in it came or went
  if (!entry.isDirectory()) return time;
  for (const each of readdirSync(path, { withFileTypes: true })) {
    if (each.isDirectory() || /\.(tsx?|c|h|json|html|css)$/.test(each.name))
      time = Math.max(time, newest(join(path, each.name)));
  }
  return time;
}

const BUILT = 'dist/.built';
const PLATFORM = `linux-${process.arch}`;
const hasCompiler = () => findCompiler() !== undefined;
const timeOf = path => (existsSync(path) ? statSync(path).mtimeMs : 0);

/**
 * `npm ci`, when node_modules is missing or older than the lock file; never where it is a link, which leads to another clone's
 * (a worktree's way to share them): npm would first delete everything at its end.
 */
export function ensureDependencies(root) {
  if (lstatSync(join(root, 'node_modules'), { throwIfNoEntry: false })?.isSymbolicLink()) return;
  if (timeOf(join(root, 'node_modules/.package-lock.json')) >= timeOf(join(root, 'package-lock.json'))) return;
  ensureCompiler();
  say('tulle: installing the npm packages of package-lock.json (once)');
  must('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], root, 'is the npm registry within reach?');
}

/** A C compiler for the addon. On a bare Debian the root user gets one; everybody else gets told how, by the addon's build. */
function ensureCompiler() {
  if (hasCompiler() || process.getuid() !== 0 || spawnSync('apt-get', ['--version']).status !== 0) return;
  say('tulle: no C compiler here: installing gcc and libc6-dev with apt-get (once)');
  installPackages(['gcc', 'libc6-dev']);
}

/** The addon, when it is missing or older than its sources. */
export function ensureAddon(root) {
  ensureNative(
    root,
    'build-addon.mjs',
    ['lib/sys'],
    ['build', 'prebuilds'].map(folder => join(folder, PLATFORM, 'tulle.node')),
  );
}

/** The CNI plugin in C, when it is missing or older than its sources. */
export function ensureCniPlugin(root) {
  // It says its version, which package.json holds.
  ensureNative(
    root,
    'build-cni.mjs',
    ['cmd/tulle-cni', 'package.json'],
    ['dist/cmd/tulle-cni', join('prebuilds', PLATFORM, 'tulle-cni')],
  );
}

/**
 * `places` in the order in which they are looked for: the first one there must not be older than the sources, which are files
 * and folders, nor than the scripts that hold the compiler's flags.
 */
function ensureNative(root, script, sources, places) {
  const used = places.map(place => join(root, place)).find(existsSync);
  const parts = [...sources, 'scripts/compiler.mjs', join('scripts', script)].map(part => join(root, part));
  if (used !== undefined && timeOf(used) >= Math.max(...parts.map(newest))) return;
  // A prebuilt one that is old is no reason not to compile; without a compiler it is better than nothing.
  const compile = hasCompiler() ? ['--compile'] : [];
  must(process.execPath, [join(root, 'scripts', script), ...compile], root, 'see the message above');
}

/** The live page, when it is missing or older than what it is made of. */
export function ensurePage(root) {
  const sources = [
    ...['lib/observe/page', 'lib/observe/microscope', 'lib/wire', 'lib/util'].map(folder => newest(join(root, folder))),
    ...['lib/lease/history.ts', 'lib/lease/lease.ts', 'lib/datapath/counters.ts'].map(file => timeOf(join(root, file))),
    timeOf(join(root, 'scripts/build-page.mjs')),
  ];
  if (timeOf(join(root, 'dist/page/tulle.html')) >= Math.max(...sources)) return;
  must(process.execPath, [join(root, 'scripts/build-page.mjs')], root, 'see the errors above');
}

/** Removes what an earlier build made of sources that are gone: a test that was deleted must not run. */
function prune(root, folder = '') {
  for (const entry of readdirSync(join(root, 'dist', folder), { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) prune(root, path);
    else if (/\.js(\.map)?$/.test(path) && !existsSync(join(root, path.replace(/\.js(\.map)?$/, '.ts'))))
      rmSync(join(root, 'dist', path));
  }
}

/** The TypeScript compiler's output; the programs in dist/cmd become executable. */
export function buildTypeScript(root) {
  must(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', root], root, 'see the errors above');
  for (const name of readdirSync(join(root, 'dist/cmd'))) {
    if (name.endsWith('.js')) chmodSync(join(root, 'dist/cmd', name), 0o755);
  }
  prune(root);
  // Its time says when the output was last known to be right. The compiler's own notes do not: it leaves them alone when
  // nothing changed, and writes them where it only checks ("tsc --noEmit").
  writeFileSync(join(root, BUILT), '');
}

/** All of them, each only when needed. */
export function ensureBuilt(root) {
  if (!existsSync(join(root, 'tsconfig.json'))) return; // an installed package: dist/ came with it, and there is nothing to build from
  ensureDependencies(root);
  ensureAddon(root);
  ensureCniPlugin(root);
  const sources = Math.max(
    ...['cmd', 'lib', 'etcd', 'test', 'bench'].map(folder => newest(join(root, folder))),
    timeOf(join(root, 'tsconfig.json')),
  );
  if (timeOf(join(root, BUILT)) < sources) {
    say('tulle: compiling TypeScript');
    buildTypeScript(root);
  }
  ensurePage(root);
}
