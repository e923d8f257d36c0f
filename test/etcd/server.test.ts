import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort, startEtcd } from '../../etcd/server.ts';
import { freeze } from '../support/freeze.ts';
import { bench, RawEtcd, requireEtcd, runSlow, slow, until } from './support.ts';

requireEtcd();

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

slow('serves when it says so, keeps its data, ends', async t => {
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

slow('a frozen etcd is stopped too', async t => {
  const made = await bench(t);
  await freeze(made.server.pid);
  await made.server.stop();
  t.notOk(isAlive(made.server.pid));
});

slow('it dies with the process that started it, unless it is to outlive it', async t => {
  const serverFile = new URL('../../etcd/server.js', import.meta.url).href;
  for (const outlive of [false, true]) {
    const directory = mkdtempSync(join(tmpdir(), 'tulle-etcd-test-'));
    const program = `
      import { startEtcd } from ${JSON.stringify(serverFile)};
      const server = await startEtcd({ directory: ${JSON.stringify(directory)}, clientAddress: '127.0.0.1', outlive: ${outlive} });
      console.log(server.pid);
      setTimeout(() => {}, 60_000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const pid = await new Promise<number>(done => child.stdout.once('data', text => done(Number(text))));
    t.ok(isAlive(pid));
    child.kill('SIGKILL');
    if (outlive) {
      await new Promise(done => child.once('exit', done));
      t.ok(isAlive(pid));
      process.kill(pid, 'SIGKILL');
    }
    await until('it is gone', () => !isAlive(pid));
    rmSync(directory, { recursive: true, force: true });
  }
});

slow('a port that is in use: one clear line, nothing left running', async t => {
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

slow('three members make a cluster', async t => {
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

slow('in a namespace of its own, seen to be healthy from outside', async t => {
  const { makeNamespace } = await import('../../lib/netlink/namespace.ts');
  const { removeNamespace, withNamespace } = await import('../../lib/sys/sys.ts');
  const directory = mkdtempSync(join(tmpdir(), 'tulle-etcd-test-'));
  const namespace = join(directory, `etcd-${process.pid}`);
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  try {
    makeNamespace(namespace);
  } catch (error) {
    t.match(error, { code: 'EPERM' }, 'only without root');
    t.comment('SKIPPED: no permission to make a network namespace');
    return;
  }
  t.teardown(() => removeNamespace(namespace));
  const server = await startEtcd({ directory: join(directory, 'etcd'), clientAddress: '127.0.0.1', namespace });
  t.equal(server.endpoint, 'http://127.0.0.1:2379');
  const ask = `fetch('${server.endpoint}/health').then(() => process.exit(0), () => process.exit(7))`;
  const reach = (): Promise<unknown> => {
    const child = spawn(process.execPath, ['-e', ask], { stdio: 'ignore' });
    return new Promise(done => child.once('exit', done));
  };
  t.equal(await withNamespace(namespace, () => ({ reached: reach() })).reached, 0, 'inside');
  await server.stop();
  t.notOk(isAlive(server.pid));
});

runSlow(5);
