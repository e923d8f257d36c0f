/** Attachments in real namespaces: what the reference bridge and ptp plugins make, and what is left when a step fails. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { isHeard } from '../netlink/echo.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { addressesOf, BRIDGE, linksIn, makeNode, rejection } from './node.ts';

const skip = whyNot();
const DUAL = {
  ...BRIDGE,
  ipam: { ranges: [[{ subnet: '10.9.0.0/24' }], [{ subnet: 'fd00:9::/64' }]], routes: [{ dst: '10.0.0.0/8' }] },
};

/** Of the links of a namespace but lo, as /proc/net/if_inet6 has them. */
const ip6AddressesIn = (namespace: string): string[] =>
  withNamespace(namespace, () => readFileSync('/proc/thread-self/net/if_inet6', 'utf8'))
    .split('\n')
    .filter(line => line !== '' && !line.endsWith(' lo'));

t.test('bridge: a pod is plugged in and out', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const one = node.pod('one');
  const result = await node.add('one');
  const [bridge, host, inside] = result.interfaces;
  t.match(
    [host.name, 'cni0'].map(name => node.netlink.link(name)?.running),
    [true, true],
    'they carry frames by now',
  );
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
  // /proc/net/if_inet6 of the calling thread's namespace: address, index, prefix length, scope, flags, device.
  const ip6 = withNamespace(node.host, () => readFileSync('/proc/thread-self/net/if_inet6', 'utf8'));
  const holders = ip6.split('\n').map(line => line.trim().split(/\s+/).at(-1));
  t.notOk(holders.includes(host.name), 'a port has no address of its own');

  const two = node.pod('two');
  t.match((await node.add('two')).ips, [{ address: '10.9.0.3/24' }]);
  t.ok(isHeard(two, '10.9.0.1', 5000), 'its gateway');
  t.ok(isHeard(two, '10.9.0.2', 5000), 'the other pod');

  t.same(ip6AddressesIn(one), [], 'nobody talks IPv6 here: no link-local address, and none to tell every port of');
  const call = { containerId: 'one', netns: one, prevResult: result };
  await node.plugin.check(node.request('CHECK', call));

  await node.del('one');
  t.same(linksIn(one), []);
  t.equal(node.netlink.link(host.name), undefined);
  const heir = await node.add('heir', { ...BRIDGE, runtimeConfig: { ips: ['10.9.0.2'] } });
  t.equal(heir.interfaces[2].mac, inside.mac, 'who knows the address knows the MAC address');
  t.ok(isHeard(two, '10.9.0.2', 1000), 'at once, where a neighbour entry that is wrong would take some 8 s to go');
  await node.del('heir');
  await node.del('two');
  t.same(linksIn(node.netlink), ['cni0'], 'the bridge stays, as with the reference');
});

t.test('both families, MTU, routes', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const one = node.pod('one');
  const result = await node.add('one', { ...DUAL, mtu: 1400 });
  t.same(result.ips, [
    { address: '10.9.0.2/24', gateway: '10.9.0.1', interface: 2 },
    { address: 'fd00:9::2/64', gateway: 'fd00:9::1', interface: 2 },
  ]);
  t.same(result.routes, [
    { dst: '10.0.0.0/8' },
    { dst: '0.0.0.0/0', gw: '10.9.0.1' },
    { dst: '::/0', gw: 'fd00:9::1' },
  ]);
  t.same(
    result.interfaces.map(link => link.mtu),
    [1400, 1400, 1400],
  );
  t.same(addressesOf(one, 'eth0').sort(), ['10.9.0.2/24', 'fd00:9::2/64']);
  t.ok(
    ip6AddressesIn(one).some(line => line.startsWith('fe80')),
    'with IPv6 it has a link-local address, too',
  );
  t.same(addressesOf(node.host, 'cni0').sort(), ['10.9.0.1/24', 'fd00:9::1/64']);
  withRtnetlink(one, netlink => {
    t.notOk(netlink.addresses({ link: 'eth0', family: 6 }).some(ip => ip.scope !== 'link' && ip.tentative));
    t.equal(netlink.routeTo('10.1.2.3').gateway, '10.9.0.1');
    t.equal(netlink.routeTo('fd77::1').gateway, 'fd00:9::1');
    t.equal(netlink.link('eth0')?.mtu, 1400);
  });
  const forwarding = withNamespace(node.host, () =>
    ['ipv4/ip_forward', 'ipv6/conf/all/forwarding'].map(key => readFileSync(`/proc/sys/net/${key}`, 'utf8').trim()),
  );
  t.same(forwarding, ['1', '1']);

  // The overlay's MTU has changed meanwhile: the bridge follows (cni#356, flannel#1775).
  await node.add('two', { ...DUAL, mtu: 1450 });
  t.equal(node.netlink.link('cni0')?.mtu, 1450);
  const checked = { containerId: 'one', netns: one, config: { ...DUAL, mtu: 1400 }, prevResult: result };
  await node.plugin.check(node.request('CHECK', checked));
});

