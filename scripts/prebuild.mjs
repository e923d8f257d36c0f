// The addon and the CNI plugin for machines without a compiler: prebuilds/linux-ARCH/tulle.node and tulle-cni, for x64 and
// arm64, on a machine of either. `npm pack` runs it, as "npm run prebuilds" does; root gets a missing cross compiler from
// Debian. Node's own modules only.
//   npm run prebuilds                both
//   node scripts/prebuild.mjs arm64   one
//
// The addon asks for no symbol younger than glibc 2.28, which Node.js 20 and later need themselves (lib/sys/portable.h); the
// plugin is static. On musl, and on other architectures, npm's install script compiles as before.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installPackages } from './apt.mjs';
import { cniFlags, cniStatic, compileAddon, compileCni, findCompiler, findHeaders } from './compiler.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Debian's compiler for each architecture from another one, and the packages that it comes in. */
const TARGETS = {
  x64: { command: 'x86_64-linux-gnu-gcc', packages: ['gcc-x86-64-linux-gnu', 'libc6-dev-amd64-cross'] },
  arm64: { command: 'aarch64-linux-gnu-gcc', packages: ['gcc-aarch64-linux-gnu', 'libc6-dev-arm64-cross'] },
};

function stop(text) {
  process.stderr.write(`tulle: ${text}\n`);
  process.exit(1);
}

const runs = command => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;

function compilerFor(arch) {
  const { command, packages } = TARGETS[arch];
  if (arch === process.arch) return findCompiler() ?? stop('no C compiler: run "apt-get install gcc libc6-dev"');
  if (!runs(command) && process.getuid() === 0) {
    process.stderr.write(
      `tulle: no compiler for ${arch} here: installing ${packages.join(' and ')} with apt-get (once)\n`,
    );
    installPackages(packages);
  }
  return runs(command) ? [command] : stop(`no compiler for ${arch}: run "apt-get install ${packages.join(' ')}"`);
}

const headers = findHeaders() ?? stop('node_api.h is missing: run "npm ci"');
const wished = process.argv.slice(2);
const unknown = wished.find(arch => !Object.hasOwn(TARGETS, arch));
if (unknown !== undefined) stop(`there is no prebuilt "${unknown}": say ${Object.keys(TARGETS).join(' or ')}`);
for (const arch of wished.length === 0 ? Object.keys(TARGETS) : wished) {
  const compiler = compilerFor(arch);
  const folder = join(root, 'prebuilds', `linux-${arch}`);
  const [addon, cni] = ['tulle.node', 'tulle-cni'].map(name => join(folder, name));
  // The same bytes from the same sources, wherever they lie.
  const same = ['-s', '-Wl,--build-id=none', `-ffile-prefix-map=${root}=`];
  const portable = ['-include', join(root, 'lib/sys/portable.h')];
  const problem =
    compileAddon({ compiler, headers, target: addon, flags: ['-O2', ...same, ...portable] }) ??
    compileCni({ compiler, target: cni, flags: [...cniStatic(arch), ...cniFlags, ...same] });
  if (problem !== undefined) {
    rmSync(folder, { recursive: true, force: true });
    stop(`${compiler[0]} could not compile for ${arch}:\n${problem}`);
  }
  chmodSync(addon, 0o644);
  if (!existsSync(cni)) stop(`${cni} was not made`);
}
