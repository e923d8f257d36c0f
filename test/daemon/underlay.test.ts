import t from 'tap';
import { interfaceNeeds, publicAddresses, underlayAddress } from '../../lib/daemon/underlay.ts';

const over4 = { type: 'tulle', port: 8285 } as const;
const over6 = { ...over4, underlay: 6 } as const;
const link = { name: 'eth0', index: 2, mtu: 1500 };
const both = { ...link, address4: '10.88.0.1', address6: '2001:db8::1' };

t.test('what the socket is bound to, and what the interface needs for it', async t => {
  t.same(interfaceNeeds({ backend: over4 }), { needIp4: true, needIp6: false });
  t.same(interfaceNeeds({ backend: over6 }), { needIp4: false, needIp6: true });
  t.equal(underlayAddress({ backend: over4 }, both), '10.88.0.1');
  t.equal(underlayAddress({ backend: over6 }, both), '2001:db8::1');
  t.throws(() => underlayAddress({ backend: over6 }, { ...link, address6: 'fe80::1' }), {
    code: 'no-address',
    message: /only the link-local address fe80::1/,
  });
});

t.test('what the lease says', async t => {
  const say = (backend: typeof over4 | typeof over6, enableIPv6: boolean, chosen = both, options = {}) =>
    publicAddresses(options, { backend, config: { enableIPv6 } }, chosen);
  t.same(say(over4, false), { PublicIP: '10.88.0.1', PublicIPv6: null }, "of IPv4 alone, exactly flannel's");
  t.same(say(over4, true), { PublicIP: '10.88.0.1', PublicIPv6: '2001:db8::1' });
  t.same(say(over6, false), { PublicIP: '10.88.0.1', PublicIPv6: '2001:db8::1' });
  t.same(say(over4, true, { ...both, address6: 'fe80::1' }).PublicIPv6, null, 'a link-local address is of no use');
  const { address6 } = both;
  t.same(publicAddresses({}, { backend: over6, config: { enableIPv6: true } }, { ...link, address6 }), {
    PublicIP: '0.0.0.0',
    PublicIPv6: '2001:db8::1',
  });
  const given = { publicIp: '192.0.2.1', publicIp6: '2001:db8::99' };
  t.same(say(over4, true, both, given), { PublicIP: '192.0.2.1', PublicIPv6: '2001:db8::99' }, 'what was given counts');
});
