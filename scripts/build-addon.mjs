// Makes sure that there is an addon that this Node.js loads: a prebuilt one, or one compiled here from lib/sys/*.c.
// Run by npm's install script (in a clone and in an installed package) and by scripts/prepare.mjs. Node's own modules only.
//   node scripts/build-addon.mjs              prebuilds/linux-ARCH/tulle.node if it loads, else build/linux-ARCH/tulle.node
//   node scripts/build-addon.mjs --compile    build/linux-ARCH/tulle.node, whatever there is
//   node scripts/build-addon.mjs --sanitize   build/linux-ARCH-asan/tulle.node, for the tests under AddressSanitizer
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileAddon, findCompiler, findHeaders, sanitizeFlags } from './compiler.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const platform = `linux-${process.arch}`;

function stop(text) {
  process.stderr.write(`tulle: ${text}\n`);
  process.exit(1);
}

/** In a child: a broken binary may kill the process that loads it. */
function loads(path) {
  return spawnSync(process.execPath, ['-e', 'require(process.argv[1])', path], { stdio: 'ignore' }).status === 0;
}

function build(target, flags) {
  const again = 'then "npm rebuild" (in a clone: "npm run build")';
  const compiler = findCompiler();
  const headers = findHeaders();
  if (compiler === undefined)
    stop(`no C compiler to build the addon with: run "apt-get install gcc libc6-dev", ${again}`);
  if (headers === undefined)
    stop(`node_api.h is missing, the addon cannot be built: run "npm install node-api-headers", ${again}`);
  const problem = compileAddon({ compiler, headers, target, flags });
  if (problem === undefined) return;
  process.stderr.write(problem);
  const hint = /fatal error: \S+: No such file/.test(problem)
    ? 'run "apt-get install gcc libc6-dev"'
    : 'see the messages above';
  stop(`${compiler[0]} could not compile the addon: ${hint}, ${again}`);
}

const prebuilt = join(root, 'prebuilds', platform, 'tulle.node');
if (process.platform !== 'linux')
  stop(`the addon needs Linux's TUN devices and network namespaces; this is ${process.platform}`);
if (process.argv.includes('--sanitize')) build(join(root, 'build', `${platform}-asan`, 'tulle.node'), sanitizeFlags);
else if (process.argv.includes('--compile') || !existsSync(prebuilt) || !loads(prebuilt))
  build(join(root, 'build', platform, 'tulle.node'), ['-O2']);
