// A C compiler, and what is compiled with it: the addon (lib/sys) and the CNI plugin (cmd/tulle-cni). For the scripts that
// build them, for this machine (build-addon.mjs, build-cni.mjs) and for others (prebuild.mjs).
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** As words of a command; $CC may hold arguments ("ccache gcc"). Undefined where there is none. */
export function findCompiler() {
  const wishes = [...(process.env.CC ? [process.env.CC] : []), 'cc', 'gcc', 'clang'].map(wish =>
    wish.trim().split(/\s+/),
  );
  return wishes.find(
    ([command, ...words]) => spawnSync(command, [...words, '--version'], { stdio: 'ignore' }).status === 0,
  );
}

/** A warning stops the tests (which set TULLE_WERROR) and CI; it must not stop a user whose compiler is newer than ours. */
const strict = Boolean(process.env.TULLE_WERROR || process.env.CI);
const warnings = ['-Wall', '-Wextra', ...(strict ? ['-Werror'] : [])];

export const sanitizeFlags = ['-O1', '-g', '-fno-omit-frame-pointer', '-fsanitize=address,undefined'];
export const cniSources = join(root, 'cmd/tulle-cni');
const addonSources = join(root, 'lib/sys');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

const filesIn = folder =>
  (existsSync(folder) ? readdirSync(folder) : [])
    .filter(name => name.endsWith('.c'))
    .sort()
    .map(name => join(folder, name));

/** The plugin's sources; none in a package that was built elsewhere. */
export const cniFiles = () => filesIn(cniSources);

/** The folder that holds node_api.h, or undefined. */
export function findHeaders() {
  const folders = [join(dirname(process.execPath), '../include/node'), '/usr/include/node'];
  try {
    const manifest = createRequire(join(root, 'package.json')).resolve('node-api-headers/package.json');
    folders.unshift(join(dirname(manifest), 'include'));
  } catch {
    // Not installed: Node's own headers may be there.
  }
  return folders.find(folder => existsSync(join(folder, 'node_api.h')));
}

/** The addon, at `target`. Returns undefined, or what the compiler said. */
export function compileAddon({ compiler, headers, target, flags }) {
  const all = [
    ...[...flags, '-std=gnu11', ...warnings, '-fPIC', '-shared', '-pthread', '-fvisibility=hidden'],
    ...['-D_GNU_SOURCE', '-DNAPI_VERSION=8', '-Wl,-z,nodelete', '-Wl,-z,relro,-z,now', '-I', headers],
  ];
  return compile(compiler, target, [...all, ...filesIn(addonSources)]);
}

/** The CNI plugin, or another program of its sources. Returns undefined, or what the compiler said. */
export function compileCni({ compiler, target, files = cniFiles(), flags }) {
  return compile(compiler, target, [
    ...['-std=gnu11', ...warnings, `-DTULLE_VERSION="${version}"`, ...flags, '-I', cniSources],
    ...files,
  ]);
}

/** What makes the plugin small and hardened, for every build but the sanitizers'. */
export const cniFlags = ['-O2', '-Wl,-z,relro,-z,now', '-s'];

/** For a static plugin: where it begins, so that it asks before the C library is ready (cmd/tulle-cni/early.c). */
export const cniStatic = arch => ['-static', ...(arch === 'x64' ? ['-Wl,-e,early_start'] : [])];

/** Whether a CNI plugin runs here and is of this version. */
export function cniWorks(target) {
  const { status, stderr } = spawnSync(target, { encoding: 'utf8', env: {} });
  return status === 0 && stderr.startsWith(`CNI plugin tulle-cni ${version}`);
}

function compile(compiler, target, args) {
  mkdirSync(dirname(target), { recursive: true });
  // Two builds at once each write a file of their own, and the last rename wins with an equal file.
  const fresh = `${target}.${process.pid}.tmp`;
  const [command, ...words] = compiler;
  const { status, stderr } = spawnSync(command, [...words, ...args, '-o', fresh], {
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (status !== 0) {
    rmSync(fresh, { force: true });
    return stderr || `${command} failed`;
  }
  renameSync(fresh, target);
  return undefined;
}
