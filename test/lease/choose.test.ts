import t from 'tap';
import { type Choice, chooseLease, type LeaseRequest } from '../../lib/lease/choose.ts';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { type Lease, type LeaseAttributes, parseSubnetKey, subnetKey } from '../../lib/lease/lease.ts';

// Four subnets may be leased: 10.5.1.0/24 to 10.5.4.0/24. We are node a at 10.88.0.1.
const config = parseNetworkConfig('{"Network":"10.5.0.0/16","SubnetMax":"10.5.4.0"}');
const me: LeaseAttributes = {
  PublicIP: '10.88.0.1',
  PublicIPv6: null,
  BackendType: 'tulle',
  BackendData: { NodeID: 'a' },
};
const udp: LeaseAttributes = { PublicIP: '10.88.0.1', PublicIPv6: null };

let revision = 0;
/** "10.5.1.0-24 10.88.0.1 a": key, address, node id; "reserved" at the end means no TTL. */
function lease(text: string): Lease {
  const [key, PublicIP, ...rest] = text.split(' ');
  const reserved = rest.at(-1) === 'reserved';
  const nodeId = reserved ? rest[rest.length - 2] : rest[0];
  const BackendData = nodeId === undefined || nodeId === 'reserved' ? undefined : { NodeID: nodeId };
  const attributes = { PublicIP, PublicIPv6: null, ...(BackendData && { BackendData }) };
  revision++;
  return {
    ...parseSubnetKey(key)!,
    attributes,
    expiresAtMs: reserved ? null : 1,
    createRevision: revision,
    modRevision: revision,
  };
}

function print({ action, discard, unusable, conflict, twins }: Choice): string {
  const subject =
    action.kind === 'keep'
      ? ` ${subnetKey(action.lease)}`
      : action.kind === 'create'
        ? ` ${subnetKey(action.subnets)}`
        : '';
  const list = (name: string, leases: Lease[]) =>
    leases.length === 0 ? '' : ` ${name} ${leases.map(subnetKey).join(',')}`;
  return `${action.kind}${subject}${list('discard', discard)}${list('unusable', unusable)}${list('conflict', conflict ? [conflict] : [])}${list('twin', twins)}`;
}

interface Case {
  leases?: string[];
  unreadable?: string[];
  previous?: string;
  as?: LeaseAttributes;
  random?: number;
  width?: number;
  config?: typeof config;
}

function choose(given: Case): string {
  const leases = (given.leases ?? []).map(lease);
  const unreadable = (given.unreadable ?? []).map(key => parseSubnetKey(key)!);
  const request: LeaseRequest = { config: given.config ?? config, nodeId: 'a', attributes: given.as ?? me };
  if (given.previous !== undefined) request.previousSubnet = parseSubnetKey(given.previous)!;
  const draw = { random: () => given.random ?? 0, width: given.width ?? 100 };
  return print(chooseLease({ kind: 'snapshot', leases, revision: 9, unreadable }, request, draw));
}

t.test('own lease first', async t => {
  t.equal(
    choose({ leases: ['10.5.3.0-24 10.88.0.1 a', '10.5.1.0-24 10.88.0.2 b'], previous: '10.5.2.0-24' }),
    'keep 10.5.3.0-24',
  );
  t.equal(choose({ leases: ['10.5.3.0-24 10.88.0.1'] }), 'keep 10.5.3.0-24', 'flannel’s lease on our address');
  t.equal(choose({ leases: ['10.5.3.0-24 10.88.0.1'], as: udp }), 'keep 10.5.3.0-24');
  t.equal(
    choose({ leases: ['10.5.3.0-24 10.88.0.1 a reserved'], previous: '10.5.2.0-24' }),
    'keep 10.5.3.0-24',
    'a taken reservation',
  );
  t.equal(
    choose({ leases: ['10.5.3.0-24 10.88.0.1 a', '10.5.2.0-24 10.88.0.1 a'] }),
    'keep 10.5.2.0-24',
    'the newer one',
  );
  t.equal(
    choose({ leases: ['10.5.3.0-24 10.88.0.1 a', '10.5.2.0-24 10.88.0.1 a'], previous: '10.5.3.0-24' }),
    'keep 10.5.3.0-24',
    'or the one that pods know',
  );
});

t.test('an own lease that does not fit is replaced, a reservation that does not fit is not touched', async t => {
  t.equal(
    choose({ leases: ['10.5.1.0-25 10.88.0.1 a'] }),
    'create 10.5.1.0-24 discard 10.5.1.0-25',
    'its range is free again',
  );
  t.equal(
    choose({ leases: ['10.5.9.0-24 10.88.0.1 a', '10.5.2.0-24 10.88.0.1 a'] }),
    'keep 10.5.2.0-24 discard 10.5.9.0-24',
  );
  t.equal(choose({ leases: ['10.5.9.0-24 10.88.0.1 reserved'] }), 'create 10.5.1.0-24 unusable 10.5.9.0-24');
});

