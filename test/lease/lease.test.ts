import t from 'tap';
import {
  leaseKeyOf,
  mergeAttributes,
  nodeIdOf,
  parseSubnetKey,
  printSubnets,
  subnetKey,
} from '../../lib/lease/lease.ts';

t.test('keys are flannel’s, and each subnet has one', async t => {
  for (const key of ['10.5.1.0-24', '0.0.0.0-0&fd00::-64', '10.5.1.0-24&fd00:12:13::-64', '255.255.255.252-30']) {
    t.equal(subnetKey(parseSubnetKey(key)!), key);
  }
  t.same(parseSubnetKey('10.5.1.0-24'), { subnet: { address: 0x0a050100, prefixLength: 24 } });
  const other = [
    '',
    'config',
    '10.5.1.0',
    '10.5.1.0/24',
    '10.5.1.0-33',
    '10.5.1.0-024',
    '010.5.1.0-24',
    'x10.5.1.0-24',
  ];
  const six = [
    '10.5.1.0-24&',
    '10.5.1.0-24&fd00::',
    '10.5.1.0-24&FD00::-64',
    '10.5.1.0-24&fd00:0::-64',
    '10.5.1.0-24\n',
  ];
  for (const text of [...other, ...six, '10.5.1.0-24~', '.10.5.1.0-24', '10x5x1x0-24']) {
    t.equal(parseSubnetKey(text), undefined, JSON.stringify(text));
  }
  t.equal(printSubnets(parseSubnetKey('10.5.1.0-24&fd00::-64')!), '10.5.1.0/24 fd00::/64');
  t.equal(printSubnets(parseSubnetKey('0.0.0.0-0&fd00::-64')!), 'fd00::/64');
});

t.test('the lease key is the low 32 bits of the create revision', async t => {
  t.equal(leaseKeyOf({ createRevision: 7 }), 7);
  t.equal(leaseKeyOf({ createRevision: 2 ** 32 + 5 }), 5);
  t.equal(leaseKeyOf({ createRevision: 0xffff_ffff }), 0xffff_ffff, 'unsigned');
});

t.test('a node id, where there is one', async t => {
  const of = (BackendData: unknown) => nodeIdOf({ attributes: { PublicIP: '1.2.3.4', PublicIPv6: null, BackendData } });
  t.equal(of({ NodeID: 'a', Port: 8285 }), 'a');
  for (const data of [undefined, null, 'a', {}, { NodeID: 7 }, { NodeID: '' }]) t.equal(of(data), undefined);
});

t.test('merging keeps what we do not understand, and nothing of an earlier backend', async t => {
  const existing = { PublicIP: '1.1.1.1', PublicIPv6: null, BackendType: 'vxlan', BackendData: { VNI: 1 }, Zone: 'b' };
  const merged = mergeAttributes(existing, { PublicIP: '2.2.2.2', PublicIPv6: null });
  t.equal(JSON.stringify(merged), '{"PublicIP":"2.2.2.2","PublicIPv6":null,"Zone":"b"}');
  t.equal(
    JSON.stringify(mergeAttributes(merged, { PublicIP: '3.3.3.3', PublicIPv6: null, BackendType: 'tulle' })),
    '{"PublicIP":"3.3.3.3","PublicIPv6":null,"BackendType":"tulle","Zone":"b"}',
  );
});
