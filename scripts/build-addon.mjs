// Makes sure that there is an addon that this Node.js loads: a prebuilt one, or one compiled here from lib/sys/*.c.
// Run by npm's install script (in a clone and in an installed package) and by scripts/prepare.mjs. Node's own modules only.
//   node scripts/build-addon.mjs              prebuilds/linux-ARCH/tulle.node if it loads, else build/linux-ARCH/tulle.node
//   node scripts/build-addon.mjs --sanitize   build/linux-ARCH-asan/tulle.node, for the tests under AddressSanitizer
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findCompiler, warnings } from './compiler.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const sources = join(root, 'lib/sys');
const sanitize = process.argv.includes('--sanitize');
const platform = `linux-${process.arch}`;

function stop(text) {
  process.stderr.write(`tulle: ${text}\n`);
  process.exit(1);
}

/** In a child: a broken binary may kill the process that loads it. */
function loads(path) {
  return spawnSync(process.execPath, ['-e', 'require(process.argv[1])', path], { stdio: 'ignore' }).status === 0;
}

/** The folder that holds node_api.h. */
function findHeaders() {
  const folders = [join(dirname(process.execPath), '../include/node'), '/usr/include/node'];
  try {
    const manifest = createRequire(join(root, 'package.json')).resolve('node-api-headers/package.json');
    folders.unshift(join(dirname(manifest), 'include'));
  } catch {
    // Not installed: Node's own headers may be there.
  }
  return folders.find(folder => existsSync(join(folder, 'node_api.h')));
}

const flags = [
  ...(sanitize ? ['-O1', '-g', '-fno-omit-frame-pointer', '-fsanitize=address,undefined'] : ['-O2']),
  ...['-std=gnu11', ...warnings, '-fPIC', '-shared', '-pthread', '-fvisibility=hidden'],
  ...['-D_GNU_SOURCE', '-DNAPI_VERSION=8', '-Wl,-z,nodelete', '-Wl,-z,relro,-z,now'],
];

function compile(target) {
  const compiler = findCompiler();
  const headers = findHeaders();
  if (compiler === undefined)
    stop(
      'no C compiler to build the addon with: run "apt-get install gcc libc6-dev", then "npm rebuild" (in a clone: "npm run build")',
    );
  if (headers === undefined)
    stop(
      'node_api.h is missing, the addon cannot be built: run "npm install node-api-headers", then "npm rebuild" (in a clone: "npm run build")',
    );
  mkdirSync(dirname(target), { recursive: true });
  // Two builds at once each write a file of their own, and the last rename wins with an equal file.
  const fresh = `${target}.${process.pid}.tmp`;
  const files = readdirSync(sources)
    .filter(name => name.endsWith('.c'))
    .sort();
  const [command, ...words] = compiler;
  const { status, stderr } = spawnSync(
    command,
    [...words, ...flags, '-I', headers, ...files.map(name => join(sources, name)), '-o', fresh],
    { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] },
  );
  if (status !== 0) {
    rmSync(fresh, { force: true });
    process.stderr.write(stderr ?? '');
    const hint = /fatal error: \S+: No such file/.test(stderr ?? '')
      ? 'run "apt-get install gcc libc6-dev"'
      : 'see the messages above';
    stop(`${command} could not compile the addon: ${hint}, then "npm rebuild" (in a clone: "npm run build")`);
  }
  renameSync(fresh, target);
}

const prebuilt = join(root, 'prebuilds', platform, 'tulle.node');
if (process.platform !== 'linux')
  stop(`the addon needs Linux's TUN devices and network namespaces; this is ${process.platform}`);
if (sanitize) compile(join(root, 'build', `${platform}-asan`, 'tulle.node'));
else if (!existsSync(prebuilt) || !loads(prebuilt)) compile(join(root, 'build', platform, 'tulle.node'));
