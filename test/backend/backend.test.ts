import t from 'tap';
import { backendAttributes, backendOf, overlayMtu, peerOf } from '../../lib/backend/backend.ts';
import { FORMAT_BARE, FORMAT_TULLE } from '../../lib/datapath/slab.ts';
import type { Lease, LeaseAttributes } from '../../lib/lease/lease.ts';
import { cidr } from '../support/node.ts';

const lease = (attributes: Partial<LeaseAttributes>): Lease => ({
  subnet: cidr('10.42.7.0/24'),
  attributes: { PublicIP: '10.88.0.7', PublicIPv6: null, ...attributes },
  expiresAtMs: null,
  createRevision: 0x1_0000_0005,
  modRevision: 9,
});

t.test('the backend of a net-conf', async t => {
  t.same(backendOf({ backendType: 'udp', backend: {} }), { type: 'udp', port: 8285 });
  t.same(
    backendOf({ backendType: 'tulle', backend: { port: 9000 } }),
    { type: 'tulle', port: 9000 },
    'keys in any case',
  );
  t.throws(() => backendOf({ backendType: 'vxlan', backend: {} }), {
    code: 'bad-config',
    message: /"vxlan".*"tulle".*"udp"/,
  });
  const over6 = { backendType: 'tulle', backend: { UNDERLAY: 'ipv6' } };
  t.same(backendOf(over6), { type: 'tulle', port: 8285, underlay: 6 });
  t.throws(() => backendOf({ ...over6, backendType: 'udp' }), { code: 'bad-config', message: /speaks IPv4/ });
  t.throws(() => backendOf({ ...over6, backend: { Underlay: 6 } }), { code: 'bad-config', message: /neither/ });
  for (const Port of [0, 65_536, 1.5, '8285', -1]) {
    t.throws(() => backendOf({ backendType: 'udp', backend: { Port } }), { code: 'bad-config' }, String(Port));
  }
});

t.test('the overlay MTU is what the headers leave', async t => {
  const tulle = { type: 'tulle' } as const;
  t.equal(overlayMtu(tulle, 1500), 1460);
  t.equal(overlayMtu({ type: 'udp' }, 1500), 1472, "as flannel's");
  t.equal(overlayMtu({ ...tulle, underlay: 6 }, 1500), 1440);
  t.throws(() => overlayMtu(tulle, 600), { code: 'bad-mtu', message: /616 or more/ });
  t.throws(() => overlayMtu(tulle, 1300, { ip6: true }), { code: 'bad-mtu', message: /1320 or more/ });
});

t.test('a peer is what its lease says', async t => {
  const tulle = { type: 'tulle', port: 8285 } as const;
  const udp = { type: 'udp', port: 9000 } as const;
  const ours = lease(backendAttributes({ type: 'tulle', port: 1234 }, 'node7'));
  const expected = { subnet: cidr('10.42.7.0/24'), address: 0x0a580007, port: 1234, key: 5, format: FORMAT_TULLE };
  t.same(peerOf(ours, tulle), expected, 'the port is the lease’s, the key the low 32 bits of the create revision');
  t.same(backendAttributes(udp, 'node7'), {}, "flannel's lease says nothing of its backend");
  t.same(peerOf(lease({}), udp), { ...expected, port: 9000, format: FORMAT_BARE }, "flannel's port is the network's");
  t.match(peerOf(lease({}), tulle), /"udp".*"tulle"/);
  t.match(peerOf(ours, udp), /"tulle".*"udp"/);
  t.match(peerOf(lease({ BackendType: 'tulle', BackendData: { Version: 2, Port: 1 } }), tulle), /version 2/);
  for (const BackendData of [undefined, null, 'x', [], { Version: 1 }, { Version: 1, Port: 0 }]) {
    t.type(peerOf(lease({ BackendType: 'tulle', BackendData }), tulle), 'string', JSON.stringify(BackendData));
  }
  t.match(peerOf(lease({ PublicIP: 'here' }), udp), /no IPv4 address/);
});

t.test('a peer of an IPv6 underlay, with both subnets', async t => {
  const over6 = { type: 'tulle', port: 8285, underlay: 6 } as const;
  const both = (attributes: Partial<LeaseAttributes>): Lease => ({
    ...lease({ ...backendAttributes(over6, 'node7'), ...attributes }),
    subnet6: { address: 0xfd00n << 112n, prefixLength: 64 },
  });
  const peer = peerOf(both({ PublicIPv6: '2001:db8::7' }), over6);
  t.match(peer, { subnet6: { prefixLength: 64 }, port: 8285 });
  t.same(typeof peer === 'object' && [...(peer.address as Uint8Array)].slice(-2), [0, 7]);
  for (const PublicIPv6 of [null, 'here', 'fe80::1', '::', 'ff02::1', '10.88.0.7'])
    t.match(peerOf(both({ PublicIPv6 }), over6), /no IPv6 address/, String(PublicIPv6));
});
