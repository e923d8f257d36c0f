import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Daemon, lastLines, makeFileRegistry, waitReady } from '../../lib/lab/cluster.ts';
import { createState } from '../../lib/lab/state.ts';

const folder = (t: Test): string => {
  const path = mkdtempSync(join(tmpdir(), 'tulle-lab-cluster-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
};

/** A daemon that is a shell script; $0 is its subnet file, $1 its CNI socket. */
function daemon(t: Test, script: string): Daemon {
  const directory = folder(t);
  const subnetFile = join(directory, 'subnet.env');
  const cniSocket = join(directory, 'cni.sock');
  const logFile = join(directory, 'tulled.log');
  writeFileSync(logFile, '');
  const process = spawn('sh', ['-c', `exec >>${logFile} 2>&1; ${script}`, subnetFile, cniSocket], { stdio: 'ignore' });
  t.teardown(() => process.kill('SIGKILL'));
  return { node: { name: 'node1', address: '10.88.0.1' }, process, logFile, subnetFile, cniSocket };
}

t.test('a daemon that becomes ready', async t => {
  await waitReady(daemon(t, 'sleep 0.1; echo x > "$0"; sleep 0.1; echo x > "$1"; exec sleep 60'));
  t.pass();
});

t.test('a daemon that ends too soon: its last words are in the one line', async t => {
  await t.rejects(waitReady(daemon(t, 'echo first; echo second; echo tulled: no such interface eth7; exit 1')), {
    code: 'daemon',
    message: 'tulled on node1 ended with exit code 1; its log ends: first | second | tulled: no such interface eth7',
  });
  await t.rejects(waitReady(daemon(t, 'kill -9 $$')), {
    message: 'tulled on node1 ended by SIGKILL; its log ends: (nothing)',
  });
});

t.test('a daemon that cannot be started', async t => {
  const { node, logFile, subnetFile, cniSocket } = daemon(t, 'true');
  const process = spawn('/no/such/program');
  await t.rejects(waitReady({ node, process, logFile, subnetFile, cniSocket }), { code: 'daemon', message: /ENOENT/ });
});

t.test('the end of a log', async t => {
  const file = join(folder(t), 'log');
  t.equal(lastLines(file, 3), '');
  writeFileSync(file, 'a\nb\nc\nd\n');
  t.equal(lastLines(file, 2), 'c | d');
});

t.test('the file registry begins with a net-conf', async t => {
  const state = createState(folder(t), 'lab', { rootless: false, registry: 'file' });
  makeFileRegistry(state);
  t.same(JSON.parse(readFileSync(join(state.directory, 'leases', 'config'), 'utf8')), {
    Network: '10.42.0.0/16',
    SubnetLen: 24,
    Backend: { Type: 'tulle' },
  });
});
