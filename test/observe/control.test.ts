// The control socket: whose it is, what it answers, and that no client can hurt it.
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ControlRoutes, LONGEST_BODY } from '../../lib/observe/control.ts';
import { askControl, openControlStream } from '../../lib/observe/control-client.ts';
import { serveControl } from '../../lib/observe/control-server.ts';
import { TulleError } from '../../lib/util/errors.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { below, prng, testSeed } from '../support/prng.ts';

const folder = mkdtempSync('/tmp/tulle-test-control-');
t.teardown(() => rmSync(folder, { recursive: true }));
let count = 0;

async function serve(t: Test, options: { stallMs?: number } = {}) {
  const path = join(folder, `${++count}.sock`);
  const routes = new ControlRoutes(options);
  const server = await serveControl(path, routes, silentLogger);
  t.teardown(() => server.close());
  return { path, routes, server };
}

/** Sends bytes as they are; everything that comes back. */
function raw(path: string, bytes: string | Uint8Array, { end = true } = {}): Promise<string> {
  return new Promise(resolve => {
    let text = '';
    const connection = connect(path, () => (end ? connection.end(bytes) : connection.write(bytes)));
    connection.setEncoding('latin1').on('data', chunk => {
      text += chunk;
    });
    connection.on('error', () => {});
    connection.on('close', () => resolve(text));
  });
}

/** Resolves when it holds. */
async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`20 s passed and not ${what}`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

t.test('only its user may open it, and it goes with the daemon', async t => {
  const { path, server } = await serve(t);
  t.equal(statSync(path).mode & 0o777, 0o600);
  await t.rejects(serveControl(path, new ControlRoutes(), silentLogger), {
    code: 'control-socket-taken',
    message: /another tulled serves control at .*give this one a --control-socket/,
  });
  await server.close();
  t.notOk(existsSync(path));
  await t.rejects(askControl(path, { path: '/x' }), { code: 'no-daemon', message: /there is no .*--socket/ });
});

t.test('json, text, errors and what is not there', async t => {
  const { path, routes } = await serve(t);
  routes.add('GET', '/json', ({ query }) => ({ json: { a: query.get('a') } }));
  routes.add('GET', '/text', () => ({ text: 'two\nlines\n' }));
  routes.add('POST', '/echo', async ({ body }) => ({ json: JSON.parse(body) }));
  routes.add('GET', '/known', () => {
    throw new TulleError('bad-node', 'there is no node9');
  });
  routes.add('GET', '/unknown', () => {
    throw new RangeError('oh');
  });
  const remove = routes.add('GET', '/gone', () => ({ text: 'here' }));
  t.same(await askControl(path, { path: '/json?a=b%20c' }), { a: 'b c' });
  t.equal(await askControl(path, { path: '/text' }), 'two\nlines\n');
  t.same(await askControl(path, { path: '/echo', body: { x: [1, 'é'] } }), { x: [1, 'é'] });
  await t.rejects(askControl(path, { path: '/known' }), { code: 'bad-node', message: 'there is no node9' });
  await t.rejects(askControl(path, { path: '/unknown' }), { code: 'internal', message: /please report it: oh/ });
  await t.rejects(askControl(path, { method: 'GET', path: '/echo' }), { code: 'bad-method', message: /takes POST/ });
  await t.rejects(askControl(path, { path: '/nothing' }), { code: 'no-route', message: /does not answer \/nothing/ });
  t.equal(await askControl(path, { path: '/gone' }), 'here');
  remove();
  await t.rejects(askControl(path, { path: '/gone' }), { code: 'no-route' });
  t.throws(() => routes.add('GET', '/json', () => ({ text: '' })), /has a handler already/);
  t.same(routes.list(), ['GET /json', 'GET /known', 'GET /text', 'GET /unknown', 'POST /echo']);
  t.match(await raw(path, 'HEAD /text HTTP/1.1\r\nhost: x\r\n\r\n', { end: false }), /200 OK(.|\r\n)*\r\n\r\n$/);
});

t.test('a body is bounded', async t => {
  const { path, routes } = await serve(t);
  routes.add('POST', '/echo', ({ body }) => ({ json: body.length }));
  t.equal(await askControl(path, { path: '/echo', body: 'x'.repeat(LONGEST_BODY) }), LONGEST_BODY);
  const head = `POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: ${LONGEST_BODY + 1}\r\n\r\n`;
  const answer = await raw(path, head + 'x'.repeat(LONGEST_BODY + 1), { end: false });
  t.match(answer, /413/);
  t.match(answer, /"code":"too-large"/);
});

