import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import * as sys from '../../lib/sys/sys.ts';
import { arena, fixture, folder, run } from './support.ts';

t.test('a closed handle stays closed, whatever opens next', async t => {
  const first = sys.openEventFd();
  sys.close(first);
  const others = Array.from({ length: 10 }, () => sys.openEventFd());
  t.notOk(others.includes(first));
  t.equal(sys.drain(first), -9);
  t.throws(() => sys.wake(first), { code: 'EBADF', name: 'SysError', errno: 9 });
  t.throws(() => sys.close(first), { code: 'EBADF', message: 'close: EBADF (bad file descriptor)' });
  t.throws(() => sys.keep(first), { code: 'EBADF' });
  for (const handle of [0, -1, 1e6, 0x7fffffff]) t.throws(() => sys.close(handle), { code: 'EBADF' });
  for (const handle of others) sys.close(handle);
  t.equal(sys.handleCount(), 0);
});

t.test('a handle of another kind is refused', async t => {
  const event = sys.openEventFd();
  const memory = arena(4096);
  const { handle: socket } = sys.openUdp({ address: '127.0.0.1', port: 0 });
  t.equal(sys.readTun(socket, memory.id, 0, 64, 64, 1, 1024), -22);
  t.equal(sys.receiveUdp(event, memory.id, 0, 64, 64, 1, 1024), -22);
  t.equal(sys.drain(socket), -22);
  t.throws(() => sys.netlinkSend(event, new Uint8Array(16)), { code: 'EINVAL' });
  t.throws(() => sys.setTunOffloads(socket, 0), { code: 'EINVAL' });
  t.throws(() => sys.localAddress(event), { code: 'EINVAL' });
  sys.close(event);
  sys.close(socket);
});

t.test('the table takes 16,384 handles and says so when it is full of open descriptors', async t => {
  // The limit of descriptors (often 1,024, or 1,048,576) may come first: both are EMFILE.
  const opened: number[] = [];
  let code = '';
  try {
    for (let i = 0; i < 20_000; i++) opened.push(sys.openEventFd());
  } catch (error) {
    code = (error as sys.SysError).code;
  }
  t.equal(code, 'EMFILE');
  t.equal(new Set(opened).size, opened.length);
  for (const handle of opened) sys.close(handle);
  t.equal(sys.handleCount(), 0);
  sys.close(sys.openEventFd());
});

t.test('a lock is held once, until it is closed', async t => {
  const path = join(folder(t), 'lock');
  const first = sys.flockOpen(path);
  t.throws(() => sys.flockOpen(path), {
    code: 'EWOULDBLOCK',
    message: `flock ${path}: EWOULDBLOCK (resource temporarily unavailable)`,
  });
  t.throws(() => sys.flockOpen(path, false), { code: 'EWOULDBLOCK' });
  const source = `import(${JSON.stringify(new URL('../../lib/sys/sys.js', import.meta.url).href)})
    .then(sys => sys.flockOpen(${JSON.stringify(path)})).then(() => process.kill(process.pid, 'SIGKILL'), e => console.log(e.code))`;
  t.equal(run(process.execPath, ['-e', source]).stdout.trim(), 'EWOULDBLOCK', 'nor by another process');
  sys.close(first);
  t.equal(run(process.execPath, ['-e', source]).signal, 'SIGKILL', 'the other process has it now, and dies');
  const readers = [sys.flockOpen(path, false), sys.flockOpen(path, false)];
  t.throws(() => sys.flockOpen(path), { code: 'EWOULDBLOCK' });
  for (const handle of readers) sys.close(handle);
  sys.close(sys.flockOpen(path));
});

t.test('a lock that cannot be opened names its file', async t => {
  const home = folder(t);
  t.throws(() => sys.flockOpen(join(home, 'no', 'lock')), { code: 'ENOENT', syscall: 'open' });
  mkdirSync(join(home, 'dir'));
  t.throws(() => sys.flockOpen(join(home, 'dir')), { code: 'EISDIR', message: /^open .*dir: EISDIR/ });
  t.throws(() => sys.flockOpen(`${home}/a\0b`), { code: 'EINVAL' });
  t.throws(() => sys.flockOpen(`${home}/${'x'.repeat(5000)}`), { code: 'EINVAL' });
});

t.test('the clock runs forward', async t => {
  const first = sys.monotonicMs();
  const second = sys.monotonicMs();
  t.ok(first > 0 && second >= first);
});

for (const [name, status] of [
  ['terminate', 0],
  ['exit', 7],
  ['worker-ends', 0],
  ['close-while-busy', 0],
] as const) {
  t.test(`life cycle: ${name}`, async t => {
    const child = run(process.execPath, [fixture(name)]);
    t.equal(child.status, status, child.stderr);
    t.equal(child.stderr, '');
    if (child.stdout !== '') t.comment(child.stdout.trim());
  });
}
