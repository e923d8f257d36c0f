import t from 'tap';
import { environmentName, flags, flagTable } from '../../lib/daemon/flags.ts';

// facts/flannel.md, section 1: flanneld's flags with their defaults.
const FLANNELD: Record<string, unknown> = {
  'etcd-endpoints': 'http://127.0.0.1:4001,http://127.0.0.1:2379',
  'etcd-prefix': '/coreos.com/network',
  'etcd-keyfile': '',
  'etcd-certfile': '',
  'etcd-cafile': '',
  'etcd-username': '',
  'etcd-password': '',
  iface: [],
  'iface-regex': [],
  'iface-can-reach': '',
  'subnet-file': '/run/flannel/subnet.env',
  'public-ip': '',
  'public-ipv6': '',
  'subnet-lease-renew-margin': 60,
  'ip-masq': false,
  'ip-masq-fully-random-disable': false,
  'kube-subnet-mgr': false,
  'kube-api-url': '',
  'kube-annotation-prefix': 'flannel.alpha.coreos.com',
  'kubeconfig-file': '',
  version: false,
  'healthz-ip': '0.0.0.0',
  'healthz-port': 0,
  'iptables-resync': 5,
  'iptables-forward-rules': true,
  'ip-blackhole-route': false,
  'net-config-path': '/etc/kube-flannel/net-conf.json',
  'set-node-network-unavailable': true,
  v: 0,
  vmodule: '',
  log_backtrace_at: '',
};

t.test("the table holds each of flanneld's flags with its default", async t => {
  for (const [name, value] of Object.entries(FLANNELD)) {
    const flag = flags.find(flag => flag.name === name);
    t.same(flag?.default, value, name);
    t.equal(flag?.origin, 'flannel', `${name} is marked as flanneld's`);
  }
  const ours = flags.filter(flag => flag.origin === 'tulle').map(flag => flag.name);
  t.same(
    flags.map(flag => flag.name).filter(name => !(name in FLANNELD)),
    ours,
    'what is not flanneld is marked as ours',
  );
});

t.test('each flag has a help text and an example that names it', async t => {
  for (const flag of flags) {
    t.match(flag.help, /^[a-zA-Z].*[^.]$/, `${flag.name}: a phrase without a full stop`);
    t.ok(flag.example.includes(`-${flag.name}`), `${flag.name}: ${flag.example}`);
    t.equal(flag.kind === 'boolean', flag.value === '', `${flag.name}: a placeholder unless it is a boolean`);
  }
});

t.test('the environment variable of a flag', async t => {
  t.equal(environmentName({ name: 'iface', ...flagTable.iface }), 'FLANNELD_IFACE');
  t.equal(environmentName({ name: 'etcd-ca-file', origin: 'flannel' }), 'FLANNELD_ETCD_CA_FILE');
  t.equal(environmentName({ name: 'log_backtrace_at', origin: 'flannel' }), 'FLANNELD_LOG_BACKTRACE_AT');
  t.equal(environmentName({ name: 'node-id', origin: 'tulle' }), 'TULLED_NODE_ID');
});
