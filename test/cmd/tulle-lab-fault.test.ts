// Faults in a whole lab, from other processes: what the daemons make of them, and what is left when something dies.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { identify, isAlive, type ProcessId, signal, waitUntilEnded } from '../../lib/lab/process.ts';
import { hasPrivileges } from '../../lib/lab/rootless.ts';
import { loadState } from '../../lib/lab/state.ts';

const tulle = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));
const skip = hasPrivileges() && existsSync('/dev/net/tun') ? false : 'needs root and /dev/net/tun';
const LIMIT_MS = 60_000;
t.setTimeout(180_000);

interface Lab {
  readonly root: string;
  readonly process: ChildProcess;
  /** What `lab up` has said on stderr so far. */
  said(): string;
  run(...args: string[]): { status: number | null; stdout: string; stderr: string };
  relay(): ProcessId | undefined;
}

async function labOf(t: Test): Promise<Lab> {
  const root = mkdtempSync(join(tmpdir(), 'tulle-fault-cmd-'));
  const env = { ...process.env, TULLE_LAB_ROOT: root };
  const child = spawn(process.execPath, [tulle, 'lab', 'up', '--seconds', '1'], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let text = '';
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
  });
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [tulle, ...args], { env, encoding: 'utf8', timeout: LIMIT_MS });
  t.teardown(() => {
    run('lab', 'down');
    rmSync(root, { recursive: true, force: true });
  });
  await until(() => loadState(root, 'lab')?.record.ready === true, 'the lab is up');
  const relay = (): ProcessId | undefined => {
    const file = join(root, 'lab', 'faults.json');
    return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')).relay ?? undefined) : undefined;
  };
  return { root, process: child, said: () => text, run, relay };
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (const deadline = performance.now() + LIMIT_MS; !condition(); await delay(30))
    if (performance.now() > deadline) throw new Error(`not within ${LIMIT_MS / 1000} s: ${what}`);
}

t.test('a lab with faults', { skip }, async t => {
  const { root, process: owner, run, relay, said } = await labOf(t);
  const drops = (node: string): Record<string, number> => {
    const socket = join(root, 'lab', node, 'tulled.sock');
    return JSON.parse(run('status', '--json', '--socket', socket).stdout).drops;
  };
  const reaches = (): boolean => run('lab', 'ping', 'pod1', 'pod2', '--count', '3').status === 0;

  await t.test('NAT: a sender that nobody knows', async t => {
    const before = drops('node2')['ingress-unknown-sender'];
    const added = run('lab', 'fault', 'add', 'nat', 'node1-node2');
    t.equal(added.stdout, 'nat1: node1-node2, its packets come from 10.88.0.200\n', added.stderr);
    t.notOk(reaches(), 'no echo comes back');
    t.ok(drops('node2')['ingress-unknown-sender'] > before, 'node2 refuses what comes from another address');
    t.match(
      run('lab', 'fault', 'list').stdout,
      /^nat1 {2}node1-node2 {2}its packets come from 10\.88\.0\.200 {2}[1-9]\d* frames\n$/,
    );
    t.equal(run('lab', 'fault', 'remove', 'nat1').stdout, 'removed: nat1\n');
    await until(reaches, 'healed');
  });

  await t.test('the overlay over a slow underlay', async t => {
    const added = run('lab', 'fault', 'add', 'delay', '--ms', '20', '--json');
    t.match(JSON.parse(added.stdout), { id: 'delay2', where: null, ms: 20 });
    const { medianMs, received } = JSON.parse(run('lab', 'ping', 'pod1', 'pod2', '--json').stdout);
    t.equal(received, 5);
    t.ok(medianMs >= 40, `${medianMs} ms`);
    t.match(run('lab', 'tcp', 'pod1', 'pod2', '--seconds', '1').stdout, /TCP for 1 s: [\d.]+ Gb\/s/, 'TCP goes on');
    t.equal(run('lab', 'fault', 'remove', '--all').status, 0);
  });

  await t.test('the registry out of reach, and back', async t => {
    t.equal(run('lab', 'fault', 'add', 'partition', 'node1-registry').status, 0);
    const socket = join(root, 'lab', 'node1', 'tulled.sock');
    await until(() => run('status', '--socket', socket).status === 1, 'node1 is not well');
    t.ok(reaches(), 'what is leased goes on');
    run('lab', 'fault', 'remove', '--all');
    await until(() => run('status', '--socket', socket).status === 0, 'node1 is well again');
  });

  await t.test('what is wrong is one line', async t => {
    const cases: [string[], RegExp][] = [
      [['add'], /^tulle: say which fault: partition, loss/],
      [['add', 'fire'], /^tulle: a fault is one of .* not "fire"\n$/],
      [['add', 'delay', 'node7', '--ms', '5'], /^tulle: "node7" is not a place of this lab: .*\n$/],
      [['add', 'delay', '--ms', 'soon'], /^tulle: --ms is a number, not "soon"\n$/],
      [['remove'], /^tulle: fault remove takes the id of one fault, or --all\n$/],
      [['remove', 'delay9'], /^tulle: there is no fault "delay9" in this lab: it has none\n$/],
      [['mend'], /^tulle: there is no "tulle lab fault mend"/],
      [['list', '--name', 'other'], /^tulle: the lab "other" is not running/],
    ];
    for (const [args, message] of cases) t.match(run('lab', 'fault', ...args), { status: 1, stderr: message });
    for (const verb of ['', 'add', 'list', 'remove']) {
      const help = run('lab', 'fault', ...(verb === '' ? [] : [verb]), '--help').stdout;
      const flags = [...help.matchAll(/^ {2}(--[a-z]+)/gm)].map(match => match[1]);
      const shown = [...help.matchAll(/^ {23}tulle .*$/gm)].join('\n');
      t.same(
        flags.filter(flag => !shown.includes(flag)),
        [],
        `${verb}: every flag has an example`,
      );
    }
  });

  await t.test('a killed relay: the lab mends the link and says so', async t => {
    run('lab', 'fault', 'add', 'partition', 'node1-node2');
    signal(relay()!, 'SIGKILL');
    await until(
      () => /the relay of the faults ended: partition\d+ lost, the links are mended/.test(said()),
      'it is told',
    );
    await until(reaches, 'it is mended');
    t.match(run('lab', 'fault', 'list').stdout, /lost: its relay was ended/);
    run('lab', 'fault', 'remove', '--all');
  });

  await t.test('a restarted daemon', async t => {
    t.match(run('lab', 'stop', 'node2').stdout, 'tulled on node2 has ended\n');
    t.notOk(reaches());
    t.match(
      run('lab', 'restart', 'node2', '--transport', 'batch').stdout,
      'tulled runs again on node2 with --transport=batch\n',
    );
    await until(reaches, 'back');
    t.match(run('lab', 'restart', 'node9').stderr, /^tulle: "node9" is not a node of this lab/);
  });

  await t.test('the lab is killed: the relay ends by itself', async t => {
    t.equal(run('lab', 'fault', 'add', 'loss', '--percent', '1').status, 0);
    const left = relay()!;
    t.ok(isAlive(left));
    signal(identify(owner.pid!)!, 'SIGKILL');
    t.same(await waitUntilEnded([left], LIMIT_MS), []);
    t.equal(run('lab', 'down').status, 0);
    t.notOk(existsSync(join(root, 'lab')), 'nothing is left');
  });
});
