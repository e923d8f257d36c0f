// Installing into folders of the test's own.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { install, uninstall } from '../../lib/cni/install.ts';

const readOnlyFolders =
  process.getuid?.() !== 0 || spawnSync('unshare', ['--mount', 'true']).status !== 0
    ? 'SKIPPED, needs root and unshare'
    : false;

function place(t: Test, programs: Record<string, string> = { 'tulle-cni': 'ELF', 'tulle-cni.js': '' }) {
  const root = t.testdir({ programs });
  return {
    root,
    options: { binDirectory: join(root, 'bin'), confDirectory: join(root, 'conf'), programs: join(root, 'programs') },
    program: join(root, 'bin/tulle-cni'),
    conflist: join(root, 'conf/10-tulle.conflist'),
  };
}

t.test('install, again, and uninstall', async t => {
  const { root, options, program, conflist } = place(t);
  t.same(install(options), { program, conflist, kind: 'C' });
  t.equal(readFileSync(program, 'utf8'), 'ELF');
  t.equal(statSync(program).mode & 0o777, 0o755);
  t.equal(statSync(conflist).mode & 0o777, 0o644);
  t.same(JSON.parse(readFileSync(conflist, 'utf8')), {
    cniVersion: '1.0.0',
    name: 'tulle',
    plugins: [{ type: 'tulle-cni' }],
  });
  const before = statSync(conflist).mtimeMs;
  install(options);
  t.equal(statSync(conflist).mtimeMs, before, 'an equal configuration is left alone');
  t.same([...readdirSync(join(root, 'bin')), ...readdirSync(join(root, 'conf'))], ['tulle-cni', '10-tulle.conflist']);
  t.same(uninstall(options), [conflist, program]);
  t.same(uninstall(options), [], 'removing what is missing succeeds');
});

t.test('a running program is replaced, not written to', async t => {
  const { options, program } = place(t);
  install(options);
  const old = statSync(program).ino;
  install(options);
  t.not(statSync(program).ino, old);
});

