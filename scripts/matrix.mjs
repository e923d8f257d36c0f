// Every Node.js that tulle supports: the addon's fixtures and a whole lab on each, and a table of how it went.
// The versions come from the npm package "node" into the user's cache folder, once; the one that runs this is taken as it is.
//   npm run test:matrix            all
//   npm run test:matrix -- 22 26   these
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheFolder } from './fetch-debian.mjs';
import { ensureBuilt } from './prepare.mjs';

const MAJORS = ['20', '22', '23', '24', '25', '26'];
const FETCH_MS = 180_000;
const FIXTURE_MS = 60_000;
const LAB_MS = 120_000;
/** Of test/sys/fixtures: its exit code and arguments. */
const FIXTURES = [
  ['terminate', 0],
  ['exit', 7],
  ['worker-ends', 0],
  ['close-while-busy', 0],
  ['watch', 0],
  ['garbage', 0],
  ['hostile', 0, '1'],
  ['unix-datagram', 0, '1'],
  ['open-tun', 0],
];

const root = fileURLToPath(new URL('..', import.meta.url));
const say = text => process.stderr.write(`tulle: ${text}\n`);

/** A program's end: its exit code and what it said last. */
function run(command, args, limitMs, environment = process.env) {
  const { NODE_EXTRA_CA_CERTS: _, ...env } = environment;
  const { status, signal, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    env,
    encoding: 'utf8',
    timeout: limitMs,
    maxBuffer: 64 * 1024 * 1024,
  });
  const last = (stderr ?? '').trim().split('\n').at(-1);
  return { status, stdout: stdout ?? '', why: signal ?? last ?? '' };
}

/** The path of a Node.js of this major version, or undefined with the reason said. */
function nodeOf(major) {
  if (process.versions.node.startsWith(`${major}.`)) return process.execPath;
  const folder = join(cacheFolder(), `node-${major}`);
  const path = join(folder, 'node_modules/node/bin/node');
  if (existsSync(path)) return path;
  say(`fetching Node.js ${major} from npm (once)`);
  mkdirSync(folder, { recursive: true });
  // Its install script puts the program for this machine in place; with the caller's registry and certificates.
  const args = ['install', '--prefix', folder, '--no-audit', '--no-fund', '--loglevel=error', `node@${major}`];
  const { status, error } = spawnSync('npm', args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: FETCH_MS });
  if (status === 0 && existsSync(path)) return path;
  rmSync(folder, { recursive: true, force: true });
  say(`Node.js ${major} cannot be had: ${error?.message ?? 'is the npm registry within reach?'}`);
  return undefined;
}

function tryOut(major) {
  const node = nodeOf(major);
  if (node === undefined) return { major, version: '-', abi: '-', addon: 'not to be had', lab: '-', ok: undefined };
  const [version, abi] = JSON.parse(
    run(node, ['-p', 'JSON.stringify([process.versions.node, process.versions.modules])'], FIXTURE_MS).stdout,
  );
  say(`Node.js ${version}`);
  const broken = FIXTURES.filter(([name, wanted, ...args]) => {
    const fixture = join(root, 'dist/test/sys/fixtures', `${name}.js`);
    const { status, why } = run(node, ['--expose-gc', fixture, ...args], FIXTURE_MS);
    if (status !== wanted) say(`  ${name}: exit code ${status}, not ${wanted}: ${why}`);
    return status !== wanted;
  });
  const name = `matrix${major}`;
  const lab = run(node, ['dist/cmd/tulle.js', 'lab', 'up', '--name', name, '--once', '--json'], LAB_MS);
  let figures = {};
  try {
    figures = JSON.parse(lab.stdout.trim().split('\n').at(-1));
  } catch {
    // It said nothing.
  }
  const labOk = lab.status === 0 && figures.ok === true && figures.ping.received > 0 && figures.tcp.gbps > 0;
  if (!labOk) say(`  lab: ${figures.error ?? lab.why}`);
  return {
    major,
    version,
    abi,
    addon: broken.length === 0 ? `${FIXTURES.length} fixtures` : `${broken.map(([each]) => each).join(', ')} FAILED`,
    lab: labOk ? `${figures.seconds.toFixed(1)} s up, ${figures.tcp.gbps.toFixed(2)} Gb/s` : 'FAILED',
    ok: broken.length === 0 && labOk,
  };
}

ensureBuilt(root);
const wished = process.argv.slice(2);
const rows = (wished.length === 0 ? MAJORS : wished).map(tryOut);
const columns = { version: 'Node.js', abi: 'ABI', addon: 'addon', lab: 'lab' };
const width = key => Math.max(...[columns, ...rows].map(row => row[key].length));
const line = row =>
  ` ${Object.keys(columns)
    .map(key => row[key].padEnd(width(key)))
    .join('   ')}`.trimEnd();
console.log([columns, ...rows].map(line).join('\n'));
if (rows.some(({ ok }) => ok === false)) process.exitCode = 1;
if (rows.every(({ ok }) => ok === undefined)) process.exitCode = 1;
