// A lab of a user who is nobody. Where /dev/net/tun is closed to others (not on a stock Debian), a mount namespace of
// the test's own puts an open one over it.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { identify, isAlive, type ProcessId } from '../../lib/lab/process.ts';

const tulle = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));
const NOBODY = 65534;
const LAB_MS = 60_000;
t.setTimeout(180_000);

const AS_NOBODY = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--'];
const OPEN_TUN = [
  ...['unshare', '--mount', '--propagation=private', 'sh', '-ec'],
  'mount -t tmpfs none "$0"; mknod -m 666 "$0/tun" c 10 200; mount --bind "$0/tun" /dev/net/tun; umount -l "$0"; exec "$@"',
];

interface Place {
  readonly root: string;
  /** As nobody, with a TUN device that nobody may open. */
  start(...args: string[]): ChildProcess;
  /** As nobody, from the machine's own mount namespace: another terminal. */
  run(...args: string[]): { status: number | null; stdout: string; stderr: string };
}

function place(t: Test): Place {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-rootless-test-'));
  const root = join(folder, 'tulle', 'lab');
  const mountPoint = join(folder, 'dev');
  mkdirSync(mountPoint);
  chownSync(folder, NOBODY, NOBODY);
  const env = { ...process.env, TULLE_LAB_ROOT: root };
  const command = [process.execPath, tulle];
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return {
    root,
    start(...args) {
      const [file, ...rest] = [...OPEN_TUN, mountPoint, ...AS_NOBODY, ...command, ...args];
      return spawn(file, rest, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    },
    run(...args) {
      const [file, ...rest] = [...AS_NOBODY, ...command, ...args];
      return spawnSync(file, rest, { env, encoding: 'utf8', timeout: LAB_MS });
    },
  };
}

function whyNot(): string | false {
  if (process.getuid!() !== 0) return 'needs root, to become nobody';
  if (!existsSync('/dev/net/tun')) return 'needs /dev/net/tun';
  const [file, ...rest] = [
    ...AS_NOBODY,
    'unshare',
    '--user',
    '--map-root-user',
    '--mount',
    '--net',
    process.execPath,
    '-e',
    `require('fs').statSync(${JSON.stringify(tulle)})`,
  ];
  return spawnSync(file, rest).status === 0
    ? false
    : 'nobody may not make user namespaces here, or not read this folder';
}
const skip = whyNot();

async function collect(stream: NodeJS.ReadableStream): Promise<string> {
  let text = '';
  for await (const piece of stream) text += piece;
  return text;
}

/** The record of the lab, as soon as it is ready. */
async function ready(root: string): Promise<{ owner: ProcessId; processes: ProcessId[]; rootless: boolean }> {
  for (const deadline = performance.now() + LAB_MS; performance.now() < deadline; await delay(20)) {
    try {
      const record = JSON.parse(readFileSync(join(root, 'lab', 'state.json'), 'utf8'));
      if (record.ready) return record;
    } catch {
      // not there yet
    }
  }
  throw new Error('the lab does not come up');
}

async function allEnded(ids: readonly ProcessId[]): Promise<boolean> {
  for (const deadline = performance.now() + 10_000; performance.now() < deadline; await delay(20)) {
    if (!ids.some(isAlive)) return true;
  }
  return false;
}

const exitOf = async (child: ChildProcess): Promise<unknown> => {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode ?? child.signalCode;
  const [code, signal] = await once(child, 'exit');
  return code ?? signal;
};

t.test('lab up --once --json', { skip }, async t => {
  const { root, start } = place(t);
  const lab = start('lab', 'up', '--once', '--json', '--seconds', '1');
  const [stdout, stderr] = await Promise.all([collect(lab.stdout!), collect(lab.stderr!)]);
  t.equal(await exitOf(lab), 0, stderr);
  t.match(JSON.parse(stdout.trimEnd().split('\n').at(-1)!), { ok: true, ping: { sent: 20, received: 20 } });
  t.notOk(existsSync(join(root, '..')), 'no file is left');
});

t.test('exec and down from another terminal', { skip }, async t => {
  const { root, run, start } = place(t);
  const lab = start('lab', 'up', '--seconds', '1');
  lab.stdout!.resume();
  lab.stderr!.resume();
  const { owner, processes, rootless } = await ready(root);
  t.equal(rootless, true);
  t.equal(readFileSync(`/proc/${owner.pid}/uid_map`, 'utf8').trim().split(/\s+/).join(' '), `0 ${NOBODY} 1`);

  const inside = run('lab', 'exec', 'pod2', '--', 'sh', '-c', 'cat /proc/net/fib_trie; pwd; exit 7');
  t.equal(inside.status, 7, inside.stderr);
  t.match(inside.stdout, /10\.42\.\d+\.2/);
  t.equal(inside.stdout.trimEnd().split('\n').at(-1), process.cwd(), 'in the folder where it was typed');
  t.match(
    run('lab', 'exec', 'pod9', '--', 'true').stderr,
    /^tulle: there is no "pod9" in this lab: it has switch, node1/,
  );
  const fault = run('lab', 'fault', 'add', 'delay', 'node1-node2', '--ms', '30');
  t.equal(fault.stdout, 'delay1: node1-node2, each frame 30 ms later\n', fault.stderr);
  const { medianMs } = JSON.parse(run('lab', 'ping', 'pod1', 'pod2', '--json').stdout);
  t.ok(medianMs >= 60, `a fault without root: ${medianMs} ms`);
  t.match(run('lab', 'fault', 'list').stdout, /^delay1 .*[1-9]\d* frames\n$/);
  t.match(run('lab', 'status').stdout, / Round trip, pod to pod/);
  t.match(run('lab', 'up', '--once').stderr, /running already|\/dev\/net\/tun may not be opened/);

  t.match(run('lab', 'down'), { status: 0, stderr: 'the lab "lab" is down\n' });
  t.equal(await exitOf(lab), 0);
  t.ok(await allEnded([owner, ...processes]));
  t.notOk(existsSync(join(root, '..')), 'no file is left');
});

for (const victim of ['the lab', 'the process outside'] as const) {
  t.test(`SIGKILL to ${victim}, then lab down`, { skip }, async t => {
    const { root, run, start } = place(t);
    const lab = start('lab', 'up', '--seconds', '1');
    lab.stdout!.resume();
    lab.stderr!.resume();
    const { owner, processes } = await ready(root);
    const target = victim === 'the lab' ? owner : identify(lab.pid!)!;
    process.kill(target.pid, 'SIGKILL');
    t.ok(await allEnded([target]));
    const { status, stderr } = run('lab', 'down');
    t.equal(status, 0, stderr);
    t.ok(await allEnded([owner, ...processes, identify(lab.pid!) ?? owner]), 'no process is left');
    t.notOk(existsSync(join(root, '..')), `no file is left: ${existsSync(root) ? readdirSync(root) : ''}`);
  });
}

t.test('a TUN device that this user may not open: one line', { skip }, async t => {
  const { root, run } = place(t);
  const { status, stdout, stderr } = run('lab', 'up', '--once', '--json');
  if (status === 0) return void t.pass('it is open to everybody on this machine');
  t.equal(status, 1);
  t.match(stderr, /^tulle: \/dev\/net\/tun may not be opened \(EACCES\): give this user .*\n$/);
  t.match(JSON.parse(stdout), { ok: false, code: 'no-tun' });
  t.notOk(existsSync(join(root, '..')), 'nothing is left');
});

t.test('no user namespaces: one line', { skip }, async t => {
  const { root } = place(t);
  // Inside a chain of user namespaces that is as deep as the kernel allows (32, kernel/user_namespace.c) there are no more;
  // a limit of 0 in the user namespace that we make first says the same at once.
  const script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all --inh-caps=-all "$@"';
  const [file, ...rest] = [
    ...[...AS_NOBODY, 'unshare', '--user', '--map-root-user', 'sh', '-ec', script, 'sh'],
    ...[process.execPath, tulle, 'lab', 'up', '--once', '--json'],
  ];
  const { status, stdout, stderr } = spawnSync(file, rest, {
    encoding: 'utf8',
    env: { ...process.env, TULLE_LAB_ROOT: root },
  });
  t.equal(status, 1, stderr);
  t.match(
    stderr,
    /^tulle: the lab needs root, or user namespaces, which this machine does not allow \(.*\): run it with sudo\n$/,
  );
  t.match(JSON.parse(stdout), { ok: false, code: 'privileges' });
});
