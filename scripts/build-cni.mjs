// Compiles the CNI plugin, cmd/tulle-cni/*.c, into a static program. Run by npm's install script and by
// scripts/prepare.mjs. Where it cannot be built the same program in TypeScript (dist/cmd/tulle-cni.js) does its work,
// only slower; so that is a note and no failure. Node's own modules only.
//   node scripts/build-cni.mjs              dist/cmd/tulle-cni
//   node scripts/build-cni.mjs --sanitize   build/linux-ARCH-asan/tulle-cni and json-scan, for the tests under AddressSanitizer
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findCompiler, warnings } from './compiler.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const sources = join(root, 'cmd/tulle-cni');
const sanitize = process.argv.includes('--sanitize');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/** Returns undefined, or what the compiler said. */
function compile(compiler, target, files, flags) {
  mkdirSync(dirname(target), { recursive: true });
  // Two builds at once each write a file of their own, and the last rename wins with an equal file.
  const fresh = `${target}.${process.pid}.tmp`;
  const [command, ...words] = compiler;
  const all = [...words, '-std=gnu11', ...warnings, `-DTULLE_VERSION="${version}"`, ...flags, '-I', sources];
  const { status, stderr } = spawnSync(command, [...all, ...files, '-o', fresh], { encoding: 'utf8' });
  if (status !== 0) {
    rmSync(fresh, { force: true });
    return stderr || `${command} failed`;
  }
  renameSync(fresh, target);
  return undefined;
}

function stop(text) {
  process.stderr.write(`tulle: ${text}\n`);
  process.exit(1);
}

/** Whether a program that came with the package runs here. */
function works(target) {
  const { status, stderr } = spawnSync(target, { encoding: 'utf8', env: {} });
  return status === 0 && stderr.startsWith(`CNI plugin tulle-cni ${version}`);
}

function buildSanitized(compiler, files) {
  const flags = ['-O1', '-g', '-fno-omit-frame-pointer', '-fsanitize=address,undefined', '-fno-sanitize-recover=all'];
  const folder = join(root, 'build', `linux-${process.arch}-asan`);
  const programs = {
    'tulle-cni': files,
    'json-scan': [join(sources, 'json.c'), join(root, 'test/cmd/fixtures/json-scan.c')],
  };
  for (const [name, parts] of Object.entries(programs)) {
    const problem = compile(compiler, join(folder, name), parts, flags);
    if (problem !== undefined) stop(`${name} could not be compiled with AddressSanitizer:\n${problem}`);
  }
}

const compiler = findCompiler();
const files = existsSync(sources)
  ? readdirSync(sources)
      .filter(name => name.endsWith('.c'))
      .sort()
      .map(name => join(sources, name))
  : [];
if (files.length === 0) process.exit(0); // a package that was built elsewhere
if (sanitize) {
  if (compiler === undefined) stop('no C compiler');
  buildSanitized(compiler, files);
} else {
  const target = join(root, 'dist/cmd/tulle-cni');
  const flags = ['-O2', '-Wl,-z,relro,-z,now', '-s'];
  let problem = 'no C compiler';
  // Static, so that it starts fast and runs on any distribution; not everybody has a libc.a.
  for (const kind of compiler === undefined ? [] : [['-static'], []]) {
    problem = compile(compiler, target, files, [...kind, ...flags]);
    // A mistake in the sources must not hide behind the other program.
    if (problem === undefined || /\.[ch]:\d+:\d+: /.test(problem)) break;
  }
  if (problem !== undefined && /\.[ch]:\d+:\d+: /.test(problem)) stop(problem);
  if (problem !== undefined && !works(target)) {
    rmSync(target, { force: true });
    process.stderr.write(
      `tulle: the CNI plugin was not built in C (${problem.trim().split('\n')[0]}): its slower twin is used; "apt-get install gcc libc6-dev" and "npm rebuild" change that\n`,
    );
  }
}
