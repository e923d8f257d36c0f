// The lessons as text: what the pages, the index and the command say agrees. lessons-*.test.ts play them.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { costOf, costTable, cpuMsIn, parseIo } from '../../lib/lab/cost.ts';
import { forgedPacket } from '../../lib/lab/forge.ts';
import { answer, type Lesson, lookAt, needsSetUp, report, setUp } from '../../lib/lab/lesson.ts';
import { LESSONS } from '../../lib/lab/lesson-list.ts';
import { readNotes, writeNote } from '../../lib/lab/notebook.ts';
import { isAlive } from '../../lib/lab/process.ts';
import { changeFlags } from '../../lib/lab/restart.ts';
import { packageRoot, program } from '../../lib/lab/spawn.ts';
import { createState, loadState } from '../../lib/lab/state.ts';
import { TulleError } from '../../lib/util/errors.ts';
import { pseudoSum4, sum } from '../../lib/wire/checksum.ts';
import { checkIp4, PROTOCOL_UDP, verifyIp4Checksum } from '../../lib/wire/ip4.ts';
import { runBlocks, skipLessons } from '../support/lesson.ts';

const folder = join(packageRoot(), 'docs/lessons');

t.test('every lesson has its page, and every page its lesson', async t => {
  const pages = readdirSync(folder).filter(name => /^\d/.test(name));
  t.same(pages.sort(), LESSONS.map(lesson => lesson.page).sort());
  const index = readFileSync(join(folder, 'README.md'), 'utf8');
  for (const [i, { number, title, page, goals }] of LESSONS.entries()) {
    t.equal(number, i + 1);
    t.ok(page.startsWith(`0${number}-`), page);
    t.ok(index.includes(`[${title}](${page})`), `the index has ${title}`);
    const text = readFileSync(join(folder, page), 'utf8');
    t.ok(text.toLowerCase().startsWith(`# lesson ${number}: ${title.toLowerCase()}\n`), `the heading of ${page}`);
    const blocks = runBlocks(page);
    t.equal(blocks[0], `tulle lesson ${number}\n`, 'it begins with the lab');
    t.ok(blocks.at(-1)?.endsWith(`tulle lesson ${number} --down\n`), 'and ends with taking it down');
    t.ok(blocks.some(block => block.includes(`tulle lesson ${number} --check\n`)));
    t.ok(goals.length >= 3);
  }
});

