import t from 'tap';
import { chooseInterface, type InterfaceSource } from '../../lib/host/interface.ts';
import { type Address, type Link, NetlinkError, type Route } from '../../lib/netlink/netlink.ts';
import { makeSandbox, whyNot } from '../netlink/sandbox.ts';

// A machine as people have them:
//
//   lo (1)  eth0 (2) 192.0.2.7/24, 192.0.2.8/24, 2001:db8::7/64     default via 192.0.2.1 metric 100
//           wlan0 (3) 169.254.9.9/16, 10.9.0.3/16                   default via 10.9.0.1 metric 600
//           eth1 (4) no address      eth2 (5) 169.254.1.1/16 only, MTU 0
const link = (index: number, name: string, mtu = 1500): Link => ({
  index,
  name,
  mtu,
  up: true,
  running: true,
  mac: '02:00:00:00:00:01',
  flags: 0,
  txQueueLength: 0,
});
const has = (index: number, address: string, scope: Address['scope'] = 'global'): Address => ({
  index,
  link: '',
  family: address.includes(':') ? 6 : 4,
  address,
  prefixLength: 24,
  scope,
  tentative: false,
});
const defaultBy = (index: number, metric: number, more: Partial<Route> = {}): Route => ({
  family: 4,
  destination: 'default',
  type: 'unicast',
  index,
  scope: 'global',
  metric,
  table: 254,
  protocol: 3,
  onlink: false,
  ...more,
});
const machine = (more: Partial<InterfaceSource> = {}): InterfaceSource => ({
  links: () => [link(1, 'lo', 65536), link(2, 'eth0'), link(3, 'wlan0', 1400), link(4, 'eth1'), link(5, 'eth2', 0)],
  addresses: () => [
    has(1, '127.0.0.1', 'host'),
    has(1, '::1', 'host'),
    has(2, '192.0.2.7'),
    has(2, '192.0.2.8'),
    has(2, 'fe80::7', 'link'),
    has(2, '2001:db8::7'),
    has(3, '169.254.9.9', 'link'),
    has(3, '10.9.0.3'),
    has(5, '169.254.1.1', 'link'),
  ],
  routes: family =>
    family === 4
      ? [
          defaultBy(5, 1, { table: 77 }),
          defaultBy(3, 600),
          defaultBy(2, 100),
          { ...defaultBy(5, 0), destination: '10.0.0.0/8' },
        ]
      : [defaultBy(3, 1024, { family: 6 })],
  routeTo: address => {
    if (address === '10.9.7.7') return { type: 'unicast', link: 'wlan0', index: 3, source: '10.9.0.3' };
    throw new NetlinkError('ENETUNREACH', `look up the route to ${address}: ENETUNREACH (network is unreachable)`);
  },
  ...more,
});
const eth0 = { name: 'eth0', index: 2, mtu: 1500, address4: '192.0.2.7', address6: '2001:db8::7' };
const wlan0 = { name: 'wlan0', index: 3, mtu: 1400, address4: '10.9.0.3' };
const HAS = 'this machine has: lo, eth0, wlan0, eth1, eth2';

t.test('without options: the default route with the lowest metric in the main table', async t => {
  t.same(chooseInterface(machine()), eth0);
  t.same(chooseInterface(machine({ routes: () => [defaultBy(2, 0, { source: '192.0.2.8' })] })).address4, '192.0.2.8');
  t.same(chooseInterface(machine(), { needIp4: false }).name, 'wlan0', 'IPv6 alone goes by its own default route');
});

t.test('a public address is looked up among the links', async t => {
  t.same(chooseInterface(machine(), { publicIp: '10.9.0.3' }), wlan0);
  t.same(chooseInterface(machine(), { publicIp6: '2001:DB8:0::7' }), eth0);
  t.throws(() => chooseInterface(machine(), { publicIp: '198.51.100.1' }), {
    code: 'no-interface',
    message: `no interface with the public address 198.51.100.1 (name one with --iface if it is behind NAT); ${HAS}`,
  });
  t.same(chooseInterface(machine(), { publicIp: '198.51.100.1', iface: ['eth0'] }), eth0, 'behind NAT');
});

t.test('--iface: names and addresses, the first that is there', async t => {
  t.same(chooseInterface(machine(), { iface: ['eth9', 'wlan0', 'eth0'] }), wlan0);
  t.same(chooseInterface(machine(), { iface: ['192.0.2.8'] }), { ...eth0, address4: '192.0.2.8' });
  t.same(chooseInterface(machine(), { iface: ['2001:db8:0:0::7'] }), eth0);
  t.throws(() => chooseInterface(machine(), { iface: ['eth9', '10.1.1.1'] }), {
    code: 'no-interface',
    message: `no interface named eth9; no interface with address 10.1.1.1; ${HAS}`,
  });
});