t.test('ptp: host routes, the gateway on the link', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const config = { ...DUAL, mode: 'ptp' };
  const [one, two] = [node.pod('one'), node.pod('two')];
  const result = await node.add('one', config);
  t.same(
    result.interfaces.map(({ name, sandbox }) => [name.slice(0, 4), sandbox]),
    [
      ['veth', undefined],
      ['eth0', one],
    ],
  );
  t.same(
    result.ips.map(ip => ip.interface),
    [1, 1],
  );
  await node.add('two', config);
  const [host] = result.interfaces;
  t.same(addressesOf(node.host, host.name).sort(), ['10.9.0.1/32', 'fd00:9::1/128']);
  t.equal(node.netlink.routeTo('10.9.0.2').link, host.name);
  t.equal(node.netlink.routeTo('fd00:9::2').link, host.name);
  withRtnetlink(one, netlink => {
    t.equal(netlink.routeTo('10.9.0.3').gateway, '10.9.0.1', 'neighbours, too');
    t.equal(netlink.routeTo('10.9.0.1').gateway, undefined);
  });
  t.ok(isHeard(one, '10.9.0.1', 5000));
  t.ok(isHeard(two, '10.9.0.2', 5000), 'pod to pod, through the host');
  const call = { containerId: 'one', netns: one, config, prevResult: result };
  await node.plugin.check(node.request('CHECK', call));
  await node.del('one', config);
  await node.del('two', config);
  t.same(linksIn(node.netlink), []);
  t.notOk(node.netlink.routes(4, 254).some(route => route.destination.startsWith('10.9.')));
});

t.test('an MTU that is too small for IPv6', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const config = { ...BRIDGE, mtu: 1200 };
  const result = await node.add('one', config);
  const [, host, inside] = result.interfaces;
  t.match(node.netlink.link(host.name), { alias: 'tulle:net1/one/eth0', mtu: 1200 });
  t.match(inside, { mac: '0a:58:0a:09:00:02', mtu: 1200 });
  await node.plugin.check(
    node.request('CHECK', { containerId: 'one', netns: node.pod('one'), config, prevResult: result }),
  );
  t.ok(isHeard(node.pod('one'), '10.9.0.1', 5000));
});

t.test('hairpin, isolation, promiscuous, a MAC address of choice', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const port = async (pod: string, keys: object): Promise<object | undefined> => {
    const { interfaces } = await node.add(pod, { ...BRIDGE, ...keys });
    return node.netlink.link(interfaces[1].name)?.port;
  };
  t.match(await port('plain', {}), { hairpin: false, isolated: false, learning: true, locked: false });
  t.match(await port('hairpin', { hairpinMode: true }), { hairpin: true });
  t.match(await port('lonely', { portIsolation: true }), { isolated: true });
  await port('loner', { portIsolation: true });
  t.ok(isHeard(node.pod('lonely'), '10.9.0.1', 5000), 'the gateway hears an isolated pod');
  t.notOk(isHeard(node.pod('lonely'), '10.9.0.5', 300), 'another isolated one does not');
  t.match(await port('promiscuous', { promiscMode: true }), {});
  t.not((node.netlink.link('cni0')?.flags ?? 0) & 0x100, 0);
  const { interfaces } = await node.add('mac', { ...BRIDGE, runtimeConfig: { mac: '02:0A:0b:0c:0d:0e' } });
  t.equal(interfaces[2].mac, '02:0a:0b:0c:0d:0e');
  t.match(await rejection(node.add('x', { ...BRIDGE, hairpinMode: true, promiscMode: true })), {
    code: 7,
    message: /cannot set hairpin mode and promiscuous mode at the same time/,
  });
  t.match(await rejection(node.add('x', { ...BRIDGE, vlan: 100 })), { code: 2, message: /^vlan 100/ });
});

