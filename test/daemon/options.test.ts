import t from 'tap';
import { daemonOptions } from '../../lib/daemon/options.ts';
import { parseFlags } from '../../lib/daemon/parse-flags.ts';

const options = (args: string[], environment: Record<string, string> = {}) =>
  daemonOptions(parseFlags(args, environment));

t.test('the defaults', async t => {
  t.same(options([]), {
    registry: {
      kind: 'etcd',
      endpoints: ['http://127.0.0.1:4001', 'http://127.0.0.1:2379'],
      prefix: '/coreos.com/network',
    },
    interface: { iface: [], ifaceRegex: [] },
    subnetFile: '/run/flannel/subnet.env',
    journalFile: '/run/flannel/subnet.journal',
    leaseTtlSeconds: 86_400,
    renewMarginSeconds: 3600,
    releaseOnExit: false,
    transport: 'offload',
    withoutOffloads: [],
    probeIntervalMs: 5_000,
    cni: { socket: '/run/tulle/cni.sock', given: false, dataDir: '/var/lib/tulle/cni' },
    control: { socket: '/run/tulle/tulled.sock', given: false },
    cniOnly: false,
    rules: { masquerade: false, randomFully: true, forward: true, resyncSeconds: 5, removeOnExit: false },
    log: { format: 'text', verbosity: 0, secrets: [] },
  });
});

t.test('the live page', async t => {
  const ui = (text: string) => options([`--ui=${text}`]).ui;
  t.same(ui('127.0.0.1:8286'), { address: '127.0.0.1', port: 8286 });
  t.same(ui('[::1]:8286'), { address: '::1', port: 8286 });
  t.same(ui('8286'), { address: '127.0.0.1', port: 8286 }, 'loopback, unless it is told otherwise');
  t.equal(ui(''), undefined);
  for (const text of ['localhost:80', '1.2.3:80', '127.0.0.1:', '127.0.0.1:0', '127.0.0.1:65536', '::1:80', 'x'])
    t.throws(() => ui(text), { code: 'bad-option', message: /127\.0\.0\.1:8286/ }, text);
});

t.test('the nodes of a cluster', async t => {
  const usual = {
    kind: 'kubernetes',
    annotationPrefix: 'flannel.alpha.coreos.com',
    netConfigPath: '/etc/kube-flannel/net-conf.json',
    setNetworkUnavailable: true,
  };
  t.same(options(['-kube-subnet-mgr']).registry, usual, "flannel's switch");
  t.same(options(['--registry=kube']).registry, usual, 'the same');
  t.same(options([], { FLANNELD_KUBE_SUBNET_MGR: 'true' }).registry, usual);
  t.same(
    options([
      '-kube-subnet-mgr',
      '-kubeconfig-file=/etc/kubeconfig',
      '-kube-api-url=https://10.88.0.1:6443',
      '-kube-annotation-prefix=example.org/net',
      '-net-config-path=/etc/net-conf.json',
      '-set-node-network-unavailable=false',
    ]).registry,
    {
      kind: 'kubernetes',
      kubeconfigFile: '/etc/kubeconfig',
      apiUrl: 'https://10.88.0.1:6443',
      annotationPrefix: 'example.org/net',
      netConfigPath: '/etc/net-conf.json',
      setNetworkUnavailable: false,
    },
  );
  const refused: [string[], RegExp][] = [
    [['-kube-subnet-mgr', '--registry=file:/x'], /^-kube-subnet-mgr: --registry=file:\/x says something else/],
    [['-kube-subnet-mgr', '-etcd-prefix=/x'], /^-etcd-prefix: it has no meaning with Kubernetes/],
    [['-kube-subnet-mgr', '--node-id=x'], /^-node-id: .*NODE_NAME/],
    [['-kube-subnet-mgr', '--release-on-exit'], /^-release-on-exit: /],
    [['-kube-subnet-mgr', '-kube-annotation-prefix=x'], /^-kube-annotation-prefix: "x" is no prefix/],
    [['-net-config-path=/x'], /^-net-config-path: .*give -kube-subnet-mgr too/],
    [['-set-node-network-unavailable=false'], /^-set-node-network-unavailable: /],
  ];
  for (const [args, message] of refused) t.throws(() => options(args), { code: 'bad-option', message }, args.join(' '));
  t.equal(
    options(['-kube-subnet-mgr=false', '-net-config-path=/etc/kube-flannel/net-conf.json']).registry.kind,
    'etcd',
  );
});

