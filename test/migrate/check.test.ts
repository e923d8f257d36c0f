// Each of flannel's files, whole reports of its usual ones, and whatever anybody may hand over.
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { readNetwork } from '../../lib/daemon/network.ts';
import { parseFlags } from '../../lib/daemon/parse-flags.ts';
import { readYaml } from '../../lib/kube/yaml.ts';
import { checkFlannel, printReport } from '../../lib/migrate/check.ts';
import { shellWords } from '../../lib/migrate/input.ts';
import { environment } from '../daemon/process.ts';
import { below, prng, testSeed } from '../support/prng.ts';
import { root } from '../sys/support.ts';

t.setTimeout(90_000);
const folder = join(root, 'test/migrate/flannel');
const sample = (name: string): string => readFileSync(join(folder, name), 'utf8');
const check = (text: string) => checkFlannel([{ name: 'x', text }], readYaml);
const verdicts = (text: string): Record<string, string> =>
  Object.fromEntries(check(text).findings.map(({ item, verdict }) => [item, verdict]));

t.test("flannel's own manifest, whole", async t => {
  const report = checkFlannel([{ name: 'kube-flannel.yml', text: sample('kube-flannel.yml') }], readYaml);
  const golden = join(folder, 'kube-flannel.report');
  if (process.env['TULLE_UPDATE_GOLDEN']) writeFileSync(golden, printReport(report));
  t.equal(printReport(report), readFileSync(golden, 'utf8'), 'TULLE_UPDATE_GOLDEN=1 writes it');
  t.equal(readNetwork(JSON.stringify(report.proposal.netConf), 'x').backend.type, 'tulle', 'what is proposed is taken');
  const { values } = parseFlags(report.proposal.arguments ?? [], {});
  t.match(values, { 'ip-masq': true, 'kube-subnet-mgr': true, iface: ['eth0'], 'healthz-port': 8081 });
  t.match(report.proposal.cni, {
    name: 'cbr0',
    plugins: [{ type: 'tulle-cni', delegate: { hairpinMode: true } }, { type: 'portmap' }],
  });
});

t.test('the same by kubectl, as YAML and as JSON', async t => {
  const objects = readYaml(sample('kube-flannel.yml'));
  const list = { apiVersion: 'v1', kind: 'List', items: JSON.parse(JSON.stringify(objects)) };
  const of = (text: string) => check(text).findings.map(({ item, verdict, text }) => [item, verdict, text]);
  t.same(of(JSON.stringify(list)), of(sample('kube-flannel.yml')));
});

t.test('net-confs', async t => {
  t.same(verdicts('{"Network":"10.5.0.0/16"}'), { Network: 'carries', 'Backend.Type': 'carries' }, 'absent means udp');
  t.same(
    verdicts('{"network":"10.5.0.0/16","backend":{"type":"udp","port":9000}}'),
    { Network: 'carries', 'Backend.Type': 'carries', 'Backend.Port': 'carries' },
    'keys in any case',
  );
  for (const type of [
    'vxlan',
    'host-gw',
    'wireguard',
    'ipsec',
    'ipip',
    'alloc',
    'extension',
    'nonsense',
    'constructor',
  ]) {
    const report = check(JSON.stringify({ Network: '10.5.0.0/16', SubnetLen: 25, Backend: { Type: type, VNI: 7 } }));
    t.match(
      report.findings.find(({ item }) => item === 'Backend.Type'),
      { verdict: 'change', text: new RegExp(`"${type}": set it to "tulle"`) },
    );
    t.same(report.proposal.netConf, { Network: '10.5.0.0/16', SubnetLen: 25, Backend: { Type: 'tulle' } });
  }
  t.match(
    check('{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"}}').findings.at(-1)?.text,
    /nothing is encrypted/,
  );
  const broken = check('{"Network":"10.5.0.0/33","Backend":{"Type":"vxlan"}}');
  t.match(broken.findings.at(-1), { item: 'net-conf', verdict: 'change', text: /still refuses it: .*10\.5\.0\.0\/33/ });
  t.equal(broken.proposal.netConf, undefined);
  t.equal(
    verdicts('{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan"}}')['net-conf'],
    'change',
  );
});

t.test('CNI configurations', async t => {
  t.match(verdicts('{"name":"n","type":"flannel"}'), { 'plugin flannel': 'change' });
  t.match(
    check('{"name":"n","type":"flannel","delegate":{"type":"macvlan"}}').findings.map(each => each.item),
    ['name', 'plugin flannel', 'delegate.type', 'the file'],
  );
  t.match(check('{"name":"n","cniVersion":"1.0.0","type":"flannel","subnetFile":"/x"}').proposal.cni, {
    cniVersion: '1.0.0',
    name: 'n',
    plugins: [{ type: 'tulle-cni', subnetFile: '/x' }],
  });
  t.match(verdicts('{"plugins":[{"type":"bridge"}]}'), { plugins: 'change' });
  t.match(verdicts('{"name":"n","plugins":[{"type":"flannel","delegate":{"vlan":5}},{"type":"bandwidth"}]}'), {
    'delegate.vlan': 'change',
    'plugin bandwidth': 'carries',
  });
});

t.test('subnet.env', async t => {
  const text = 'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n';
  t.same(verdicts(text), {
    FLANNEL_NETWORK: 'carries',
    FLANNEL_SUBNET: 'carries',
    FLANNEL_MTU: 'differs',
    FLANNEL_IPMASQ: 'carries',
  });
  t.equal(verdicts('FLANNEL_SUBNET=nonsense\n')['FLANNEL_SUBNET'], 'change');
});

