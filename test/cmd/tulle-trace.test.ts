// `tulle trace`, `tulle status --cluster` and GET /peers between two real tulleds.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { askControl } from '../../lib/observe/control-client.ts';
import { TRACE_HELP } from '../../lib/observe/trace/command.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { makeNode, skip } from '../daemon/node.ts';
import { environment, spawnTulled } from '../daemon/process.ts';
import { freeze } from '../support/freeze.ts';

t.setTimeout(120_000);
const program = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));

interface Result {
  code: number | null;
  out: string;
  error: string;
}

function tulle(...args: string[]): Promise<Result> {
  const child = spawn(process.execPath, [program, ...args], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
  const result: Result = { code: null, out: '', error: '' };
  child.stdout.on('data', chunk => {
    result.out += chunk;
  });
  child.stderr.on('data', chunk => {
    result.error += chunk;
  });
  return new Promise(done => child.on('close', code => done({ ...result, code })));
}

async function until(done: () => Promise<boolean>): Promise<boolean> {
  const deadline = performance.now() + 60_000;
  while (performance.now() < deadline) {
    if (await done()) return true;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return false;
}

t.test('what is no question, and nobody to ask', async t => {
  const help = await tulle('trace', '--help');
  t.equal(help.code, 0);
  t.equal(help.out, TRACE_HELP);
  for (const flag of help.out.matchAll(/^ {2}(--[a-z]+)/gm)) {
    t.ok(new RegExp(`tulle trace .*${flag[1]}`).test(help.out), `an example of ${flag[1]}`);
  }
  const wrong = async (args: string[], message: RegExp): Promise<void> => {
    const { code, error } = await tulle('trace', ...args);
    t.equal(code, 1);
    t.match(error, message);
  };
  await wrong(['10.5.1.1'], /give a source and a destination: see "tulle trace --help"/);
  await wrong(['10.5.1.1', '10.5.2.2', '10.5.3.3'], /"10.5.3.3": one argument too many/);
  await wrong(['pod1', '10.5.2.2'], /"pod1" is no address of a source/);
  await wrong(['10.5.1.1', 'fd00::1'], /different versions of IP/);
  await wrong(['10.5.1.1', '10.5.2.2', '--size', '27'], /the size is a number from 28 to 65535/);
  await wrong(['10.5.1.1', '10.5.2.2', '--proto', 'sctp'], /icmp, tcp or udp/);
  await wrong(['10.5.1.1', '10.5.2.2', '--port=http'], /--port: "http" is no number/);
  const nobody = await tulle('trace', '10.5.1.1', '10.5.2.2', '--socket', '/nowhere/tulled.sock');
  t.equal(nobody.code, 2);
  t.match(nobody.error, /no tulled runs here/);
});

t.test('two nodes', { skip }, async t => {
  const world = makeNode(t);
  const sockets = [join(world.run, '1.sock'), join(world.run, '2.sock')];
  const one = world.start('-node-id=node1', `--control-socket=${sockets[0]}`, '--probe-interval=200ms');
  await one.saw(/ready/);
  const two = withNamespace(world.far, () =>
    spawnTulled([
      '-iface=eth0',
      `-subnet-file=${world.run}/2.env`,
      '--cni-socket=',
      `--registry=file:${world.registry}`,
      '-node-id=node2',
      `--control-socket=${sockets[1]}`,
      '--probe-interval=200ms',
    ]),
  );
  t.teardown(() => two.end('SIGKILL'));
  await two.saw(/ready/);
  const peersOf = async (socket: string): Promise<Record<string, unknown>[]> =>
    ((await askControl(socket, { path: '/peers' })) as { peers: Record<string, unknown>[] }).peers;
  t.ok(await until(async () => (await peersOf(sockets[0]))[0]?.['pathMtu'] === 1500));
  const [peer] = await peersOf(sockets[0]);
  t.match(peer, { node: 'node2', endpoint: '10.88.0.2:8285', format: 'tulle', limit: null, silent: false });
  t.ok(typeof peer['rttMs'] === 'number' && typeof peer['lastHeardMs'] === 'number');
  const deviceOf = (subnet: string): string => subnet.split('/')[0];
  const [to, from] = [deviceOf(String(peer['subnet'])), deviceOf(String((await peersOf(sockets[1]))[0]['subnet']))];

  const story = await tulle('trace', from, to, '--socket', sockets[0]);
  t.equal(story.code, 0, story.out + story.error);
  t.match(story.out, /✓ node1 +route +10\.5\.\d+\.0\/24 is leased to node2\n +\(.*\) ÷ 256 = subnet number/);
  t.match(story.out, /the lease was made by revision \d+ of the registry/);
  t.match(story.out, /=1460 {2}the largest inner packet/);
  t.match(story.out, /✓ node2 +arrival +node2 accepted it and wrote it to tulle0/);
  t.match(story.out, /\ndelivered\n$/);
  t.comment(story.out);
  const explained = await tulle('trace', from, to, '--socket', sockets[0], '--explain', '--json');
  t.equal(explained.code, 0);
  t.match(JSON.parse(explained.out), { sent: false, outcome: 'delivered' });
  const stopped = await tulle('trace', from, to, '--socket', sockets[0], '--ttl', '1', '--json');
  t.equal(stopped.code, 1);
  t.match(JSON.parse(stopped.out), { sent: true, outcome: 'stopped', where: 'here', reason: 'egress-ttl-exceeded' });

  const cluster = await tulle('status', '--cluster', '--socket', sockets[0]);
  t.equal(cluster.code, 0, cluster.out + cluster.error);
  t.match(cluster.out, /node1[^\n]*healthy[^\n]*\n[^\n]*node2[^\n]*10\.88\.0\.2:8285[^\n]*healthy/);

  // Stopped, it holds its socket and says nothing.
  await freeze(two.child.pid ?? 0);
  const silent = await tulle('status', '--cluster', '--socket', sockets[0]);
  t.equal(silent.code, 1);
  t.match(silent.out, /node2[^\n]*NO ANSWER[^\n]*did not answer within 1.5 s\n1 of 2 nodes did not answer/);
  t.ok(await until(async () => (await peersOf(sockets[0]))[0]['silent'] === true));
  await one.saw(/a peer is silent/);
  const lost = await tulle('trace', from, to, '--socket', sockets[0]);
  t.equal(lost.code, 1);
  t.match(lost.out, /✗ node2 +arrival +node2 does not answer\n/);
  t.match(lost.out, /stopped on the way: lost: /);
  two.child.kill('SIGCONT');
  await one.saw(/a peer is heard again/);
  await Promise.all([one.end('SIGTERM'), two.end('SIGTERM')]);
});
