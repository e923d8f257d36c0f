/** What `tulle doctor` can find. Every code has a section in docs/doctor.md; a test compares. */

/** 'error': an overlay cannot work so; 'warning': it works, but not as it could; 'note': good to know. */
export type Severity = 'error' | 'warning' | 'note';

interface Kind {
  severity: Severity;
  /** Which of CHECKS it belongs to. */
  check: Check;
  /** What to do, one line. */
  advice: string;
}

/** What is looked at, in order, with the words for "all well". */
export const CHECKS = {
  machine: 'the machine: Node.js, permissions, namespaces',
  tun: 'the TUN device and its offloads',
  udp: 'UDP trains in and out of the kernel',
  links: 'veth and bridge',
  rules: 'nftables and iptables',
  routing: 'forwarding and rp_filter',
  mtu: 'the MTU',
  ports: 'the data port',
  clock: 'the clock',
  others: 'other overlays',
  daemon: 'the running tulled',
  peers: 'the underlay to the peers',
} as const;

export type Check = keyof typeof CHECKS;

export const FINDINGS = {
  'node-too-old': { severity: 'error', check: 'machine', advice: 'install Node.js 20 or newer' },
  'not-root': {
    severity: 'warning',
    check: 'machine',
    advice: 'run "tulle doctor" as root: without it, what needs permission was not tried',
  },
  'no-namespaces': {
    severity: 'warning',
    check: 'machine',
    advice: 'a container needs CAP_SYS_ADMIN for the lab; what is tried in a namespace of its own was not tried',
  },
  'user-namespaces-off': {
    severity: 'note',
    check: 'machine',
    advice: 'only the lab without root needs them: "sysctl user.max_user_namespaces=15000" and what the line names',
  },
  'tun-missing': {
    severity: 'error',
    check: 'tun',
    advice: '"modprobe tun"; in a container, pass /dev/net/tun in (docker run --device /dev/net/tun)',
  },
  'tun-denied': {
    severity: 'error',
    check: 'tun',
    advice: 'run tulled as root, or give it CAP_NET_ADMIN and let its user open /dev/net/tun',
  },
  'offload-missing': {
    severity: 'note',
    check: 'tun',
    advice: 'nothing: tulled does without it, slower; newer kernels have it (checksum and tso always, uso since 6.2)',
  },
  'udp-trains-missing': {
    severity: 'warning',
    check: 'udp',
    advice: 'nothing: tulled sends datagrams one by one, slower; Linux has trains since 4.18',
  },
  'udp-gro-missing': {
    severity: 'warning',
    check: 'udp',
    advice: 'nothing: tulled receives datagrams one by one, slower; Linux has UDP_GRO since 5.0',
  },
  'veth-missing': {
    severity: 'error',
    check: 'links',
    advice: '"modprobe veth": without it no pod can be attached; the overlay itself works',
  },
  'bridge-missing': {
    severity: 'warning',
    check: 'links',
    advice: '"modprobe bridge", or use "mode": "ptp" in the CNI configuration',
  },
  'bridge-netfilter-missing': {
    severity: 'warning',
    check: 'links',
    advice: 'where there are Services, "modprobe br_netfilter", or use "mode": "ptp" in the CNI configuration',
  },
  'bridge-netfilter-off': {
    severity: 'note',
    check: 'links',
    advice: 'nothing: tulled switches it on with the next pod on a bridge; find what switches it off where this stays',
  },
  'no-rule-tool': {
    severity: 'warning',
    check: 'rules',
    advice: 'install nftables, or iptables: only then can -ip-masq and ipMasq do anything',
  },
  'nftables-missing': {
    severity: 'note',
    check: 'rules',
    advice: 'nothing: iptables are used instead; "apt-get install nftables" for the newer way',
  },
  'forwarding-off': {
    severity: 'note',
    check: 'routing',
    advice: 'nothing before tulled starts: it switches it on; for good "net.ipv4.ip_forward=1" in /etc/sysctl.d',
  },
  'forwarding-lost': {
    severity: 'error',
    check: 'routing',
    advice: '"sysctl -w net.ipv4.ip_forward=1", and find what switches it off (often a file in /etc/sysctl.d)',
  },
  'rp-filter-strict': {
    severity: 'note',
    check: 'routing',
    advice: 'nothing where each address is reached by one link; else "sysctl -w net.ipv4.conf.all.rp_filter=2"',
  },
  'no-underlay': {
    severity: 'error',
    check: 'mtu',
    advice: 'name the link with -iface: the choice follows flanneld, see "tulled --help"',
  },
  'underlay-down': { severity: 'error', check: 'mtu', advice: '"ip link set LINK up", and look at the cable' },
  'mtu-too-small': {
    severity: 'error',
    check: 'mtu',
    advice: 'raise the MTU of the link: IPv4 pods need 576 bytes and the overhead, IPv6 pods 1280',
  },
  'mtu-below-1500': {
    severity: 'note',
    check: 'mtu',
    advice: 'nothing: pods get a smaller MTU; they reach everything that heeds ICMP',
  },
  'overlay-mtu-too-big': {
    severity: 'error',
    check: 'mtu',
    advice: 'somebody set the MTU of the device by hand: "ip link set DEVICE mtu …", or restart tulled',
  },
  'port-taken': {
    severity: 'error',
    check: 'ports',
    advice: 'stop that program (often flanneld), or give the net-conf another Backend.Port',
  },
  'port-held': {
    severity: 'note',
    check: 'ports',
    advice: 'run "tulle doctor" as root to see whose it is: that of a running tulled is as it should be',
  },
  'clock-wrong': {
    severity: 'error',
    check: 'clock',
    advice: 'set the clock and run an NTP client: certificates and the expiry of file leases are measured by it',
  },
  'clock-jumps': {
    severity: 'warning',
    check: 'clock',
    advice:
      'look at the NTP client and the hypervisor: deadlines use the monotonic clock and hold, times in logs do not',
  },
  'clock-unsynchronised': {
    severity: 'note',
    check: 'clock',
    advice: 'run an NTP client if several machines share a file registry, or for logs that can be compared',
  },
  'overlay-remains': {
    severity: 'warning',
    check: 'others',
    advice: 'if that overlay is gone for good, "ip link delete LINK"; if it is not, give each its own network',
  },
  'route-conflict': {
    severity: 'error',
    check: 'others',
    advice: 'two networks overlap: choose another Network in the net-conf, or remove the route',
  },
  'no-daemon': {
    severity: 'note',
    check: 'daemon',
    advice: 'start tulled; or, if it runs elsewhere, give its --control-socket with --socket',
  },
  'daemon-denied': {
    severity: 'note',
    check: 'daemon',
    advice: 'run "tulle doctor" as root, or as the user that tulled runs as: what it knows was not looked at',
  },
  'daemon-unwell': { severity: 'error', check: 'daemon', advice: '"tulle status" has the whole of it' },
  'registry-unreachable': {
    severity: 'error',
    check: 'peers',
    advice: 'start the registry, or give the flags that tulled is given: without it no node gets or keeps a lease',
  },
  'no-peers': {
    severity: 'note',
    check: 'peers',
    advice:
      'start tulled on other nodes with the same registry; without a daemon here, name the registry with -registry',
  },
  'peer-unreachable': {
    severity: 'error',
    check: 'peers',
    advice: 'the underlay between the two is broken: routes, cables, that machine itself',
  },
  'peer-silent': {
    severity: 'error',
    check: 'peers',
    advice:
      'the machine is there but its tulled is not heard: let UDP on the data port through both firewalls, start it',
  },
  'peer-port-closed': {
    severity: 'error',
    check: 'peers',
    advice: 'start tulled there; a lease without its daemon ends with its TTL',
  },
  'peer-lossy': {
    severity: 'warning',
    check: 'peers',
    advice: 'look at the links between the two: TCP suffers from one lost packet in a hundred',
  },
  'path-narrow': {
    severity: 'warning',
    check: 'peers',
    advice: 'something on the way has a smaller MTU: raise it; meanwhile senders are told, which costs a little',
  },
  'peer-unprovable': {
    severity: 'note',
    check: 'peers',
    advice:
      "start tulled here: only from a leaseholder's endpoint does a peer answer, so nothing else proves the port open",
  },
  'no-echo': {
    severity: 'note',
    check: 'peers',
    advice:
      'nothing where a firewall drops ICMP echo; path MTU discovery needs other ICMP, which should not be dropped',
  },
  'echo-untried': {
    severity: 'note',
    check: 'peers',
    advice: 'run as root for ICMP echo; the optional npm package raw-socket or our own raw sockets do it',
  },
} as const satisfies Record<string, Kind>;

export type FindingCode = keyof typeof FINDINGS;

export interface Finding {
  code: FindingCode;
  severity: Severity;
  check: Check;
  /** What was found, one line. */
  text: string;
  /** What to do, one line. */
  advice: string;
}

export function finding(code: FindingCode, text: string): Finding {
  return { code, ...FINDINGS[code], text };
}