t.test('how often peers are probed', async t => {
  t.equal(options(['--probe-interval=250ms']).probeIntervalMs, 250);
  t.equal(options(['--probe-interval=0']).probeIntervalMs, 0, 'never');
  t.equal(options([], { TULLED_PROBE_INTERVAL: '0s' }).probeIntervalMs, 0);
  t.throws(() => options(['--probe-interval=99ms']), {
    message: /^-probe-interval: it must be from 100ms to 1h, or 0/,
  });
  t.throws(() => options(['--probe-interval=61m']), { code: 'bad-option' });
  t.throws(() => options(['--lease-ttl=0']), { code: 'bad-flag' }, 'a lease of no time is none');
});

t.test('where CNI is served', async t => {
  const cni = (...args: string[]) => {
    const { cni, cniOnly } = options(args);
    return { cni, cniOnly };
  };
  for (const none of ['', 'none']) t.same(cni(`-cni-socket=${none}`), { cni: undefined, cniOnly: false }, 'nowhere');
  t.same(cni('-cni-socket=/x/../y.sock'), {
    cni: { socket: '/y.sock', given: true, dataDir: '/y.sock.state' },
    cniOnly: false,
  });
  t.same(cni('-cni-only', '-cni-data-dir=/d'), {
    cni: { socket: '/run/tulle/cni.sock', given: true, dataDir: '/d' },
    cniOnly: true,
  });
  t.throws(() => cni('-cni-only', '-cni-socket='), { message: /^-cni-only: there is nothing to serve/ });
  t.throws(() => cni(`-cni-socket=/${'x'.repeat(107)}`), { message: /^-cni-socket: .* longer than 107 bytes/ });
});

t.test('where control is served', async t => {
  const control = (...args: string[]) => options(args).control;
  t.equal(control('-control-socket='), undefined, 'nowhere');
  t.equal(control('-control-socket=none'), undefined, 'nowhere');
  t.same(control('-control-socket=/x/../y.sock'), { socket: '/y.sock', given: true });
  t.throws(() => control(`-control-socket=/${'x'.repeat(107)}`), { message: /^-control-socket: .* 107 bytes/ });
});

t.test('everything given', async t => {
  const args = [
    '-etcd-endpoints=https://10.0.0.1:2379, https://[fd00::1]:2379',
    '-etcd-prefix=/other/',
    '-etcd-cafile=/ca',
    '-etcd-certfile=/cert',
    '-etcd-keyfile=/key',
    '-etcd-username=user',
    '-iface=eth0',
    '-iface-regex=^eth',
    '-iface-can-reach=10.0.0.9',
    '-public-ip=192.0.2.1',
    '-subnet-file=/x/subnet.env',
    '-subnet-lease-renew-margin=30',
    '-lease-ttl=2h',
    '-node-id=node1',
    '-release-on-exit',
    '-transport=dgram',
    '-device=pod%d',
    '-ip-masq',
    '-ip-masq-fully-random-disable',
    '-iptables-forward-rules=false',
    '-iptables-resync=9',
    '-remove-rules-on-exit',
    '-healthz-ip=127.0.0.1',
    '-healthz-port=8081',
    '-probe-interval=750ms',
    '-v=2',
    '-log-format=json',
  ];
  t.same(options(args, { FLANNELD_ETCD_PASSWORD: 'hunter22' }), {
    registry: {
      kind: 'etcd',
      endpoints: ['https://10.0.0.1:2379', 'https://[fd00::1]:2379'],
      prefix: '/other',
      caFile: '/ca',
      certFile: '/cert',
      keyFile: '/key',
      username: 'user',
      password: 'hunter22',
    },
    interface: { iface: ['eth0'], ifaceRegex: ['^eth'], ifaceCanReach: '10.0.0.9', publicIp: '192.0.2.1' },
    subnetFile: '/x/subnet.env',
    journalFile: '/x/subnet.journal',
    leaseTtlSeconds: 7200,
    renewMarginSeconds: 1800,
    releaseOnExit: true,
    nodeId: 'node1',
    transport: 'dgram',
    withoutOffloads: [],
    probeIntervalMs: 750,
    deviceName: 'pod%d',
    cni: { socket: '/run/tulle/cni.sock', given: false, dataDir: '/var/lib/tulle/cni' },
    control: { socket: '/run/tulle/tulled.sock', given: false },
    cniOnly: false,
    rules: { masquerade: true, randomFully: false, forward: false, resyncSeconds: 9, removeOnExit: true },
    health: { address: '127.0.0.1', port: 8081 },
    log: { format: 'json', verbosity: 2, secrets: ['hunter22'] },
  });
});

