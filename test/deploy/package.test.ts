/**
 * The tarball: what is in it, and that it works where it is installed without a compiler. `npm pack` is run as it is typed
 * where there is a cross compiler; elsewhere the binaries of the other architecture are left out, and the test says so.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { version } from '../../lib/util/version.ts';
import { environment } from '../daemon/process.ts';
import { root } from '../sys/support.ts';

t.setTimeout(400_000);
const PACK_MS = 120_000;
const INSTALL_MS = 120_000;
const LAB_MS = 90_000;
/** Without the packages that it depends on. What is added here is downloaded by everybody. */
const LARGEST_TARBALL = 2_000_000;
/** Node.js 20 and later ask for it themselves. */
const OLDEST_GLIBC = [2, 28];
/** Of a program header, elf(5). */
const [PT_DYNAMIC, PT_INTERP] = [2, 3];
const MACHINES = { x64: 62, arm64: 183 };

const other = process.arch === 'x64' ? 'aarch64-linux-gnu-gcc' : 'x86_64-linux-gnu-gcc';
const hasCross = spawnSync(other, ['--version'], { stdio: 'ignore' }).status === 0;
const home = mkdtempSync(join(tmpdir(), 'tulle-package-'));
t.teardown(() => rmSync(home, { recursive: true, force: true }));

function run(command: string, args: string[], limitMs: number, more: Record<string, string | undefined> = {}) {
  const env = { ...environment, ...more };
  const { status, signal, stdout, stderr } = spawnSync(command, args, {
    cwd: home,
    env,
    encoding: 'utf8',
    timeout: limitMs,
    killSignal: 'SIGKILL',
    input: '',
  });
  return { status, signal, stdout: stdout ?? '', stderr: stderr ?? '' };
}

interface Packed {
  tarball: string;
  files: string[];
}

