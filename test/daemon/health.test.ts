import { connect } from 'node:net';
import t from 'tap';
import { startHealth } from '../../lib/daemon/health.ts';
import { ControlRoutes } from '../../lib/observe/control.ts';

async function get(port: number, path: string, method = 'GET'): Promise<[number, string]> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
  return [response.status, await response.text()];
}

t.test('healthz at once, readyz when ready', async t => {
  const health = await startHealth('127.0.0.1', 0);
  t.teardown(() => health.close());
  t.same(await get(health.port, '/healthz'), [200, 'tulled is running\n']);
  t.same(await get(health.port, '/readyz'), [503, 'not ready: waiting for the daemon to start\n']);
  health.setReady(false, 'the registry');
  t.same(await get(health.port, '/readyz'), [503, 'not ready: waiting for the registry\n']);
  health.setReady(true);
  t.same(await get(health.port, '/readyz?verbose'), [200, 'tulled is ready\n']);
  t.same(await get(health.port, '/readyz', 'HEAD'), [200, '']);
  t.same(await get(health.port, '/'), [404, 'there are /healthz, /readyz and /metrics\n']);
  t.same(await get(health.port, '/readyz', 'POST'), [405, 'only GET and HEAD\n']);
});

t.test('garbage does not end it, and close does not wait for a silent client', async t => {
  const health = await startHealth('127.0.0.1', 0);
  const silent = connect(health.port, '127.0.0.1');
  const rude = connect(health.port, '127.0.0.1');
  for (const socket of [silent, rude]) socket.on('error', () => {});
  await new Promise(resolve => rude.write('\0\0\0 garbage\r\n\r\n', resolve));
  await new Promise(resolve => rude.on('close', resolve).resume());
  t.same(await get(health.port, '/healthz'), [200, 'tulled is running\n']);
  await health.close();
  await t.rejects(get(health.port, '/healthz'));
  silent.destroy();
});

t.test('a port that is taken, an address that nobody has: one line', async t => {
  const first = await startHealth('127.0.0.1', 0);
  t.teardown(() => first.close());
  await t.rejects(startHealth('127.0.0.1', first.port), {
    code: 'bad-healthz',
    message: `cannot serve health on 127.0.0.1 port ${first.port}: something else listens there; choose another -healthz-port`,
  });
  await t.rejects(startHealth('192.0.2.1', 0), {
    message: /no interface has that address; choose another -healthz-ip$/,
  });
});

t.test('metrics, and none of the other routes', async t => {
  const routes = new ControlRoutes();
  routes.add('GET', '/metrics', () => ({ text: 'a 1\n' }));
  routes.add('GET', '/status', () => ({ json: {} }));
  const health = await startHealth('127.0.0.1', 0, routes);
  t.teardown(() => health.close());
  t.same(await get(health.port, '/metrics'), [200, 'a 1\n']);
  t.same(await get(health.port, '/metrics', 'POST'), [405, 'only GET and HEAD\n']);
  t.equal((await get(health.port, '/status'))[0], 404);
});

t.test('a thousand clients that say nothing do not keep the next one out', async t => {
  const health = await startHealth('127.0.0.1', 0);
  t.teardown(() => health.close());
  const crowd = Array.from({ length: 1000 }, () => {
    const socket = connect(health.port, '127.0.0.1');
    socket.on('error', () => {});
    return socket;
  });
  await Promise.all(crowd.map(socket => new Promise(done => socket.once('connect', done).once('close', done))));
  t.same(await get(health.port, '/healthz'), [200, 'tulled is running\n']);
  for (const socket of crowd) socket.destroy();
});
