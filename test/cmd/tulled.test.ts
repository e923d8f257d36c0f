// tulled as a process: what it says and how it ends when something is wrong. Nothing here gets as far as a device.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { flags } from '../../lib/daemon/flags.ts';
import { askControl } from '../../lib/observe/control-client.ts';
import { version } from '../../lib/util/version.ts';
import { environment, program, spawnTulled } from '../daemon/process.ts';

const isRoot = process.getuid?.() === 0;
const skip = isRoot && existsSync('/dev/net/tun') ? false : 'needs root and /dev/net/tun';
const CONF = '{"Network":"10.5.0.0/16","Backend":{"Type":"tulle"}}';

function tulled(args: string[], more: Record<string, string> = {}) {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    env: { ...environment, ...more },
    encoding: 'utf8',
    timeout: 20_000,
  });
  return { status, signal, stdout, stderr, lines: stderr.split('\n').filter(line => line !== '') };
}

function leaseDirectory(t: Test, conf?: string): string {
  const directory = t.testdir({ leases: { subnets: {} } });
  if (conf !== undefined) writeFileSync(join(directory, 'leases/config'), conf);
  return directory;
}

t.test('--version and --help go to stdout and exit 0', async t => {
  for (const arg of ['-version', '--version', '-version=true']) {
    const { status, stdout, stderr } = tulled([arg]);
    t.same([status, stdout, stderr], [0, `${version()}\n`, ''], arg);
  }
  t.match(version(), /^\d+\.\d+\.\d+/);
  const { status, stdout, stderr } = tulled(['--help']);
  t.same([status, stderr], [0, '']);
  for (const flag of flags) t.ok(stdout.includes(`\n  -${flag.name}`), flag.name);
});

t.test('a wrong command line is one line and exit code 1', async t => {
  const table: [string[], Record<string, string>, RegExp][] = [
    [['-ifac=eth0'], {}, /^tulled: -ifac: there is no such flag; did you mean -iface\?$/],
    [['-kube-subnet-mgr', '--node-id=x'], {}, /^tulled: -node-id: Kubernetes knows a node by its name: set NODE_NAME/],
    [
      ['-kubeconfig-file=/x'],
      {},
      /^tulled: -kubeconfig-file: it belongs to the Kubernetes registry: give -kube-subnet-mgr/,
    ],
    [[], { FLANNELD_IP_BLACKHOLE_ROUTE: 'true' }, /^tulled: FLANNELD_IP_BLACKHOLE_ROUTE: the blackhole route/],
    [['-public-ip=10.0.0.300'], {}, /^tulled: -public-ip: "10.0.0.300" is not an IPv4 address/],
    [['-registry=file:'], {}, /^tulled: -registry: /],
    [['-v=1\n2'], {}, /^tulled: -v: "1 2" is not a whole number/],
  ];
  for (const [args, more, message] of table) {
    const { status, stdout, lines } = tulled(args, more);
    t.same([status, stdout, lines.length], [1, '', 1], args.join(' '));
    t.match(lines[0], message);
  }
});

t.test('what the machine or the registry lacks is one line and exit code 1, nothing left behind', { skip }, async t => {
  const lease = '10.5.7.0-24';
  const taken = createServer().listen(0, '127.0.0.1');
  await new Promise(resolve => taken.on('listening', resolve));
  const { port } = taken.address() as { port: number };
  t.teardown(() => taken.close());
  const table: { name: string; conf: string; args?: string[]; corrupt?: string; message: RegExp }[] = [
    {
      name: 'no such interface',
      conf: CONF,
      args: ['-iface=nosuch0'],
      message: /no interface named nosuch0; this machine has: /,
    },
    {
      name: 'no such address',
      conf: CONF,
      args: ['-iface=192.0.2.77'],
      message: /no interface with address 192.0.2.77/,
    },
    {
      name: 'a wrong pattern',
      conf: CONF,
      args: ['-iface-regex=('],
      message: /iface-regex "\(" is not a regular expression/,
    },
    {
      name: 'a public IP of nobody',
      conf: CONF,
      args: ['-public-ip=192.0.2.77'],
      message: /public address 192.0.2.77/,
    },
    { name: 'no JSON', conf: '{"Network"', message: /config is not JSON/ },
    { name: 'no object', conf: '[]', message: /config: the network configuration is not a JSON object/ },
    {
      name: 'a bad CIDR',
      conf: '{"Network":"10.5.0.0/40"}',
      message: /config: Network "10.5.0.0\/40" is not a network/,
    },
    {
      name: 'a small network',
      conf: '{"Network":"10.5.0.0/29"}',
      message: /config: Network is a \/29, which is too small/,
    },
    {
      name: 'a foreign backend',
      conf: '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}',
      message: /config: Backend.Type "vxlan"/,
    },
    {
      name: 'our own lease file is corrupt',
      conf: CONF,
      corrupt: '{"PublicIP":',
      message: /lease file \/.*10.5.7.0-24 is corrupt \(.*\): mend it, or remove it/,
    },
    { name: 'our own lease file is empty', conf: CONF, corrupt: '', message: /10.5.7.0-24 is corrupt/ },
    {
      name: 'the health port is taken',
      conf: CONF,
      args: ['-healthz-ip=127.0.0.1', `-healthz-port=${port}`],
      message: /choose another -healthz-port$/,
    },
  ];
  for (const { name, conf, args = ['-iface=nosuch0'], corrupt, message } of table) {
    const directory = leaseDirectory(t, conf);
    const env = join(directory, corrupt === undefined ? 'run/subnet.env' : 'subnet.env');
    if (corrupt !== undefined) {
      writeFileSync(join(directory, 'leases/subnets', lease), corrupt);
      writeFileSync(env, 'FLANNEL_SUBNET=10.5.7.1/24\n');
    }
    const { status, stdout, lines } = tulled([
      `-registry=file:${directory}/leases`,
      `-subnet-file=${env}`,
      '-node-id=n',
      ...args,
    ]);
    t.same([status, stdout, lines.length], [1, '', 1], `${name}: ${lines.join(' | ')}`);
    t.match(lines[0], /^tulled: /, name);
    t.match(lines[0], message, name);
    t.same(readdirSync(join(directory, 'leases/subnets')), corrupt === undefined ? [] : [lease], `${name}: no lease`);
    t.notOk(existsSync(join(directory, 'run')), `${name}: no subnet file`);
  }
});

