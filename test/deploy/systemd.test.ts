/**
 * The unit for systemd: systemd's own judgement of it, and what its ExecStart does with the example's settings and the unit's
 * variables in a namespace that stands for a node: an etcd, a lease, READY=1, the watchdog's signs, a clean stop.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { findEtcd, startEtcd } from '../../etcd/server.ts';
import { environmentName, flags } from '../../lib/daemon/flags.ts';
import { parseFlags } from '../../lib/daemon/parse-flags.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { noDatagrams, openDatagramSocket } from '../daemon/datagram-socket.ts';
import { makeNode, skip } from '../daemon/node.ts';
import { environment, spawnTulled } from '../daemon/process.ts';
import { root } from '../sys/support.ts';

t.setTimeout(120_000);
const file = join(root, 'deploy/systemd/tulled.service');
const unit = readFileSync(file, 'utf8');
/** The settings of one section by their names; a name may stand more than once. */
const settings = (name: string): string[] =>
  [...unit.matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].map(match => match[1]);
const example = readFileSync(join(root, 'deploy/systemd/tulled.env'), 'utf8');

const variables = (text: string): Record<string, string> =>
  Object.fromEntries([...text.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name, value]));

t.test('the settings of the unit', async t => {
  t.same(settings('Type'), ['notify']);
  t.same(settings('Restart'), ['always'], 'also after a lost lease');
  t.match(settings('WatchdogSec'), [/^\d+s$/]);
  t.same(settings('RuntimeDirectory'), ['tulle']);
  t.same(settings('StateDirectory'), ['tulle']);
  t.same(settings('CapabilityBoundingSet'), ['CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN'], 'as in deploy/tulle.yml');
  t.match(settings('DeviceAllow'), ['/dev/net/tun rw']);
  t.same(settings('MountFlags'), ['slave'], 'or pods that have gone would live on in here');
});

t.test(
  "systemd's own judgement",
  { skip: spawnSync('systemd-analyze', ['--version']).status !== 0 && 'SKIPPED: no systemd-analyze here' },
  async t => {
    const folder = t.testdir();
    // It wants the program to be there.
    const copy = join(folder, 'tulled.service');
    writeFileSync(copy, unit.replace(/^ExecStart=.*$/m, 'ExecStart=/bin/true'));
    const analyze = (...args: string[]) => spawnSync('systemd-analyze', args, { encoding: 'utf8', timeout: 60_000 });
    const verified = analyze('verify', copy);
    t.equal(verified.status, 0, verified.stderr);
    t.notMatch(verified.stderr, /tulled\.service/, 'no warning');
    const { stdout } = analyze('security', '--offline=yes', copy);
    const [, level] = /Overall exposure level for tulled\.service: ([\d.]+)/.exec(stdout) ?? [];
    t.ok(Number(level) < 4, `exposure ${level}: what systemd calls OK`);
    writeFileSync(copy, `${unit}\n[Service]\nWatchdogSecs=3\n`);
    t.match(analyze('verify', copy).stderr, /Unknown key/, 'a mistake would be seen');
  },
);

t.test('the example of the settings', async t => {
  const known = new Set(flags.map(environmentName));
  const all = variables(example.replace(/^#(?=[A-Z])/gm, ''));
  t.ok(Object.keys(all).length > 6);
  t.same(
    Object.keys(all).filter(name => !known.has(name)),
    [],
    'every variable is one of tulled',
  );
  const { values } = parseFlags([], variables(example));
  t.equal(values['ip-masq'], true);
  t.match(values['subnet-file'], /^\/run\/tulle\//, 'in the RuntimeDirectory');
  t.match(values['state-dir'], /^\/var\/lib\/tulle/, 'in the StateDirectory');
});

const registryChild = fileURLToPath(new URL('../../lib/lab/registry-child.js', import.meta.url));
const without = skip || noDatagrams || (findEtcd() === undefined && 'SKIPPED: no etcd here');

t.test('ExecStart on a node, with an etcd', { skip: without }, async t => {
  const world = makeNode(t);
  const endpoint = 'http://10.88.0.2:2379';
  const directory = join(world.run, 'etcd');
  const server = await startEtcd({ directory, clientAddress: '10.88.0.2', namespace: world.far });
  t.teardown(() => server.stop());
  const conf = '{"Network":"10.5.0.0/16","Backend":{"Type":"tulle"}}';
  const put = [registryChild, 'config', endpoint, '/coreos.com/network', conf];
  const written = withNamespace(world.far, () =>
    spawnSync(process.execPath, put, { env: environment, encoding: 'utf8', timeout: 20_000 }),
  );
  t.equal(written.status, 0, written.stderr);

  const name = join(world.run, 'notify');
  const socket = await openDatagramSocket(t, name);
  const here = {
    FLANNELD_ETCD_ENDPOINTS: endpoint,
    FLANNELD_SUBNET_FILE: world.subnetFile,
    TULLED_STATE_DIR: t.testdir(),
    TULLED_CNI_SOCKET: join(world.run, 'cni.sock'),
    TULLED_CONTROL_SOCKET: 'none',
  };
  const manager = { NOTIFY_SOCKET: name, WATCHDOG_USEC: '1000000' };
  const tulled = withNamespace(world.node, () =>
    spawnTulled(['-iface=eth0'], { ...variables(example), ...here, ...manager }),
  );
  t.teardown(() => tulled.end('SIGKILL'));
  await socket.until('READY=1');
  t.match(readFileSync(world.subnetFile, 'utf8'), /FLANNEL_IPMASQ=true/);
  await socket.until('WATCHDOG=1');
  t.equal((await tulled.end('SIGTERM')).code, 0, tulled.stderr());
  await socket.until('STOPPING=1');
});