t.test('macspoofchk: frames from another MAC address are dropped', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const config = { ...BRIDGE, macspoofchk: true };
  const one = node.pod('one');
  const result = await node.add('one', config);
  const call = { containerId: 'one', netns: one, config, prevResult: result };
  t.ok(isHeard(one, '10.9.0.1', 5000));
  await node.plugin.check(node.request('CHECK', call));
  withRtnetlink(one, netlink => {
    netlink.setLink('eth0', { up: false });
    netlink.setLink('eth0', { mac: '02:00:00:00:00:66', up: true });
  });
  t.notOk(isHeard(one, '10.9.0.1', 300));
  withRtnetlink(one, netlink => netlink.setLink('eth0', { mac: result.interfaces[2].mac! }));
  t.ok(isHeard(one, '10.9.0.1', 5000));
  const again = await node.add('two', config);
  const second = { containerId: 'two', netns: node.pod('two'), config, prevResult: again };
  node.netlink.setLink(again.interfaces[1].name, { port: { locked: false } });
  t.match(await rejection(node.plugin.check(node.request('CHECK', second))), { code: 101, message: /any MAC address/ });
});

t.test('without an interface inside: no addresses, and none may be asked for', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const { ipam: _, ...rest } = BRIDGE;
  const config = { ...rest, disableContainerInterface: true };
  const result = await node.add('one', config);
  t.same([result.ips, result.routes], [[], []]);
  t.equal(
    withRtnetlink(node.pod('one'), netlink => netlink.link('eth0')?.up),
    false,
  );
  const call = { containerId: 'one', netns: node.pod('one'), config, prevResult: result };
  await node.plugin.check(node.request('CHECK', call));
  t.match(await rejection(node.add('two', { ...BRIDGE, disableContainerInterface: true })), {
    code: 7,
    message: /DisableContainerInterface/,
  });
  await node.del('one', config);
  t.same(linksIn(node.netlink), ['cni0']);
});

t.test('addresses that the runtime asks for', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const asking = (...ips: string[]): object => ({ ...BRIDGE, runtimeConfig: { ips } });
  t.match((await node.add('one', asking('10.9.0.77/24'))).ips, [{ address: '10.9.0.77/24' }]);
  t.match((await node.add('two')).ips, [{ address: '10.9.0.2/24' }], 'the order of the others is as before');
  t.match((await node.add('arg', BRIDGE, { args: 'IP=10.9.0.99' })).ips, [{ address: '10.9.0.99/24' }]);
  for (const [ip, message] of [
    ['10.9.0.77', /requested IP address 10\.9\.0\.77 is not available in range set 10\.9\.0\.1-10\.9\.0\.254/],
    ['10.9.0.1', /requested ip 10\.9\.0\.1 is subnet's gateway/],
    ['10.66.0.1', /failed to allocate all requested IPs: 10\.66\.0\.1/],
  ] as const) {
    t.match(await rejection(node.add('three', asking(ip))), { code: 7, message }, ip);
    t.same(linksIn(node.pod('three')), []);
  }
  t.match(await rejection(node.add('two')), { code: 4, message: /has been allocated to two, duplicate allocation/ });
  t.equal(linksIn(node.pod('two')).length, 1, 'the first one is still there');
});

t.test('dns: the configuration goes before resolv.conf', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const file = join(node.directory, 'resolv.conf');
  writeFileSync(file, '# a comment\nnameserver 10.0.0.53\nsearch a.example b.example\noptions ndots:5\n');
  const config = { ...BRIDGE, ipam: { ...BRIDGE.ipam, resolvConf: file } };
  t.same((await node.add('one', config)).dns, {
    nameservers: ['10.0.0.53'],
    search: ['a.example', 'b.example'],
    options: ['ndots:5'],
  });
  const own = { nameservers: ['10.1.1.1'] };
  t.same((await node.add('two', { ...config, dns: own })).dns, own);
  const missing = { ...BRIDGE, ipam: { ...BRIDGE.ipam, resolvConf: '/no/such/file' } };
  t.match(await rejection(node.add('three', missing)), {
    code: 5,
    message: /ipam\.resolvConf: cannot read \/no\/such/,
  });
  t.same(linksIn(node.pod('three')), []);
});

