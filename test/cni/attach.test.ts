import t from 'tap';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { isHeard } from '../netlink/echo.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { addressesOf, linksIn, makeNode } from './node.ts';

const skip = whyNot();

t.test('bridge: a pod is plugged in and out', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const one = node.pod('one');
  const result = await node.add('one');
  const [bridge, host, inside] = result.interfaces;
  t.match(bridge, { name: 'cni0', mac: node.netlink.link('cni0')?.mac });
  t.match(host, { name: /^veth[0-9a-f]{11}$/, mac: node.netlink.link(host.name)?.mac, mtu: 1500 });
  const eth0 = withRtnetlink(one, netlink => netlink.link('eth0'));
  t.same(inside, { name: 'eth0', mac: eth0?.mac, mtu: 1500, sandbox: one });
  t.same(result.ips, [{ address: '10.9.0.2/24', gateway: '10.9.0.1', interface: 2 }]);
  t.same(result.routes, [{ dst: '0.0.0.0/0', gw: '10.9.0.1' }]);
  t.same(result.dns, {});
  t.same(addressesOf(one, 'eth0'), ['10.9.0.2/24']);
  t.same(addressesOf(node.host, 'cni0'), ['10.9.0.1/24']);
  t.equal(node.netlink.link(host.name)?.alias, 'tulle:net1/one/eth0');
  t.equal(node.netlink.link(host.name)?.master, node.netlink.link('cni0')?.index);

  const two = node.pod('two');
  t.match((await node.add('two')).ips, [{ address: '10.9.0.3/24' }]);
  t.ok(isHeard(two, '10.9.0.1', 5000), 'its gateway');
  t.ok(isHeard(two, '10.9.0.2', 5000), 'the other pod');

  await node.del('one');
  t.same(linksIn(one), []);
  t.equal(node.netlink.link(host.name), undefined);
  await node.del('two');
  t.same(linksIn(node.netlink), ['cni0'], 'the bridge stays, as with the reference');
});
