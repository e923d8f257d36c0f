/** The page's server: who is let in, what a browser gets, and what hostile clients can do to it. */
import { EventEmitter } from 'node:events';
import { writeFileSync } from 'node:fs';
import { request as httpRequest, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { ActionName } from '../../lib/observe/microscope/model.ts';
import { judge, newToken } from '../../lib/observe/page-guard.ts';
import { type PageServer, type PageSource, startPageServer } from '../../lib/observe/page-server.ts';
import { type Message, PageStreams } from '../../lib/observe/page-stream.ts';
import { TulleError } from '../../lib/util/errors.ts';
import { fillRandom, prng } from '../support/prng.ts';

const HTML =
  '<!doctype html><meta http-equiv="Content-Security-Policy" content="default-src \'none\'"><title>page</title>';

class FakeSource implements PageSource {
  started = 0;
  stopped = 0;
  publish: (message: Message) => void = () => {};
  readonly acts: [ActionName, unknown][] = [];
  hello() {
    return { kind: 'lab' as const, title: 'a lab', actions: ['fault' as const], faults: [], transports: [] };
  }
  start(publish: (message: Message) => void): () => void {
    this.started++;
    this.publish = publish;
    return () => void this.stopped++;
  }
  async act(action: ActionName, body: unknown): Promise<{ note?: string }> {
    if ((body as { kind?: string }).kind === 'none') throw new TulleError('usage', 'a fault is one of these');
    this.acts.push([action, body]);
    return { note: 'done' };
  }
}

async function serve(t: Test, options: Partial<Parameters<typeof startPageServer>[0]> = {}) {
  const source = new FakeSource();
  const file = join(t.testdir({}), 'page.html');
  writeFileSync(file, HTML);
  const server = await startPageServer({ port: 0, file, source, ...options });
  t.teardown(() => server.close());
  return { source, server };
}

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

function ask(
  server: PageServer,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string; address?: string } = {},
): Promise<Answer> {
  const { method = 'GET', headers = {}, body, address = '127.0.0.1' } = options;
  return new Promise((resolve, reject) => {
    const request = httpRequest({ host: address, port: server.port, path, method, headers, agent: false }, response => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

const JSON_TYPE = { 'content-type': 'application/json' };

t.test('the page, its policy, and what must not be cached', async t => {
  const { server } = await serve(t);
  const page = await ask(server, '/');
  t.equal(page.status, 200);
  t.equal(page.text, HTML);
  t.equal(page.headers['content-security-policy'], "default-src 'none'; frame-ancestors 'none'");
  t.match(page.headers, { 'cache-control': 'no-store', 'x-frame-options': 'DENY', 'referrer-policy': 'no-referrer' });
  t.equal((await ask(server, '/nothing')).status, 404);
  t.equal((await ask(server, '/', { method: 'DELETE' })).status, 405);
  t.equal((await ask(server, '/', { method: 'HEAD' })).text, '');
  t.notOk(page.text.includes(server.token));
});

t.test('the token: by address, by cookie, by header, and never without', async t => {
  const { server, source } = await serve(t);
  const post = (headers: Record<string, string>, body = '{"kind":"delay"}') =>
    ask(server, '/api/act/fault', { method: 'POST', headers: { ...JSON_TYPE, ...headers }, body });
  t.equal((await post({})).status, 401, 'without it nothing is done');
  t.equal((await post({ authorization: `Bearer ${newToken()}` })).status, 401, 'nor with another one');
  t.equal((await ask(server, '/?token=wrong')).status, 401);
  t.same(source.acts, []);

  const welcome = await ask(server, new URL(server.url).pathname + new URL(server.url).search);
  t.match(welcome, { status: 303, headers: { location: '/' } });
  const [cookie] = welcome.headers['set-cookie'] ?? [''];
  t.match(cookie, /^tulle-page-\d+=[\w-]+; Path=\/; HttpOnly; SameSite=Strict$/);
  const withCookie = { cookie: `other=1; ${cookie.split(';')[0]}` };
  t.same(JSON.parse((await ask(server, '/api/hello', { headers: withCookie })).text).mayAct, true);
  t.same(JSON.parse((await ask(server, '/api/hello')).text).mayAct, false);
  t.match(await post(withCookie), { status: 200, text: /done/ });
  t.equal((await post({ authorization: `Bearer ${server.token}` })).status, 200);
  t.equal(source.acts.length, 2);

  t.match(await post(withCookie, '{"kind":"none"}'), { status: 409, text: /a fault is one of these/ });
  t.match(await post(withCookie, '{"kind"'), { status: 409, text: /no JSON/ });
  t.equal((await post({ ...withCookie, 'content-type': 'text/plain' })).status, 409, 'a form of another site');
  t.match(await post(withCookie, `"${'x'.repeat(20_000)}"`), { status: 409, text: /at most/ });
  t.equal(
    (await ask(server, '/api/act/measure', { method: 'POST', headers: { ...JSON_TYPE, ...withCookie }, body: '{}' }))
      .status,
    404,
    'what it cannot do',
  );
  t.equal(source.acts.length, 2);
});

t.test('names that point here, and other sites, are refused', async t => {
  const { server, source } = await serve(t);
  const { port } = server;
  const bearer = { authorization: `Bearer ${server.token}`, ...JSON_TYPE };
  for (const host of ['evil.example', `evil.example:${port}`, 'localhost.evil.example', '127.0.0.1.nip.io', 'a b'])
    t.equal((await ask(server, '/', { headers: { host } })).status, 403, host);
  for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `[::1]:${port}`])
    t.equal((await ask(server, '/', { headers: { host } })).status, 200, host);
  for (const origin of ['http://evil.example', 'null', `https://127.0.0.1:${port}`, `http://127.0.0.1:${port + 1}`]) {
    const headers = { ...bearer, origin };
    t.equal((await ask(server, '/api/act/fault', { method: 'POST', headers, body: '{}' })).status, 403, origin);
    t.equal((await ask(server, '/api/events', { headers: { origin } })).status, 403, `${origin} cannot listen`);
  }
  t.equal((await ask(server, '/api/hello', { headers: { 'sec-fetch-site': 'cross-site' } })).status, 403);
  t.equal((await ask(server, '/', { headers: { 'sec-fetch-site': 'cross-site' } })).status, 200, 'a link to the page');
  t.same(source.acts, []);
  const own = { ...bearer, origin: `http://127.0.0.1:${port}` };
  t.equal((await ask(server, '/api/act/fault', { method: 'POST', headers: own, body: '{}' })).status, 200);
});

t.test('on another address everything needs the token', async t => {
  const { server } = await serve(t, { address: '0.0.0.0' });
  for (const path of ['/', '/api/hello', '/api/events']) t.equal((await ask(server, path)).status, 401, path);
  t.equal((await ask(server, `/?token=${server.token}`)).status, 303);
  const headers = { authorization: `Bearer ${server.token}` };
  t.equal((await ask(server, '/', { headers })).status, 200);
  t.equal((await ask(server, '/api/hello', { headers })).status, 200);
});

t.test('a verdict is pure: no Host, no entry', async t => {
  const guard = { token: 'secret', isLoopback: true, port: 1 };
  const query = new URLSearchParams();
  t.match(judge({ method: 'GET', path: '/', query, headers: {} }, guard), { kind: 'refuse', status: 403 });
});

/** A browser's stream: what came so far, and a way to stop reading. */
function listen(server: PageServer, headers: Record<string, string> = {}): { socket: Socket; text: () => string } {
  const socket = connect(server.port, '127.0.0.1');
  let text = '';
  socket.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  socket.on('error', () => {});
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`GET /api/events HTTP/1.1\r\nhost: 127.0.0.1:${server.port}\r\n${lines.join('')}\r\n`);
  return { socket, text: () => text };
}

const MINUTE = 60_000;

async function until(t: Test, what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + MINUTE;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within a minute: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  t.pass(what);
}

t.test('news reach every browser; packets only those with the token', async t => {
  const { server, source } = await serve(t);
  t.equal(source.started, 0, 'nobody looks: nothing is done');
  const stranger = listen(server);
  await until(t, 'it works for the first one', () => source.started === 1);
  source.publish({ event: 'network', data: { n: 1 }, latest: true });
  source.publish({ event: 'network', data: { n: 2 }, latest: true });
  const owner = listen(server, { authorization: `Bearer ${server.token}` });
  await until(t, 'a new one gets the latest', () => owner.text().includes('{"n":2}'));
  t.notOk(owner.text().includes('{"n":1}'));
  source.publish({ event: 'packets', data: ['the payload of a pod'], secret: true });
  source.publish({ event: 'drops', data: [] });
  await until(t, 'both hear of drops', () => [stranger, owner].every(each => each.text().includes('event: drops')));
  t.ok(owner.text().includes('the payload of a pod'));
  t.notOk(stranger.text().includes('the payload of a pod'));
  stranger.socket.destroy();
  owner.socket.destroy();
  await until(t, 'and it stops with the last one', () => source.stopped === 1);
});

t.test('a slow reader loses the oldest, and holds up nobody', async t => {
  const { server, source } = await serve(t, { queueBytes: 64 * 1024, stallMs: 500 });
  const slow = listen(server);
  const fast = listen(server);
  await until(t, 'two look', () => server.viewers === 2);
  slow.socket.pause();
  const data = 'x'.repeat(32 * 1024);
  for (let i = 0; i < 2000; i++) {
    source.publish({ event: 'drops', data: { i, data } });
    if (i % 20 === 0) await new Promise(resolve => setImmediate(resolve));
  }
  source.publish({ event: 'drops', data: 'the end' });
  await until(t, 'the fast one has it all', () => fast.text().includes('the end'));
  await until(t, 'the one that takes nothing is cut off', () => server.viewers === 1);
  fast.socket.destroy();
});

t.test('what waits for a slow reader is bounded, and is the newest', async t => {
  const queueBytes = 64 * 1024;
  const streams = new PageStreams(() => {}, { queueBytes });
  t.teardown(() => streams.close());
  const written: string[] = [];
  const response = Object.assign(new EventEmitter(), {
    writableNeedDrain: true,
    write: (text: string) => void written.push(text),
    destroy: () => {},
  });
  streams.add(response as unknown as ServerResponse, false);
  const messages = 1000;
  for (let i = 0; i < messages; i++) streams.publish({ event: 'drops', data: { i, data: 'x'.repeat(1024) } });
  t.same(written, [], 'nothing is forced on it');
  response.writableNeedDrain = false;
  response.emit('drain');
  const kept = written.length;
  t.ok(kept > 10 && written.join('').length <= queueBytes, `${written.join('').length} bytes of ${kept} messages`);
  // Its first line, the retry, is among the oldest.
  t.equal(streams.dropped, messages + 1 - kept);
  t.match(written.at(-1), `{"i":${messages - 1},`);
});

t.test('a thousand clients', async t => {
  const { server, source } = await serve(t);
  const clients = Array.from({ length: 1000 }, () => listen(server));
  await until(t, 'as many as may look, look', () => server.viewers === 128);
  source.publish({ event: 'network', data: { atMs: 1 }, latest: true });
  await until(
    t,
    'and hear the news',
    () => clients.filter(client => client.text().includes('{"atMs":1}')).length >= 128,
  );
  t.equal((await ask(server, '/api/hello')).status, 200, 'the next one is served too');
  t.ok(server.viewers <= 128);
  for (const { socket } of clients) socket.destroy();
  await until(t, 'all went', () => server.viewers === 0);
});

t.test('garbage', async t => {
  const { server } = await serve(t);
  const random = prng(6);
  for (let i = 0; i < 200; i++) {
    const bytes = new Uint8Array(1 + (random() % 3000));
    fillRandom(random, bytes);
    const socket = connect(server.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.resume();
    socket.end(
      i % 2 === 0
        ? bytes
        : Buffer.concat([
            Buffer.from('POST /api/act/fault HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99\r\n\r\n'),
            bytes,
          ]),
    );
  }
  for (const path of [
    '//',
    '/%',
    '/api/act/',
    '/api/act/__proto__',
    '/?token=',
    `/${'a'.repeat(9000)}`,
    '/../../etc/passwd',
    '/\u0000'.replace('\u0000', '%00'),
  ])
    t.ok((await ask(server, path)).status >= 200, path.slice(0, 30));
  t.equal((await ask(server, '/api/hello')).status, 200, 'it lives');
});

t.test('what cannot be served is said in one line', async t => {
  const { server } = await serve(t);
  await t.rejects(serve(t, { port: server.port }), { code: 'bad-page', message: /something else listens there/ });
  await t.rejects(startPageServer({ port: 0, file: '/nowhere/tulle.html', source: new FakeSource() }), {
    code: 'no-page',
    message: /npm run build/,
  });
});
