// The server of the CNI socket: whose it is, who may ask, who must wait, and what becomes of those who go away.
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { CniError } from '../../lib/cni/plugin.ts';
import { type AnswerFrame, decodeAnswer, encodeRequest } from '../../lib/cni/protocol/frame.ts';
import { pendingName } from '../../lib/cni/protocol/pending-name.ts';
import { type CniServerOptions, startCniServer } from '../../lib/cni/server.ts';
import { close, createNamespace, flockOpen, peerCredentials, removeNamespace } from '../../lib/sys/sys.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { recordingLogger } from '../daemon/fakes.ts';
import { deferred, fakePlugin, until } from './fake-plugin.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root for a network namespace';
const folder = mkdtempSync('/tmp/tulle-test-cni-');
const pod = join(folder, 'pod');
if (!skip) createNamespace(pod);
t.teardown(() => {
  if (!skip) removeNamespace(pod);
  rmSync(folder, { recursive: true });
});
let count = 0;
const freshSocket = (): string => join(folder, `${++count}.sock`);

function frame(command: string, container = 'a', network = 'net', config: object = {}): Buffer {
  const variables = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: container,
    CNI_NETNS: pod,
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/x',
  };
  const input = JSON.stringify({ cniVersion: '1.1.0', name: network, ...config });
  return encodeRequest(new Map(Object.entries(variables)), Buffer.from(input));
}

/** Sends bytes; the answer, or undefined when the server hangs up without one. */
function ask(socket: string, bytes: Uint8Array): Promise<AnswerFrame | undefined> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const connection = connect(socket, () => connection.write(bytes));
    connection.on('data', chunk => chunks.push(chunk));
    connection.on('error', error => ('code' in error && error.code === 'EPIPE' ? undefined : reject(error)));
    connection.on('close', () => resolve(decodeAnswer(Buffer.concat(chunks))));
  });
}
const jsonOf = (answer: AnswerFrame | undefined): Record<string, unknown> => JSON.parse(answer?.stdout ?? '{}');

async function serve(t: Test, more: Partial<CniServerOptions> = {}) {
  const plugin = fakePlugin();
  const { log, lines } = recordingLogger();
  const server = await startCniServer({ socket: freshSocket(), plugin, log, closeMs: 500, ...more });
  t.teardown(() => server.close());
  return { plugin, server, lines, socket: server.socket };
}

t.test('each call is told with its code, whatever it was', { skip }, async t => {
  const told: [command: string | undefined, code: number][] = [];
  const { socket, server, plugin } = await serve(t, { onDone: (command, code) => told.push([command, code]) });
  await ask(socket, frame('ADD'));
  await ask(socket, frame('NONSENSE'));
  await ask(socket, frame('VERSION'));
  plugin.del = async () => {
    throw new CniError(11, 'later');
  };
  await ask(socket, frame('DEL'));
  plugin.check = async () => {
    throw new RangeError('a bug');
  };
  await ask(socket, frame('CHECK', 'a', 'net', { prevResult: { cniVersion: '1.1.0' } }));
  t.same(told, [
    ['ADD', 0],
    ['NONSENSE', 4],
    ['VERSION', 0],
    ['DEL', 11],
    ['CHECK', 999],
  ]);
  t.same(server.load(), { running: 0, waiting: 0 });
});

