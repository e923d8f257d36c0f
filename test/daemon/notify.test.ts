// What tulled tells systemd: by a recording sender, by a real datagram socket, and by a whole tulled.
import { join } from 'node:path';
import t from 'tap';
import { runDaemon } from '../../lib/daemon/daemon.ts';
import { announce, openNotifier, SILENT } from '../../lib/daemon/notify.ts';
import { sendUnixDatagram } from '../../lib/sys/sys.ts';
import { noDatagrams, openDatagramSocket } from './datagram-socket.ts';
import { daemonOptionsOf, fakeParts, recordingLogger } from './fakes.ts';
import { makeNode, skip } from './node.ts';

t.setTimeout(120_000);

function recorder(environment: Record<string, string | undefined>, fails = false) {
  const sent: string[] = [];
  const { log, lines } = recordingLogger();
  const send = (socket: string, text: string): void => {
    sent.push(`${socket} ${text}`);
    if (fails) throw new Error('nobody there');
  };
  return { sent, lines, notifier: openNotifier({ environment, log, send, pid: 42 }) };
}

t.test('without NOTIFY_SOCKET there is nothing', async t => {
  for (const NOTIFY_SOCKET of [undefined, '']) {
    const { notifier, sent } = recorder({ NOTIFY_SOCKET, WATCHDOG_USEC: '1000' });
    t.equal(notifier, SILENT);
    notifier.ready();
    notifier.stopping();
    t.same(sent, []);
  }
});

t.test('each state is one datagram', async t => {
  const { notifier, sent, lines } = recorder({ NOTIFY_SOCKET: '@x' });
  notifier.waiting('a\nlease');
  notifier.ready();
  notifier.reloading();
  notifier.stopping();
  notifier.stopping();
  t.equal(sent.length, 4, 'stopping is said once');
  t.equal(sent[0], '@x STATUS=waiting for a lease\n', 'no line feed gets into a value');
  t.equal(sent[1], '@x READY=1\nSTATUS=ready\n');
  t.match(sent[2], /^@x RELOADING=1\nMONOTONIC_USEC=\d+\nSTATUS=.+\n$/);
  t.equal(sent[3], '@x STOPPING=1\nSTATUS=stopping\n');
  t.same(lines, []);
});

t.test('a manager that does not listen is said once and harms nobody', async t => {
  const { notifier, lines, sent } = recorder({ NOTIFY_SOCKET: '/gone' }, true);
  notifier.waiting('x');
  notifier.ready();
  t.equal(sent.length, 2, 'it is tried again');
  t.match(lines, [{ level: 'warn', fields: { socket: '/gone', reason: 'nobody there' } }]);
});

t.test('the watchdog is fed twice in its interval, and only if it is ours', async t => {
  const fed = async (environment: Record<string, string>): Promise<number[]> => {
    const periods: number[] = [];
    const real = globalThis.setInterval;
    globalThis.setInterval = ((action: () => void, period: number) => {
      periods.push(period);
      action();
      return real(() => {}, 1e6);
    }) as typeof setInterval;
    try {
      const { notifier, sent } = recorder({ NOTIFY_SOCKET: '@x', ...environment });
      notifier.close();
      t.same(
        sent,
        periods.map(() => '@x WATCHDOG=1\n'),
      );
    } finally {
      globalThis.setInterval = real;
    }
    return periods;
  };
  t.same(await fed({ WATCHDOG_USEC: '30000000' }), [15_000]);
  t.same(await fed({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '42' }), [15_000]);
  t.same(await fed({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '43' }), [], "another process's");
  t.same(await fed({ WATCHDOG_USEC: '1' }), [1]);
  t.same(await fed({ WATCHDOG_USEC: '999999999999999' }), [86_400_000], 'what a timer cannot hold');
  for (const WATCHDOG_USEC of ['0', '-5', '1e9', 'x', '', '99999999999999999999'])
    t.same(await fed({ WATCHDOG_USEC }), []);
});

