// `tulle doctor` as a person runs it: on this machine, in a namespace with a real tulled, and with a peer that is not there.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import type { DoctorReport } from '../../lib/observe/doctor/command.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { statusWhen } from '../daemon/ask.ts';
import { makeNode, skip } from '../daemon/node.ts';
import { environment } from '../daemon/process.ts';

t.setTimeout(120_000);
const program = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));

function doctor(namespace: string | undefined, ...args: string[]) {
  const run = () =>
    spawnSync(process.execPath, [program, 'doctor', ...args], { encoding: 'utf8', env: environment, timeout: 60_000 });
  return namespace === undefined ? run() : withNamespace(namespace, run);
}

const report = (text: string): DoctorReport => JSON.parse(text);
const codesOf = ({ findings }: DoctorReport): string[] => findings.map(({ code }) => code);

t.test('help, and what is no flag', async t => {
  const { status, stdout } = doctor(undefined, '--help');
  t.equal(status, 0);
  t.match(stdout, /^ {2}--socket PATH/m);
  t.match(stdout, /^ {2}-etcd-endpoints/m);
  const wrong = doctor(undefined, '--jsonn');
  t.equal(wrong.status, 1);
  t.match(wrong.stderr, /^tulle: --jsonn: there is no such flag: see "tulle doctor --help"\n$/);
});

t.test('a registry that does not answer is a finding, and the report is there', async t => {
  for (const flag of ['-etcd-endpoints=http://127.0.0.1:1', '--registry=file:/nowhere/leases']) {
    const { status, stdout, stderr } = doctor(undefined, '--json', '--socket', '/nowhere.sock', flag);
    t.equal(status, 1, stderr);
    const { findings, facts } = report(stdout);
    t.match(
      findings.find(({ code }) => code === 'registry-unreachable'),
      { severity: 'error', check: 'peers', text: /^the registry cannot be read: \S/ },
      flag,
    );
    t.ok(facts.nodeVersion && findings.some(({ code }) => code === 'no-daemon'));
  }
  const kube = doctor(undefined, '--json', '-kube-subnet-mgr', '-kube-api-url=http://127.0.0.1:1');
  t.ok(codesOf(report(kube.stdout)).includes('registry-unreachable'), kube.stderr);
});

t.test('without root it says what it did not try', { skip }, async t => {
  const args = ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath, program, 'doctor', '--json'];
  const { stdout, stderr, error } = spawnSync('setpriv', args, { encoding: 'utf8', env: environment, timeout: 60_000 });
  if (error !== undefined || /setpriv:|EACCES|Cannot find module/.test(stderr)) {
    t.pass('not tested', { skip: 'no setpriv here, or nobody may not read this directory' });
    return;
  }
  const { untried, well, findings } = report(stdout);
  t.ok(findings.some(({ code }) => code === 'not-root'));
  for (const check of ['udp', 'links', 'rules'] as const) {
    t.ok(untried.includes(check), check);
    t.notOk(well.includes(check), check);
  }
});

t.test('it leaves nothing behind, and a machine that runs these tests can carry an overlay', { skip }, async t => {
  const links = () => withRtnetlink(undefined, netlink => netlink.links().map(link => link.name)).sort();
  const folders = () => readdirSync(tmpdir()).filter(name => name.startsWith('tulle-doctor-'));
  const [linksBefore, foldersBefore] = [links(), folders()];
  const { stdout, stderr } = doctor(undefined, '--json', '--socket', '/nowhere.sock');
  t.equal(stderr, '');
  const { facts, well, findings } = report(stdout);
  t.match(facts, { isRoot: true, tun: { ok: true }, veth: { ok: true }, bridge: { ok: true } });
  t.match(facts, { offloads: { checksum: true, tso: true }, udpTrain: { ok: true }, udpGro: { ok: true } });
  for (const check of ['udp', 'links'] as const) t.ok(well.includes(check), check);
  t.ok(findings.some(({ code }) => code === 'no-daemon') && findings.some(({ code }) => code === 'no-peers'));
  t.same(links(), linksBefore);
  t.same(folders(), foldersBefore);
});

t.test('a node and its peers: one that is a machine without tulled, one that nobody is', { skip }, async t => {
  const world = makeNode(t);
  const socket = join(world.run, 'tulled.sock');
  const lease = (third: number, address: string): void => {
    mkdirSync(join(world.registry, 'subnets'), { recursive: true });
    writeFileSync(
      join(world.registry, 'subnets', `10.5.${third}.0-24`),
      JSON.stringify({
        PublicIP: address,
        PublicIPv6: null,
        BackendType: 'tulle',
        BackendData: { Version: 1, Port: 8285, NodeID: `node${third}` },
      }),
    );
  };
  lease(2, '10.88.0.2'); // the namespace "far": it answers echo, and its kernel says that the port is closed
  lease(3, '10.88.0.3'); // nobody

  t.comment('before there is a daemon: from the registry');
  const flags = ['-iface=eth0', `--registry=file:${world.registry}`, '--socket', socket];
  const before = report(doctor(world.node, '--json', ...flags).stdout);
  const about = (node: string) => before.findings.filter(({ text }) => text.startsWith(`${node} at`)).map(f => f.code);
  t.same(about('node2'), ['peer-port-closed']);
  t.ok(
    about('node3').some(code => ['peer-unreachable', 'no-echo'].includes(code)),
    `${about('node3')}`,
  );
  t.ok(codesOf(before).includes('no-daemon'));

  t.comment('with one: by its probes');
  const tulled = world.start('-node-id=node1', `--control-socket=${socket}`, '--probe-interval=1s');
  await statusWhen(
    socket,
    status => status.ready && status.peers.length === 2 && status.peers.every(peer => peer.silent),
  );
  const { status, stdout } = doctor(world.node, '--json', '-iface=eth0', '--socket', socket);
  t.equal(status, 1);
  const during = report(stdout);
  const words = (node: string) => during.findings.find(({ text }) => text.startsWith(`${node} at`));
  t.match(words('node2'), { code: 'peer-silent', severity: 'error', text: /but ICMP echo/ });
  t.match(words('node3'), { code: 'peer-unreachable', text: /neither probes nor ICMP echo/ });
  t.notOk(codesOf(during).includes('port-taken'), 'the port is its own');
  t.notOk(codesOf(during).includes('forwarding-off'));
  t.match(doctor(world.node, '-iface=eth0', '--socket', socket).stdout, /^ERROR .*\[peer-silent\]\n {9}\S.*\n/m);

  t.comment('as somebody who may not ask it');
  const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath, program];
  const asked = withNamespace(world.node, () =>
    spawnSync('setpriv', [...nobody, 'doctor', '--json', '-iface=eth0', '--socket', socket], {
      encoding: 'utf8',
      env: environment,
      timeout: 60_000,
    }),
  );
  if (asked.error === undefined && asked.stdout !== '') {
    const found = codesOf(report(asked.stdout));
    t.ok(found.includes('daemon-denied') && found.includes('port-held'), `${found}`);
    t.notOk(found.includes('port-taken') || found.includes('no-daemon'), 'the healthy tulled is not accused');
  }

  t.comment('somebody switches forwarding off, and gives the device another MTU');
  withNamespace(world.node, () => writeFileSync('/proc/sys/net/ipv4/ip_forward', '0'));
  t.ok(
    codesOf(report(doctor(world.node, '--json', '-iface=eth0', '--socket', socket).stdout)).includes('forwarding-lost'),
  );
  await tulled.end('SIGTERM');
});