t.test('the options', async t => {
  const { options, conflist } = place(t);
  install({ ...options, name: 'pods', socket: '/run/x.sock', portmap: true });
  t.same(JSON.parse(readFileSync(conflist, 'utf8')), {
    cniVersion: '1.0.0',
    name: 'pods',
    plugins: [
      { type: 'tulle-cni', socket: '/run/x.sock' },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  });
});

t.test('a changed configuration stays unless it is forced', async t => {
  const { options, program, conflist } = place(t);
  install(options);
  writeFileSync(conflist, '{"mine":true}');
  t.throws(() => install(options), { code: 'install', message: /says something else/ });
  t.equal(readFileSync(conflist, 'utf8'), '{"mine":true}');
  t.throws(() => uninstall(options), { message: /is not a configuration of tulle-cni/ });
  t.ok(existsSync(program));
  install({ ...options, force: true });
  t.match(readFileSync(conflist, 'utf8'), /tulle-cni/);
});

t.test('a failure leaves nothing', async t => {
  const { root, options, program } = place(t);
  writeFileSync(join(root, 'conf'), 'a file where the folder should be');
  t.throws(() => install(options), { code: 'install' });
  t.notOk(existsSync(program), 'no program without its configuration');
  t.throws(() => install({ ...options, confDirectory: '/proc/no/conf' }), { message: /cannot be made/ });
  t.notOk(existsSync(program));
  const nothing = place(t, {});
  t.throws(() => install(nothing.options), {
    message: /neither tulle-cni nor tulle-cni.js is in .*: run "npm run build"/,
  });
});

t.test('a configuration that is given', async t => {
  const { root, options, conflist, program } = place(t);
  const config = join(root, 'given.json');
  t.throws(() => install({ ...options, config }), { message: /given.json does not exist$/ });
  for (const [text, message] of [
    ['{', /is not JSON/],
    ['null', /is not a configuration list/],
    ['{"plugins":[null,7,{"type":"bridge"}]}', /is not a configuration list with a plugin of type "tulle-cni"/],
    ['{"plugins":{"type":"tulle-cni"}}', /is not a configuration list/],
  ] as const) {
    writeFileSync(config, text);
    t.throws(() => install({ ...options, config }), { code: 'install', message }, text);
    t.notOk(existsSync(program), 'nothing was installed');
  }
  const text = '{ "name": "cbr0", "plugins": [{ "type": "portmap" }, { "type": "tulle-cni" }] }';
  writeFileSync(config, text);
  install({ ...options, config });
  t.equal(readFileSync(conflist, 'utf8'), text, 'as it was written');
  install({ ...options, config });
  writeFileSync(config, text.replace('cbr0', 'cbr1'));
  t.throws(() => install({ ...options, config }), { message: /says something else/ });
  install({ ...options, config, force: true });
  t.match(readFileSync(conflist, 'utf8'), /cbr1/);
  t.same(uninstall(options), [conflist, program]);
});

t.test('a folder of programs that is read-only', { skip: readOnlyFolders }, async t => {
  const { root, options, conflist, program } = place(t);
  mkdirSync(join(root, 'bin'));
  const inside = `const { install } = await import(process.argv[1]); install(JSON.parse(process.argv[2]));`;
  const module = fileURLToPath(new URL('../../lib/cni/install.js', import.meta.url));
  const readOnly = () =>
    spawnSync(
      'unshare',
      [
        ...[
          '--mount',
          'sh',
          '-c',
          'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
          join(root, 'bin'),
        ],
        ...[process.execPath, '--input-type=module', '-e', inside, module, JSON.stringify(options)],
      ],
      { encoding: 'utf8' },
    );
  const first = readOnly();
  t.not(first.status, 0);
  t.match(first.stderr, /tulle-cni cannot be written: EROFS/);
  t.notOk(existsSync(conflist), 'no configuration without its program');
  install(options);
  rmSync(conflist);
  t.equal(readOnly().status, 0, 'the same program is there already');
  t.ok(existsSync(conflist));
  writeFileSync(program, 'of another version');
  t.not(readOnly().status, 0);
});

t.test('an install that was killed is no obstacle, and its remains go', async t => {
  const { root, options } = place(t);
  install(options);
  const remains = [
    join(root, 'bin/.tulle-cni.0123456789abcdef.tulle-tmp'),
    join(root, 'conf/.10-tulle.conflist.1-1.tulle-tmp'),
  ];
  const fresh = join(root, 'bin/.tulle-cni.fresh.tulle-tmp');
  for (const path of [...remains, fresh]) writeFileSync(path, 'half');
  for (const path of remains) utimesSync(path, new Date(0), new Date(0));
  install(options);
  for (const path of remains) t.notOk(existsSync(path), path);
  t.ok(existsSync(fresh), 'somebody may be writing it');
});

t.test('without the C program a script starts its twin', async t => {
  const twin = `import { readFileSync } from 'node:fs';
    console.log(JSON.stringify({ command: process.env.CNI_COMMAND, read: readFileSync(0, 'utf8') }));`;
  const { root, options, program } = place(t, { 'tulle-cni.js': twin });
  mkdirSync(join(root, 'bin'));
  chmodSync(join(root, 'programs/tulle-cni.js'), 0o644);
  t.equal(install(options).kind, 'TypeScript');
  const { stdout, status } = spawnSync(program, { input: 'stdin', encoding: 'utf8', env: { CNI_COMMAND: 'ADD' } });
  t.equal(status, 0);
  t.same(JSON.parse(stdout), { command: 'ADD', read: 'stdin' });
});

t.test('tulle cni', async t => {
  const tulle = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  const run = (...args: string[]) => spawnSync(process.execPath, [tulle, 'cni', ...args], { encoding: 'utf8', env });
  const { root } = place(t);
  const folders = ['--bin-dir', join(root, 'bin'), `--conf-dir=${join(root, 'conf')}`];
  t.match(run('--help'), { status: 0, stdout: /^tulle cni: .*--bin-dir DIR/s, stderr: '' });
  t.match(run('install', ...folders), {
    status: 0,
    stdout: /bin\/tulle-cni \(\w+\)\n.*conf\/10-tulle.conflist\n$/,
    stderr: '',
  });
  const version = spawnSync(join(root, 'bin/tulle-cni'), {
    input: '',
    encoding: 'utf8',
    env: { CNI_COMMAND: 'VERSION' },
  });
  t.match(JSON.parse(version.stdout), { cniVersion: '1.1.0' }, 'what is installed runs');
  t.match(run('uninstall', ...folders), { status: 0, stdout: /^removed .*conflist\nremoved .*tulle-cni\n$/ });
  t.match(run('uninstall', ...folders), { status: 0, stdout: 'nothing was installed\n' });
  for (const args of [
    ['instal'],
    ['install', 'x'],
    ['install', '--bin'],
    ['install', '--bin-dir='],
    ['install', '--socket', 'x'],
  ]) {
    t.match(run(...args), { status: 1, stdout: '', stderr: /^tulle: .*: see "tulle cni --help"\n$/ }, args.join(' '));
  }
});
