import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { freePort, startEtcd } from '../../etcd/server.ts';
import { bench, RawEtcd, requireEtcd } from './support.ts';

requireEtcd();

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

t.test('serves when it says so, keeps its data, ends', async t => {
  const made = await bench(t);
  await made.raw.put('a').value('b');
  const { pid } = made.server;
  await made.server.stop();
  await made.server.stop();
  t.notOk(isAlive(pid));
  await made.restart();
  const raw = new RawEtcd({ hosts: made.server.endpoint });
  t.equal(await raw.get('a').string(), 'b');
  raw.close();
});

t.test('a frozen etcd is stopped too', async t => {
  const made = await bench(t);
  process.kill(made.server.pid, 'SIGSTOP');
  await made.server.stop();
  t.notOk(isAlive(made.server.pid));
});

t.test('a port that is in use: one clear line, nothing left running', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-etcd-test-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const port = await freePort('127.0.0.1');
  const blocker = createServer();
  await new Promise<void>(done => blocker.listen(port, '127.0.0.1', done));
  t.teardown(() => void blocker.close());
  await t.rejects(startEtcd({ directory, clientAddress: '127.0.0.1', clientPort: port }), {
    code: 'etcd-failed',
    message: /^[^\n]*ended at once: [^\n]*address already in use[^\n]*$/,
  });
});

t.test('three members make a cluster', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-etcd-test-'));
  const names = ['a', 'b', 'c'];
  const ports = await Promise.all(names.map(() => freePort('127.0.0.1')));
  const cluster = Object.fromEntries(names.map((name, index) => [name, `http://127.0.0.1:${ports[index]}`]));
  const servers = await Promise.all(
    names.map((name, index) =>
      startEtcd({
        directory: join(directory, name),
        clientAddress: '127.0.0.1',
        peerPort: ports[index],
        name,
        cluster,
        dontWait: true,
      }),
    ),
  );
  t.teardown(async () => {
    await Promise.all(servers.map(server => server.stop()));
    rmSync(directory, { recursive: true, force: true });
  });
  await Promise.all(servers.map(server => server.ready()));
  const raw = new RawEtcd({ hosts: servers[0].endpoint });
  t.equal((await raw.cluster.memberList({})).members.length, 3);
  raw.close();
  t.ok(existsSync(join(directory, 'a/etcd.log')));
});
