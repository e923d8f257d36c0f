// `tulle status` against a real tulled: while it waits, when it is well, when its registry is not, and past its deadline.
// tulle-status-etcd.test.ts has the same for etcd.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { ping } from '../../lib/lab/ping.ts';
import { askControl } from '../../lib/observe/control-client.ts';
import type { StatusDocument } from '../../lib/observe/status.ts';
import { statusWhen } from '../daemon/ask.ts';
import { makeNode, skip } from '../daemon/node.ts';
import { environment } from '../daemon/process.ts';
import { parsePrometheus } from '../support/prometheus.ts';

t.setTimeout(150_000);
const program = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));

interface Result {
  code: number | null;
  out: string;
  error: string;
}

function tulle(...args: string[]): Promise<Result> {
  const child = spawn(process.execPath, [program, 'status', ...args], {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const result: Result = { code: null, out: '', error: '' };
  child.stdout.on('data', chunk => {
    result.out += chunk;
  });
  child.stderr.on('data', chunk => {
    result.error += chunk;
  });
  return new Promise(done => child.on('close', code => done({ ...result, code })));
}

const isReady = (status: StatusDocument): boolean => status.ready;
const isWell = (status: StatusDocument): boolean => status.healthy;

t.test('nobody there, and what is no question', async t => {
  const nobody = await tulle('--socket', '/nowhere/tulled.sock');
  t.equal(nobody.code, 2);
  t.match(nobody.error, /^tulle: no tulled runs here: there is no \/nowhere\/tulled.sock; .*--socket\n$/);
  const wrong = await tulle('--sockets');
  t.equal(wrong.code, 1);
  t.match(wrong.error, /^tulle: .*--sockets.*: see "tulle status --help"\n$/);
  t.match((await tulle('--interval=1')).error, /--interval goes with --watch/);
  const help = await tulle('--help');
  t.equal(help.code, 0);
  for (const flag of help.out.matchAll(/^ {2}(--[a-z]+)/gm)) t.match(help.out, `tulle status ${flag[1]}`.slice(0, 12));
});

t.test('a node with a file registry: waiting, well, and when the directory goes', { skip }, async t => {
  const world = makeNode(t);
  const socket = join(world.run, 'tulled.sock');
  renameSync(world.registry, `${world.registry}.away`);
  const tulled = world.start('-node-id=node1', `--control-socket=${socket}`, '-lease-ttl=6s');
  const waiting = await statusWhen(socket, status => status.registry.reason !== null);
  t.match(waiting, {
    node: 'node1',
    healthy: false,
    ready: false,
    waitingFor: 'the network configuration',
    registry: { kind: 'file', healthy: false, reason: /leases\/config does not exist/ },
    lease: { subnet: null, fenced: false },
    peers: [],
  });
  t.equal((await tulle('--socket', socket)).code, 1);

  renameSync(`${world.registry}.away`, world.registry);
  const well = await statusWhen(socket, isWell);
  const [name] = world.leases();
  t.match(well, {
    ready: true,
    problems: [],
    network: { network: '10.5.0.0/16', backend: 'tulle' },
    lease: { subnet: name.replace('-24', '/24'), publicIp: '10.88.0.1', fenced: false, ttlSeconds: 6, trouble: null },
    registry: { kind: 'file', where: `file:${world.registry}`, healthy: true },
    overlay: { device: 'tulle0', mtu: 1460, port: 8285, transport: 'offload', running: true },
    offloads: { trains: { on: true, reason: 'in-use' } },
    drops: { 'egress-no-lease': 0 },
  });
  t.ok((well.lease.secondsLeft ?? 0) > 0 && (well.lease.secondsLeft ?? 9) <= 6, `${well.lease.secondsLeft} s`);
  const shown = await tulle('--socket', socket);
  t.equal(shown.code, 0, shown.out);
  t.match(shown.out, /^node1: healthy .*\n(.*\n)*lease +10\.5\.\d+\.0\/24 at 10\.88\.0\.1, key [0-9a-f]{8}, renewed/);

  t.comment('a peer, and a packet to a subnet without a lease');
  mkdirSync(join(world.registry, 'subnets'), { recursive: true });
  const other = world.leases()[0] === '10.5.77.0-24' ? '10.5.78.0' : '10.5.77.0';
  writeFileSync(
    join(world.registry, 'subnets', `${other}-24`),
    JSON.stringify({
      PublicIP: '10.88.0.2',
      PublicIPv6: null,
      BackendType: 'tulle',
      BackendData: { Version: 1, Port: 8285, NodeID: 'node2' },
    }),
  );
  const withPeer = await statusWhen(socket, status => status.peers.length === 1);
  t.match(withPeer.peers[0], {
    subnet: `${other}/24`,
    node: 'node2',
    endpoint: '10.88.0.2:8285',
    format: 'tulle',
    pathMtu: 1500,
  });
  for (const key of ['rttMs', 'lossPct']) t.ok(key in withPeer.peers[0], key);
  await ping(world.node, '10.5.200.1', { count: 1, intervalMs: 0, timeoutMs: 100 });
  const dropped = await statusWhen(socket, status => (status.drops['egress-no-lease'] ?? 0) > 0);
  t.type(dropped.drops['egress-no-lease'], 'number');
  const metric = async (name: string, labels: object = {}): Promise<number | undefined> => {
    const families = parsePrometheus(String(await askControl(socket, { path: '/metrics' })));
    const samples = families.get(name)?.samples ?? [];
    return samples.find(sample =>
      Object.entries({ ...sample.labels, ...labels }).every(([k, v]) => sample.labels[k] === v),
    )?.value;
  };
  t.ok(
    ((await metric('tulle_dropped_packets_total', { reason: 'egress-no-lease' })) ?? 0) > 0,
    'metrics count it, too',
  );
  t.equal(await metric('tulle_fenced'), 0);
  t.equal(await metric('tulle_peers'), 1);
  t.match(await statusWhen(socket, status => status.rates !== null), { rates: { 'egress-no-lease': Number } });
  t.match((await tulle('--socket', socket)).out, /egress-no-lease +nobody holds a lease for the destination's subnet/);
  const json = JSON.parse((await tulle('--json', '--socket', socket)).out) as StatusDocument;
  t.hasStrict(Object.keys(json), ['node', 'version']);
  for (const key of ['node', 'lease', 'registry', 'peers', 'drops', 'offloads']) t.ok(key in json, key);

  const cluster = await tulle('--cluster', '--socket', socket);
  t.equal(cluster.code, 1);
  t.match(cluster.out, /^node1 .* healthy .*\n(.*\n)*node2 .* NO ANSWER .*\n1 of 2 nodes did not answer\n/m);

  t.comment('the directory goes: first unhealthy, then fenced, and well again when it is back');
  renameSync(world.registry, `${world.registry}.away`);
  t.match(await statusWhen(socket, status => !status.registry.healthy), { healthy: false });
  const fenced = await statusWhen(socket, status => status.lease.fenced);
  t.match(fenced, { healthy: false, ready: false, lease: { secondsLeft: 0 } });
  t.equal(fenced.problems[0]?.code, 'fenced');
  t.equal(await metric('tulle_fenced'), 1);
  t.equal(await metric('tulle_registry_up'), 0);
  t.match((await tulle('--socket', socket)).out, /NOT HEALTHY(.|\n)*FENCED/);
  renameSync(`${world.registry}.away`, world.registry);
  await statusWhen(socket, isWell);
  t.pass('well again');
  await tulled.end('SIGTERM');
  t.equal((await tulle('--socket', socket)).code, 2);
});

t.test('a registry that cannot be written, and one that holds nonsense', { skip }, async t => {
  const world = makeNode(t);
  const socket = join(world.run, 'tulled.sock');
  const tulled = world.start('-node-id=node1', `--control-socket=${socket}`, '-lease-ttl=6s');
  await statusWhen(socket, isWell);
  const mount = (...args: string[]): void => {
    const { status, stderr } = spawnSync('mount', args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
  };
  mount('--bind', world.registry, world.registry);
  try {
    mount('-o', 'remount,bind,ro', world.registry);
    const readOnly = await statusWhen(socket, status => !status.registry.healthy && !status.lease.fenced);
    t.match(readOnly.registry.reason, /EROFS.*run as a user who may write there/);
    t.match((await statusWhen(socket, status => status.lease.fenced)).problems, [
      { code: 'fenced' },
      { code: 'registry' },
    ]);
  } finally {
    spawnSync('umount', [world.registry]);
  }
  await statusWhen(socket, isWell);

  const [name] = world.leases();
  writeFileSync(join(world.registry, 'subnets', name), 'nonsense');
  const corrupt = await statusWhen(socket, status => !status.healthy);
  t.match(corrupt.problems[0]?.text, /./, corrupt.problems[0]?.text);
  await tulled.end('SIGTERM');
});

t.test('--watch says it again until it is told to stop', { skip }, async t => {
  const world = makeNode(t);
  const socket = join(world.run, 'tulled.sock');
  const tulled = world.start('-node-id=node1', `--control-socket=${socket}`);
  await statusWhen(socket, isReady);
  const args = [program, 'status', '--watch', '--interval=0.1', '--json', '--socket', socket];
  const child = spawn(process.execPath, args, { env: environment, stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  const code = await new Promise(resolve => {
    child.stdout.setEncoding('utf8').on('data', chunk => {
      text += chunk;
      if (text.split('\n').length > 3) child.kill('SIGINT');
    });
    child.on('close', resolve);
  });
  t.equal(code, 0);
  const lines = text
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line).node);
  t.ok(lines.length >= 3);
  t.same(new Set(lines), new Set(['node1']));
  await tulled.end('SIGTERM');
});

t.test('a node that serves CNI only', { skip }, async t => {
  const world = makeNode(t);
  const socket = join(world.run, 'tulled.sock');
  const tulled = world.start('--cni-only', `--control-socket=${socket}`, `--cni-socket=${join(world.run, 'cni.sock')}`);
  t.match(await statusWhen(socket, isWell), { mode: 'cni-only', overlay: null, cni: { calls: {}, running: 0 } });
  t.match((await tulle('--socket', socket)).out, /serves CNI only, healthy/);
  await tulled.end('SIGTERM');
});
