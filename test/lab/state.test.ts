import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { identify, isAlive } from '../../lib/lab/process.ts';
import * as store from '../../lib/lab/state.ts';
import { hasRemains, mountsBelow, tearDown } from '../../lib/lab/teardown.ts';
import { close, flockOpen } from '../../lib/sys/sys.ts';

const facts = { rootless: false, registry: 'file' } as const;
const folder = (t: Test): string => {
  const root = mkdtempSync(join(tmpdir(), 'tulle-lab-state-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  return root;
};

t.test('where the state lives', async t => {
  t.equal(store.stateRoot({}, 0), '/run/tulle/lab');
  t.equal(store.stateRoot({}, 1000), '/tmp/tulle-1000/lab');
  const user = { XDG_RUNTIME_DIR: '/run/user/1000' };
  t.equal(
    store.stateRoot(user, 1000, () => true),
    '/run/user/1000/tulle/lab',
  );
  t.equal(
    store.stateRoot(user, 1000, () => false),
    '/tmp/tulle-1000/lab',
    'the directory of somebody else, or none',
  );
  t.equal(store.stateRoot({ XDG_RUNTIME_DIR: '/no/such/directory' }, 1000), '/tmp/tulle-1000/lab');
  t.equal(store.stateRoot({ XDG_RUNTIME_DIR: '/run/user/0' }, 0), '/run/tulle/lab');
  t.equal(store.stateRoot({ TULLE_LAB_ROOT: '/x', XDG_RUNTIME_DIR: '/y' }, 1000), '/x');
});

t.test('the root is ours alone, and goes when it is empty', async t => {
  const root = join(folder(t), 'tulle-0', 'lab');
  store.ensureStateRoot(root, false);
  t.equal(statSync(root).mode & 0o777, 0o700);
  writeFileSync(join(root, 'other.lock'), '');
  store.removeStateRoot(root);
  t.ok(existsSync(root), 'not while something is in it');
  unlinkSync(join(root, 'other.lock'));
  store.removeStateRoot(root);
  t.notOk(existsSync(join(root, '..')));
  t.throws(() => store.ensureStateRoot('/etc/passwd/lab', false), {
    code: 'state',
    message: '/etc/passwd/lab cannot be made (ENOTDIR): set TULLE_LAB_ROOT to a directory of yours',
  });
});

t.test('a record comes back as it was written', async t => {
  const root = folder(t);
  t.equal(store.loadState(root, 'lab'), undefined);
  const state = store.createState(root, 'lab', facts);
  state.record.namespaces.push({ name: 'node1', kind: 'node' });
  state.record.processes.push({ name: 'tulled on node1', pid: 4242, startTime: 17 });
  store.saveState(state);
  t.same(store.loadState(root, 'lab'), state);
  t.ok(store.ownerAlive(state), 'we are the owner');
  t.same(readdirSync(state.directory).sort(), ['exec', 'ns', 'state.json'], 'no temporary file is left');
  state.record.owner = { ...state.record.owner, startTime: state.record.owner.startTime + 1 };
  t.notOk(store.ownerAlive(state), 'another process has our pid');
});

t.test('a record that cannot be read is none', async t => {
  const root = folder(t);
  const state = store.createState(root, 'lab', facts);
  const path = join(state.directory, 'state.json');
  const good = readFileSync(path, 'utf8');
  for (const text of [
    '',
    '{',
    'null',
    '[]',
    '{"version":2}',
    good.replace('"version": 1', '"version": 9'),
    good.replace('"processes": []', '"processes": [{"pid":"1"}]'),
  ]) {
    writeFileSync(path, text);
    t.equal(store.loadState(root, 'lab'), undefined, JSON.stringify(text.slice(0, 30)));
  }
});

t.test('another boot names no process of this one', async t => {
  const state = store.createState(folder(t), 'lab', facts);
  state.record.processes.push({ name: 'x', ...identify(process.pid)! });
  t.equal(store.recordedProcesses(state).length, 1);
  state.record.bootId = '00000000-0000-0000-0000-000000000000';
  t.same(store.recordedProcesses(state), []);
  t.notOk(store.ownerAlive(state));
});

t.test('commands of lab exec', async t => {
  const state = store.createState(folder(t), 'lab', facts);
  const forget = store.recordExec(state.directory, { pid: 4242, startTime: 99 });
  t.same(store.recordedProcesses(state), [{ name: 'exec', pid: 4242, startTime: 99 }]);
  forget();
  forget();
  t.same(store.recordedProcesses(state), []);
});

t.test('one lock for one lab', async t => {
  const root = folder(t);
  const first = store.takeLock(root, 'lab')!;
  t.ok(first > 0);
  t.equal(store.takeLock(root, 'lab'), undefined, 'held');
  const other = store.takeLock(root, 'other')!;
  t.ok(other > 0, 'another lab has another lock');
  store.releaseLock(root, 'other', other);
  store.releaseLock(root, 'lab', first);
  t.same(readdirSync(root), [], 'the lock’s file goes with it');
  const again = store.takeLock(root, 'lab')!;
  t.ok(again > 0);
  store.releaseLock(root, 'lab', again);
});

t.test('a lock on a file that is gone is none', async t => {
  const root = folder(t);
  const stale = flockOpen(join(root, 'lab.lock'));
  unlinkSync(join(root, 'lab.lock')); // as releaseLock does, just before it lets go
  const handle = store.takeLock(root, 'lab')!;
  t.ok(handle > 0);
  t.equal(store.takeLock(root, 'lab'), undefined, 'the new file is the one that counts');
  close(stale);
  store.releaseLock(root, 'lab', handle);
});

t.test('a lock that nobody holds goes, one that is held stays', async t => {
  const root = folder(t);
  writeFileSync(join(root, 'lab.lock'), '');
  store.dropStaleLock(root, 'lab');
  store.dropStaleLock(root, 'lab');
  t.same(readdirSync(root), []);
  const handle = store.takeLock(root, 'lab')!;
  store.dropStaleLock(root, 'lab');
  t.same(readdirSync(root), ['lab.lock']);
  store.releaseLock(root, 'lab', handle);
});

t.test('teardown by the record alone', async t => {
  const root = folder(t);
  const state = store.createState(root, 'lab', facts);
  const [ours, recycled] = ['60', '61'].map(seconds => spawn('sleep', [seconds], { stdio: 'ignore' }));
  t.teardown(() => recycled.kill('SIGKILL'));
  const ourId = identify(ours.pid!)!;
  const recycledId = identify(recycled.pid!)!;
  state.record.processes.push(
    { name: 'a', ...ourId },
    { name: 'b', pid: recycledId.pid, startTime: recycledId.startTime - 5 },
  );
  store.saveState(state);
  mkdirSync(join(state.directory, 'node1'));
  writeFileSync(join(state.directory, 'ns', 'node1'), '', { mode: 0 }); // recorded and begun, never mounted
  t.ok(hasRemains(root, 'lab'));
  await tearDown(root, 'lab');
  t.notOk(isAlive(ourId), 'what we started has ended');
  t.ok(isAlive(recycledId), 'who got its pid later lives on');
  t.notOk(hasRemains(root, 'lab'));
  await tearDown(root, 'lab');
});

t.test('teardown without a readable record removes the files', async t => {
  const root = folder(t);
  const state = store.createState(root, 'lab', facts);
  writeFileSync(join(state.directory, 'state.json'), '{');
  await tearDown(root, 'lab');
  t.same(readdirSync(root), []);
});

t.test('the mount table', async t => {
  const table = [
    '30 1 0:26 / /run rw - tmpfs tmpfs rw',
    '31 30 0:4 net:[1] /run/tulle/lab/lab/ns/node1 rw - nsfs nsfs rw',
    '32 30 0:4 net:[2] /run/tulle/lab/lab\\0402/ns/node1 rw - nsfs nsfs rw',
    '33 30 0:4 net:[3] /run/tulle/lab/lab/ns/pod12 rw - nsfs nsfs rw',
    '',
  ].join('\n');
  t.same(mountsBelow('/run/tulle/lab/lab', table), ['/run/tulle/lab/lab/ns/node1', '/run/tulle/lab/lab/ns/pod12']);
  t.same(mountsBelow('/run/tulle/lab/lab 2', table), ['/run/tulle/lab/lab 2/ns/node1']);
});