t.test('our node id on another address may be a clone of this machine: left alone', async t => {
  const leases = ['10.5.3.0-24 10.88.0.9 a'];
  t.equal(choose({ leases }), 'create 10.5.1.0-24 twin 10.5.3.0-24');
  t.equal(
    choose({ leases, previous: '10.5.3.0-24' }),
    'create 10.5.1.0-24 twin 10.5.3.0-24',
    'whatever subnet.env says',
  );
  t.equal(choose({ leases: [...leases, '10.5.2.0-24 10.88.0.1 a'] }), 'keep 10.5.2.0-24 twin 10.5.3.0-24');
  const reserved = ['10.5.3.0-24 0.0.0.0 a reserved'];
  t.equal(choose({ leases: reserved }), 'keep 10.5.3.0-24', 'a reservation for a node id, wherever it is');
  t.equal(choose({ leases: ['10.5.3.0-24 0.0.0.0 b reserved'] }), 'create 10.5.1.0-24');
});

t.test('then the subnet of subnet.env', async t => {
  t.equal(choose({ previous: '10.5.3.0-24' }), 'create 10.5.3.0-24');
  t.equal(choose({ previous: '10.5.3.0-24', leases: ['10.5.2.0-24 10.88.0.1 reserved'] }), 'create 10.5.3.0-24');
  t.equal(choose({ previous: '10.5.3.0-24', leases: ['10.5.3.0-24 10.88.0.2 b'] }), 'create 10.5.1.0-24', 'taken');
  t.equal(
    choose({ previous: '10.5.3.0-24', unreadable: ['10.5.3.0-24'] }),
    'create 10.5.1.0-24',
    'unreadable is taken',
  );
  for (const previous of ['10.5.0.0-24', '10.5.5.0-24', '10.6.1.0-24', '10.5.1.0-25']) {
    t.equal(choose({ previous }), 'create 10.5.1.0-24', `${previous} does not fit`);
  }
});

t.test('then a reservation', async t => {
  t.equal(choose({ leases: ['10.5.2.0-24 10.88.0.1 reserved'] }), 'keep 10.5.2.0-24');
  t.equal(choose({ leases: ['10.5.2.0-24 10.88.0.1 reserved'], as: udp }), 'keep 10.5.2.0-24');
  t.equal(choose({ leases: ['10.5.2.0-24 10.88.0.1 reserved'], previous: '10.5.2.0-24' }), 'keep 10.5.2.0-24');
  t.equal(choose({ leases: ['10.5.1.0-24 10.88.0.2 reserved'] }), 'create 10.5.2.0-24', 'somebody else’s');
});

t.test('then a free one, at random among the first', async t => {
  t.equal(choose({ random: 0.99 }), 'create 10.5.4.0-24');
  t.equal(choose({ random: 0.99, width: 2 }), 'create 10.5.2.0-24');
  t.equal(
    choose({ random: 0.5, leases: ['10.5.2.0-23 10.88.0.2 b'] }),
    'create 10.5.4.0-24',
    'a wider lease covers two',
  );
  t.equal(choose({ leases: ['10.5.1.128-26 10.88.0.2 b'] }), 'create 10.5.2.0-24', 'a narrower lease takes its subnet');
  t.equal(choose({ leases: [1, 2, 3, 4].map(n => `10.5.${n}.0-24 10.88.0.9 n${n}`) }), 'full');
});

t.test('two nodes with one address', async t => {
  t.equal(choose({ leases: ['10.5.2.0-24 10.88.0.1 b'] }), 'create 10.5.1.0-24 conflict 10.5.2.0-24');
  t.equal(
    choose({ leases: ['10.5.2.0-24 10.88.0.1 b', '10.5.3.0-24 10.88.0.1 a'] }),
    'keep 10.5.3.0-24 conflict 10.5.2.0-24',
  );
  t.equal(choose({ leases: ['10.5.2.0-24 10.88.0.1 b'], as: udp }), 'create 10.5.1.0-24 conflict 10.5.2.0-24');
});

t.test('dual stack takes one of each', async t => {
  const dual = parseNetworkConfig('{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}');
  const both = '10.5.1.0-24&fd00:0:0:1::-64';
  t.equal(choose({ config: dual }), `create ${both}`);
  t.equal(choose({ config: dual, leases: [`${both} 10.88.0.2 b`] }), 'create 10.5.2.0-24&fd00:0:0:2::-64');
  t.equal(choose({ config: dual, previous: '10.5.7.0-24&fd00:0:0:9::-64' }), 'create 10.5.7.0-24&fd00:0:0:9::-64');
  t.equal(choose({ config: dual, leases: ['10.5.1.0-24 10.88.0.1 a'] }), `create ${both} discard 10.5.1.0-24`);
  t.equal(choose({ config: dual, leases: [`${both} 10.88.0.1 a`] }), `keep ${both}`);
  const only6 = parseNetworkConfig('{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/124"}');
  t.equal(choose({ config: only6, leases: ['0.0.0.0-0&fd00::4-126 10.88.0.2 b'] }), 'create 0.0.0.0-0&fd00::8-126');
  t.equal(
    choose({ config: only6, leases: ['4', '8', 'c'].map(n => `0.0.0.0-0&fd00::${n}-126 10.88.0.9 n${n}`) }),
    'full',
  );
});