t.test('readiness is announced in both places', async t => {
  const { notifier, sent } = recorder({ NOTIFY_SOCKET: '@x' });
  const seen: unknown[] = [];
  const health = {
    port: 81,
    setReady: (...words: unknown[]) => void seen.push(words),
    close: async () => void seen.push('closed'),
  };
  const both = announce(health, notifier);
  both.setReady(false, 'a lease');
  both.setReady(true);
  await both.close();
  t.same(seen, [[false, 'a lease'], [true], 'closed']);
  t.same(sent, ['@x STATUS=waiting for a lease\n', '@x READY=1\nSTATUS=ready\n']);
  t.equal(both.port, 81);
  announce(undefined, notifier).setReady(true);
  t.equal(sent.length, 3, 'also without a health endpoint');
});

t.test('the daemon says what it waits for, that it is ready, reloads, stops', async t => {
  const fakes = fakeParts();
  const { notifier, sent } = recorder({ NOTIFY_SOCKET: '@x' });
  const { log } = recordingLogger();
  const stop = new AbortController();
  const { health: _, ...options } = daemonOptionsOf();
  const end = runDaemon(options, fakes.parts, log, stop.signal, notifier);
  await fakes.clock.settle();
  const words = (): string[] => sent.map(text => text.replace('@x ', '').split('\n')[0]);
  const start = [
    'STATUS=waiting for the network configuration',
    'STATUS=waiting for a lease',
    'STATUS=waiting for the list of peers',
    'READY=1',
  ];
  t.same(words(), start);
  sent.length = 0;
  fakes.registry.conf = JSON.stringify({ Network: '10.6.0.0/16', Backend: { Type: 'tulle' } });
  for (let i = 0; i < 40 && !words().includes('READY=1'); i++) await fakes.clock.advance(30_000);
  t.same(words(), ['RELOADING=1', ...start]);
  sent.length = 0;
  stop.abort();
  await end;
  t.same(words(), ['STOPPING=1']);
});

t.test('a real socket, by path and abstract', { skip: noDatagrams }, async t => {
  const path = join(t.testdir(), 'notify');
  for (const name of [path, `@tulle-test-${process.pid}`]) {
    const socket = await openDatagramSocket(t, name);
    const { log } = recordingLogger();
    const notifier = openNotifier({ environment: { NOTIFY_SOCKET: name, WATCHDOG_USEC: '20000' }, log });
    notifier.ready();
    t.equal(await socket.until('READY'), 'READY=1\nSTATUS=ready\n');
    await socket.until('WATCHDOG=1');
    notifier.close();
  }
});

t.test('names that cannot be sent to', async t => {
  const folder = t.testdir();
  for (const [name, code] of [
    ['relative', 'EINVAL'],
    ['', 'EINVAL'],
    [`${folder}/nobody`, 'ENOENT'],
    ['@tulle-nobody-listens', 'ECONNREFUSED'],
    [`/${'x'.repeat(107)}`, 'ENAMETOOLONG'],
    [`/${'x'.repeat(106)}`, 'ENOENT'],
    [`@${'x'.repeat(107)}`, 'ECONNREFUSED'],
  ] as const)
    t.throws(() => sendUnixDatagram(name, 'READY=1\n'), { code }, name.slice(0, 40));
});

t.test('a whole tulled under a service manager', { skip: skip || noDatagrams }, async t => {
  const world = makeNode(t);
  const name = join(world.run, 'notify');
  const socket = await openDatagramSocket(t, name);
  const tulled = world.startWith({ NOTIFY_SOCKET: name, WATCHDOG_USEC: '200000' }, '-node-id=node1');
  await socket.until('READY=1');
  await socket.until('WATCHDOG=1');
  t.equal((await tulled.end('SIGTERM')).code, 0);
  await socket.until('STOPPING=1');
  const words = ['STATUS=waiting for a lease', 'READY=1', 'STOPPING=1'];
  const order = words.map(word => socket.received.findIndex(text => text.includes(word)));
  t.same(
    order,
    [...order].sort((a, b) => a - b),
    'in this order',
  );
});
