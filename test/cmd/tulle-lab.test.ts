// Whole labs, as a person starts them. Before and after each, the machine is compared: mounts, links, processes, files.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { findEtcd } from '../../etcd/server.ts';
import { measureTcp } from '../../lib/lab/measure.ts';
import { hasPrivileges } from '../../lib/lab/rootless.ts';
import { loadState, namespaceFile } from '../../lib/lab/state.ts';
import { below, prng, testSeed } from '../support/prng.ts';

const tulle = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));
const skip = hasPrivileges() && existsSync('/dev/net/tun') ? false : 'needs root and /dev/net/tun';
const LAB_MS = 60_000;
t.setTimeout(300_000);

interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** A place for one test's labs. */
function place(t: Test): {
  root: string;
  run: (...args: string[]) => Ended;
  start: (...args: string[]) => ChildProcess;
} {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-lab-test-'));
  const root = join(folder, 'lab');
  const env = { ...process.env, TULLE_LAB_ROOT: root };
  t.teardown(() => {
    spawnSync(process.execPath, [tulle, 'lab', 'down'], { env, timeout: LAB_MS });
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    root,
    run: (...args) => spawnSync(process.execPath, [tulle, ...args], { encoding: 'utf8', env, timeout: LAB_MS }),
    start: (...args) => spawn(process.execPath, [tulle, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] }),
  };
}

/** What a lab may have left: mounts and files below its root, processes that name it or stand in it. */
function remains(root: string): string[] {
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .filter(line => line.includes(root));
  const processes = readdirSync('/proc').flatMap(pid => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return [];
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      const cwd = readlinkSync(`/proc/${pid}/cwd`);
      return line.includes(root) || cwd.startsWith(root) ? [`${pid} ${line}`] : [];
    } catch {
      return [];
    }
  });
  return [...mounts, ...processes, ...(existsSync(root) ? readdirSync(root) : [])];
}

/** Waits until the program has written what matches to that stream. */
async function said(child: ChildProcess, stream: 'stdout' | 'stderr', pattern: RegExp): Promise<string> {
  let text = '';
  const deadline = AbortSignal.timeout(LAB_MS);
  child[stream]!.setEncoding('utf8');
  for await (const piece of child[stream]!.iterator({ destroyOnReturn: false }) as AsyncIterable<string>) {
    text += piece;
    if (pattern.test(text)) return text;
    deadline.throwIfAborted();
  }
  throw new Error(`it ended without saying ${pattern}: ${text}`);
}

async function exitOf(child: ChildProcess): Promise<number | string | null> {
  if (child.exitCode !== null) return child.exitCode;
  if (child.signalCode !== null) return child.signalCode;
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  return code ?? signal;
}

const lastJson = (stdout: string): Record<string, unknown> => JSON.parse(stdout.trimEnd().split('\n').at(-1)!);

t.test('lab up --once --json, file registry', { skip }, async t => {
  const { root, run } = place(t);
  const linksBefore = readdirSync('/sys/class/net').sort();
  const { status, stdout, stderr } = run('lab', 'up', '--once', '--json', '--seconds', '1');
  t.equal(status, 0, stderr);
  const result = lastJson(stdout);
  t.match(result, {
    ok: true,
    registry: 'file',
    nodes: [
      { name: 'node1', publicIp: '10.88.0.1', subnet: /^10\.42\.\d+\.0\/24$/, mtu: 1460 },
      { name: 'node2', publicIp: '10.88.0.2', subnet: /^10\.42\.\d+\.0\/24$/, mtu: 1460 },
    ],
    pods: [
      { name: 'pod1', node: 'node1', ip: /^10\.42\.\d+\.2$/ },
      { name: 'pod2', node: 'node2', ip: /^10\.42\.\d+\.2$/ },
    ],
    ping: { sent: 20, received: 20, rttMs: Number },
    tcp: { gbps: Number, underlayGbps: Number },
  });
  t.match(stderr, /the underlay: a switch and 2 nodes \.+ +\d+\.\d\d s\n/, 'progress is visible');
  t.same(remains(root), []);
  t.same(readdirSync('/sys/class/net').sort(), linksBefore);
});

