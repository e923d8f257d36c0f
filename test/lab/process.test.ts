import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import {
  bootId,
  endProcesses,
  identify,
  isAlive,
  parseStat,
  residentsOf,
  signal,
  waitUntilEnded,
} from '../../lib/lab/process.ts';

const sleeper = () => spawn('sleep', ['60'], { stdio: 'ignore' });

t.test('/proc/PID/stat', async t => {
  const line = '4242 (a) b (c) S 1 4242 4242 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 2 3 4';
  t.same(parseStat(line), { state: 'S', startTime: 987654 }, 'a command may hold anything');
  t.equal(parseStat(''), undefined);
  t.equal(parseStat('4242 (x) S 1 2'), undefined);
  t.match(bootId(), /^[0-9a-f-]{36}$/);
});

t.test('a recycled pid is somebody else', async t => {
  const child = sleeper();
  const id = identify(child.pid!)!;
  const before = { pid: id.pid, startTime: id.startTime - 1 };
  t.ok(isAlive(id));
  t.notOk(isAlive(before), 'the same pid, started at another time');
  t.notOk(signal(before, 'SIGKILL'));
  t.same(await endProcesses([before], 100), []);
  t.ok(isAlive(id), 'it was left alone');
  t.same(await endProcesses([id], 5000), []);
  t.notOk(isAlive(id));
  t.equal(identify(0), undefined);
});

t.test('a zombie has ended', async t => {
  // A shell that never waits for its child.
  const shell = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] });
  const [text] = await once(shell.stdout, 'data');
  const pid = Number(String(text));
  const id = identify(pid) ?? { pid, startTime: 0 };
  t.same(await waitUntilEnded([id], 5000), []);
  t.same(await endProcesses([identify(shell.pid!)!], 5000), []);
});

t.test('what does not hear is killed', async t => {
  const deaf = spawn('sh', ['-c', 'trap "" TERM; echo ready; while :; do sleep 0.05; done'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await once(deaf.stdout, 'data');
  t.same(await endProcesses([identify(deaf.pid!)!], 50), []);
  const signalCode = deaf.signalCode ?? (await once(deaf, 'exit'))[1];
  t.equal(signalCode, 'SIGKILL');
});

t.test('never init, never nobody', async t => {
  t.notOk(signal({ pid: 1, startTime: identify(1)!.startTime }, 'SIGTERM'));
  t.notOk(signal({ pid: 0, startTime: 0 }, 'SIGTERM'));
  t.notOk(signal({ pid: -1, startTime: 0 }, 'SIGTERM'));
});

t.test('residents of nothing, of a plain file, of our own namespace', async t => {
  t.same(residentsOf([]), []);
  t.same(residentsOf(['/etc/passwd', '/nowhere']), []);
  t.same(residentsOf(['/proc/self/ns/net']), [], 'the machine’s own processes are not ours to end');
});