t.test('flags and variables', async t => {
  t.same(verdicts('flanneld -iface eth0 --ip-masq -v=4'), {
    '-iface': 'carries',
    '-ip-masq': 'carries',
    '-v': 'differs',
  });
  t.same(verdicts('/opt/bin/flanneld -vmodule=x=1 -logtostderr -nonsense=1 -iptables-resync=0'), {
    '-vmodule': 'change',
    '-logtostderr': 'change',
    '-nonsense': 'change',
    '-iptables-resync': 'change',
  });
  t.same(check('flanneld -iface eth0 -iface=eth1 -kube-subnet-mgr').proposal.arguments, [
    '-iface=eth0',
    '-iface=eth1',
    '-kube-subnet-mgr=true',
  ]);
  const report = check(sample('flanneld.service'));
  t.same(report.proposal.arguments, ['-ip-masq=true', '-iface=eth0']);
  t.match(
    report.findings.find(({ item }) => item === '-log_dir'),
    { verdict: 'change' },
  );
  t.ok(report.proposal.variables?.includes('FLANNELD_ETCD_PASSWORD=top secret'));
  t.notMatch(printReport(report), /secret/, 'a password is shown by nobody');
  t.match(printReport(report), /FLANNELD_ETCD_PASSWORD=\[redacted\]/);
  t.equal(verdicts('FLANNELD_IFACE=eth0\nWIREGUARD_KEY_FILE=/x\nFLANNELD_NONE=1\n').WIREGUARD_KEY_FILE, 'change');
  t.notMatch(
    JSON.stringify(check('flanneld -etcd-pasword hunter2 -iface=eth0').findings),
    /hunter2/,
    'nor the value of a flag that is spelt wrong',
  );
});

t.test('words as a shell has them', async t => {
  t.same(shellWords(`a 'b c' "d \\"e" f\\ g ''`), ['a', 'b c', 'd "e', 'f g', '']);
  t.same(shellWords('  '), []);
  t.same(shellWords('"open'), ['open']);
});

t.test('what cannot be read is said in one line', async t => {
  for (const text of [
    '',
    '[]',
    'null',
    '7',
    'hello',
    '{"a":1}',
    '{',
    ': :\n - [',
    'a: &x [1]\nb: *x',
    '\0\x01',
    '---\n---\n',
    'kind: 7\napiVersion: v1',
  ]) {
    t.throws(() => check(text), { code: 'unreadable', message: /^x: [^\n]+$/ }, JSON.stringify(text));
  }
  t.throws(() => check(' '.repeat(5 << 20)), { code: 'unreadable', message: /more than 4 MiB/ });
});

t.test('nothing that is handed over breaks it', async t => {
  const seed = testSeed();
  const random = prng(seed);
  const next = (limit: number): number => below(random, limit);
  const sources = [
    sample('kube-flannel.yml'),
    sample('flanneld.service'),
    '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}',
    '{"name":"n","plugins":[{"type":"flannel","delegate":{}}]}',
    'FLANNEL_SUBNET=10.5.7.1/24\n',
    'flanneld -iface eth0 --ip-masq',
  ];
  const pieces = [
    'null',
    '{}',
    '[]',
    '"',
    "'",
    '\n',
    ': ',
    '- ',
    '\u001b[2J',
    '__proto__',
    'constructor',
    '99999999999',
    '-',
    '\\',
    '=',
    '\0',
    '\u202e',
  ];
  let read = 0;
  for (let round = 0; round < 1500; round++) {
    let text = sources[next(sources.length)];
    for (let i = next(4); i >= 0; i--) {
      const [from, length] = [next(text.length + 1), next(3) === 0 ? next(40) : next(3)];
      text = text.slice(0, from) + pieces[next(pieces.length)] + text.slice(from + length);
    }
    try {
      const report = check(text);
      read++;
      t.notMatch(printReport(report).replace(/\n/g, ''), /[\p{Cc}\p{Cf}]/u, `seed ${seed} round ${round}`);
    } catch (error) {
      if ((error as { code?: string }).code !== 'unreadable')
        t.fail(`seed ${seed} round ${round}: ${error instanceof Error ? error.stack : error}\n${text}`);
    }
  }
  t.ok(read > 100, `${read} could be read`);
});

t.test('tulle migrate check', async t => {
  const tulle = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));
  const run = (args: string[], input = '') =>
    spawnSync(process.execPath, [tulle, 'migrate', ...args], { encoding: 'utf8', env: environment, input });
  t.match(run(['--help']), { status: 0, stdout: /^tulle migrate: /, stderr: '' });
  t.match(run(['check', join(folder, 'kube-flannel.yml')]), { status: 1, stdout: /! Backend\.Type/, stderr: '' });
  t.match(run(['check', '-'], '{"Network":"10.5.0.0/16"}'), {
    status: 0,
    stdout: /= carries over: 2 {3}~ differs: 0 {3}! to do: 0\n$/,
  });
  t.match(run(['check', '--', '-iface=eth0', '-etcd-prefix', '/a b']), {
    status: 0,
    stdout: /flags for tulled:\n {2}-iface=eth0 '-etcd-prefix=\/a b'\n/,
  });
  const json = run(['check', '--json', join(folder, 'kube-flannel.yml')]);
  t.equal(json.status, 1);
  t.match(JSON.parse(json.stdout), {
    todo: Number,
    findings: [{ source: String, item: String, verdict: String, text: String }],
    proposal: { netConf: { Backend: { Type: 'tulle' } } },
  });
  for (const args of [['check'], ['chek', 'x'], ['check', '--jsn', 'x'], ['check', '/nowhere'], ['check', folder]]) {
    t.match(run(args), { status: 2, stdout: '', stderr: /^tulle: [^\n]+\n$/ }, args.join(' '));
  }
  t.match(JSON.parse(run(['check', '--json', '-'], 'x y').stdout), { error: /^standard input: / });
});
