/**
 * Every flag of tulled, as data: the parser, the help text and the environment variables are all derived from this one
 * table. flanneld's flags come first, with flanneld's names, kinds and defaults (its main.go, init()); a flag that
 * tulled does not support yet carries the reason, and giving it another value than its default is an error, so no flag
 * is ever ignored in silence.
 */

import { DEFAULT_CONTROL_SOCKET } from '../observe/control-client.ts';

/** How a value is written and what it becomes: `repeatable` is a list of strings, `duration` is milliseconds. */
export type FlagKind = 'string' | 'boolean' | 'integer' | 'repeatable' | 'duration';

export const flagGroups = {
  registry: 'Where the leases are kept',
  lease: 'The lease of this node',
  underlay: 'The interface and address of the underlay',
  overlay: 'The overlay',
  host: 'Rules on the host',
  cni: 'Plugging pods in (CNI)',
  daemon: 'The daemon itself',
  kubernetes: 'Kubernetes',
} as const;

export type FlagGroup = keyof typeof flagGroups;

interface FlagBase {
  group: FlagGroup;
  /** Whose flag it is: flanneld's are also read from FLANNELD_…, tulle's own from TULLED_…. */
  origin: 'flannel' | 'tulle';
  /** The placeholder of the value in the help text; empty for a boolean. */
  value: string;
  help: string;
  example: string;
  /** Lowest and highest value of an integer. */
  range?: readonly [number, number];
  /** The only values that a string may have. */
  choices?: readonly string[];
  /** A duration that may also be 0. */
  zero?: true;
  /** The value is never shown, not even in an error. */
  secret?: true;
  /** Why another value than the default is refused, and what to do instead. */
  unsupported?: string;
  /** Further values that mean the same as the default, for an unsupported flag. */
  sameAsDefault?: readonly string[];
}

export type FlagSpec = FlagBase &
  (
    | { kind: 'string'; default: string }
    | { kind: 'boolean'; default: boolean }
    | { kind: 'integer' | 'duration'; default: number }
    | { kind: 'repeatable'; default: readonly string[] }
  );

const HOUR_MS = 3_600_000;

