// What plugins before this one in the chain have made is passed on, in every version of CNI.
import t from 'tap';
import { CNI_VERSIONS, type CniResult } from '../../lib/cni/plugin.ts';
import { appendTo, ownIps } from '../../lib/cni/previous.ts';
import { Fields, strict } from '../../lib/cni/protocol/fields.ts';
import { isAtLeast } from '../../lib/cni/protocol/names.ts';
import { printResult, readResult } from '../../lib/cni/protocol/result.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { BRIDGE, makeNode } from './node.ts';

const skip = whyNot();

const PREVIOUS: CniResult = {
  interfaces: [
    { name: 'phys0', mac: '02:00:00:00:00:01' },
    { name: 'net0', sandbox: '/run/netns/p' },
  ],
  ips: [{ address: '10.1.0.2/24', gateway: '10.1.0.1', interface: 1 }],
  routes: [{ dst: '10.1.0.0/16' }],
  dns: { nameservers: ['10.1.0.53'], domain: 'one.example', search: ['a.example'] },
};
const OWN: CniResult = {
  interfaces: [{ name: 'cni0' }, { name: 'veth1' }, { name: 'eth0', sandbox: '/run/netns/p' }],
  ips: [{ address: '10.9.0.2/24', interface: 2 }, { address: 'fd00:9::2/64' }],
  routes: [{ dst: '0.0.0.0/0', gw: '10.9.0.1' }],
  dns: { nameservers: ['10.9.0.53', '10.1.0.53'], domain: 'two.example' },
};

for (const version of CNI_VERSIONS) {
  t.test(version, async t => {
    const previous = readResult(new Fields(printResult(PREVIOUS, version), '', strict), version);
    const printed = JSON.parse(JSON.stringify(printResult(appendTo(previous, OWN), version)));
    t.same(printed.dns, {
      nameservers: ['10.1.0.53', '10.9.0.53'],
      domain: 'two.example',
      search: ['a.example'],
    });
    if (!isAtLeast(version, '0.3.0')) {
      t.match(printed, { ip4: { ip: '10.1.0.2/24', gateway: '10.1.0.1' }, ip6: { ip: 'fd00:9::2/64' } });
      t.same(printed.ip4.routes, [{ dst: '10.1.0.0/16' }, { dst: '0.0.0.0/0', gw: '10.9.0.1' }]);
      return;
    }
    t.same(
      printed.interfaces.map((link: { name: string }) => link.name),
      ['phys0', 'net0', 'cni0', 'veth1', 'eth0'],
    );
    t.same(
      printed.ips.map((ip: { address: string; interface?: number }) => [ip.address, ip.interface]),
      [
        ['10.1.0.2/24', 1],
        ['10.9.0.2/24', 4],
        ['fd00:9::2/64', undefined],
      ],
    );
    t.same(printed.routes, [{ dst: '10.1.0.0/16' }, { dst: '0.0.0.0/0', gw: '10.9.0.1' }]);
  });
}

t.test('nothing before, and which addresses are our own', async t => {
  t.equal(appendTo(undefined, OWN), OWN);
  t.same(
    ownIps(appendTo(PREVIOUS, OWN), 'eth0').map(ip => ip.address),
    ['10.9.0.2/24', 'fd00:9::2/64'],
  );
});

t.test('an ADD in a chain, and its CHECK', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const prevResult = { ...PREVIOUS, routes: [] };
  const config = { ...BRIDGE, ipMasq: true };
  const result = await node.add('one', config, { prevResult });
  t.same(
    result.interfaces.map(({ name }) => name.slice(0, 5)),
    ['phys0', 'net0', 'cni0', result.interfaces[3].name.slice(0, 5), 'eth0'],
  );
  t.match(result.ips, [
    { address: '10.1.0.2/24', interface: 1 },
    { address: '10.9.0.2/24', interface: 4 },
  ]);
  t.same(node.rules.present.get('net1/one/eth0')?.addresses, ['10.9.0.2']);
  const call = { containerId: 'one', netns: node.pod('one'), config, prevResult: result };
  await node.plugin.check(node.request('CHECK', call));
});
