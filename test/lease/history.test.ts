import t from 'tap';
import {
  type Change,
  type Holding,
  holdingOf,
  keyOfHolding,
  matcherOf,
  mergeHistory,
  printKey,
  replay,
  sameHolding,
} from '../../lib/lease/history.ts';
import { type Lease, parseSubnetKey, subnetKey } from '../../lib/lease/lease.ts';

export function holding(
  subnet: string,
  nodeId: string | null,
  createRevision: number,
  more: Partial<Holding> = {},
): Holding {
  const base = { subnet, publicIp: '10.88.0.1', nodeId, backend: 'tulle', reservation: false };
  return { ...base, createRevision, modRevision: createRevision, ...more };
}

const put = (revision: number, held: Holding, more: Partial<Change> = {}): Change => ({
  kind: 'put',
  key: keyOfHolding(held),
  holding: held,
  revision,
  ...more,
});

t.test('a lease as it is told', async t => {
  const lease: Lease = {
    ...parseSubnetKey('10.5.1.0-24&fd00:5::-64')!,
    attributes: { PublicIP: '10.88.0.1', PublicIPv6: null, BackendData: { NodeID: 'n1' } },
    expiresAtMs: null,
    createRevision: 3,
    modRevision: 7,
  };
  const held = holdingOf(lease);
  t.same(held, {
    subnet: '10.5.1.0/24',
    subnet6: 'fd00:5::/64',
    publicIp: '10.88.0.1',
    nodeId: 'n1',
    backend: 'udp',
    reservation: true,
    createRevision: 3,
    modRevision: 7,
  });
  t.equal(keyOfHolding(held), subnetKey(lease));
  t.equal(printKey(subnetKey(lease)), '10.5.1.0/24 fd00:5::/64');
  t.equal(printKey('0.0.0.0-0&fd00:5::-64'), 'fd00:5::/64');
  const six = { ...lease, attributes: { PublicIP: '0.0.0.0', PublicIPv6: 'fd88::1' } };
  t.match(holdingOf(six), { publicIp: 'fd88::1', nodeId: null });
  t.ok(sameHolding(held, { ...held, modRevision: 9 }), 'a renewal makes no difference');
  t.notOk(sameHolding(held, { ...held, createRevision: 9 }));
  t.notOk(sameHolding(held, { ...held, publicIp: '10.88.0.2' }));
});

t.test('what a person writes for a subnet', async t => {
  const key = '10.5.1.0-24&fd00:5:1::-64';
  for (const text of [
    '10.5.1.0/24',
    '10.5.1.0-24',
    '10.5.1.1/24', // as in subnet.env
    '10.5.1.77',
    '10.5.1.0/26',
    'fd00:5:1::/64',
    'fd00:5:1::77',
    '10.5.1.0-24&fd00:5:1::-64',
    '10.5.1.9&fd00:5:1::9',
  ])
    t.equal(matcherOf(text)?.(key), true, text);
  for (const text of ['10.5.2.0/24', '10.5.0.0/16', '10.6.1.7', 'fd00:5:2::/64', '10.5.1.0/24&fd00:5:2::/64'])
    t.equal(matcherOf(text)?.(key), false, text);
  for (const text of ['', 'node1', '10.5.1', '10.5.1.0/33', '10.5.1.256', 'fd00::/129', '10.5.1.0/24&'])
    t.equal(matcherOf(text), undefined, text);
});

t.test('replay', async t => {
  const [a, b] = [holding('10.5.1.0/24', 'a', 1), holding('10.5.1.0/24', 'b', 5)];
  const state = replay(new Map(), [put(1, a), { kind: 'removed', key: '10.5.1.0-24', revision: 4 }, put(5, b)]);
  t.same([...state.values()], [b]);
});

t.test('one history from two', async t => {
  const [a, b, c] = [holding('10.5.1.0/24', 'a', 2), holding('10.5.2.0/24', 'b', 5), holding('10.5.3.0/24', 'c', 12)];
  const removedA: Change = { kind: 'removed', key: keyOfHolding(a), holding: a, revision: 8 };
  const journal = [
    put(2, a, { atMs: 200 }),
    put(5, b, { atMs: 500 }),
    { ...removedA, atMs: 800 },
    put(12, c, { atMs: 1200 }),
  ];
  t.same(mergeHistory(undefined, journal), journal, 'the journal alone');
  const past = { since: 10, base: [b], changes: [put(12, c)], revision: 12 };
  t.same(mergeHistory(past, []), [put(5, b), put(12, c)], 'the registry alone');
  t.same(
    mergeHistory(past, journal),
    journal,
    'before the compaction the journal, after it the registry with its times',
  );
  const late = journal.map(change => ({ ...change, late: true }));
  t.equal(mergeHistory(past, late).at(-1)?.atMs, undefined, 'a time that is only a bound is not told as one');
});
