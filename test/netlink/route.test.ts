import t from 'tap';
import type { Route, Rtnetlink } from '../../lib/netlink/netlink.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

/** a: 10.0.0.1/24 and fd00::1/64, up; b, its other end, up without an address */
function topology(name: string): Rtnetlink {
  const { netlink } = sandbox.open(name);
  netlink.createVeth({ name: 'a', peerName: 'b', up: true, peerUp: true });
  netlink.addAddress('a', '10.0.0.1/24');
  netlink.addAddress('a', 'fd00::1/64', { nodad: true });
  return netlink;
}
const find = (netlink: Rtnetlink, destination: string, table = 254): Route[] =>
  netlink.routes(destination.includes(':') ? 6 : 4, table).filter(route => route.destination === destination);

t.test('IPv4 routes', { skip }, async t => {
  const netlink = topology('v4');
  netlink.addRoute({ destination: 'default', gateway: '10.0.0.254' });
  t.match(find(netlink, 'default'), [
    { gateway: '10.0.0.254', link: 'a', scope: 'global', type: 'unicast', metric: 0, protocol: 4 },
  ]);
  netlink.addRoute({ destination: '10.50.0.0/16', link: 'a', source: '10.0.0.1', mtu: 1400 });
  t.match(find(netlink, '10.50.0.0/16'), [{ link: 'a', scope: 'link', source: '10.0.0.1', mtu: 1400 }]);
  netlink.addRoute({ destination: '10.54.0.0/16', link: 'a', advertisedMss: 1200 });
  t.match(find(netlink, '10.54.0.0/16'), [{ advertisedMss: 1200 }]);
  netlink.addRoute({ destination: '10.51.0.0/16', link: 'a', scope: 'global' });
  t.match(find(netlink, '10.51.0.0/16'), [{ scope: 'global' }]);
  netlink.addRoute({
    destination: '10.52.0.0/16',
    link: 'b',
    gateway: '172.16.0.1',
    onlink: true,
    metric: 7,
    table: 1000,
  });
  t.match(find(netlink, '10.52.0.0/16', 1000), [
    { link: 'b', gateway: '172.16.0.1', onlink: true, metric: 7, table: 1000 },
  ]);
  t.same(find(netlink, '10.52.0.0/16'), []);
  netlink.addRoute({ destination: '10.53.0.0/16', type: 'blackhole' });
  t.match(find(netlink, '10.53.0.0/16'), [{ type: 'blackhole' }]);
  t.equal(find(netlink, '10.53.0.0/16')[0]?.link, undefined);

  // EEXIST, replace, ensure
  const same = { destination: '10.50.0.0/16', link: 'a', source: '10.0.0.1', mtu: 1400 };
  t.throws(() => netlink.addRoute(same), { code: 'EEXIST', message: /^add route 10\.50\.0\.0\/16: EEXIST/ });
  netlink.addRoute({ ...same, ensure: true });
  for (const other of [
    { ...same, link: 'b' },
    { ...same, mtu: 1300 },
    { destination: '10.50.0.0/16', link: 'a' },
    { destination: '10.50.0.0/16', gateway: '10.0.0.7' },
    { destination: '10.50.0.0/16', type: 'blackhole' as const },
  ]) {
    t.throws(() => netlink.addRoute({ ...other, ensure: true }), { code: 'EEXIST' }, JSON.stringify(other));
  }
  netlink.addRoute({ destination: '10.50.0.0/16', link: 'b', replace: true });
  t.match(find(netlink, '10.50.0.0/16'), [{ link: 'b' }]);
  t.equal(find(netlink, '10.50.0.0/16')[0]?.source, undefined);
  netlink.addRoute({ destination: '10.60.0.0/16', link: 'b', replace: true }); // replaces nothing
  netlink.addRoute({ destination: '10.50.0.0/16', link: 'a', metric: 5 });
  t.equal(find(netlink, '10.50.0.0/16').length, 2, 'another metric is another route');

  t.throws(() => netlink.addRoute({ destination: '10.70.0.0/16', gateway: '172.31.0.1' }), {
    code: 'ENETUNREACH',
    message: /invalid gateway/,
  });
  t.throws(() => netlink.addRoute({ destination: '10.70.0.1/16', link: 'a' }), { code: 'EINVAL', message: /prefix/ });
  t.throws(() => netlink.addRoute({ destination: '10.70.0.0/16', link: 'nothing' }), { code: 'ENODEV' });

  for (let time = 0; time < 2; time++) {
    netlink.deleteRoute({ destination: '10.50.0.0/16', metric: 5 });
    netlink.deleteRoute({ destination: '10.52.0.0/16', table: 1000 });
    netlink.deleteRoute({ destination: '10.53.0.0/16', type: 'blackhole' });
    netlink.deleteRoute({ destination: 'default' });
    netlink.deleteRoute({ destination: '10.60.0.0/16', link: 'nothing' });
    netlink.deleteRoute({ destination: '10.60.0.0/16', link: 'a' });
  }
  t.match(find(netlink, '10.50.0.0/16'), [{ link: 'b', metric: 0 }]);
  t.equal(find(netlink, '10.60.0.0/16').length, 1, 'by another link: not deleted');
  for (const destination of ['10.53.0.0/16', 'default']) t.same(find(netlink, destination), []);
  t.same(find(netlink, '10.52.0.0/16', 1000), []);
});