/** Of this test's own, by the scripts of package.json. */
function pack(t: Test): Packed | undefined {
  const scripts = hasCross ? [] : ['--ignore-scripts'];
  if (!hasCross) {
    t.comment(`SKIPPED, the other architecture: no ${other} here`);
    const built = run(process.execPath, [join(root, 'scripts/prebuild.mjs'), process.arch], PACK_MS);
    if (!t.equal(built.status, 0, built.stderr)) return undefined;
  }
  const packed = run('npm', ['pack', root, ...scripts, '--json', '--loglevel=error'], PACK_MS);
  if (!t.equal(packed.status, 0, packed.stderr)) return undefined;
  const tarball = join(home, readdirSync(home).find(name => name.endsWith('.tgz')) ?? 'none');
  const listed = run('tar', ['-tzf', tarball], PACK_MS).stdout.trim().split('\n');
  return { tarball, files: listed.map(path => path.replace(/^package\//, '')) };
}

const packed = pack(t);

t.test('what is in the tarball', { skip: packed === undefined }, async t => {
  const { tarball, files } = packed as Packed;
  const architectures = hasCross ? ['x64', 'arm64'] : [process.arch];
  const binaries = architectures.flatMap(arch =>
    ['tulle.node', 'tulle-cni'].map(name => `prebuilds/linux-${arch}/${name}`),
  );
  for (const needed of [
    ...['package.json', 'README.md', 'LICENSE', 'dist/cmd/tulled.js', 'dist/cmd/tulle.js', 'dist/cmd/tulle-cni.js'],
    ...['dist/lib/daemon/main.js', 'dist/lib/datapath/worker.js', 'dist/etcd/registry.js', 'docs/architecture.md'],
    ...['lib/sys/addon.c', 'lib/sys/sys.h', 'cmd/tulle-cni/main.c', 'scripts/build-addon.mjs', 'scripts/build-cni.mjs'],
    ...['scripts/install-etcd.mjs', 'deploy/tulle.yml', 'deploy/systemd/tulled.service', ...binaries],
  ])
    t.ok(files.includes(needed), needed);
  const allowed = /^(dist\/(cmd|lib|etcd|page)|lib\/sys|cmd\/tulle-cni|prebuilds|scripts|docs|deploy)\//;
  const top = files.filter(path => !allowed.test(path));
  t.same(top.sort(), ['LICENSE', 'README.md', 'package.json'], 'nothing else at the top');
  t.same(
    files.filter(path => /\.map$|\.tsbuildinfo$|(^|\/)\.[^/]+$/.test(path)),
    [],
    'no maps and nothing hidden',
  );
  t.same(
    files.filter(path => /^(test|bench)\/|\.test\./.test(path)),
    [],
    'no tests',
  );
  t.same(
    files.filter(path => path.endsWith('.ts') && !path.endsWith('.d.ts')),
    [],
    'no sources that nothing compiles',
  );
  t.notOk(files.includes('dist/cmd/tulle-cni'), 'no program of one architecture where each would take it');
  t.equal(files.length, new Set(files).size);
  const { size } = statSync(tarball);
  t.ok(size < LARGEST_TARBALL, `${size} bytes`);
});

t.test(
  'the binaries are for the machines that they are named after, and ask for no newer glibc than Node.js',
  async t => {
    for (const [arch, machine] of Object.entries(MACHINES)) {
      const folder = join(root, 'prebuilds', `linux-${arch}`);
      if (!existsSync(folder)) {
        t.equal(hasCross, false, `no ${arch} without a cross compiler`);
        continue;
      }
      for (const name of ['tulle.node', 'tulle-cni']) {
        const bytes = readFileSync(join(folder, name));
        t.equal(bytes.subarray(0, 4).toString('latin1'), '\x7fELF');
        t.same([bytes[4], bytes[5]], [2, 1], '64 bits, little-endian');
        t.equal(bytes.readUInt16LE(18), machine, `${arch}/${name}: e_machine`);
        t.equal(
          bytes.readUInt16LE(16),
          name === 'tulle.node' ? 3 : 2,
          'a shared object, a program that is not relocated',
        );
      }
      const text = readFileSync(join(folder, 'tulle.node')).toString('latin1');
      const versions = [...text.matchAll(/GLIBC_(\d+)\.(\d+)/g)].map(([, major, minor]) => [
        Number(major),
        Number(minor),
      ]);
      t.ok(versions.length > 0, 'it names the versions of glibc that it needs');
      t.same(
        versions.filter(([major, minor]) => major > OLDEST_GLIBC[0] || minor > OLDEST_GLIBC[1]),
        [],
        arch,
      );
      t.notOk(programHeaders(readFileSync(join(folder, 'tulle-cni'))).includes(PT_INTERP), 'the plugin is static');
      t.ok(programHeaders(readFileSync(join(folder, 'tulle.node'))).includes(PT_DYNAMIC), 'the addon is not');
    }
  },
);

/** The types of an ELF file's program headers. */
function programHeaders(bytes: Buffer): number[] {
  const [offset, size, count] = [Number(bytes.readBigUInt64LE(32)), bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  return Array.from({ length: count }, (_, i) => bytes.readUInt32LE(offset + i * size));
}

t.test('the plugin of the other architecture runs', async t => {
  const emulator = process.arch === 'x64' ? 'qemu-aarch64-static' : 'qemu-x86_64-static';
  const program = join(root, 'prebuilds', process.arch === 'x64' ? 'linux-arm64' : 'linux-x64', 'tulle-cni');
  if (!existsSync(program)) return t.comment('SKIPPED: it was not built');
  const fetched = run(
    process.execPath,
    [join(root, 'scripts/fetch-debian.mjs'), 'qemu-user-static', emulator],
    PACK_MS,
  );
  if (fetched.status !== 0) return t.comment(`SKIPPED: ${fetched.stderr.trim().split('\n').at(-1)}`);
  const answer = run(fetched.stdout.trim(), [program], 30_000, { CNI_COMMAND: 'VERSION' });
  t.equal(answer.status, 0, answer.stderr);
  t.equal(JSON.parse(answer.stdout).cniVersion, '1.1.0');
  const stop = run(fetched.stdout.trim(), [program], 30_000, { CNI_COMMAND: 'STATUS', CNI_PATH: '/nowhere' });
  t.equal(stop.status, 1, 'and says what is wrong');
  t.ok(JSON.parse(stop.stdout).code > 0, stop.stdout);
});

/** A PATH on which there is Node.js and a shell and nothing that compiles. */
function barePath(): string {
  const folder = join(home, 'bin');
  mkdirSync(folder);
  symlinkSync(process.execPath, join(folder, 'node'));
  symlinkSync('/bin/sh', join(folder, 'sh'));
  return folder;
}

t.test('npm i -g in an empty prefix, without a compiler', { skip: packed === undefined }, async t => {
  const prefix = join(home, 'prefix');
  const path = barePath();
  const npm = run('npm', ['config', 'get', 'globalconfig'], 30_000).stdout.trim();
  const cli = npmProgram();
  if (cli === undefined) return t.comment('SKIPPED: npm is not a program of Node.js here');
  const install = [
    'install',
    '-g',
    '--prefix',
    prefix,
    '--no-audit',
    '--no-fund',
    '--fetch-retries=0',
    '--loglevel=error',
  ];
  const installed = run(process.execPath, [cli, ...install, (packed as Packed).tarball], INSTALL_MS, {
    PATH: path,
    CC: undefined,
    npm_config_globalconfig: npm, // another prefix would take another one, and the registry and its certificates stand in it
  });
  const offline = /E(NOTFOUND|AI_AGAIN|CONNREFUSED|CONNRESET|TIMEDOUT|NETUNREACH)|network|CERT_IN_CHAIN/;
  if (installed.status !== 0 && (installed.signal !== null || offline.test(installed.stderr)))
    return t.comment(`SKIPPED, npm's registry is not within reach: ${installed.stderr.trim().split('\n')[0]}`);
  t.equal(installed.status, 0, installed.stderr);
  t.same(readdirSync(join(prefix, 'bin')).sort(), ['tulle', 'tulle-cni', 'tulled']);
  const module = join(prefix, 'lib/node_modules/tulle');
  t.notOk(existsSync(join(module, 'build')), 'nothing was compiled');

  const bare = { PATH: [join(prefix, 'bin'), path].join(delimiter) };
  const program = (name: string): string => join(prefix, 'bin', name);
  t.match(run(program('tulled'), ['--version'], 30_000, bare), { status: 0, stdout: `${version()}\n`, stderr: '' });
  t.match(run(program('tulle'), ['--help'], 30_000, bare), {
    status: 0,
    stdout: /^tulle: .*\n\nusage: tulle COMMAND/,
    stderr: '',
  });
  const answer = run(program('tulle-cni'), [], 30_000, { ...bare, CNI_COMMAND: 'VERSION' });
  t.equal(JSON.parse(answer.stdout).cniVersion, '1.1.0', answer.stderr);
  const folders = ['--bin-dir', join(home, 'cni-bin'), '--conf-dir', join(home, 'cni-conf')];
  t.match(
    run(program('tulle'), ['cni', 'install', ...folders], 30_000, bare).stdout,
    /tulle-cni \(C\)\n/,
    'the static plugin',
  );
  t.match(run(join(home, 'cni-bin/tulle-cni'), [], 30_000, { CNI_COMMAND: 'VERSION' }).stdout, /"1\.1\.0"/);

  if (process.getuid?.() !== 0 || !existsSync('/dev/net/tun'))
    return t.comment('SKIPPED, the lab: needs root and /dev/net/tun');
  // util-linux only for what the lab asks of it.
  const labPath = [bare.PATH, '/usr/bin', '/bin'].join(delimiter);
  const lab = run(program('tulle'), ['lab', 'up', '--name', `pack${process.pid}`, '--once', '--json'], LAB_MS, {
    PATH: labPath,
  });
  t.equal(lab.status, 0, lab.stderr);
  const result = JSON.parse(lab.stdout.trim().split('\n').at(-1) ?? '{}');
  t.equal(result.ok, true, result.error);
  t.ok(result.ping.received > 0);
});

/** npm as a script that any Node.js runs. */
function npmProgram(): string | undefined {
  const places = [
    join(dirname(process.execPath), '../lib/node_modules/npm/bin/npm-cli.js'),
    '/usr/share/nodejs/npm/bin/npm-cli.js',
  ];
  return places.find(existsSync);
}
