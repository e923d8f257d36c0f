import t, { type Test } from 'tap';
import { type Lease, nodeIdOf, parseSubnetKey, subnetKey } from '../../lib/lease/lease.ts';
import {
  emptyView,
  type Own,
  type PeerChange,
  type PeerView,
  type Reconciled,
  reconcile,
  withOwn,
} from '../../lib/lease/reconcile.ts';
import type { Events, LeaseEvent, Snapshot } from '../../lib/lease/registry.ts';
import { overlaps4 } from '../../lib/wire/cidr.ts';
import { parseAddress4 } from '../../lib/wire/ip4.ts';
import { below, pick, prng, testSeed } from '../support/prng.ts';

/** "10.5.1.0-24 10.88.0.2 b 7": key, address, node id ("-" for none), create revision. */
function lease(text: string, modRevision = 0): Lease {
  const [key, PublicIP, nodeId, create = '1'] = text.split(' ');
  const BackendData = nodeId === undefined || nodeId === '-' ? {} : { BackendData: { NodeID: nodeId } };
  const attributes = { PublicIP, PublicIPv6: null, ...BackendData };
  const createRevision = Number(create);
  return {
    ...parseSubnetKey(key)!,
    attributes,
    expiresAtMs: 1,
    createRevision,
    modRevision: Math.max(createRevision, modRevision),
  };
}

const snapshot = (...leases: string[]): Snapshot => ({
  kind: 'snapshot',
  revision: 1,
  leases: leases.map(text => lease(text)),
});
const put = (text: string, mod?: number): LeaseEvent => ({ kind: 'put', lease: lease(text, mod) });
const removed = (key: string): LeaseEvent => ({ kind: 'removed', ...parseSubnetKey(key)! });
const events = (...list: LeaseEvent[]): Events => ({ kind: 'events', revision: 2, events: list });

const print = ({ changes, problems }: Reconciled): string[] => [
  ...changes.map(
    ({ kind, lease }) => `${kind} ${subnetKey(lease)} ${lease.attributes.PublicIP} ${lease.createRevision}`,
  ),
  ...problems.map(({ key, why }) => `problem ${key} ${why}`),
];

/** Applies messages one after the other and prints what each changed; each is applied twice. */
function play(t: Test, own: Own, ...messages: (Snapshot | Events | { own: Own })[]): string[][] {
  let view = emptyView(own);
  return messages.map(message => {
    const apply = (before: PeerView) => ('own' in message ? withOwn(before, message.own) : reconcile(before, message));
    const result = apply(view);
    const again = apply(result.view);
    t.same(print(again), [], 'the same again changes nothing');
    t.same(again.view, result.view);
    view = result.view;
    return print(result);
  });
}

t.test('a clone with our node id is a peer where we know our own address', async t => {
  const own = { nodeId: 'a', lease: parseSubnetKey('10.5.1.0-24')! };
  const leases = snapshot('10.5.1.0-24 10.88.0.1 a', '10.5.2.0-24 10.88.0.2 a', '10.5.3.0-24 10.88.0.1 a');
  t.same(play(t, own, leases), [[]], 'else it is taken for an old lease of ours');
  t.same(play(t, { ...own, publicIp: '10.88.0.1' }, leases), [['add 10.5.2.0-24 10.88.0.2 1']]);
});

t.test('snapshots and events are differences', async t => {
  const story = play(
    t,
    { nodeId: 'a' },
    snapshot('10.5.1.0-24 10.88.0.1 a', '10.5.2.0-24 10.88.0.2 b', '10.5.3.0-24 10.88.0.3'),
    events(put('10.5.2.0-24 10.88.0.2 b', 9)),
    events(put('10.5.2.0-24 10.88.0.7 b', 10)),
    events(removed('10.5.2.0-24'), put('10.5.2.0-24 10.88.0.7 b 11')),
    events(put('10.5.4.0-24 10.88.0.4 d 12'), removed('10.5.3.0-24'), removed('10.5.9.0-24')),
    snapshot('10.5.4.0-24 10.88.0.5 d 12', '10.5.6.0-24 10.88.0.6 f 13'),
  );
  t.same(story, [
    ['add 10.5.2.0-24 10.88.0.2 1', 'add 10.5.3.0-24 10.88.0.3 1'],
    [], // a renewal
    ['update 10.5.2.0-24 10.88.0.7 1'],
    ['update 10.5.2.0-24 10.88.0.7 11'], // another holder: a new lease key
    ['remove 10.5.3.0-24 10.88.0.3 1', 'add 10.5.4.0-24 10.88.0.4 12'],
    ['remove 10.5.2.0-24 10.88.0.7 11', 'update 10.5.4.0-24 10.88.0.5 12', 'add 10.5.6.0-24 10.88.0.6 13'],
  ]);
});