t.test('without permission it says so', { skip }, async t => {
  const directory = leaseDirectory(t, CONF);
  chmodSync(directory, 0o755);
  const result = spawnSync(
    'setpriv',
    [
      '--bounding-set=-all',
      '--inh-caps=-all',
      '--reuid=65534',
      '--clear-groups',
      process.execPath,
      program,
      `-registry=file:${directory}/leases`,
    ],
    { encoding: 'utf8', timeout: 20_000, env: environment },
  );
  if (result.error !== undefined || /setpriv:|EACCES|Cannot find module/.test(result.stderr)) {
    t.pass('not tested', { skip: 'no setpriv here, or nobody may not read this directory' });
    return;
  }
  t.equal(result.status, 1);
  t.match(result.stderr, /^tulled: .*root.*\n$/);
});

t.test('an etcd that is not there: one line, and a clean stop while it waits', { skip }, async t => {
  const args = ['-etcd-endpoints=http://127.0.0.1:1', '-etcd-username=me', '-etcd-password=hunter22', '-v=2'];
  const tulled = spawnTulled(args);
  await tulled.saw(/waiting for the registry/);
  t.equal((await tulled.end('SIGTERM')).code, 0);
  const waiting = tulled.stderr().match(/^.*waiting for the registry.*$/gm) ?? [];
  t.equal(waiting.length, 1);
  t.match(waiting[0], /http:\/\/127.0.0.1:1.*check -etcd-endpoints/);
  t.notMatch(tulled.stderr(), /\n\s+at /, 'no stack');
  t.notMatch(tulled.stderr(), /hunter22/, 'no password, not even at -v=2');
});

t.test('secrets do not come out by any door', { skip }, async t => {
  const directory = t.testdir();
  const key = join(directory, 'key.pem');
  writeFileSync(key, 'SECRETKEYTEXT');
  const password = ['-etcd-username=me', '-etcd-password=hunter22'];
  for (const format of ['text', 'json']) {
    const common = ['-v=2', `-log-format=${format}`];
    const runs = [
      [...common, ...password, 'stray'],
      [...common, ...password, '-etcd-endpoints=http://me:hunter22@127.0.0.1:1'],
      [...common, '-etcd-endpoints=https://127.0.0.1:1', `-etcd-certfile=${key}`, `-etcd-keyfile=${key}`],
      [...common, '-etcd-password=', 'hunter22'],
    ];
    for (const args of runs) {
      const { status, stdout, stderr } = tulled(args);
      t.equal(status, 1, stderr);
      t.notMatch(stdout + stderr, /hunter22|SECRETKEYTEXT/);
    }
    const variables = { FLANNELD_ETCD_USERNAME: 'me', FLANNELD_ETCD_PASSWORD: 'hunter22' };
    const socket = join(mkdtempSync('/tmp/tulle-test-door-'), 'tulled.sock');
    t.teardown(() => rmSync(dirname(socket), { recursive: true, force: true }));
    const door = `-control-socket=${socket}`;
    const waiting = spawnTulled([...common, door, '-etcd-endpoints=http://127.0.0.1:1'], variables);
    await waiting.saw(/waiting for the registry/);
    for (const path of ['/status', '/metrics']) {
      t.notMatch(JSON.stringify(await askControl(socket, { path })), /hunter22/, path);
    }
    await waiting.end('SIGTERM');
    t.notMatch(waiting.stderr(), /hunter22/);
  }
});