for (const registry of ['file', 'etcd', 'kube']) {
  const missing = registry === 'etcd' && findEtcd() === undefined ? 'there is no etcd here' : false;
  t.test(`100 MB between two pods arrive as they were sent, ${registry}`, { skip: skip || missing }, async t => {
    const { root, run, start } = place(t);
    const lab = start('lab', 'up', '--json', '--registry', registry, '--seconds', '1');
    const result = lastJson(await said(lab, 'stdout', /}\n/));
    t.match(result, { ok: true, registry, ping: { sent: 20, received: 20 } });

    const state = loadState(root, 'lab')!;
    const [pod1, pod2] = (result.pods as { name: string; ip: string }[]).map(({ name, ip }) => ({
      name,
      address: ip,
      namespaceFile: namespaceFile(state, name),
    }));
    const load = { bytes: 100_000_000, seed: 2 };
    const [there, back] = [await measureTcp(pod1, pod2, load), await measureTcp(pod2, pod1, load)];
    t.equal(there.bytes, load.bytes);
    t.match(there.sha256, /^[0-9a-f]{64}$/, 'measureTcp rejects when the digests differ');
    t.equal(back.sha256, there.sha256, 'one seed, one digest');

    t.equal(run('lab', 'down').status, 0);
    t.equal(await exitOf(lab), 0);
    t.same(remains(root), []);
  });
}

t.test('all transports in one run: the same pods, daemons that come back to their leases', { skip }, async t => {
  const { root, run } = place(t);
  const { status, stdout, stderr } = run('lab', 'up', '--once', '--json', '--compare', '--seconds', '1');
  t.equal(status, 0, stderr);
  const { tcp } = lastJson(stdout) as { tcp: { gbps: number; transports: Record<string, number> } };
  t.same(Object.keys(tcp.transports), ['offload', 'batch', 'dgram']);
  t.equal(tcp.transports['offload'], tcp.gbps);
  t.ok(tcp.gbps >= 5 * tcp.transports['dgram'], `offload ${tcp.gbps} Gb/s, dgram ${tcp.transports['dgram']} Gb/s`);
  t.same(remains(root), []);
});

t.test('three nodes, two pods each: picture, exec, status, a second lab up, lab down', { skip }, async t => {
  const { root, run, start } = place(t);
  const lab = start('lab', 'up', '--nodes', '3', '--pods', '2', '--seconds', '1');
  const news = said(lab, 'stderr', /The lab is up/);
  const picture = await said(lab, 'stdout', /lab down\n/);
  await news;
  t.match(
    picture,
    /node3[\s\S]*pod6 {3}10\.42\.\d+\.3[\s\S]* Round trip[\s\S]*60 echoes, none lost[\s\S]* TCP, one stream/,
  );

  await t.test('status', async t => {
    const url = readFileSync(join(root, 'lab', 'page.url'), 'utf8');
    t.equal(run('lab', 'status').stdout, `${picture}The microscope, for your browser: ${url}`);
    t.match(JSON.parse(run('lab', 'status', '--json').stdout), { ok: true, pods: { length: 6 } });
  });

  await t.test('exec', async t => {
    const show = run('lab', 'exec', 'pod6', '--', 'cat', '/proc/net/fib_trie');
    t.equal(show.status, 0);
    t.match(show.stdout, /10\.42\.\d+\.3/);
    t.equal(run('lab', 'exec', 'node1', '--', 'sh', '-c', 'exit 42').status, 42, 'the exit code is passed on');
    t.equal(run('lab', 'exec', 'node1', '--', 'sh', '-c', 'kill -9 $$').status, 137, 'and a signal as a shell does');
    const unknown = run('lab', 'exec', 'pod7', '--', 'true');
    t.equal(unknown.status, 1);
    t.match(unknown.stderr, /^tulle: there is no "pod7" in this lab: it has switch, node1, node2, node3, pod1, /);
    const missing = run('lab', 'exec', 'pod1', '--', '/no/such/command');
    t.equal(missing.status, 1);
    t.equal(missing.stderr, 'tulle: /no/such/command: there is no such command\n');
  });

  await t.test('a second one is refused and harms nobody', async t => {
    const second = run('lab', 'up', '--once', '--json');
    t.equal(second.status, 1);
    t.match(
      second.stderr,
      /^tulle: a lab named "lab" is running already \(process \d+\): end it with "tulle lab down", or give this one a --name\n$/,
    );
    t.match(lastJson(second.stdout), { ok: false, code: 'running' });
    t.equal(run('lab', 'exec', 'pod1', '--', 'true').status, 0);
  });

  const down = run('lab', 'down');
  t.equal(down.status, 0);
  t.equal(down.stderr, 'the lab "lab" is down\n');
  t.equal(await exitOf(lab), 0);
  t.same(remains(root), []);
});