t.test('--iface-regex: addresses first, then names, after --iface', async t => {
  t.same(chooseInterface(machine(), { ifaceRegex: ['^10\\.9\\.'] }), wlan0);
  t.same(chooseInterface(machine(), { ifaceRegex: ['\\.8$'] }), { ...eth0, address4: '192.0.2.8' });
  t.same(chooseInterface(machine(), { ifaceRegex: ['^wl'] }), wlan0);
  t.same(chooseInterface(machine(), { ifaceRegex: ['(?i)^WLAN'] }), wlan0);
  t.same(chooseInterface(machine(), { ifaceRegex: ['0'] }).address4, '192.0.2.7', 'not lo: it has nothing to offer');
  t.same(chooseInterface(machine(), { ifaceRegex: ['^nothing', '^eth0'], iface: ['eth9'] }), eth0);
  t.same(chooseInterface(machine(), { ifaceRegex: ['^eth0'], iface: ['wlan0'] }), wlan0);
  t.throws(() => chooseInterface(machine(), { ifaceRegex: ['^en'] }), {
    code: 'no-interface',
    message: `no interface whose address or name matches "^en"; ${HAS}`,
  });
  t.throws(() => chooseInterface(machine(), { iface: ['eth0'], ifaceRegex: ['('] }), {
    code: 'bad-pattern',
    message: /^--iface-regex "\(" is not a regular expression: /,
  });
});

t.test('--iface-can-reach: the link of the route', async t => {
  t.same(chooseInterface(machine(), { ifaceCanReach: '10.9.7.7' }), wlan0);
  t.same(chooseInterface(machine(), { iface: ['eth9'], ifaceCanReach: '10.9.7.7' }), wlan0);
  t.throws(() => chooseInterface(machine(), { ifaceCanReach: '8.8.8.8' }), {
    code: 'no-interface',
    message: /^no interface that can reach 8\.8\.8\.8 \(.*ENETUNREACH.*\); this machine has: lo, eth0/,
  });
  t.throws(() => chooseInterface(machine(), { ifaceCanReach: 'example.org' }), {
    message: `no interface that can reach example.org (not an IP address); ${HAS}`,
  });
});

t.test('what fits must be usable', async t => {
  t.throws(() => chooseInterface(machine(), { iface: ['eth1'] }), {
    code: 'no-address',
    message: 'interface eth1 has no IPv4 address: give it one, or choose another with --iface',
  });
  t.throws(() => chooseInterface(machine(), { iface: ['wlan0'], needIp6: true }), {
    code: 'no-address',
    message: /IPv6/,
  });
  t.throws(() => chooseInterface(machine(), { iface: ['eth2'] }), { code: 'no-mtu', message: /eth2 has an MTU of 0/ });
  const linkLocalOnly = machine({ links: () => [link(5, 'eth2')] });
  t.equal(chooseInterface(linkLocalOnly, { iface: ['eth2'] }).address4, '169.254.1.1', 'better than nothing');
  t.equal(chooseInterface(machine(), { iface: ['eth1'], needIp4: false }).address4, undefined);
});

t.test('nothing at all', async t => {
  t.throws(() => chooseInterface(machine({ routes: () => [] })), {
    code: 'no-interface',
    message: `no default route to choose an interface by (name one with --iface); ${HAS}`,
  });
  t.throws(() => chooseInterface(machine({ links: () => [], addresses: () => [] }), { iface: ['eth0'] }), {
    message: 'no interface named eth0; this machine has: none',
  });
});

t.test('on a real machine of links', { skip: whyNot() }, async t => {
  const sandbox = makeSandbox();
  t.teardown(() => sandbox.remove());
  const { netlink } = sandbox.open('node');
  t.throws(() => chooseInterface(netlink), { code: 'no-interface', message: /this machine has: lo$/ });
  netlink.createVeth({ name: 'eth0', peerName: 'eth1', mtu: 1450, up: true, peerUp: true });
  netlink.addAddress('eth0', '10.88.0.1/24');
  netlink.addAddress('eth0', 'fd88::1/64', { nodad: true });
  netlink.addAddress('eth1', '10.89.0.1/24');
  netlink.addRoute({ destination: 'default', gateway: '10.88.0.254', metric: 10 });
  netlink.addRoute({ destination: '10.90.0.0/16', gateway: '10.89.0.254' });
  const expected = {
    name: 'eth0',
    index: netlink.link('eth0')?.index,
    mtu: 1450,
    address4: '10.88.0.1',
    address6: 'fd88::1',
  };
  t.same(chooseInterface(netlink), expected);
  t.same(chooseInterface(netlink, { iface: ['eth9', 'eth0'] }), expected);
  t.same(chooseInterface(netlink, { iface: ['fd88:0::1'] }), expected);
  t.match(chooseInterface(netlink, { ifaceCanReach: '10.90.1.1' }), { name: 'eth1', address4: '10.89.0.1' });
  t.match(chooseInterface(netlink, { ifaceRegex: ['^10\\.89'] }), { name: 'eth1', address4: '10.89.0.1' });
});
