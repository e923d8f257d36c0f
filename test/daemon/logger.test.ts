import t from 'tap';
import { createLogger, formatLine, type LogOptions } from '../../lib/daemon/logger.ts';

function capture(options: Partial<LogOptions> = {}) {
  const lines: string[] = [];
  const log = createLogger(
    { format: 'text', verbosity: 0, secrets: [], ...options },
    { write: line => void lines.push(line) },
  );
  return { lines, log };
}

t.test('text: one line an event', async t => {
  const { lines, log } = capture();
  log.info({ subnet: '10.5.1.0/24', leaseKey: 7, peers: null }, 'lease acquired');
  log.debug({}, 'not seen');
  log.warn({ why: 'two words', quoted: 'a "b"', empty: '', list: [1, 2] }, 'odd values');
  t.equal(lines.length, 2);
  t.match(
    lines[0]!,
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info {2}lease acquired subnet=10.5.1.0\/24 leaseKey=7 peers=null\n$/,
  );
  t.match(lines[1]!, /Z warn {2}odd values why="two words" quoted="a \\"b\\"" empty="" list=\[1,2\]\n$/);
});

t.test('text: a value cannot forge a line', async t => {
  const { lines, log } = capture();
  log.info({ id: 'x\n2026-01-01T00:00:00.000Z error forged' }, 'odd');
  t.equal(lines[0]!.indexOf('\n'), lines[0]!.length - 1);
});

t.test('json: one object a line', async t => {
  const { lines, log } = capture({ format: 'json' });
  log.error({ subnet: '10.5.1.0/24' }, 'lease lost');
  const { time, ...rest } = JSON.parse(lines[0]!);
  t.match(time, /^\d{4}-/);
  t.same(rest, { level: 'error', pid: process.pid, subnet: '10.5.1.0/24', msg: 'lease lost' });
});

t.test('verbosity: debug from 1, stacks from 2', async t => {
  for (const verbosity of [0, 1, 2]) {
    const { lines, log } = capture({ verbosity });
    log.debug({}, 'a step');
    log.error({ error: new Error('broken') }, 'failed');
    t.equal(lines.length, verbosity === 0 ? 1 : 2, `-v=${verbosity}`);
    t.equal(/\n {4}at /.test(lines.at(-1)!), verbosity === 2);
    t.match(lines.at(-1)!, /error="?(Error: )?broken/);
  }
});

t.test('secrets are redacted by their field, and wherever their text appears', async t => {
  for (const format of ['text', 'json'] as const) {
    const { lines, log } = capture({ format, verbosity: 2, secrets: ['hunter"22'] });
    log.info({ password: 'other', options: { password: 'other', 'etcd-password': 'other' } }, 'configuration');
    log.error({ error: new Error('login of me:hunter"22 failed'), nested: { url: 'hunter"22' } }, 'hunter"22');
    const text = lines.join('');
    t.notMatch(text, /hunter|other/, text);
    t.match(text, /\[redacted\]/);
    if (format === 'json') for (const line of lines) t.doesNotThrow(() => JSON.parse(line), 'it is still JSON');
  }
});

t.test('formatLine keeps the order of the fields', async t => {
  const line = formatLine('{"level":"info","time":"T","b":1,"a":{"x":"y"},"msg":"m"}\n');
  t.equal(line, 'T info  m b=1 a={"x":"y"}\n');
});
