// Makes sure that there is a CNI plugin that runs here, as a static program: a prebuilt one, or one compiled from
// cmd/tulle-cni/*.c. Run by npm's install script and by scripts/prepare.mjs. Where it cannot be built the same program in
// TypeScript (dist/cmd/tulle-cni.js) does its work, only slower; so that is a note and no failure. Node's own modules only.
//   node scripts/build-cni.mjs              prebuilds/linux-ARCH/tulle-cni if it runs, else dist/cmd/tulle-cni
//   node scripts/build-cni.mjs --compile    dist/cmd/tulle-cni, whatever there is
//   node scripts/build-cni.mjs --sanitize   build/linux-ARCH-asan/tulle-cni and json-scan, for the tests under AddressSanitizer
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  cniFiles,
  cniFlags,
  cniSources,
  cniStatic,
  cniWorks,
  compileCni,
  findCompiler,
  sanitizeFlags,
} from './compiler.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

function stop(text) {
  process.stderr.write(`tulle: ${text}\n`);
  process.exit(1);
}

function buildSanitized(compiler, files) {
  const folder = join(root, 'build', `linux-${process.arch}-asan`);
  const programs = {
    'tulle-cni': files,
    'json-scan': [join(cniSources, 'json.c'), join(root, 'test/cmd/fixtures/json-scan.c')],
  };
  for (const [name, parts] of Object.entries(programs)) {
    const flags = [...sanitizeFlags, '-fno-sanitize-recover=all'];
    const problem = compileCni({ compiler, target: join(folder, name), files: parts, flags });
    if (problem !== undefined) stop(`${name} could not be compiled with AddressSanitizer:\n${problem}`);
  }
}

function build(compiler) {
  const target = join(root, 'dist/cmd/tulle-cni');
  let problem = 'no C compiler';
  // Static, so that it starts fast and runs on any distribution; not everybody has a libc.a.
  for (const kind of compiler === undefined ? [] : [cniStatic(process.arch), []]) {
    problem = compileCni({ compiler, target, flags: [...kind, ...cniFlags] });
    // A mistake in the sources must not hide behind the other program.
    if (problem === undefined || /\.[ch]:\d+:\d+: /.test(problem)) break;
  }
  if (problem !== undefined && /\.[ch]:\d+:\d+: /.test(problem)) stop(problem);
  if (problem !== undefined && !cniWorks(target)) {
    rmSync(target, { force: true });
    process.stderr.write(
      `tulle: the CNI plugin was not built in C (${problem.trim().split('\n')[0]}): its slower twin is used; "apt-get install gcc libc6-dev" and "npm rebuild" change that\n`,
    );
  }
}

const files = cniFiles();
const compiler = findCompiler();
if (process.argv.includes('--sanitize')) {
  if (compiler === undefined) stop('no C compiler');
  buildSanitized(compiler, files);
} else if (
  files.length > 0 &&
  (process.argv.includes('--compile') || !cniWorks(join(root, 'prebuilds', `linux-${process.arch}`, 'tulle-cni')))
)
  build(compiler);
