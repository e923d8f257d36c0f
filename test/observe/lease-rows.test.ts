import t from 'tap';
import { type Lease, parseSubnetKey } from '../../lib/lease/lease.ts';
import {
  bySubnet,
  formatExpiry,
  formatLeases,
  formatSeconds,
  formatTime,
  leaseRow,
} from '../../lib/observe/lease-rows.ts';

const me = { nodeId: 'n1', addresses: new Set(['10.88.0.9']) };

function lease(key: string, nodeId: string | undefined, more: Partial<Lease> = {}, at?: string): Lease {
  const publicIp = at ?? (nodeId === 'n1' ? '10.88.0.9' : '10.88.0.1');
  const data = nodeId === undefined ? {} : { BackendType: 'tulle', BackendData: { NodeID: nodeId } };
  const attributes = { PublicIP: publicIp, PublicIPv6: null, ...data };
  return { ...parseSubnetKey(key)!, attributes, expiresAtMs: 100_000, createRevision: 3, modRevision: 7, ...more };
}

t.test('the row of --json: exactly these keys', async t => {
  t.strictSame(leaseRow(lease('10.5.1.0-24', 'n1'), me, 40_000), {
    subnet: '10.5.1.0/24',
    publicIp: '10.88.0.9',
    nodeId: 'n1',
    backend: 'tulle',
    expiresInSeconds: 60,
    revision: 7,
    mine: true,
  });
  const flannels = lease('10.5.1.0-24&fd00:5::-64', undefined, { expiresAtMs: null }, '10.88.0.9');
  t.strictSame(Object.keys(leaseRow(flannels, me, 0)), [
    'subnet',
    'subnet6',
    'publicIp',
    'nodeId',
    'backend',
    'expiresInSeconds',
    'revision',
    'mine',
  ]);
  t.match(leaseRow(flannels, me, 0), { nodeId: null, backend: 'udp', expiresInSeconds: null, mine: true });
  t.equal(
    leaseRow(lease('10.5.1.0-24', 'n2', {}, '10.88.0.9'), me, 0).mine,
    false,
    'the id counts, not the address alone',
  );
  t.equal(leaseRow(lease('10.5.1.0-24', 'n1', {}, '10.88.0.7'), me, 0).mine, false, "a clone's, with our node id");
  const reserved = lease('10.5.1.0-24', 'n1', { expiresAtMs: null }, '0.0.0.0');
  t.equal(leaseRow(reserved, me, 0).mine, true, 'a reservation for our node id, wherever we are');
  t.equal(leaseRow(lease('10.5.1.0-24', 'n2'), me, 500_000).expiresInSeconds, 0, 'never negative');
});

t.test('the table', async t => {
  const rows = [
    lease('10.5.10.0-24', 'n2'),
    lease('10.5.9.0-24', undefined, { expiresAtMs: null }),
    lease('10.5.2.0-24', 'n1', { expiresAtMs: 86_400_000 }),
  ].map(one => leaseRow(one, me, 0));
  t.equal(
    formatLeases(rows.sort(bySubnet)),
    [
      'SUBNET        PUBLIC IP  NODE  BACKEND  EXPIRES    REVISION',
      '10.5.2.0/24   10.88.0.9  n1    tulle    in 1d      7         this node',
      '10.5.9.0/24   10.88.0.1  -     udp      never      7',
      '10.5.10.0/24  10.88.0.1  n2    tulle    in 1m 40s  7',
      '',
    ].join('\n'),
  );
});

t.test('durations and times', async t => {
  t.equal(formatExpiry(null), 'never');
  t.equal(formatExpiry(0), 'now');
  t.same([0, 7, 60, 61, 3599, 3600, 86_399, 90_000].map(formatSeconds), [
    '0s',
    '7s',
    '1m',
    '1m 1s',
    '59m 59s',
    '1h',
    '23h 59m',
    '1d 1h',
  ]);
  t.equal(formatTime(Date.UTC(2026, 7, 1, 12)), '2026-08-01 12:00:00Z');
});