t.test('IPv6 routes', { skip }, async t => {
  const netlink = topology('v6');
  const defaults = (): Route[] => netlink.routes(6, 254).filter(({ destination }) => destination === 'default');
  netlink.addRoute({ destination: 'default', gateway: 'fd00::fe' });
  netlink.addRoute({ destination: 'default', gateway: 'fd00::fe', ensure: true });
  t.match(defaults(), [{ gateway: 'fd00::fe', link: 'a', metric: 1024 }]);
  netlink.addRoute({ destination: '::/0', gateway: 'fd00::fd', replace: true });
  t.match(defaults(), [{ gateway: 'fd00::fd' }]);
  netlink.addRoute({ destination: 'fd00:1::/48', link: 'b' });
  netlink.addRoute({ destination: 'fd00:1:0::/48', link: 'b', ensure: true });
  t.match(find(netlink, 'fd00:1::/48'), [{ link: 'b' }]);
  netlink.addRoute({ destination: 'fd00:2::/48', type: 'blackhole' });
  t.match(find(netlink, 'fd00:2::/48'), [{ type: 'blackhole' }]);
  for (let time = 0; time < 2; time++) {
    netlink.deleteRoute({ destination: 'default', family: 6 });
    netlink.deleteRoute({ destination: 'fd00:1::/48' });
    netlink.deleteRoute({ destination: 'fd00:2::/48', type: 'blackhole' });
  }
  t.same(defaults(), []);
  t.same(find(netlink, 'fd00:1::/48'), []);
  t.same(find(netlink, 'fd00:2::/48'), []);
});

t.test('routeTo asks the kernel', { skip }, async t => {
  const netlink = topology('lookup');
  t.throws(() => netlink.routeTo('192.0.2.1'), {
    code: 'ENETUNREACH',
    message: /^look up the route to 192\.0\.2\.1: ENETUNREACH/,
  });
  t.throws(() => netlink.routeTo('2001:db8::1'), { code: 'ENETUNREACH' });
  netlink.addRoute({ destination: 'default', gateway: '10.0.0.254' });
  netlink.addRoute({ destination: '10.50.0.0/16', link: 'b', source: '10.0.0.1', mtu: 1300 });
  netlink.addRoute({ destination: '10.53.0.0/16', type: 'blackhole' });
  t.match(netlink.routeTo('192.0.2.1'), { type: 'unicast', link: 'a', source: '10.0.0.1', gateway: '10.0.0.254' });
  t.match(netlink.routeTo('10.50.1.1'), { link: 'b', source: '10.0.0.1', mtu: 1300 });
  t.equal(netlink.routeTo('10.50.1.1').gateway, undefined);
  t.match(netlink.routeTo('10.0.0.1'), { type: 'local', link: 'lo' });
  t.match(netlink.routeTo('fd00::77'), { link: 'a', source: 'fd00::1' });
  t.throws(() => netlink.routeTo('10.53.0.1'), { code: 'EINVAL' });
  t.throws(() => netlink.routeTo('example.org'), { code: 'EINVAL' });
});
