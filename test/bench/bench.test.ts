// The bench as a program: a short run over real tunnels, and nothing left of runs that were ended from outside.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { benchRoot } from '../../bench/stage.ts';
import { whyNot } from '../netlink/sandbox.ts';

t.setTimeout(120_000);
const skip = whyNot() || (existsSync('/dev/net/tun') ? false : 'SKIPPED: no /dev/net/tun here');
const program = fileURLToPath(new URL('../../bench/bench.js', import.meta.url));
const out = mkdtempSync(join(tmpdir(), `tulle-bench-test-${process.pid}-`));
t.teardown(() => rmSync(out, { recursive: true, force: true }));

const name = `test-${process.pid}`;
const directory = join(benchRoot(), name);
const args = ['--quick', '--only', 'tulle', '--rounds', '1', '--underlay', 'veth', '--no-fetch'];

function start() {
  const child = spawn(process.execPath, [program, ...args, '--name', name, '--out', out], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.teardown(() => void child.kill('SIGKILL'));
  const heard = { out: '', error: '' };
  child.stdout.setEncoding('utf8').on('data', text => {
    heard.out += text;
  });
  child.stderr.setEncoding('utf8').on('data', text => {
    heard.error += text;
  });
  return { child, heard, ended: once(child, 'close') };
}

/** Until the stage stands. */
async function untilStaged(child: ReturnType<typeof start>['child']): Promise<void> {
  const deadline = performance.now() + 30_000;
  const staged = (): boolean => {
    try {
      return /"pod2"/.test(readFileSync(join(directory, 'state.json'), 'utf8'));
    } catch {
      return false;
    }
  };
  while (!staged() && child.exitCode === null && performance.now() < deadline) await delay(10);
}

t.test('SIGINT: one line, and nothing stays', { skip }, async t => {
  const { child, heard, ended } = start();
  await untilStaged(child);
  child.kill('SIGINT');
  await ended;
  t.equal(child.exitCode, 1);
  t.match(heard.error, /bench: ended by SIGINT\n$/);
  t.equal(heard.out, '');
  t.notOk(existsSync(directory));
});

t.test('SIGKILL: the next run removes what stays, and measures', { skip }, async t => {
  const killed = start();
  await untilStaged(killed.child);
  killed.child.kill('SIGKILL');
  await killed.ended;
  t.ok(existsSync(directory), 'it had no chance to clean up');

  const { child, heard, ended } = start();
  await ended;
  t.equal(child.exitCode, 0, heard.error);
  t.match(heard.error, 'removing what a killed bench left behind');
  const { rows } = JSON.parse(heard.out.trimEnd().split('\n').at(-1) ?? '');
  t.same(
    rows.map((row: { tunnel: string; underlay: string }) => [row.tunnel, row.underlay]),
    [
      ['vxlan', 'veth'],
      ['tulle', 'veth'],
    ],
  );
  for (const row of rows) {
    t.ok(row.tcp1Gbps > 0, `${row.tunnel}: ${row.tcp1Gbps} Gb/s`);
    t.ok(row.rttMs > 0, `${row.tunnel}: ${row.rttMs} ms`);
  }
  t.ok(rows[1].cpuPerGb > 0, 'the CPU time of two daemons');
  const stored = readFileSync(join(out, 'results.jsonl'), 'utf8').trimEnd().split('\n');
  t.equal(stored.length, 2);
  t.ok(JSON.parse(stored[1]).metrics.rssMb.median > 10, 'the memory of a daemon');
  t.notOk(existsSync(directory));
  t.same(readdirSync(out), ['results.jsonl'], 'a quick run draws nothing');
});