t.test('Ctrl-C twice while it comes up', { skip }, async t => {
  const { root, start } = place(t);
  const lab = start('lab', 'up', '--seconds', '10');
  await said(lab, 'stderr', /tulled on 2 nodes/);
  lab.kill('SIGINT');
  lab.kill('SIGINT');
  t.equal(await exitOf(lab), 0);
  t.same(remains(root), []);
});

t.test('SIGTERM while it measures, with --once --json', { skip }, async t => {
  const { root, start } = place(t);
  const lab = start('lab', 'up', '--once', '--json', '--seconds', '30');
  const out = said(lab, 'stdout', /\n/);
  await said(lab, 'stderr', /TCP over the overlay/);
  lab.kill('SIGTERM');
  t.same(lastJson(await out).ok, false, 'what was not measured is not ok');
  t.equal(await exitOf(lab), 1);
  t.same(remains(root), []);
});

for (const next of ['down', 'up']) {
  t.test(`SIGKILL, then lab ${next}`, { skip }, async t => {
    const { root, run, start } = place(t);
    const lab = start('lab', 'up', '--seconds', '1');
    await said(lab, 'stderr', /The lab is up/);
    const env = { ...process.env, TULLE_LAB_ROOT: root };
    const shell = spawn(
      process.execPath,
      [tulle, 'lab', 'exec', 'pod1', '--', 'sh', '-c', 'echo here; sleep 1000 & wait'],
      {
        env,
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    await said(shell, 'stdout', /here/);
    lab.kill('SIGKILL');
    t.equal(await exitOf(lab), 'SIGKILL');
    t.match(remains(root).join('\n'), /ns\/pod2[\s\S]*lab/, 'it had no time to clean up');
    t.match(run('lab', 'exec', 'pod1', '--', 'true').stderr, /was killed; "tulle lab down" removes what is left of it/);

    const { status, stderr } = next === 'down' ? run('lab', 'down') : run('lab', 'up', '--once', '--seconds', '1');
    t.equal(status, 0, stderr);
    t.equal(typeof (await exitOf(shell)), 'number', 'the command in the pod was ended, too');
    for (let i = 0; i < 100 && remains(root).length > 0; i++) await delay(20); // its children are reaped by init
    t.same(remains(root), []);
  });
}

t.test('SIGKILL at any moment, then lab down', { skip }, async t => {
  const { root, run, start } = place(t);
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const next = prng(seed);
  for (let i = 0; i < 6; i++) {
    const ms = 50 + below(next, 700);
    const lab = start('lab', 'up', '--nodes', '3', '--seconds', '1');
    await delay(ms);
    lab.kill('SIGKILL');
    await exitOf(lab);
    t.equal(run('lab', 'down').status, 0);
    for (let wait = 0; wait < 100 && remains(root).length > 0; wait++) await delay(20);
    t.same(remains(root), [], `after ${ms} ms`);
  }
});

t.test('a daemon that dies while the lab stands is told', { skip }, async t => {
  const { root, start } = place(t);
  const lab = start('lab', 'up', '--seconds', '1');
  await said(lab, 'stderr', /The lab is up/);
  const { processes } = JSON.parse(readFileSync(join(root, 'lab', 'state.json'), 'utf8'));
  const news = said(lab, 'stderr', /tulled on node2 ended by SIGKILL/);
  process.kill(processes.find((entry: { name: string }) => entry.name === 'tulled on node2').pid, 'SIGKILL');
  await news;
  lab.kill('SIGTERM');
  t.equal(await exitOf(lab), 0);
  t.same(remains(root), []);
});