t.test('our own lease is never a peer and never removed', async t => {
  const story = play(
    t,
    { lease: parseSubnetKey('10.5.1.0-24')! },
    snapshot('10.5.1.0-24 10.88.0.1', '10.5.2.0-24 10.88.0.2'),
    snapshot('10.5.2.0-24 10.88.0.2'),
    events(put('10.5.1.0-24 10.88.0.3 x 5')),
    events(removed('10.5.1.0-24')),
    events(put('10.5.1.0-24 10.88.0.3 x 6')),
    { own: { lease: parseSubnetKey('10.5.3.0-24')! } }, // we lost it and took another
  );
  t.same(story, [['add 10.5.2.0-24 10.88.0.2 1'], [], [], [], [], ['add 10.5.1.0-24 10.88.0.3 6']]);
});

t.test('leases that overlap: the older one counts', async t => {
  const story = play(
    t,
    { lease: parseSubnetKey('10.5.8.0-24')! },
    snapshot(
      '10.5.2.0-24 10.88.0.2 b 5',
      '10.5.2.128-25 10.88.0.3 c 4',
      '10.5.0.0-21 10.88.0.4 d 6',
      '10.5.8.0-22 10.88.0.5 e 1',
    ),
    events(removed('10.5.2.128-25')),
    events(removed('10.5.2.0-24')),
  );
  t.same(story, [
    [
      'add 10.5.2.128-25 10.88.0.3 4',
      'problem 10.5.8.0-22 overlaps our own lease',
      'problem 10.5.2.0-24 overlaps the older lease 10.5.2.128/25',
      'problem 10.5.0.0-21 overlaps the older lease 10.5.2.128/25',
    ],
    [
      'remove 10.5.2.128-25 10.88.0.3 4',
      'add 10.5.2.0-24 10.88.0.2 5',
      'problem 10.5.0.0-21 overlaps the older lease 10.5.2.0/24',
    ],
    ['remove 10.5.2.0-24 10.88.0.2 5', 'add 10.5.0.0-21 10.88.0.4 6'],
  ]);
});

t.test('a malformed lease is reported once and removes nobody', async t => {
  const hostBits: Lease = { ...lease('10.5.7.0-24 10.88.0.7'), subnet: { address: 0x0a050701, prefixLength: 24 } };
  const broken: Snapshot = { ...snapshot('10.5.3.0-24 10.88.0.3'), unreadable: [parseSubnetKey('10.5.2.0-24')!] };
  const story = play(
    t,
    {},
    {
      ...snapshot('10.5.1.0-24 nonsense', '10.5.2.0-24 10.88.0.2'),
      leases: [...snapshot('10.5.1.0-24 nonsense', '10.5.2.0-24 10.88.0.2').leases, hostBits],
    },
    events(put('10.5.3.0-24 10.88.0.3'), put('10.5.2.0-24 0.0.0.0')),
    events(put('10.5.1.0-24 nonsense', 7)),
    broken,
    events(put('10.5.2.0-24 10.88.0.9')),
    snapshot('10.5.2.0-24 1.2.3', '10.5.3.0-24 10.88.0.3'),
  );
  t.same(story, [
    [
      'add 10.5.2.0-24 10.88.0.2 1',
      'problem 10.5.1.0-24 has no usable PublicIP ("nonsense")',
      'problem 10.5.7.1-24 has IPv4 address bits below its prefix',
    ],
    ['add 10.5.3.0-24 10.88.0.3 1', 'problem 10.5.2.0-24 has no usable PublicIP ("0.0.0.0")'],
    [],
    [],
    ['update 10.5.2.0-24 10.88.0.9 1'],
    ['problem 10.5.2.0-24 has no usable PublicIP ("1.2.3")'],
  ]);
});

t.test('dual stack and IPv6 alone', async t => {
  const six: Lease = {
    ...lease('0.0.0.0-0&fd00:0:0:1::-64 0.0.0.0'),
    attributes: { PublicIP: '0.0.0.0', PublicIPv6: 'fd01::1' },
  };
  const message: Snapshot = {
    ...snapshot('10.5.1.0-24&fd00:0:0:2::-64 10.88.0.1', '10.5.2.0-24&fd00:0:0:2::-64 10.88.0.2 - 2'),
  };
  message.leases.push(six);
  t.same(play(t, {}, message), [
    [
      'add 0.0.0.0-0&fd00:0:0:1::-64 0.0.0.0 1',
      'add 10.5.1.0-24&fd00:0:0:2::-64 10.88.0.1 1',
      'problem 10.5.2.0-24&fd00:0:0:2::-64 overlaps the older lease 10.5.1.0/24 fd00:0:0:2::/64',
    ],
  ]);
});

