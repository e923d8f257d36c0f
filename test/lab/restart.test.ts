import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { daemonName, nodeDirectory } from '../../lib/lab/cluster.ts';
import { identify } from '../../lib/lab/process.ts';
import { changeFlags, stopDaemon } from '../../lib/lab/restart.ts';
import { createState, type LabState, loadState, updateState } from '../../lib/lab/state.ts';

/** The record as the process of `lab up` has it. */
function lab(t: Test): { root: string; state: LabState } {
  const root = mkdtempSync(join(tmpdir(), 'tulle-lab-restart-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  return { root, state: createState(root, 'lab', { rootless: false, registry: 'file' }) };
}

/** A process that stands for a daemon, its files beside it. */
async function daemon(t: Test, state: LabState, node: string): Promise<ChildProcess> {
  const child = spawn('sleep', ['600'], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child, 'spawn');
  mkdirSync(nodeDirectory(state, node), { recursive: true });
  for (const file of ['subnet.env', 'cni.sock']) writeFileSync(join(nodeDirectory(state, node), file), '');
  const id = identify(child.pid!)!;
  updateState(state, ({ processes }) => {
    processes.splice(0, processes.length, ...processes.filter(({ name }) => name !== daemonName(node)));
    processes.push({ name: daemonName(node), ...id });
  });
  return child;
}

t.test('a daemon that another process started is ended by its name', async t => {
  const { root, state } = lab(t);
  const first = await daemon(t, state, 'node1');
  const kept = await daemon(t, state, 'node2');
  // `lab restart`: a process of its own, with a record of its own.
  const other = loadState(root, 'lab')!;
  t.ok(await stopDaemon(other, 'node1'));
  t.equal(first.signalCode ?? (await once(first, 'exit'))[1], 'SIGTERM');
  const second = await daemon(t, other, 'node1');

  t.not(state.record.processes[0]?.pid, second.pid, 'the process of "lab up" does not know it');
  t.ok(await stopDaemon(state, 'node1'));
  t.equal(second.signalCode ?? (await once(second, 'exit'))[1], 'SIGTERM');
  t.same(readdirSync(nodeDirectory(state, 'node1')), [], 'its files go with it, not without it');
  t.same(
    state.record.processes.map(({ pid }) => pid),
    [kept.pid],
    'and now it knows what runs',
  );
  t.same(loadState(root, 'lab'), state);
  t.notOk(await stopDaemon(state, 'node1'), 'there was none');
});

t.test('two daemons ended at once: neither comes back into the record', async t => {
  const { root, state } = lab(t);
  await daemon(t, state, 'node1');
  await daemon(t, state, 'node2');
  await Promise.all(['node1', 'node2'].map(node => stopDaemon(state, node)));
  t.same(loadState(root, 'lab')?.record.processes, []);
});

t.test('what one process writes into the record, another one does not undo', async t => {
  const { root, state } = lab(t);
  const other = loadState(root, 'lab')!;
  updateState(other, record => void record.processes.push({ name: 'theirs', pid: 2, startTime: 1 }));
  updateState(state, record => {
    record.ready = true;
  });
  t.match(loadState(root, 'lab')?.record, { ready: true, processes: [{ name: 'theirs' }] });
});

t.test('flags take the place of those of the same name', async t => {
  t.same(changeFlags(['--a=1', '-b=2', '--c'], ['--b=3', '--d']), ['--a=1', '--c', '--b=3', '--d']);
});