t.test('a bridge that is another thing, or has another address', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  node.netlink.createVeth({ name: 'notabridge', peerName: 'x' });
  t.match(await rejection(node.add('one', { ...BRIDGE, bridge: 'notabridge' })), {
    code: 7,
    message: /"notabridge" already exists but is not a bridge/,
  });
  node.netlink.createBridge({ name: 'cni0' });
  node.netlink.addAddress('cni0', '10.66.0.1/24');
  const before = linksIn(node.netlink);
  t.match(await rejection(node.add('one')), {
    code: 7,
    message: /"cni0" already has an IP address different from 10\.9\.0\.1\/24: 10\.66\.0\.1\/24/,
  });
  t.same(linksIn(node.netlink), before);
  t.same(linksIn(node.pod('one')), []);
  await node.add('one', { ...BRIDGE, forceAddress: true });
  t.same(addressesOf(node.host, 'cni0'), ['10.9.0.1/24']);
});

t.test('every step that can fail leaves nothing', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const nothing = (what: string): void => {
    t.same(linksIn(node.netlink), [], `${what}: no link`);
    t.same(linksIn(node.pod('one')), [], `${what}: none in the pod`);
    t.equal(node.rules.present.size, 0, `${what}: no rule`);
  };
  node.rules.failure = 'no rules today';
  t.match(await rejection(node.add('one', { ...BRIDGE, ipMasq: true })), { message: /no rules today/ });
  nothing('rules');
  node.rules.failure = undefined;
  const unreachable = { ...BRIDGE, ipam: { subnet: '10.9.0.0/24', routes: [{ dst: '10.1.0.0/16', gw: '192.0.2.1' }] } };
  t.match(await rejection(node.add('one', unreachable)), {
    message: /failed to add route 10\.1\.0\.0\/16 via 192\.0\.2\.1/,
  });
  nothing('a route');
  const aborted = new AbortController();
  aborted.abort();
  t.match(await rejection(node.add('one', BRIDGE, { signal: aborted.signal })), { code: 11 });
  nothing('a caller that went away');
  const later = new AbortController();
  node.rules.onAttach = () => later.abort();
  t.match(await rejection(node.add('one', { ...BRIDGE, ipMasq: true }, { signal: later.signal })), { code: 11 });
  nothing('a caller that went away after the rules were made');
  node.rules.onAttach = () => {};
  t.match(await rejection(node.add('one', { ...BRIDGE, mtu: 20 })), { code: 999, message: /EINVAL/ });
  nothing('an MTU that no link takes');
  const blocked = join(node.directory, 'blocked');
  writeFileSync(blocked, '');
  const elsewhere = { ...BRIDGE, ipam: { ...BRIDGE.ipam, dataDir: blocked } };
  t.match(await rejection(node.add('one', elsewhere)), { code: 5, message: /blocked/ });
  nothing('no place for the record');
  withRtnetlink(node.pod('one'), netlink => netlink.createVeth({ name: 'eth0', peerName: 'eth1' }));
  t.match(await rejection(node.add('one')), { code: 4, message: /"eth0" already exists in / });
  t.same(linksIn(node.pod('one')), ['eth0', 'eth1'], "somebody else's is left alone");
  withRtnetlink(node.pod('one'), netlink => netlink.deleteLink('eth0'));
  nothing('the name is taken');
  t.match((await node.add('one')).ips, [{ address: /^10\.9\.0\.\d+\/24$/ }], 'and then it works');
});

t.test('several interfaces of one pod, several networks', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const second = { ...BRIDGE, name: 'net2', bridge: 'br2', isDefaultGateway: false, isGateway: true };
  await node.add('one');
  t.match((await node.add('one', BRIDGE, { ifname: 'eth1' }).catch(error => error)).message, /add route 0\.0\.0\.0/);
  t.match(
    (await node.add('one', second, { ifname: 'net1' })).ips,
    [{ address: '10.9.0.2/24' }],
    'networks know nothing of each other',
  );
  t.same(linksIn(node.pod('one')), ['eth0', 'net1']);
  await node.del('one', second, { ifname: 'net1' });
  t.same(linksIn(node.pod('one')), ['eth0']);
});

t.test("a DEL of what was refused leaves another network's interface alone", { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const second = { ...BRIDGE, name: 'net2', bridge: 'br2' };
  await node.add('one');
  const refused = /container veth name \(CNI_IFNAME\) "eth0" already exists/;
  t.match(await rejection(node.add('one', second)), { message: refused });
  await node.del('one', second);
  t.same(linksIn(node.pod('one')), ['eth0']);
  // Its record is lost: the far end still says whose it is.
  node.plugin.close();
  writeFileSync(join(node.dataDir, 'net1/journal'), '');
  await node.restart();
  await node.del('one', second);
  t.same(linksIn(node.pod('one')), ['eth0']);
  await node.del('one');
  t.same(linksIn(node.pod('one')), []);
});