t.test('the place of the socket', { skip }, async t => {
  t.test('only its owner may ask, and it goes with the daemon', async t => {
    const { server, socket } = await serve(t, { socket: join(folder, 'new', 'cni.sock') });
    t.equal(statSync(socket).mode & 0o777, 0o600);
    t.equal(statSync(join(folder, 'new')).mode & 0o777, 0o755);
    await server.close();
    t.notOk(existsSync(socket));
  });

  t.test('a second daemon is refused, and the first one goes on', async t => {
    const { socket } = await serve(t);
    const second = startCniServer({ socket, plugin: fakePlugin(), log: silentLogger });
    await t.rejects(second, { code: 'cni-socket-taken', message: /another tulled serves CNI at/ });
    t.equal((await ask(socket, frame('ADD')))?.exitCode, 0);
  });

  t.test('what a killed daemon left is replaced', async t => {
    const socket = freshSocket();
    const script = `require('net').createServer().listen(${JSON.stringify(socket)}, () => console.log('up'))`;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise(resolve => child.stdout.once('data', resolve));
    const ended = new Promise(resolve => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
    t.ok(existsSync(socket));
    await serve(t, { socket });
    t.equal((await ask(socket, frame('STATUS')))?.exitCode, 0);
  });

  t.test('what it does not trust', async t => {
    const refused = (socket: string, message: RegExp) =>
      t.rejects(startCniServer({ socket, plugin: fakePlugin(), log: silentLogger }), { code: 'cni-socket', message });
    const file = freshSocket();
    writeFileSync(file, 'mine');
    await refused(file, /not a socket/);
    const open = join(folder, 'open');
    mkdirSync(open);
    chmodSync(open, 0o777);
    await refused(join(open, 'cni.sock'), /others may write to/);
    await refused('cni.sock', /absolute path/);
    await refused(`/${'x'.repeat(108)}`, /at most 107 bytes/);
    await refused('/proc/nothing/cni.sock', /cannot serve CNI at/);
  });

  t.test('a start that fails gives the place back', async t => {
    const socket = freshSocket();
    const plugin = Object.assign(fakePlugin(), {
      start: async () => {
        throw new Error('no records');
      },
    });
    await t.rejects(startCniServer({ socket, plugin, log: silentLogger }), { message: 'no records' });
    close(flockOpen(`${socket}.lock`));
    t.notOk(existsSync(socket));
  });
});

t.test('who asks', { skip }, async t => {
  t.test('the kernel says who is at the other end', async t => {
    const { socket } = await serve(t);
    const connection = connect(socket);
    await new Promise(resolve => connection.once('connect', resolve));
    const { _handle: handle } = connection as unknown as { _handle: { fd: number } };
    t.same(peerCredentials(handle.fd), { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
    t.throws(() => peerCredentials(0x7fff_fff0), { code: 'EBADF' });
    connection.destroy();
  });

  t.test('another user is refused, also where the mode lets him in', async t => {
    const { socket, plugin } = await serve(t);
    chmodSync(folder, 0o755);
    chmodSync(socket, 0o666);
    const script = `
      const connection = require('net').connect(${JSON.stringify(socket)});
      connection.write(Buffer.from('${frame('ADD').toString('hex')}', 'hex'));
      connection.pipe(process.stdout);
    `;
    const child = spawn(process.execPath, ['-e', script], {
      uid: 65_534,
      gid: 65_534,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const chunks: Buffer[] = [];
    child.stdout.on('data', chunk => chunks.push(chunk));
    await new Promise(resolve => child.once('close', resolve));
    t.match(jsonOf(decodeAnswer(Buffer.concat(chunks))), { code: 100, msg: /user 65534 may not ask/ });
    t.same(plugin.calls, []);
  });

  t.test('what is no request', async t => {
    const { socket, plugin } = await serve(t);
    for (const hex of [
      '474554202f20485454502f312e310d0a0d0a', // GET / HTTP/1.1
      '54434e31ffffffff00000000',
      '54434e3100000000ffffffff',
      `${frame('ADD').toString('hex')}00`,
    ]) {
      t.match(jsonOf(await ask(socket, Buffer.from(hex, 'hex'))), { code: 5, msg: /not a request/ }, hex.slice(0, 24));
    }
    t.same(plugin.calls, []);
  });

  t.test('who is slow', async t => {
    const { socket } = await serve(t, { requestMs: 300 });
    t.match(jsonOf(await ask(socket, Buffer.alloc(0))), { code: 5, msg: /not whole within 300 ms/ });
    t.match(jsonOf(await ask(socket, frame('ADD').subarray(0, 40))), { code: 5, msg: /not whole/ });
  });

  t.test('a request in any pieces', async t => {
    const { socket, plugin } = await serve(t);
    const bytes = frame('ADD', 'a', 'net', { filler: 'x'.repeat(200_000) });
    const cuts = [0, 1, 4, 5, 12, 13, 100, 70_000, bytes.length];
    const connection = connect(socket);
    const chunks: Buffer[] = [];
    connection.on('data', chunk => chunks.push(chunk));
    const closed = new Promise(resolve => connection.once('close', resolve));
    for (let i = 1; i < cuts.length; i++) {
      connection.write(bytes.subarray(cuts[i - 1], cuts[i]));
      await new Promise(resolve => setTimeout(resolve, 2));
    }
    await closed;
    t.equal(decodeAnswer(Buffer.concat(chunks))?.exitCode, 0);
    t.equal(plugin.calls[0].raw['filler'], 'x'.repeat(200_000));
  });
});

t.test('calls', { skip }, async t => {
  t.test('one at a time for a container, others beside it', async t => {
    const { socket, plugin } = await serve(t);
    const gates = new Map<string, ReturnType<typeof deferred>>();
    plugin.before = request => {
      const gate = deferred();
      gates.set(`${request.command} ${request.containerId}`, gate);
      return gate.promise;
    };
    const all = [ask(socket, frame('ADD', 'a'))];
    await until('the ADD runs', () => gates.has('ADD a'));
    all.push(ask(socket, frame('DEL', 'a')), ask(socket, frame('ADD', 'b')), ask(socket, frame('STATUS')));
    await until('the others run', () => gates.has('ADD b') && gates.has('STATUS '));
    t.notOk(gates.has('DEL a'), 'its own DEL waits');
    gates.get('ADD a')?.resolve();
    await until('the DEL runs', () => gates.has('DEL a'));
    for (const gate of gates.values()) gate.resolve();
    t.same(
      (await Promise.all(all)).map(answer => answer?.exitCode),
      [0, 0, 0, 0],
    );
  });

  t.test('an ADD whose caller is gone is undone', async t => {
    const { socket, plugin, lines } = await serve(t);
    const gate = deferred();
    plugin.before = request => (request.command === 'ADD' ? gate.promise : undefined);
    const connection = connect(socket, () => connection.write(frame('ADD', 'lost')));
    await until('the ADD runs', () => plugin.calls.length === 1);
    connection.destroy();
    await until('the server knows', () => plugin.calls[0].signal.aborted);
    gate.resolve();
    await until('it is undone', () => plugin.calls.length === 2);
    t.same(plugin.log(), ['ADD lost eth0', 'DEL lost eth0']);
    await until('it says so', () => lines.some(line => line.message.includes('its caller is gone')));
  });

  t.test('an ADD whose result cannot be said in the version is undone', async t => {
    const { socket, plugin } = await serve(t);
    plugin.result = { interfaces: [], ips: [], routes: [], dns: {} };
    const answer = await ask(socket, frame('ADD', 'a', 'net', { cniVersion: '0.2.0' }));
    t.match(jsonOf(answer), { cniVersion: '0.2.0', code: 999, msg: /^cannot convert: no valid IP addresses/ });
    t.same(plugin.log(), ['ADD a eth0', 'DEL a eth0']);
  });

  t.test('errors: with a code, and without', async t => {
    const { socket, plugin, lines } = await serve(t);
    plugin.before = request => {
      if (request.containerId === 'a') throw new CniError(11, 'no lease yet; try again later');
      throw new TypeError('a mistake');
    };
    t.same(jsonOf(await ask(socket, frame('ADD', 'a'))), {
      cniVersion: '1.1.0',
      code: 11,
      msg: 'no lease yet; try again later',
    });
    t.match(jsonOf(await ask(socket, frame('ADD', 'b'))), { code: 999, msg: 'a mistake' });
    t.equal(lines.filter(line => line.level === 'warn').length, 1);
    t.ok(
      lines.some(line => line.level === 'error' && line.fields['error'] instanceof TypeError),
      'with its stack',
    );
  });

  t.test('300 at once', async t => {
    const { socket, plugin } = await serve(t);
    let [running, most] = [0, 0];
    plugin.before = async () => {
      most = Math.max(most, ++running);
      await new Promise(resolve => setImmediate(resolve));
      running--;
    };
    const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => ask(socket, frame('ADD', `pod${i}`))));
    t.equal(answers.filter(answer => answer?.exitCode === 0).length, 300);
    t.equal(plugin.calls.length, 300);
    t.ok(most <= 32, `${most} at once`);
  });

  t.test('the end waits for calls in progress', async t => {
    const { socket, plugin, server } = await serve(t, { closeMs: 20_000 });
    const idle = ask(socket, Buffer.alloc(0));
    await ask(socket, frame('STATUS')); // connections are accepted in their order
    const gate = deferred();
    plugin.before = () => gate.promise;
    const answer = ask(socket, frame('ADD'));
    await until('it runs', () => plugin.calls.length === 2);
    const closed = server.close();
    t.equal(await idle, undefined, 'who has asked nothing is sent away');
    gate.resolve();
    t.equal((await answer)?.exitCode, 0);
    await closed;
  });
});

t.test('DELs that were written down', { skip }, async t => {
  const write = (socket: string, name: string, bytes: Uint8Array): string => {
    mkdirSync(`${socket}.pending`, { recursive: true, mode: 0o700 });
    const path = join(`${socket}.pending`, name);
    writeFileSync(path, bytes);
    return path;
  };

  t.test('are done before the first request', async t => {
    const socket = freshSocket();
    const file = write(socket, pendingName('net', 'a', 'eth0'), frame('DEL', 'a'));
    const plugin = fakePlugin();
    const gate = deferred();
    plugin.before = request => (request.command === 'DEL' ? gate.promise : undefined);
    const starting = startCniServer({ socket, plugin, log: silentLogger });
    await until('the DEL runs', () => plugin.calls.length === 1);
    const added = ask(socket, frame('ADD', 'b'));
    gate.resolve();
    t.equal((await added)?.exitCode, 0);
    t.same(plugin.log(), ['DEL a eth0', 'ADD b eth0']);
    t.notOk(existsSync(file));
    await (await starting).close();
  });

  t.test('are tried again when they fail', async t => {
    const socket = freshSocket();
    const file = write(socket, pendingName('net', 'a', 'eth0'), frame('DEL', 'a'));
    const plugin = fakePlugin();
    let failures = 2;
    plugin.before = () => {
      if (failures-- > 0) throw new Error('busy');
    };
    await serve(t, { socket, plugin, retryMs: 20 });
    await until('it is done', () => !existsSync(file));
    t.same(plugin.log(), ['DEL a eth0', 'DEL a eth0', 'DEL a eth0']);
  });

  t.test('are void when the same attachment is added', async t => {
    const socket = freshSocket();
    const file = write(socket, pendingName('net', 'a', 'eth0'), frame('DEL', 'a'));
    const plugin = fakePlugin();
    plugin.before = request => {
      if (request.command === 'DEL') throw new Error('busy');
    };
    await serve(t, { socket, plugin, retryMs: 600_000 });
    t.ok(existsSync(file));
    t.equal((await ask(socket, frame('ADD', 'b')))?.exitCode, 0);
    t.ok(existsSync(file), 'another ADD does not touch it');
    t.equal((await ask(socket, frame('ADD', 'a')))?.exitCode, 0);
    t.notOk(existsSync(file));
  });

  t.test('are void also when nobody knew of them', async t => {
    const { socket } = await serve(t);
    for (const command of ['ADD', 'DEL']) {
      // By a client that gave up a daemon that is busy.
      const file = write(socket, pendingName('net', 'a', 'eth0'), frame('DEL', 'a'));
      const other = write(socket, pendingName('net', 'b', 'eth0'), frame('DEL', 'b'));
      t.equal((await ask(socket, frame(command, 'a')))?.exitCode, 0);
      t.same([file, other].map(existsSync), [false, true], `after ${command}`);
    }
  });

  t.test('are void while others are done', async t => {
    const socket = freshSocket();
    for (const [age, pod] of ['b', 'a'].entries()) {
      const file = write(socket, pendingName('net', pod, 'eth0'), frame('DEL', pod));
      utimesSync(file, 1000 - age, 1000 - age); // they are done in the order of their times
    }
    const plugin = fakePlugin();
    let failing = true;
    const gate = deferred();
    plugin.before = async ({ command, containerId }) => {
      if (command !== 'DEL') return;
      if (failing) throw new Error('busy');
      if (containerId === 'a') await gate.promise;
    };
    const server = await startCniServer({ socket, plugin, log: silentLogger, retryMs: 20 });
    t.teardown(() => server.close());
    failing = false;
    const deletions = (pod: string): number => plugin.log().filter(line => line === `DEL ${pod} eth0`).length;
    const before = deletions('b');
    await until('the second round has begun', () => deletions('a') > 1);
    t.equal((await ask(socket, frame('ADD', 'b')))?.exitCode, 0);
    gate.resolve();
    await until('it is over', () => !existsSync(join(`${socket}.pending`, pendingName('net', 'a', 'eth0'))));
    t.equal(deletions('b'), before, 'the pod is alive');
  });

  t.test('only when they are that', async t => {
    const socket = freshSocket();
    const add = write(socket, pendingName('net', 'a', 'eth0'), frame('ADD', 'a'));
    const torn = write(socket, pendingName('net', 'b', 'eth0'), frame('DEL', 'b').subarray(0, 50));
    const fresh = write(socket, '.1.tmp', Buffer.alloc(3));
    const other = write(socket, 'README', Buffer.alloc(3));
    const { plugin } = await serve(t, { socket });
    t.same(plugin.calls, []);
    t.same([add, torn, fresh, other].map(existsSync), [false, false, true, true]);
  });

  t.test('and only from a folder that nobody else may write to', async t => {
    const socket = freshSocket();
    const file = write(socket, pendingName('net', 'a', 'eth0'), frame('DEL', 'a'));
    chmodSync(`${socket}.pending`, 0o755);
    const { plugin, lines } = await serve(t, { socket });
    t.same(plugin.calls, []);
    t.ok(existsSync(file));
    t.ok(lines.some(line => line.level === 'error'));
  });
});
