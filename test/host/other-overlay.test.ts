// Another overlay of the same network: told from our own bridge and from what is none of ours.
import t from 'tap';
import { type OverlayRange, refuseOtherOverlay } from '../../lib/host/other-overlay.ts';
import type { Address } from '../../lib/netlink/address.ts';
import type { Route } from '../../lib/netlink/route.ts';
import { cidr, cidr6 } from '../support/node.ts';

const ranges: OverlayRange[] = [
  { network: cidr('10.42.0.0/16'), own: cidr('10.42.1.0/24') },
  { network: cidr6('fd00:42::/48'), own: cidr6('fd00:42:0:1::/64') },
];

const look = (routes: Partial<Route>[], addresses: Partial<Address>[] = [], device?: string): unknown => {
  const list = routes.map(route => ({ family: 4, type: 'unicast', table: 254, ...route })) as Route[];
  return refuseOtherOverlay(
    {
      routes: family => list.filter(route => route.family === family),
      addresses: () => addresses as Address[],
    },
    ranges,
    device,
  );
};

t.test('what flannel leaves', async t => {
  const gateway = '10.42.2.0';
  const cases: [Partial<Route>, RegExp][] = [
    [
      { destination: '10.42.2.0/24', gateway, link: 'flannel.1' },
      /10\.42\.2\.0\/24 dev flannel\.1.*link delete flannel\.1/,
    ],
    [{ destination: '10.42.2.0/24', link: 'flannel-wg' }, /link delete flannel-wg/],
    [
      { destination: '10.42.2.0/24', gateway: '10.88.0.2', link: 'eth0' },
      /"ip route delete 10\.42\.2\.0\/24" for each/,
    ],
    [{ destination: '10.42.0.0/16', link: 'flannel0' }, /link delete flannel0/],
    [{ family: 6, destination: 'fd00:42:0:2::/64', gateway: 'fd88::2', link: 'eth0' }, /fd00:42::\/48 already/],
  ];
  for (const [route, message] of cases) t.throws(() => look([route]), { code: 'other-overlay', message });
  const many = Array.from({ length: 9 }, (_, i) => ({
    destination: `10.42.${i + 2}.0/24`,
    gateway,
    link: 'flannel.1',
  }));
  t.throws(() => look(many), { message: /10\.42\.4\.0\/24 dev flannel\.1, and 6 more\)/ });
});

t.test("flannel's device with an address of this node, before there is any route", async t => {
  const cases: [Partial<Address>, RegExp][] = [
    [
      { link: 'flannel.1', address: '10.42.1.0', prefixLength: 32 },
      /flannel\.1 has the address 10\.42\.1\.0 .*kubectl -n kube-flannel delete .*"ip link delete flannel\.1"/,
    ],
    [{ link: 'flannel-v6.1', address: 'fd00:42:0:1::', prefixLength: 128 }, /link delete flannel-v6\.1/],
  ];
  for (const [address, message] of cases) t.throws(() => look([], [address]), { code: 'other-overlay', message });
  const udp = { link: 'flannel0', address: '10.42.1.0', prefixLength: 32 };
  t.throws(() => look([], [udp], 'flannel1'), { code: 'other-overlay' });
  t.same(
    look([{ destination: '10.42.0.0/16', link: 'flannel0' }], [udp], 'flannel0'),
    [],
    'our own has such a name, too',
  );
});

t.test('what is no other overlay', async t => {
  t.same(
    look([
      { destination: 'default', gateway: '10.88.0.254', link: 'eth0' },
      { destination: '10.42.1.0/24', link: 'cni0' },
      { destination: '10.42.1.7/32', gateway: '10.42.1.1', link: 'veth7' },
      { destination: '10.43.0.0/16', gateway: '10.88.0.2', link: 'eth0' },
      { destination: '10.0.0.0/8', gateway: '10.88.0.2', link: 'eth0' },
      { destination: '10.42.0.0/16', link: 'tulle0' },
      { destination: '10.42.9.0/24', type: 'blackhole' },
      { destination: '10.42.9.0/24', link: 'cni0' },
    ]),
    [],
    'ways elsewhere, our own subnet, a larger range, our own device, what only drops, a bridge of our own of yesterday',
  );
});

t.test('an address of another subnet is told', async t => {
  const addresses: Partial<Address>[] = [
    { link: 'cni0', address: '10.42.9.1', prefixLength: 24 },
    { link: 'cni0', address: '10.42.1.1', prefixLength: 24 },
    { link: 'eth0', address: '10.88.0.1', prefixLength: 24 },
    { link: 'cni0', address: 'fd00:42:0:9::1', prefixLength: 64 },
    { link: 'gw0', address: '10.42.0.1', prefixLength: 16 },
  ];
  t.same(look([], addresses), [
    { link: 'cni0', address: '10.42.9.1/24' },
    { link: 'cni0', address: 'fd00:42:0:9::1/64' },
  ]);
});
