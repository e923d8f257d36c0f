import { closeSync, openSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { Channel } from '../../lib/netlink/channel.ts';
import { getLinkMessage } from '../../lib/netlink/link.ts';
import { parseAttributes, u32Of } from '../../lib/netlink/message.ts';
import { throwFirst } from '../../lib/netlink/netlink.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

t.test('a pair, its name for people and what it became, in one piece', { skip }, async t => {
  const { netlink } = sandbox.open('host');
  const pod = sandbox.open('pod');
  netlink.createBridge({ name: 'br', up: true });
  const bridge = netlink.link('br')!;
  const fd = openSync(pod.path, 'r');
  const batch = netlink.batch();
  batch.createVeth({ name: 'veth1', peerName: 'eth0', up: true, mtu: 1400, master: bridge.index }, fd);
  batch.setLink('veth1', { alias: 'for people', port: { hairpin: true } });
  const host = batch.link('veth1');
  const missing = batch.link('nobody');
  const addresses = batch.addresses(netlink.link('lo')!.index);
  t.equal(batch.length, 5);
  const refused = batch.run();
  closeSync(fd);
  t.same([...refused.keys()], [3], 'what is refused is told by its place, and the others are done');
  t.equal(refused.get(3)?.code, 'ENODEV');
  t.equal(missing.value, undefined);
  t.match(host.value, { name: 'veth1', alias: 'for people', mtu: 1400, master: bridge.index, port: { hairpin: true } });
  t.ok(addresses.some(({ address }) => address === '127.0.0.1'));

  const inside = pod.netlink.batch();
  const index = host.value!.peerIndex!;
  inside.addAddress(index, '10.7.0.2/24');
  inside.setLink(index, { up: true });
  inside.addAddress(index, 'fd00::2/64', { nodad: true });
  inside.addRoute({ destination: 'default', gateway: '10.7.0.1', index });
  const after = inside.link(index);
  throwFirst(inside.run());
  t.match(after.value, { name: 'eth0', up: true, running: true, mtu: 1400 });
  t.same(
    pod.netlink
      .addresses({ link: 'eth0' })
      .filter(({ scope }) => scope === 'global')
      .map(({ address, tentative }) => ({ address, tentative })),
    [
      { address: '10.7.0.2', tentative: false },
      { address: 'fd00::2', tentative: false },
    ],
  );
  t.ok(pod.netlink.routes(4, 254).some(route => route.destination === 'default' && route.gateway === '10.7.0.1'));
  t.match(netlink.link('veth1'), { running: true });
});

t.test('one queue each way, however many processors there are', { skip }, async t => {
  const { path, netlink } = sandbox.open('queues');
  netlink.createVeth({ name: 'a', peerName: 'b' });
  const channel = new Channel(path);
  for (const name of ['a', 'b']) {
    channel.request(name, getLinkMessage(name), ({ payload }) => {
      const attributes = parseAttributes(payload, 16);
      t.same(
        [31, 32].map(type => u32Of(attributes, type)),
        [1, 1],
        `${name}: IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES`,
      );
    });
  }
  channel.close();
});

t.test('the earliest refusal is thrown, of those that count', { skip }, async t => {
  const { netlink } = sandbox.open('throws');
  const batch = netlink.batch();
  batch.link('lo');
  batch.link('first');
  batch.link('second');
  const refused = batch.run();
  t.throws(() => throwFirst(refused), { code: 'ENODEV', message: /^look up link first: ENODEV/ });
  throwFirst(refused, 1);
  throwFirst(new Map());
  t.equal(netlink.batch().run().size, 0, 'an empty batch asks nothing');
});

t.test('more answers than fit into one receive', { skip }, async t => {
  const { netlink } = sandbox.open('long');
  for (let i = 1; i <= 1500; i++) netlink.addAddress('lo', `10.0.${i >> 8}.${i & 255}/32`);
  const batch = netlink.batch();
  const links = Array.from({ length: 60 }, () => batch.link('lo'));
  const addresses = batch.addresses(1);
  t.equal(batch.run().size, 0);
  t.ok(links.every(({ value }) => value?.name === 'lo'));
  t.equal(addresses.length, netlink.addresses({ link: 'lo' }).length);
  t.ok(addresses.length > 1500);
});

t.test('whether packets are forwarded', { skip }, async t => {
  const { path, netlink } = sandbox.open('forwarding');
  const files = { 4: '/proc/sys/net/ipv4/ip_forward', 6: '/proc/sys/net/ipv6/conf/all/forwarding' };
  for (const family of [4, 6] as const) {
    for (const value of ['0', '1']) {
      withNamespace(path, () => writeFileSync(files[family], value));
      const batch = netlink.batch();
      const answer = batch.forwarding(family);
      t.equal(batch.run().size, 0);
      t.equal(answer.value, value === '1', `IPv${family} ${value}`);
    }
  }
});