export const flagTable = {
  registry: {
    kind: 'string',
    default: 'etcd',
    group: 'registry',
    origin: 'tulle',
    value: 'etcd|kube|file:DIR',
    help: 'the registry: etcd, the nodes of a Kubernetes cluster, or a directory that all daemons of this machine share',
    example: '--registry=file:/var/lib/tulle/leases',
  },
  'etcd-endpoints': {
    kind: 'string',
    default: 'http://127.0.0.1:4001,http://127.0.0.1:2379',
    group: 'registry',
    origin: 'flannel',
    value: 'URLS',
    help: 'the etcd servers, separated by commas',
    example: '-etcd-endpoints=http://10.88.0.1:2379,http://10.88.0.2:2379',
  },
  'etcd-prefix': {
    kind: 'string',
    default: '/coreos.com/network',
    group: 'registry',
    origin: 'flannel',
    value: 'KEY',
    help: 'the etcd key under which "config" and "subnets/" lie',
    example: '-etcd-prefix=/coreos.com/network',
  },
  'etcd-cafile': {
    kind: 'string',
    default: '',
    group: 'registry',
    origin: 'flannel',
    value: 'FILE',
    help: 'the certificate authority (PEM) that signed the etcd servers; works alone or with -etcd-certfile',
    example: '-etcd-cafile=/etc/tulle/ca.pem',
  },
  'etcd-certfile': {
    kind: 'string',
    default: '',
    group: 'registry',
    origin: 'flannel',
    value: 'FILE',
    help: 'the client certificate (PEM) shown to etcd; needs -etcd-keyfile',
    example: '-etcd-certfile=/etc/tulle/client.pem',
  },
  'etcd-keyfile': {
    kind: 'string',
    default: '',
    group: 'registry',
    origin: 'flannel',
    value: 'FILE',
    help: 'the private key (PEM) of -etcd-certfile',
    example: '-etcd-keyfile=/etc/tulle/client-key.pem',
  },
  'etcd-username': {
    kind: 'string',
    default: '',
    group: 'registry',
    origin: 'flannel',
    value: 'NAME',
    help: 'the etcd user; needs -etcd-password',
    example: '-etcd-username=tulle',
  },
  'etcd-password': {
    kind: 'string',
    default: '',
    group: 'registry',
    origin: 'flannel',
    value: 'TEXT',
    secret: true,
    help: "the etcd user's password; better in the environment, where other users cannot read it",
    example: 'FLANNELD_ETCD_PASSWORD=... tulled -etcd-username=tulle -etcd-password=...',
  },
  'subnet-lease-renew-margin': {
    kind: 'integer',
    default: 60,
    range: [1, 1439],
    group: 'lease',
    origin: 'flannel',
    value: 'MINUTES',
    help: 'renew the lease this many minutes before it ends (1 to 1439)',
    example: '-subnet-lease-renew-margin=120',
  },
  'lease-ttl': {
    kind: 'duration',
    default: 24 * HOUR_MS,
    group: 'lease',
    origin: 'tulle',
    value: 'DURATION',
    help: 'how long the lease lives without a renewal',
    example: '--lease-ttl=10m',
  },
  'node-id': {
    kind: 'string',
    default: '',
    group: 'lease',
    origin: 'tulle',
    value: 'TEXT',
    help: 'the name by which this node knows its own lease again (default: derived from /etc/machine-id)',
    example: '--node-id=node1',
  },
  'release-on-exit': {
    kind: 'boolean',
    default: false,
    group: 'lease',
    origin: 'tulle',
    value: '',
    help: 'give the lease back at a clean stop; otherwise it stays and the next start gets the same subnet',
    example: '--release-on-exit',
  },
  'subnet-file': {
    kind: 'string',
    default: '/run/flannel/subnet.env',
    group: 'lease',
    origin: 'flannel',
    value: 'FILE',
    help: 'where the network, the subnet and the MTU are written for others to read',
    example: '-subnet-file=/run/tulle/subnet.env',
  },
  'state-dir': {
    kind: 'string',
    default: '',
    group: 'lease',
    origin: 'tulle',
    value: 'DIR',
    help: 'where the lease journal is kept, which "tulle lease log" reads (default: beside the -subnet-file)',
    example: '--state-dir=/var/lib/tulle',
  },
  iface: {
    kind: 'repeatable',
    default: [],
    group: 'underlay',
    origin: 'flannel',
    value: 'NAME|IP',
    help: 'the interface to use, by name or address; repeat it to name others to try, the first that fits wins',
    example: '-iface=eth0 -iface=10.88.0.1',
  },
  'iface-regex': {
    kind: 'repeatable',
    default: [],
    group: 'underlay',
    origin: 'flannel',
    value: 'REGEX',
    help: 'the interface whose address, else whose name, matches; tried after all -iface; may be repeated',
    example: "-iface-regex='^10\\.88\\.'",
  },
  'iface-can-reach': {
    kind: 'string',
    default: '',
    group: 'underlay',
    origin: 'flannel',
    value: 'IP',
    help: 'the interface by which the kernel would send to this address',
    example: '-iface-can-reach=10.88.0.254',
  },
  'public-ip': {
    kind: 'string',
    default: '',
    group: 'underlay',
    origin: 'flannel',
    value: 'IP',
    help: "the address that other nodes send to (default: the interface's)",
    example: '-public-ip=192.0.2.10',
  },
  'public-ipv6': {
    kind: 'string',
    default: '',
    group: 'underlay',
    origin: 'flannel',
    value: 'IP',
    help: "the IPv6 address that other nodes send to (default: the interface's)",
    example: '-public-ipv6=2001:db8::10',
  },
  transport: {
    kind: 'string',
    default: 'offload',
    choices: ['offload', 'batch', 'dgram'],
    group: 'overlay',
    origin: 'tulle',
    value: 'offload|batch|dgram',
    help: 'how packets are moved: trains and kernel offloads, batched system calls, or one packet a time',
    example: '--transport=batch',
  },
  'probe-interval': {
    kind: 'duration',
    default: 5_000,
    zero: true,
    group: 'overlay',
    origin: 'tulle',
    value: 'DURATION',
    help: 'how often each peer is asked whether it is there, how far away, and how wide the way is; 0 is never',
    example: '--probe-interval=1s',
  },
  'without-offload': {
    kind: 'repeatable',
    default: [],
    group: 'overlay',
    origin: 'tulle',
    value: 'NAME',
    help: 'do without checksum, tso, uso, trains, gro or coalescing: to learn what it buys, or where the kernel is broken (repeatable)',
    example: '--without-offload=tso --without-offload=uso',
  },
  device: {
    kind: 'string',
    default: '',
    group: 'overlay',
    origin: 'tulle',
    value: 'NAME',
    help: 'the name of the TUN device, %d is a free number (default: tulle%d; flannel%d in a network of Backend "udp")',
    example: '--device=tulle%d',
  },
  'ip-masq': {
    kind: 'boolean',
    default: false,
    group: 'host',
    origin: 'flannel',
    value: '',
    help: "what pods send to the outside gets this node's address (masquerade)",
    example: '-ip-masq',
  },
  'ip-masq-fully-random-disable': {
    kind: 'boolean',
    default: false,
    group: 'host',
    origin: 'flannel',
    value: '',
    help: 'masquerade from the ports that the pods chose, where they are free, instead of random ones',
    example: '-ip-masq -ip-masq-fully-random-disable',
  },
  'iptables-forward-rules': {
    kind: 'boolean',
    default: true,
    group: 'host',
    origin: 'flannel',
    value: '',
    help: "accept what is forwarded from and to pods in iptables' FORWARD, which others such as docker let drop by policy",
    example: '-iptables-forward-rules=false',
  },
  'iptables-resync': {
    kind: 'integer',
    default: 5,
    range: [1, 86_400],
    group: 'host',
    origin: 'flannel',
    value: 'SECONDS',
    help: 'look at the rules at least this often, and make again what somebody flushed',
    example: '-iptables-resync=10',
  },
  'remove-rules-on-exit': {
    kind: 'boolean',
    default: false,
    group: 'host',
    origin: 'tulle',
    value: '',
    help: 'remove the rules at a clean stop; otherwise they stay, as those of flanneld do',
    example: '-ip-masq --remove-rules-on-exit',
  },
  'ip-blackhole-route': {
    kind: 'boolean',
    default: false,
    group: 'host',
    origin: 'flannel',
    value: '',
    unsupported: 'the blackhole route is not supported yet; add it yourself with "ip route add blackhole SUBNET"',
    help: "a blackhole route for this node's subnet, for addresses that no pod has",
    example: '-ip-blackhole-route=false',
  },
  'cni-socket': {
    kind: 'string',
    default: '/run/tulle/cni.sock',
    group: 'cni',
    origin: 'tulle',
    value: 'PATH',
    help: 'the Unix socket on which the CNI plugin, tulle-cni, is served; "none" is none',
    example: '--cni-socket=/run/tulle/node1.sock',
  },
  'cni-data-dir': {
    kind: 'string',
    default: '',
    group: 'cni',
    origin: 'tulle',
    value: 'DIR',
    help: 'where it is kept which pod has which address (default: /var/lib/tulle/cni; with another socket SOCKET.state)',
    example: '--cni-data-dir=/var/lib/tulle/cni',
  },
  'cni-only': {
    kind: 'boolean',
    default: false,
    group: 'cni',
    origin: 'tulle',
    value: '',
    help: 'serve the CNI plugin and nothing else: no lease and no overlay, the subnets are those of the configurations',
    example: '--cni-only --cni-socket=/tmp/cni.sock',
  },
  'control-socket': {
    kind: 'string',
    default: DEFAULT_CONTROL_SOCKET,
    group: 'daemon',
    origin: 'tulle',
    value: 'PATH',
    help: 'the Unix socket on which "tulle status" and the like ask this daemon; "none" is none',
    example: '--control-socket=/run/tulle/node1-tulled.sock',
  },
  ui: {
    kind: 'string',
    default: '',
    group: 'daemon',
    origin: 'tulle',
    value: 'ADDR:PORT',
    help: 'serve the live page there; its address, with the token that it needs, is printed at the start (default: none)',
    example: '--ui=127.0.0.1:8286',
  },
  'healthz-ip': {
    kind: 'string',
    default: '0.0.0.0',
    group: 'daemon',
    origin: 'flannel',
    value: 'IP',
    help: 'the address of the health endpoint',
    example: '-healthz-ip=127.0.0.1',
  },
  'healthz-port': {
    kind: 'integer',
    default: 0,
    range: [0, 65_535],
    group: 'daemon',
    origin: 'flannel',
    value: 'PORT',
    help: 'the port of the health endpoint (/healthz, /readyz and /metrics); 0 is none',
    example: '-healthz-port=8081',
  },
  v: {
    kind: 'integer',
    default: 0,
    range: [0, 10],
    group: 'daemon',
    origin: 'flannel',
    value: 'LEVEL',
    help: 'how much to log: 0 what matters, 1 every step, 2 also the stack of every error',
    example: '-v=1',
  },
  'log-format': {
    kind: 'string',
    default: 'text',
    choices: ['text', 'json'],
    group: 'daemon',
    origin: 'tulle',
    value: 'text|json',
    help: 'the log on stderr: lines for people, or one JSON object a line',
    example: '--log-format=json',
  },
  vmodule: {
    kind: 'string',
    default: '',
    group: 'daemon',
    origin: 'flannel',
    value: 'TEXT',
    unsupported: 'a log level for each source file is not supported; use -v=LEVEL',
    help: "klog's log level for each source file",
    example: '-vmodule=',
  },
  log_backtrace_at: {
    kind: 'string',
    default: '',
    sameAsDefault: [':0'],
    group: 'daemon',
    origin: 'flannel',
    value: 'FILE:LINE',
    unsupported: 'a stack trace at one line of the source is not supported; use -v=2 for the stack of every error',
    help: "klog's stack trace at one line of the source",
    example: '-log_backtrace_at=:0',
  },
  version: {
    kind: 'boolean',
    default: false,
    group: 'daemon',
    origin: 'flannel',
    value: '',
    help: 'print the version and exit',
    example: '--version',
  },
  help: {
    kind: 'boolean',
    default: false,
    group: 'daemon',
    origin: 'tulle',
    value: '',
    help: 'print this help and exit',
    example: '--help',
  },
  'kube-subnet-mgr': {
    kind: 'boolean',
    default: false,
    group: 'kubernetes',
    origin: 'flannel',
    value: '',
    help: 'take the subnets from the nodes of a cluster: the same as --registry=kube',
    example: 'NODE_NAME=node1 tulled -kube-subnet-mgr -kubeconfig-file=/etc/tulle/kubeconfig',
  },
  'kubeconfig-file': {
    kind: 'string',
    default: '',
    group: 'kubernetes',
    origin: 'flannel',
    value: 'FILE',
    help: "where the API server is and who we are (default: the service account's, in a pod)",
    example: '-kubeconfig-file=/etc/tulle/kubeconfig',
  },
  'kube-api-url': {
    kind: 'string',
    default: '',
    group: 'kubernetes',
    origin: 'flannel',
    value: 'URL',
    help: 'the API server, whatever the kubeconfig says; without a kubeconfig we are nobody there',
    example: '-kube-api-url=https://10.88.0.1:6443',
  },
  'net-config-path': {
    kind: 'string',
    default: '/etc/kube-flannel/net-conf.json',
    group: 'kubernetes',
    origin: 'flannel',
    value: 'FILE',
    help: 'the net-conf, as a ConfigMap is mounted; its SubnetLen, SubnetMin and SubnetMax mean nothing here',
    example: '-net-config-path=/etc/kube-flannel/net-conf.json',
  },
  'kube-annotation-prefix': {
    kind: 'string',
    default: 'flannel.alpha.coreos.com',
    group: 'kubernetes',
    origin: 'flannel',
    value: 'TEXT',
    help: "the prefix of the nodes' annotations, the same on all nodes",
    example: '-kube-annotation-prefix=example.org/tulle',
  },
  'set-node-network-unavailable': {
    kind: 'boolean',
    default: true,
    group: 'kubernetes',
    origin: 'flannel',
    value: '',
    help: "set the node's condition NetworkUnavailable to False once this node carries packets",
    example: '-set-node-network-unavailable=false',
  },
} as const satisfies Record<string, FlagSpec>;

export type FlagName = keyof typeof flagTable;

type ValueOf<K> = K extends 'boolean'
  ? boolean
  : K extends 'string'
    ? string
    : K extends 'repeatable'
      ? string[]
      : number;

/** A value for each flag, typed by its kind. */
export type FlagValues = { [N in FlagName]: ValueOf<(typeof flagTable)[N]['kind']> };

/** The table as a list, in the order of the help text. */
export const flags: readonly (FlagSpec & { name: FlagName })[] = Object.entries(flagTable).map(([name, spec]) => ({
  ...(spec as FlagSpec),
  name: name as FlagName,
}));

/** flanneld's rule for the variable of a flag: the prefix, upper case, '-' becomes '_'. */
export function environmentName(flag: { name: string; origin: 'flannel' | 'tulle' }): string {
  const prefix = flag.origin === 'flannel' ? 'FLANNELD_' : 'TULLED_';
  return prefix + flag.name.toUpperCase().replaceAll('-', '_');
}
