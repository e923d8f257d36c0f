/** What comes after an ADD: CHECK, DEL in every state, GC, STATUS, a reboot; and whence the addresses come. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { hostLinkName } from '../../lib/cni/names.ts';
import type { NodeNetwork } from '../../lib/cni/node-plugin.ts';
import type { CniResult } from '../../lib/cni/plugin.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { parseCidr4 } from '../../lib/wire/cidr.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { makeFakeIpam } from './delegated.ts';
import { addressesOf, BRIDGE, linksIn, makeNode, type Node, rejection } from './node.ts';

const skip = whyNot();
const MASQUERADED = { ...BRIDGE, ipMasq: true };

const lease = (subnet: string, more: Partial<NodeNetwork> = {}): NodeNetwork => ({
  subnet: parseCidr4(subnet)!,
  network: parseCidr4('10.5.0.0/16')!,
  mtu: 1460,
  ...more,
});

t.test('CHECK finds every difference that matters', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const config = { ...MASQUERADED, hairpinMode: true };
  const differences: [string, RegExp, (node: Node, result: CniResult) => void][] = [
    ['nothing', /it succeeded/, () => {}],
    [
      'the address',
      /address 10\.9\.0\.\d+\/24 is missing on eth0/,
      (_, { ips }) => inside(del => del.deleteAddress('eth0', ips[0].address)),
    ],
    [
      'the default route',
      /route 0\.0\.0\.0\/0 via 10\.9\.0\.1 is missing/,
      () => inside(pod => pod.deleteRoute({ destination: 'default' })),
    ],
    ['the link is down', /interface eth0 is down/, () => inside(pod => pod.setLink('eth0', { up: false }))],
    [
      'another MAC address',
      /eth0 has MAC 02:00:00:00:00:77, and prevResult says/,
      () => inside(pod => pod.setLink('eth0', { mac: '02:00:00:00:00:77' })),
    ],
    [
      'not a port',
      /veth[0-9a-f]+ is not a port of cni0/,
      ({ netlink }, { interfaces }) => netlink.setLink(interfaces[1].name, { master: null }),
    ],
    [
      "the host's end is down",
      /veth[0-9a-f]+ is down/,
      ({ netlink }, { interfaces }) => netlink.setLink(interfaces[1].name, { up: false }),
    ],
    [
      'no hairpin',
      /not in hairpin mode/,
      ({ netlink }, { interfaces }) => netlink.setLink(interfaces[1].name, { port: { hairpin: false } }),
    ],
    [
      'the link',
      /interface eth0 is missing in /,
      ({ netlink }, { interfaces }) => netlink.deleteLink(interfaces[1].name),
    ],
    ['the rule', /no rule for net1\/one\/eth0/, ({ rules }) => rules.present.clear()],
    [
      'the gateway',
      /gateway 10\.9\.0\.1 is missing on cni0/,
      ({ netlink }) => netlink.deleteAddress('cni0', '10.9.0.1/24'),
    ],
    ["the bridge's MAC", /cni0 has MAC/, ({ netlink }) => netlink.setLink('cni0', { mac: '02:00:00:00:00:88' })],
    ['the bridge', /bridge cni0 is missing/, ({ netlink }) => netlink.deleteLink('cni0')],
  ];
  const inside = (action: Parameters<typeof withRtnetlink<void>>[1]): void => withRtnetlink(node.pod('one'), action);
  for (const [what, message, change] of differences) {
    const result = await node.add('one', config);
    change(node, result);
    const call = { containerId: 'one', netns: node.pod('one'), config, prevResult: result };
    const { code, message: text } = await rejection(node.plugin.check(node.request('CHECK', call)));
    t.match(text, message, what);
    if (text !== 'it succeeded' && what !== 'the rule') t.equal(code, 101, what);
    await node.del('one', config);
    if (node.netlink.link('cni0') !== undefined) node.netlink.deleteLink('cni0');
  }
  const result = await node.add('one', config);
  const call = { containerId: 'one', netns: node.pod('one'), config, prevResult: result };
  const check = (more: object): Promise<{ message: string }> =>
    rejection(node.plugin.check({ ...node.request('CHECK', call), ...more }));
  t.match(await check({ prevResult: undefined }), { message: /prevResult/ });
  t.match(await check({ containerId: 'two' }), { message: /Failed to find address added by container two/ });
  t.match(await check({ netns: node.pod('three') }), { message: /sandbox in prevResult .* doesn't match/ });

  // tuning sets another MAC address, and tells it in the result of the chain.
  withRtnetlink(node.pod('one'), pod => pod.setLink('eth0', { mac: '02:00:00:00:00:77' }));
  const [bridge, host, container] = result.interfaces;
  const tuned = {
    ...result,
    interfaces: [bridge, host, { ...container, mac: '02:00:00:00:00:77' }, { name: 'bwpabc' }],
  };
  t.match(await check({ prevResult: tuned }), { message: 'it succeeded' });
});

t.test('DEL in every state', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const del = (netns: string): Promise<void> =>
    node.plugin.del(node.request('DEL', { containerId: 'one', netns, config: MASQUERADED }));
  await del('');
  await del('/no/such/namespace');
  t.pass('never added');
  for (const netns of [node.pod('one'), '', '/no/such/namespace', '/etc/hostname', '/etc/hostname/x']) {
    await node.add('one', MASQUERADED);
    for (let i = 0; i < 3; i++) await del(netns);
    t.same(linksIn(node.pod('one')), [], `CNI_NETNS ${netns}`);
    t.same(linksIn(node.netlink), ['cni0']);
    t.equal(node.rules.present.size, 0);
  }
  // Somebody was there before.
  await node.add('one', MASQUERADED);
  node.netlink.deleteLink(hostLinkName({ network: 'net1', containerId: 'one', ifname: 'eth0' }));
  await del(node.pod('one'));
  t.equal(node.rules.present.size, 0);

  // The records are lost: the link is found by its name, and the pod's end by the namespace.
  await node.add('one', MASQUERADED);
  node.plugin.close();
  writeFileSync(join(node.dataDir, 'net1/journal'), '');
  await node.restart();
  await del('');
  t.same(linksIn(node.netlink), ['cni0']);
  t.equal(node.rules.present.size, 0);

  // What cannot be removed is told, the rest is removed, and the next DEL tries again.
  await node.add('one', MASQUERADED);
  node.rules.detachFailure = 'the table is locked';
  t.match(await rejection(del(node.pod('one'))), { code: 999, message: /one eth0 .*the table is locked/ });
  t.same(linksIn(node.pod('one')), []);
  t.equal(node.rules.present.size, 1);
  node.rules.detachFailure = undefined;
  await del('');
  t.equal(node.rules.present.size, 0);
});

t.test('GC without a list removes only what is surely dead', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  for (const pod of ['one', 'two', 'three']) await node.add(pod, MASQUERADED);
  node.netlink.deleteLink(hostLinkName({ network: 'net1', containerId: 'two', ifname: 'eth0' }));
  await node.plugin.gc(node.request('GC', { config: MASQUERADED }));
  t.same([...node.rules.present.keys()].sort(), ['net1/one/eth0', 'net1/three/eth0']);

  // It goes on after a failure, and says so in one error.
  node.rules.detachFailure = 'locked';
  const gc = (): Promise<void> => node.plugin.gc(node.request('GC', { config: MASQUERADED, validAttachments: [] }));
  t.match(await rejection(gc()), { code: 999, message: /one eth0.*locked.*three eth0.*locked/ });
  t.same(linksIn(node.netlink), ['cni0']);
  node.rules.detachFailure = undefined;
  await gc();
  t.equal(node.rules.present.size, 0);

  // Links whose records are lost are known by their alias, those of another network are not touched.
  const other = { ...BRIDGE, name: 'net2', ipam: { subnet: '10.9.0.0/24' }, isDefaultGateway: false };
  await node.add('one', MASQUERADED);
  await node.add('four', other);
  node.plugin.close();
  writeFileSync(join(node.dataDir, 'net1/journal'), '');
  await node.restart();
  await gc();
  t.same(linksIn(node.pod('one')), []);
  t.same(linksIn(node.pod('four')), ['eth0']);

  // An alias has 254 bytes: cut, it tells of a container that is in no list, and of no link of that name.
  const long = 'x'.repeat(250);
  const { interfaces } = await node.add('long', MASQUERADED, { containerId: long });
  node.plugin.close();
  writeFileSync(join(node.dataDir, 'net1/journal'), '');
  await node.restart();
  const valid = { config: MASQUERADED, validAttachments: [{ containerId: long, ifname: 'eth0' }] };
  await node.plugin.gc(node.request('GC', valid));
  t.not(node.netlink.link(interfaces[1].name), undefined, 'in use');
});

t.test('a reboot: every address is free again, and nobody has to be told', { skip }, async t => {
  const node = makeNode({ boot: 'first' });
  t.teardown(() => node.remove());
  const small = { ...MASQUERADED, ipam: { subnet: '10.9.0.0/29' } };
  for (const pod of ['one', 'two', 'three', 'four', 'five']) await node.add(pod, small);
  t.match(await rejection(node.add('six', small)), { code: 11, message: /no IP addresses available/ });
  await node.restart({ boot: 'first' });
  t.equal(node.rules.present.size, 5, 'a daemon that is started again keeps what lives');
  await node.restart({ boot: 'second' });
  t.equal(node.rules.present.size, 0);
  t.match(await node.add('six', small), { ips: [{ address: '10.9.0.2/29' }] }, 'the round goes on behind the last one');
});

t.test('a full pool is swept before it refuses', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const tiny = { ...MASQUERADED, ipam: { subnet: '10.9.0.0/30' } };
  await node.add('one', tiny);
  t.match(await rejection(node.plugin.status(node.request('STATUS', { config: tiny }))), { code: 50 });
  // The runtime forgot to call DEL (containerd#5438), and the namespace went.
  node.netlink.deleteLink(hostLinkName({ network: 'net1', containerId: 'one', ifname: 'eth0' }));
  await node.plugin.status(node.request('STATUS', { config: tiny }));
  await node.add('two', tiny);
  t.same([...node.rules.present.keys()], ['net1/two/eth0']);
});

t.test("addresses, MTU and routes from the node's lease", { skip }, async t => {
  let current: NodeNetwork | undefined;
  const node = makeNode({ node: () => current });
  t.teardown(() => node.remove());
  const config = { cniVersion: '1.0.0', name: 'net1', type: 'tulle-cni' };
  t.match(await rejection(node.add('one', config)), { code: 11, message: /this node has no lease yet/ });
  t.match(await rejection(node.plugin.status(node.request('STATUS', { config }))), { code: 50, message: /no lease/ });
  current = lease('10.5.7.0/24');
  await node.plugin.status(node.request('STATUS', { config }));
  const result = await node.add('one', config);
  t.match(result.ips, [{ address: '10.5.7.2/24', gateway: '10.5.7.1' }]);
  t.same(result.routes, [{ dst: '10.5.0.0/16' }, { dst: '0.0.0.0/0', gw: '10.5.7.1' }]);
  t.equal(result.interfaces[2].mtu, 1460);
  t.same(addressesOf(node.host, 'cni0'), ['10.5.7.1/24']);
  t.equal(node.rules.present.size, 0);

  // The lease changes: pods of the old one go on, the bridge is the gateway of both; then the old gateway goes.
  current = lease('10.5.9.0/24', { masquerade: false });
  t.match(await node.add('two', config), { ips: [{ address: '10.5.9.2/24' }] });
  t.same(addressesOf(node.host, 'cni0').sort(), ['10.5.7.1/24', '10.5.9.1/24']);
  t.match(node.rules.present.get('net1/two/eth0'), { addresses: ['10.5.9.2'], except: ['10.5.0.0/16'] });
  await node.restart();
  await node.del('one', config);
  t.same(addressesOf(node.host, 'cni0'), ['10.5.9.1/24'], 'with the last pod behind it');
  await node.del('two', config);
  t.same(addressesOf(node.host, 'cni0'), ['10.5.9.1/24'], "the lease's own stays");
  current = lease('10.5.11.0/24');
  await node.add('three', config);
  t.same(addressesOf(node.host, 'cni0'), ['10.5.11.1/24']);

  // Rules that nobody asked for by name are no reason to refuse a pod.
  current = lease('10.5.11.0/24', { masquerade: false });
  node.rules.failure = 'no nft here';
  const four = await node.add('four', config);
  const call = { containerId: 'four', netns: node.pod('four'), config, prevResult: four };
  const check = (): Promise<{ message: string }> => rejection(node.plugin.check(node.request('CHECK', call)));
  node.rules.checkCode = 'no-rules';
  t.match(await check(), { message: 'it succeeded' }, 'none can be made here');
  node.rules.checkCode = 'rules';
  t.match(await check(), { message: /no rule for net1\/four\/eth0/ });
  t.match(await rejection(node.add('five', { ...config, ipMasq: true })), { message: /no nft here/ });
});

t.test('a bridge that several networks and a person share, while the lease changes', { skip }, async t => {
  let current = lease('10.5.7.0/24');
  const node = makeNode({ node: () => current });
  t.teardown(() => node.remove());
  const leased = { cniVersion: '1.0.0', name: 'net1', type: 'tulle-cni' };
  const neighbour = { ...leased, name: 'net2' };
  node.netlink.createBridge({ name: 'cni0', up: true });
  node.netlink.addAddress('cni0', '192.0.2.1/24');
  const bridge = (): string[] => addressesOf(node.host, 'cni0').sort();
  await node.add('one', leased);
  await node.add('two', neighbour);
  t.same(bridge(), ['10.5.7.1/24', '192.0.2.1/24']);
  await node.del('one', leased);
  current = lease('10.5.9.0/24');
  await node.add('three', leased);
  t.same(bridge(), ['10.5.7.1/24', '10.5.9.1/24', '192.0.2.1/24'], 'a pod of another network needs the old gateway');

  // An ADD that fails after it has removed the old gateway gives it back.
  current = lease('10.5.11.0/24');
  await node.del('three', leased);
  t.same(bridge(), ['10.5.7.1/24', '192.0.2.1/24']);
  await node.add('four', leased);
  await node.del('four', leased);
  current = lease('10.5.13.0/24');
  node.rules.failure = 'no rules today';
  await t.rejects(node.add('five', { ...leased, ipMasq: true }), /no rules today/);
  t.same(bridge(), ['10.5.11.1/24', '10.5.7.1/24', '192.0.2.1/24']);
  node.rules.failure = undefined;
  await node.add('five', leased);
  t.same(bridge(), ['10.5.13.1/24', '10.5.7.1/24', '192.0.2.1/24']);
  await node.del('two', neighbour);
  t.same(bridge(), ['10.5.13.1/24', '192.0.2.1/24'], 'what a person gave it stays');
});

t.test("a conflist of flannel's with the type changed", { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const subnetFile = join(node.directory, 'subnet.env');
  const config = {
    cniVersion: '0.3.1',
    name: 'cbr0',
    type: 'tulle-cni',
    subnetFile,
    dataDir: '/var/lib/cni/flannel',
    delegate: { hairpinMode: true, isDefaultGateway: true, bridge: 'cbr0' },
  };
  t.match(await rejection(node.add('one', config)), { code: 7, message: /there is no file .*subnet\.env/ });
  const env = ['NETWORK=10.5.0.0/16', 'SUBNET=10.5.3.1/24', 'MTU=1472', 'IPMASQ=false'];
  writeFileSync(subnetFile, env.map(line => `FLANNEL_${line}\n`).join(''));
  const result = await node.add('one', config);
  t.match(result.ips, [{ address: '10.5.3.2/24', gateway: '10.5.3.1' }]);
  t.same(result.routes, [{ dst: '10.5.0.0/16' }, { dst: '0.0.0.0/0', gw: '10.5.3.1' }]);
  t.match(result.interfaces, [{ name: 'cbr0' }, {}, { mtu: 1472 }]);
  t.equal(node.netlink.link(result.interfaces[1].name)?.port?.hairpin, true);
  t.match(node.rules.present.get('cbr0/one/eth0'), { addresses: ['10.5.3.2'] }, 'ipMasq is what flanneld does not do');
  const call = { containerId: 'one', netns: node.pod('one'), config, prevResult: result };
  await node.plugin.check(node.request('CHECK', call));
  await node.del('one', config);
  const plain = await node.add('two', { ...config, delegate: { bridge: 'cbr0' } });
  t.same(plain.routes, [{ dst: '10.5.0.0/16' }], 'isGateway, but no default route unless asked');
  t.same(addressesOf(node.host, 'cbr0'), ['10.5.3.1/24']);
  for (const [delegate, message] of [
    [{ name: 'x' }, /'delegate' dictionary must not have 'name' field/],
    [{ ipam: {} }, /'delegate' dictionary must not have 'ipam' field/],
    [{ type: 'ipvlan' }, /delegate\.type: "ipvlan"/],
    [{ type: 7 }, /delegate\.type: 7/],
  ] as const) {
    const { message: text } = await rejection(node.add('three', { ...config, delegate }));
    t.match(text, message);
  }
});

t.test('addresses from another plugin', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const ipam = makeFakeIpam(node.directory);
  const config = { ...BRIDGE, ipam: { type: 'fake-ipam', whatever: [1, 2] } };
  const more = { path: ipam.path };
  const result = await node.add('one', config, more);
  t.match(result.ips, [{ address: '10.77.0.2/24', gateway: '10.77.0.1', interface: 2 }]);
  t.same(result.routes, [{ dst: '10.0.0.0/8' }, { dst: '0.0.0.0/0', gw: '10.77.0.1' }]);
  t.same(result.dns, { nameservers: ['10.77.0.53'] });
  t.same(ipam.input(), config, 'it gets the configuration as it was sent');
  const call = { containerId: 'one', netns: node.pod('one'), config, prevResult: result, ...more };
  await node.plugin.check(node.request('CHECK', call));
  await node.plugin.status(node.request('STATUS', { config, ...more }));
  ipam.fail('STATUS');
  t.match(await rejection(node.plugin.status(node.request('STATUS', { config, ...more }))), {
    code: 50,
    message: /told to fail/,
  });
  ipam.fail('CHECK');
  t.match(await rejection(node.plugin.check(node.request('CHECK', call))), {
    code: 100,
    message: 'fake-ipam: told to fail',
  });

  // A later step fails: the address goes back.
  node.rules.failure = 'no rules';
  await rejection(node.add('two', { ...config, ipMasq: true }, more));
  t.same(ipam.reservations(), ['one']);
  node.rules.failure = undefined;

  // A DEL that fails keeps the record, and the next one finds the rest.
  ipam.fail('DEL');
  t.match(await rejection(node.del('one', config, more)), { code: 100, message: 'fake-ipam: told to fail' });
  t.same(linksIn(node.pod('one')), []);
  t.same(ipam.reservations(), ['one']);
  ipam.fail('DEL', false);
  await node.del('one', config, more);
  t.same(ipam.reservations(), []);

  // GC asks with the configuration of the ADD, then lets the plugin do its own.
  await node.add('three', config, more);
  await node.plugin.gc(node.request('GC', { config, ...more, validAttachments: [] }));
  t.same(ipam.reservations(), []);
  t.match(ipam.calls().at(-1), /^GC /);
  t.match(await rejection(node.add('four', { ...BRIDGE, ipam: { type: 'missing' } }, more)), {
    code: 7,
    message: /failed to find plugin "missing" in path/,
  });
  t.same(linksIn(node.pod('four')), []);
  await node.restart({ boot: 'another' });
});