t.test('goals: missing, reached, remembered, lasting', async t => {
  const root = mkdtempSync(join(tmpdir(), 'tulle-lessons-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  const state = createState(root, 'lesson-1', { rootless: false, registry: 'file' });
  let once: true | string = 'not yet';
  let lasting: true | string = true;
  const lesson: Lesson = {
    ...LESSONS[0],
    goals: [
      { task: 'one', hint: 'try', reached: () => once },
      { task: 'two', hint: 'keep', lasting: true, reached: () => lasting },
      { task: 'three', hint: 'say', reached: ({ answers }) => answers.includes('42') || 'no answer' },
      {
        task: 'four',
        hint: 'wait',
        reached: ({ notes }) => {
          if (notes.length === 0) throw new TulleError('x', 'cannot be looked at');
          return true;
        },
      },
    ],
  };
  const look = async (): Promise<string[]> => (await lookAt(lesson, state)).map(({ missing }) => missing);
  t.same(await look(), ['not yet', 'first what stands above', 'no answer', 'cannot be looked at']);
  const text = report(lesson, await lookAt(lesson, state), true);
  t.match(text, /✘ one\n {6}missing: not yet\n {6}hint: try\n {2}✘ two\n[\s\S]*4 of 4 to go\.\n$/);
  once = true;
  answer(state, ' 42 ');
  writeNote(state, { tool: 'ping', from: 'a', to: 'b', bytes: 84, received: 1 });
  t.same(await look(), ['', '', '', '']);
  once = 'not any more';
  lasting = 'broken again';
  t.same(await look(), ['', 'broken again', '', ''], 'what was reached once stays, but for what must last');
  t.match(readNotes(state), [{ from: 'a' }]);
});

t.test('a lab is prepared once, and again when that was interrupted', async t => {
  const root = mkdtempSync(join(tmpdir(), 'tulle-lessons-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  const state = createState(root, 'lesson-1', { rootless: false, registry: 'file' });
  let times = 0;
  const lesson: Lesson = {
    ...LESSONS[0],
    setUp: async () => {
      if (++times === 1) throw new TulleError('daemon', 'interrupted');
    },
  };
  await t.rejects(setUp(lesson, state), { code: 'daemon' });
  t.ok(needsSetUp(lesson, state));
  answer(state, '42');
  await setUp(lesson, state);
  await setUp(lesson, state);
  t.equal(times, 2);
  t.notOk(needsSetUp(lesson, state));
  await lookAt(lesson, state);
  t.notOk(needsSetUp(lesson, state), 'a look keeps what is remembered');
});

t.test('who interrupts the start has no lab', { skip: skipLessons }, async t => {
  const root = mkdtempSync(join(tmpdir(), 'lessons-of-tulle-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  const env = { ...process.env, TULLE_LAB_ROOT: join(root, 'lab'), TMPDIR: root };
  const child = spawn(process.execPath, [program('cmd/tulle.js'), 'lesson', '3'], { env, stdio: 'ignore' });
  const begun = (): boolean => loadState(env.TULLE_LAB_ROOT, 'lesson-3') !== undefined;
  await until(begun);
  const owner = loadState(env.TULLE_LAB_ROOT, 'lesson-3')!.record.owner;
  child.kill('SIGINT');
  t.same(await once(child, 'exit'), [130, null]);
  await until(() => !isAlive(owner));
  t.same(readdirSync(root), [], 'and no log');
});

async function until(done: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!done()) {
    if (performance.now() > deadline) throw new Error('it takes too long');
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

t.test('the command', async t => {
  const root = mkdtempSync(join(tmpdir(), 'tulle-lessons-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  const env = { ...process.env, TULLE_LAB_ROOT: root };
  const tulle = (...args: string[]) =>
    spawnSync(process.execPath, [program('cmd/tulle.js'), 'lesson', ...args], { env, encoding: 'utf8' });
  for (const { title } of LESSONS) t.ok(tulle('--list').stdout.includes(title), title);
  t.match(tulle('--help').stdout, /--check[\s\S]*--hint[\s\S]*--answer[\s\S]*--down/);
  t.match(tulle('99'), { status: 1, stderr: /^tulle: there is no lesson 99: there are 1 to \d\n$/ });
  t.match(tulle('1', '2'), { status: 1, stderr: /does not know what to do with "2"/ });
  t.match(tulle('1', '--check'), { status: 1, stderr: 'tulle: lesson 1 has not begun: "tulle lesson 1"\n' });
  t.match(tulle('1', '--down'), { status: 0, stdout: 'Lesson 1 has no lab.\n' });
});

t.test('costs', async t => {
  t.equal(parseIo('rchar: 5\nsyscr: 12\nsyscw: 3\n').get('syscr'), 12);
  const stat = '7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20';
  t.equal(cpuMsIn(stat), 2000);
  const sample = (datagrams: number, reads: number, cpuMs: number) => ({
    counters: { 'egress-datagrams': datagrams, 'egress-trains': datagrams / 20 },
    reads,
    writes: 0,
    cpuMs,
  });
  const cost = costOf('node1', sample(100, 50, 10), sample(1100, 550, 20));
  t.match(cost, { datagrams: 1000, reads: 0.5, trains: 0.05, batches: 0, cpuMicroseconds: 10 });
  t.match(costOf('node1', sample(1, 1, 1), sample(1, 9, 9)), { datagrams: 0, reads: 0 }, 'nothing moved');
  const table = costTable([cost]).split('\n');
  t.equal(table[0].indexOf('reads') + 5, table[1].indexOf('0.500') + 5, 'columns');
});

t.test('flags of a restart', async t => {
  t.same(changeFlags(['-iface=eth0', '--transport=offload'], ['-transport=batch', '--lease-ttl=5s']), [
    '-iface=eth0',
    '-transport=batch',
    '--lease-ttl=5s',
  ]);
});

t.test('a forged datagram is right in form', async t => {
  for (const key of [undefined, 7]) {
    const packet = forgedPacket({ from: 0x0a580001, to: 0x0a580002, port: 8285, key, source: 1 << 24, destination: 9 });
    t.equal(checkIp4(packet, 0, packet.length), 0);
    t.ok(verifyIp4Checksum(packet, 0));
    const udp = packet.length - 20;
    t.equal(sum(packet, 20, udp, pseudoSum4(packet, 0, PROTOCOL_UDP, udp)), 0xffff);
    const inner = 28 + (key === undefined ? 0 : 12);
    t.equal(checkIp4(packet, inner, packet.length - inner), 0);
    t.equal(sum(packet, inner + 20, 8), 0xffff, 'ICMP');
  }
});