t.test('a file registry; relative names are of this directory', async t => {
  t.same(options(['--registry=file:/var/lib/x']).registry, { kind: 'file', directory: '/var/lib/x' });
  t.same(options(['--registry', 'file:leases']).registry, { kind: 'file', directory: `${process.cwd()}/leases` });
});

t.test('an endpoint may lack scheme and port, as with flanneld', async t => {
  const { registry } = options(['-etcd-endpoints=10.0.0.1:2379,etcd']);
  t.same(registry.kind === 'etcd' && registry.endpoints, ['http://10.0.0.1:2379', 'http://etcd:2379']);
});

t.test('a short TTL is renewed after a third of it', async t => {
  const { leaseTtlSeconds, renewMarginSeconds } = options(['-lease-ttl=30s']);
  t.equal(leaseTtlSeconds, 30);
  t.equal(renewMarginSeconds, 20);
  t.equal(options(['-lease-ttl=61m']).renewMarginSeconds, 3600, 'the default margin, where it fits');
});

t.test('bad input is one line that begins with the flag', async t => {
  const table: [string[], RegExp][] = [
    [['-registry=consul'], /^-registry: "consul" is none of "etcd", "kube" and "file:DIR"$/],
    [['-registry=file:'], /^-registry: /],
    [['-registry=file:/x', '-etcd-prefix=/y'], /^-etcd-prefix: it has no meaning with a file registry/],
    [['-etcd-endpoints='], /^-etcd-endpoints: etcd endpoint 1 of 1 is not of the form http:/],
    [['-etcd-endpoints=ftp://x:1'], /is not of the form/],
    [['-etcd-endpoints=http://a:1,'], /endpoint 2 of 2/],
    [['-etcd-endpoints=http://a:99999'], /is not of the form/],
    [['-etcd-endpoints=http://a:1/v3'], /is not of the form/],
    [['-etcd-endpoints=http://a:1,https://b:1'], /make them the same/],
    [['-etcd-prefix=x'], /^-etcd-prefix: "x" is not a key/],
    [['-etcd-prefix=/'], /is not a key/],
    [['-etcd-certfile=/x'], /^-etcd-certfile: it needs -etcd-keyfile too$/],
    [['-etcd-keyfile=/x'], /^-etcd-keyfile: it needs -etcd-certfile too$/],
    [['-etcd-username=x'], /^-etcd-username: it needs -etcd-password too$/],
    [['-etcd-password=x'], /^-etcd-password: it needs -etcd-username too$/],
    [['-etcd-cafile=/x'], /^-etcd-cafile: TLS needs endpoints that begin with https/],
    [['-iface='], /^-iface: the name is empty$/],
    [['-iface-can-reach=example.org'], /^-iface-can-reach: "example.org" is not an IP address$/],
    [['-public-ip=1.2.3'], /^-public-ip: "1.2.3" is not an IPv4 address/],
    [['-public-ip=127.0.0.1'], /no other node can send to 127.0.0.1/],
    [['-public-ip=0.0.0.0'], /no other node can send/],
    [['-public-ip=224.0.0.1'], /no other node can send/],
    [['-subnet-file='], /^-subnet-file: the name of the file is empty$/],
    [['-subnet-lease-renew-margin=60', '-lease-ttl=1h'], /^-subnet-lease-renew-margin: the lease lives only 3600 s/],
    [['-lease-ttl=2s'], /^-lease-ttl: it must be at least 3s/],
    [['-node-id=a b'], /^-node-id: "a b" is not 1 to 64/],
    [['-device=a/b'], /^-device: "a\/b" is not a device name/],
    [['-device=%d%d'], /is not a device name/],
    [['-device=%s'], /is not a device name/],
    [['-device=.'], /is not a device name/],
    [['-device=sixteen-letters-'], /is not a device name/],
    [['-healthz-port=1', '-healthz-ip=localhost'], /^-healthz-ip: "localhost" is not an IP address$/],
  ];
  for (const [args, message] of table) t.throws(() => options(args), { code: 'bad-option', message }, args.join(' '));
  const fromEnvironment = () => options([], { FLANNELD_PUBLIC_IP: 'x' });
  t.throws(fromEnvironment, { message: /^FLANNELD_PUBLIC_IP: "x" is not/ }, 'the variable is named when it was one');
});

t.test('a password in a URL is refused and not repeated', async t => {
  const message = t.throws(() => options(['-etcd-endpoints=http://me:hunter22@a:1'])) as unknown as Error;
  t.match(message.message, /use -etcd-username and -etcd-password/);
  t.notMatch(message.message, /hunter22/);
});