t.test('the view before stays as it was', async t => {
  const first = reconcile(emptyView(), snapshot('10.5.1.0-24 10.88.0.1')).view;
  const copy = structuredClone(first);
  reconcile(first, events(removed('10.5.1.0-24'), put('10.5.2.0-24 10.88.0.2')));
  withOwn(first, { lease: parseSubnetKey('10.5.1.0-24')! });
  t.same(first, copy);
});

t.test('random histories: changes add up to what a naive twin computes from scratch', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const keys = [
    '10.5.0.0-22',
    '10.5.0.0-24',
    '10.5.1.0-24',
    '10.5.1.128-25',
    '10.5.2.0-24',
    '10.5.3.0-24',
    '10.5.4.0-24',
    '10.5.4.0-23',
  ];
  for (let round = 0; round < 300; round++) {
    const next = prng(seed + round);
    const registry = new Map<string, Lease>();
    let good = new Map<string, Lease>(); // what is known: the last well-formed value of each key that exists
    const table = new Map<string, Lease>(); // what the changes say
    let own: Own = {};
    let view = emptyView(own);
    let revision = 0;

    for (let step = 0; step < 30; step++) {
      const batch: LeaseEvent[] = [];
      for (let i = below(next, 4); i >= 0; i--) {
        const key = pick(next, keys);
        revision++;
        const old = registry.get(key);
        if (old !== undefined && below(next, 3) === 0) {
          registry.delete(key);
          batch.push({ kind: 'removed', ...parseSubnetKey(key)! });
        } else {
          const address = below(next, 8) === 0 ? 'broken' : `10.88.0.${1 + below(next, 3)}`;
          const create = old?.createRevision ?? revision;
          const made = lease(`${key} ${address} ${pick(next, ['-', 'a', 'b'])} ${create}`, revision);
          registry.set(key, made);
          batch.push({ kind: 'put', lease: made });
        }
      }
      const asSnapshot = below(next, 3) === 0;
      if (asSnapshot) {
        const before = good;
        good = new Map(
          [...registry].flatMap(([key, value]) => {
            const known = isWell(value) ? value : before.get(key);
            return known === undefined ? [] : [[key, known] as const];
          }),
        );
      } else {
        for (const event of batch) {
          if (event.kind === 'removed') good.delete(subnetKey(event));
          else if (isWell(event.lease)) good.set(subnetKey(event.lease), event.lease);
        }
      }
      const message: Snapshot | Events = asSnapshot
        ? { kind: 'snapshot', leases: [...registry.values()], revision }
        : { kind: 'events', events: batch, revision };
      const results = [reconcile(view, message)];
      if (below(next, 5) === 0) {
        own = pick(next, [{}, { nodeId: 'a' }, { lease: parseSubnetKey(pick(next, keys))! }]);
        results.push(withOwn(results[0].view, own));
      }
      for (const result of results) {
        apply(table, result.changes);
        view = result.view;
      }
      if (!sameTable(table, naivePeers(good, own))) {
        t.same([...table.values()], [...naivePeers(good, own).values()], `seed ${seed} round ${round} step ${step}`);
        return;
      }
    }
  }
  t.pass('all equal');
});

/** All leases in order of age; each is a peer unless it is ours or overlaps us or an older peer. */
function naivePeers(leases: Map<string, Lease>, own: Own): Map<string, Lease> {
  const peers = new Map<string, Lease>();
  const byAge = [...leases.values()].sort(
    (a, b) => a.createRevision - b.createRevision || (subnetKey(a) < subnetKey(b) ? -1 : 1),
  );
  for (const lease of byAge) {
    if (own.nodeId !== undefined && nodeIdOf(lease) === own.nodeId) continue;
    if (own.lease !== undefined && overlaps4(own.lease.subnet, lease.subnet)) continue;
    if ([...peers.values()].some(peer => overlaps4(peer.subnet, lease.subnet))) continue;
    peers.set(subnetKey(lease), lease);
  }
  return peers;
}

/** What a route table does with changes; an impossible change is an error. */
function apply(table: Map<string, Lease>, changes: PeerChange[]): void {
  for (const { kind, lease } of changes) {
    const key = subnetKey(lease);
    if (table.has(key) === (kind === 'add')) throw new Error(`${kind} of ${key} makes no sense here`);
    if (kind === 'remove') table.delete(key);
    else {
      table.set(key, lease);
    }
  }
}

const isWell = (lease: Lease): boolean => parseAddress4(lease.attributes.PublicIP) !== undefined;

function sameTable(a: Map<string, Lease>, b: Map<string, Lease>): boolean {
  const print = (table: Map<string, Lease>) =>
    JSON.stringify([...table].map(([key, lease]) => [key, lease.attributes, lease.createRevision]).sort());
  return print(a) === print(b);
}
