// The status document, from what a daemon knows, and its printed form.
import t from 'tap';
import { FORMAT_BARE } from '../../lib/datapath/slab.ts';
import { type StatusInput, statusDocument } from '../../lib/observe/status.ts';
import { duration, printStatus } from '../../lib/observe/status-print.ts';
import { statusInput } from './status-input.ts';

const input = statusInput();
const document = (changes: Partial<StatusInput> = {}) => statusDocument({ ...statusInput(), ...changes });
const lease = (changes: object): StatusInput['lease'] => input.lease && { ...input.lease, ...changes };
const overlay = (changes: object): StatusInput['overlay'] => input.overlay && { ...input.overlay, ...changes };
const codes = (changes: Partial<StatusInput>): string[] => document(changes).problems.map(({ code }) => code);

t.test('a node that is well', async t => {
  t.match(document(), {
    node: 'node1',
    healthy: true,
    ready: true,
    problems: [],
    lease: {
      subnet: '10.5.1.0/24',
      key: '000000ff',
      revision: 300,
      secondsLeft: 3000,
      renewedSecondsAgo: 600,
      fenced: false,
      reservation: false,
    },
    registry: { kind: 'etcd', healthy: true, reason: null },
    peers: [
      {
        subnet: '10.5.2.0/24',
        node: 'node2',
        endpoint: '10.88.0.2:8285',
        format: 'tulle',
        leaseKey: '000000fe',
        rttMs: 0.5,
        lossPct: 5,
        lastHeardMs: 800,
        pathMtu: 1500,
        silent: false,
      },
    ],
    cni: { calls: { ADD: { ok: 3 } }, running: 1, waiting: 0 },
  });
  t.same(JSON.parse(JSON.stringify(document())), document(), 'it survives JSON');
});

t.test('each trouble has its code', async t => {
  t.same(codes({ waitingFor: 'a lease' }), ['not-ready']);
  t.same(codes({ lease: lease({ fenced: true, deadlineInMs: -1 }), waitingFor: 'the lease to be renewed' }), [
    'fenced',
  ]);
  t.same(codes({ lease: lease({ trouble: { reason: 'read-only', forMs: 2000 } }) }), ['renewal']);
  t.same(codes({ overlay: overlay({ running: false }) }), ['data-path']);
  t.same(codes({ overlay: overlay({ underlayError: 'ENETDOWN' }) }), ['underlay']);
  t.same(codes({ rules: { masquerade: 'none', forward: 'off', degraded: 'no tool' } }), ['rules']);
  const sick = { healthy: false, reason: 'no answer', forMs: 1000 };
  const registry = input.registry && { ...input.registry, health: sick };
  t.same(codes({ registry }), ['registry']);
  const both = { registry, lease: lease({ trouble: { reason: 'no answer', forMs: 900 } }) };
  t.same(codes(both), ['registry'], 'one trouble is told once');
  for (const changes of [{ waitingFor: 'x' }, { registry }, both]) t.equal(document(changes).healthy, false);

  const silent = document({
    measureOf: () => ({ rttMs: null, lossPct: 100, lastHeardMs: null, pathMtu: null, silent: true }),
  });
  t.match(silent, { healthy: true, problems: [{ code: 'silent-peer', severity: 'warning' }] });
});

t.test('before the lease, with a reservation, with a peer of another kind', async t => {
  const early = document({ lease: undefined, overlay: undefined, rates: undefined });
  t.match(early, { lease: { subnet: null, fenced: false, secondsLeft: null }, overlay: null, peers: [], drops: {} });
  const held = input.lease?.lease;
  const reserved = document({
    lease: lease({ deadlineInMs: Number.POSITIVE_INFINITY, lease: held && { ...held, expiresAtMs: null } }),
  });
  t.match(reserved.lease, { reservation: true, secondsLeft: null, fenced: false });
  t.match(printStatus(reserved), /a reservation: it does not end/);
  const ofCluster = { ...reserved, registry: { ...reserved.registry, kind: 'kube' as const } };
  t.match(printStatus(ofCluster), /this Node's pod CIDR: it does not end/);
  const six = new Uint8Array(16);
  six.set([0xfd, 0, 0, 0], 0);
  six[15] = 2;
  const [entry] = input.overlay?.peers ?? [];
  const peer = entry && { ...entry.peer, address: six, format: FORMAT_BARE };
  const other = document({ overlay: overlay({ peers: [{ peer, pathMtu: 1280 }] }), measureOf: () => undefined });
  t.match(other.peers, [{ endpoint: '[fd00::2]:8285', format: 'bare', rttMs: null, lossPct: null, pathMtu: 1280 }]);
});

t.test('peers stand in the order of their subnets', async t => {
  const [entry] = input.overlay?.peers ?? [];
  const at = (third: number) =>
    entry && { ...entry, peer: { ...entry.peer, subnet: { address: 0x0a050000 + third * 256, prefixLength: 24 } } };
  const many = document({ overlay: overlay({ peers: [10, 9, 200, 1].map(at) }) });
  t.same(
    many.peers.map(({ subnet }) => subnet),
    ['10.5.1.0/24', '10.5.9.0/24', '10.5.10.0/24', '10.5.200.0/24'],
  );
});

t.test('as a person sees it', async t => {
  const rates = { 'egress-bytes': 1_250_000, 'egress-packets': 1000, 'egress-datagrams': 1500, 'egress-no-lease': 2 };
  t.equal(
    printStatus(document({ rates })),
    `node1: healthy  (tulled 1.2.3, up 1 min 1 s)

network   10.5.0.0/16, backend tulle
lease     10.5.1.0/24 at 10.88.0.1, key 000000ff, renewed 10 min ago, 50 min left
registry  etcd:/coreos.com/network at http://10.88.0.254:2379, well
device    tulle0, MTU 1460, port 8285, --transport=offload
rules     masquerade by nftables, forwarding needs no rule
cni       ADD 3, 1 running, 0 waiting

PEER         NODE   ENDPOINT        FORMAT  HEARD      ROUND TRIP  LOSS  PATH MTU
10.5.2.0/24  node2  10.88.0.2:8285  tulle   0.8 s ago  0.5 ms      5 %   1500

out       10 Mbit/s, 1000 packets/s in 1500 datagrams/s
in        0 bit/s, 0 packets/s in 0 datagrams/s

DROPPED  NOW  REASON
7        2/s  egress-no-lease  nobody holds a lease for the destination's subnet

offloads  tso
          off: uso (not there)
`,
  );
  const fenced = printStatus(document({ lease: lease({ fenced: true, deadlineInMs: -5 }) }));
  t.match(fenced, /^node1: NOT HEALTHY .*\n {2}! its lease was not renewed in time/);
  t.match(fenced, /FENCED/);
});

t.test('a name cannot play with the terminal', async t => {
  const evil = printStatus(document({ nodeOf: () => '\x1b[2Jx\u009b\u202e' }));
  t.match(evil, /\?\[2Jx\?\?/);
  for (const char of ['\x1b', '\u009b', '\u202e']) t.notOk(evil.includes(char));
});

t.test('durations', async t => {
  const cases: [number, string][] = [
    [0, '0 s'],
    [0.44, '0.4 s'],
    [59.4, '59 s'],
    [60, '1 min'],
    [200, '3 min 20 s'],
    [3600, '1 h'],
    [86_399, '23 h 59 min'],
    [86_400, '1 d'],
    [1_047_600, '12 d 3 h'],
  ];
  for (const [seconds, text] of cases) t.equal(duration(seconds), text);
});
