import t from 'tap';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

t.test('addresses come and go', { skip }, async t => {
  const { netlink } = sandbox.open('addr');
  netlink.createVeth({ name: 'a', peerName: 'b', up: true, peerUp: true });
  netlink.addAddress('a', '10.1.2.3/24');
  netlink.addAddress('a', '10.1.2.3/24'); // exactly the same is good enough
  netlink.addAddress('a', '10.1.2.9');
  netlink.addAddress('a', 'fd00::3/64', { nodad: true });
  netlink.addAddress('a', 'fd00:0::3/64', { nodad: true });
  netlink.addAddress('b', '10.9.0.1/24', { noPrefixRoute: true, scope: 'link' });
  netlink.addAddress('lo', '127.0.0.2/8');
  t.same(
    netlink
      .addresses({ link: 'a', family: 4 })
      .map(({ address, prefixLength, scope, link }) => ({ address, prefixLength, scope, link })),
    [
      { address: '10.1.2.3', prefixLength: 24, scope: 'global', link: 'a' },
      { address: '10.1.2.9', prefixLength: 32, scope: 'global', link: 'a' },
    ],
  );
  t.match(netlink.addresses({ link: 'a', family: 6 }), [
    { address: 'fd00::3', prefixLength: 64, scope: 'global', tentative: false, family: 6 },
    { address: /^fe80::/, scope: 'link' },
  ]);
  t.equal(netlink.addresses({ link: 'b', family: 4 })[0]?.scope, 'link');
  t.equal(netlink.addresses().find(({ address }) => address === '127.0.0.2')?.scope, 'host');
  t.same(netlink.addresses({ link: 'nothing' }), []);
  const prefixes = netlink.routes(4, 254).map(({ destination }) => destination);
  t.ok(prefixes.includes('10.1.2.0/24'));
  t.notOk(prefixes.includes('10.9.0.0/24'), 'no prefix route');

  t.throws(() => netlink.addAddress('a', 'fd00::3/80'), {
    code: 'EEXIST',
    message: /^add address fd00::3\/80 to a: EEXIST/,
  });
  t.throws(() => netlink.addAddress('nothing', '10.0.0.1/8'), {
    code: 'ENODEV',
    message: 'add address 10.0.0.1/8 to nothing: ENODEV (there is no link named "nothing")',
  });
  t.throws(() => netlink.addAddress('a', '10.0.0.256/8'), {
    code: 'EINVAL',
    message: /is not an IPv4 or IPv6 address/,
  });
  t.throws(() => netlink.addAddress('a', '10.0.0.1/33'), { code: 'EINVAL' });

  for (let time = 0; time < 2; time++) {
    netlink.deleteAddress('a', '10.1.2.3/24');
    netlink.deleteAddress('a', 'fd00::3/64');
    netlink.deleteAddress('nothing', '10.1.2.3/24');
  }
  t.same(
    netlink.addresses({ link: 'a', family: 4 }).map(({ address }) => address),
    ['10.1.2.9'],
  );
  t.notOk(netlink.addresses({ link: 'a' }).some(({ address }) => address === 'fd00::3'));
});
