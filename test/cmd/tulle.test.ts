// The command line without a lab: help, mistakes, one line each.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const tulle = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));
const root = mkdtempSync(join(tmpdir(), 'tulle-cmd-'));
t.teardown(() => rmSync(root, { recursive: true, force: true }));

function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [tulle, ...args], {
    encoding: 'utf8',
    env: { ...process.env, TULLE_LAB_ROOT: root },
  });
}

t.test('help', async t => {
  const cases: [string[], RegExp][] = [
    [[], /usage: tulle COMMAND/],
    [['--help'], /usage: tulle COMMAND/],
    [['lab'], /tulle lab: a cluster of network namespaces/],
    [['lab', '--help'], /lab exec NODE\|POD -- COMMAND/],
    [['lab', 'up', '--help'], /--transport KIND[\s\S]*examples:/],
    [['lab', 'up', '--nodes', '3', '-h'], /tulle lab up/],
    [['lab', 'down', '--help'], /tulle lab down/],
    [['lab', 'exec', '--help'], /tulle lab exec/],
    [['lab', 'status', '--help'], /tulle lab status/],
  ];
  for (const [args, expected] of cases) {
    const { status, stdout, stderr } = run(...args);
    t.equal(status, 0, args.join(' '));
    t.match(stdout, expected);
    t.ok(stdout.split('\n').every(line => line.length <= 120));
    t.equal(stderr, '');
  }
});

t.test('mistakes: one line, exit code 1, nothing left behind', async t => {
  const cases: [string[], RegExp][] = [
    [['frobnicate'], /^tulle: there is no command "frobnicate": see "tulle --help"\n$/],
    [['constructor'], /^tulle: there is no command "constructor"/],
    [['lab', 'sideways'], /^tulle: there is no "tulle lab sideways": see "tulle lab --help"\n$/],
    [['lab', 'up', '--nodes', '1'], /^tulle: --nodes is a whole number from 2 to 50, not "1"\n$/],
    [['lab', 'up', '--pods=0'], /^tulle: --pods is a whole number from 1 to 100, not "0"\n$/],
    [['lab', 'up', '--registry', 'kubernetes'], /^tulle: --registry is one of file, etcd, kube, not "kubernetes"\n$/],
    [['lab', 'up', '--transport', 'pigeon'], /^tulle: --transport is one of offload, batch, dgram/],
    [['lab', 'up', '--name', '../x'], /^tulle: --name takes lower-case letters/],
    [['lab', 'up', 'down'], /^tulle: lab up does not know what to do with "down"/],
    [['lab', 'down', '--all'], /^tulle: unknown option --all: see "tulle lab down --help"\n$/],
    [['lab', 'exec'], /^tulle: lab exec takes a node or a pod/],
    [['lab', 'exec', 'pod1', 'ls'], /^tulle: lab exec takes a node or a pod/],
    [['lab', 'exec', 'pod1', '--'], /^tulle: lab exec takes a node or a pod/],
    [['lab', 'exec', 'pod1', '--', 'true'], /^tulle: the lab "lab" is not running; "tulle lab up" starts one\n$/],
    [['lab', 'status'], /^tulle: the lab "lab" is not running/],
  ];
  for (const [args, expected] of cases) {
    const { status, stdout, stderr } = run(...args);
    t.equal(status, 1, args.join(' '));
    t.match(stderr, expected);
    t.equal(stderr.trim().split('\n').length, 1);
    t.equal(stdout, '');
  }
  t.same(readdirSync(root), []);
});

t.test('with --json a mistake is JSON, too', async t => {
  const { status, stdout, stderr } = run('lab', 'up', '--once', '--json', '--nodes', 'many');
  t.equal(status, 1);
  t.same(JSON.parse(stdout), { ok: false, error: '--nodes is a whole number from 2 to 50, not "many"', code: 'usage' });
  t.match(stderr, /^tulle: --nodes/);
});

t.test('lab down without a lab succeeds', async t => {
  const { status, stderr } = run('lab', 'down');
  t.equal(status, 0);
  t.equal(stderr, 'there is no lab "lab": nothing to take down\n');
});
