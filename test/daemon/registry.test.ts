// Opening a file registry: whose lease file may keep a node from starting.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { openRegistry } from '../../lib/daemon/registry.ts';
import { type Logger, silentLogger } from '../../lib/util/log.ts';

/** A registry with one lease file that nobody can read, and a subnet.env. */
function broken(t: Test, subnetEnv: string) {
  const folder = t.testdir({ 'subnet.env': subnetEnv });
  const directory = join(folder, 'leases');
  mkdirSync(join(directory, 'subnets'), { recursive: true });
  writeFileSync(join(directory, 'subnets', '10.5.7.0-24'), '{"PublicIP":');
  const warnings: string[] = [];
  const log: Logger = { ...silentLogger, warn: (_, message) => void warnings.push(message) };
  const open = () => openRegistry({ kind: 'file', directory }, log, join(folder, 'subnet.env'));
  return { open, warnings, directory };
}

t.test("another node's lease file that cannot be read is a warning, and its subnet stays taken", async t => {
  for (const env of ['FLANNEL_SUBNET=10.5.8.1/24\n', '', 'nonsense']) {
    const { open, warnings } = broken(t, env);
    const registry = await open();
    const { leases, unreadable } = await registry.list();
    t.same([leases.length, unreadable?.length], [0, 1]);
    t.match(warnings, [/corrupt lease file/]);
    await registry.close();
  }
});

t.test('our own is refused, with its name', async t => {
  const { open, directory } = broken(t, 'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.7.1/24\n');
  await t.rejects(open(), { code: 'corrupt', message: new RegExp(`${directory}/subnets/10.5.7.0-24 is corrupt`) });
});

t.test('who only looks is not refused, and a directory that is not there is waited for', async t => {
  const { directory } = broken(t, '');
  await (await openRegistry({ kind: 'file', directory }, silentLogger)).close();
  await (await openRegistry({ kind: 'file', directory: `${directory}/none` }, silentLogger, '/none')).close();
});