t.test('a daemon that does not answer', async t => {
  const { path, routes } = await serve(t);
  let left = false;
  routes.add('GET', '/never', ({ signal }) => {
    signal.addEventListener('abort', () => {
      left = true;
    });
    return new Promise(() => {});
  });
  await t.rejects(askControl(path, { path: '/never', timeoutMs: 50 }), { code: 'timeout', message: /within 0.05 s/ });
  await until(() => left, 'did the handler hear that its client went away');
});

t.test('a stream runs until its reader goes', async t => {
  const { path, routes } = await serve(t);
  let ended: unknown;
  routes.add('GET', '/numbers', () => ({
    type: 'application/octet-stream',
    async stream(write, signal) {
      try {
        for (let i = 0; !signal.aborted; i++) await write(Buffer.alloc(100_000, i));
      } catch (error) {
        ended = error;
      }
    },
  }));
  const leave = new AbortController();
  let bytes = 0;
  for await (const chunk of await openControlStream(path, '/numbers', leave.signal)) {
    bytes += chunk.length;
    if (bytes > 2_000_000) leave.abort();
  }
  t.ok(bytes > 2_000_000);
  await until(() => ended !== undefined, 'did the writer hear of it');
  t.match(ended, { code: 'gone' });
  await t.rejects(openControlStream(path, '/other', new AbortController().signal), { code: 'no-route' });
});

t.test('a stream that fails is not mistaken for one that ended', async t => {
  const { path, routes } = await serve(t);
  routes.add('GET', '/broken', () => ({
    type: 'text/plain',
    async stream(write) {
      await write(Buffer.from('begun'));
      throw new Error('the capture failed');
    },
  }));
  const read = async (): Promise<void> => {
    for await (const _ of await openControlStream(path, '/broken', new AbortController().signal));
  };
  await t.rejects(read(), { code: 'gone' });
});

t.test('a reader that takes nothing is cut off', async t => {
  const { path, routes } = await serve(t, { stallMs: 100 });
  let ended: unknown;
  routes.add('GET', '/much', () => ({
    type: 'application/octet-stream',
    async stream(write) {
      try {
        for (;;) await write(Buffer.alloc(65_536));
      } catch (error) {
        ended = error;
        throw error;
      }
    },
  }));
  routes.add('GET', '/long', () => ({ text: 'x'.repeat(20_000_000) }));
  const cut: string[] = [];
  for (const what of ['much', 'long']) {
    const connection = connect(path, () => connection.write(`GET /${what} HTTP/1.1\r\nhost: x\r\n\r\n`));
    connection.pause();
    connection.on('error', () => {});
    connection.on('close', () => cut.push(what));
    // What was sent before the end must be taken before the end is seen.
    setTimeout(() => connection.resume(), 1000);
  }
  await until(() => cut.length === 2, 'were both cut off');
  t.match(ended, { code: 'gone' });
});

t.test('garbage and a thousand clients', async t => {
  const { path, routes } = await serve(t);
  routes.add('GET', '/ok', () => ({ json: 'fine' }));
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const next = prng(seed);
  for (let i = 0; i < 200; i++) {
    const bytes = Uint8Array.from({ length: 1 + below(next, 300) }, () => below(next, 256));
    await raw(path, below(next, 2) === 0 ? bytes : Buffer.concat([Buffer.from('GET /ok HTTP/1.1\r\n'), bytes]));
  }
  const odd = [
    'GET //[ HTTP/1.1\r\nhost: x\r\n\r\n',
    'GET * HTTP/1.1\r\nhost: x\r\n\r\n',
    `GET /${'x'.repeat(40_000)}`,
  ];
  for (const text of odd) await raw(path, text);
  t.equal(await askControl(path, { path: '/ok' }), 'fine');

  let closed = 0;
  const crowd = Array.from({ length: 1000 }, () => {
    const connection = connect(path, () => connection.write('GET /ok HT'));
    connection.on('error', () => {}).on('close', () => closed++);
    connection.resume();
    return connection;
  });
  await until(() => closed >= 700, 'were the oldest let go');
  t.equal(await askControl(path, { path: '/ok' }), 'fine', 'the newest is heard');
  for (const connection of crowd) connection.destroy();
});
