import t from 'tap';
import { IFINFOMSG_BYTES, IFLA_IFNAME, IFLA_MTU, RTM_NEWLINK } from '../../lib/netlink/link.ts';
import { MessageBuilder, parseMessages } from '../../lib/netlink/message.ts';
import { eventsOf, type LinkEvent, type NetworkEvent, watchLinks, watchNetwork } from '../../lib/netlink/monitor.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

/** Polls until it is true; false after 10 s. */
async function until(condition: () => boolean): Promise<boolean> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > deadline) return false;
    await new Promise(resolve => setTimeout(resolve, 5));
  }
  return true;
}

t.test('links that come, change and go', { skip }, async t => {
  const { path, netlink } = sandbox.open('links');
  const events: LinkEvent[] = [];
  const stop = watchLinks(path, event => events.push(event));
  const saw = (kind: LinkEvent['kind'], test: (event: LinkEvent) => boolean): Promise<boolean> =>
    until(() => events.some(event => event.kind === kind && test(event)));
  const named = (name: string) => (event: LinkEvent) => event.kind !== 'resync' && event.link.name === name;
  netlink.createBridge({ name: 'br0', up: true });
  netlink.createVeth({ name: 'a', peerName: 'b', master: 'br0' });
  t.ok(await saw('link', event => event.kind === 'link' && event.link.name === 'br0' && event.link.kind === 'bridge'));
  t.ok(await saw('link', named('b')));
  netlink.setLink('a', { mtu: 1234 });
  t.ok(await saw('link', event => event.kind === 'link' && event.link.name === 'a' && event.link.mtu === 1234));
  events.length = 0;
  netlink.setLink('a', { master: null });
  t.ok(await saw('link', event => event.kind === 'link' && event.link.name === 'a' && event.link.master === undefined));
  t.notOk(
    events.some(event => event.kind === 'link-removed'),
    'a port that leaves its bridge is not a link that goes',
  );
  netlink.deleteLink('a');
  t.ok(await saw('link-removed', named('a')));
  t.ok(await saw('link-removed', named('b')));
  stop();
  stop();
  const count = events.length;
  netlink.deleteLink('br0');
  await new Promise(resolve => setTimeout(resolve, 20));
  t.equal(events.length, count, 'silent after stop');
});

t.test('addresses and routes', { skip }, async t => {
  const { path, netlink } = sandbox.open('more');
  netlink.createVeth({ name: 'a', peerName: 'b', up: true, peerUp: true });
  const events: NetworkEvent[] = [];
  const stop = watchNetwork({ namespace: path, addresses: true, routes: true }, event => events.push(event));
  netlink.addAddress('a', '10.0.0.1/24');
  netlink.addRoute({ destination: '10.5.0.0/16', gateway: '10.0.0.2' });
  netlink.deleteRoute({ destination: '10.5.0.0/16' });
  netlink.deleteAddress('a', '10.0.0.1/24');
  t.ok(await until(() => events.some(event => event.kind === 'address-removed')));
  t.ok(
    await until(() =>
      events.some(event => event.kind === 'route-removed' && event.route.destination === '10.0.0.0/24'),
    ),
  );
  const index = netlink.link('a')?.index;
  t.ok(
    events.some(
      event => event.kind === 'address' && event.address.address === '10.0.0.1' && event.address.index === index,
    ),
  );
  t.ok(
    events.some(event => event.kind === 'route' && event.route.gateway === '10.0.0.2' && event.route.index === index),
  );
  t.ok(events.some(event => event.kind === 'route-removed' && event.route.destination === '10.5.0.0/16'));
  t.notOk(events.some(event => event.kind === 'link'));
  stop();
});

t.test('too much at once is told as resync', { skip }, async t => {
  const { path, netlink } = sandbox.open('flood');
  const events: NetworkEvent[] = [];
  const stop = watchNetwork({ namespace: path, links: true, addresses: true, routes: true }, event =>
    events.push(event),
  );
  netlink.createVeth({ name: 'a', peerName: 'b', up: true, peerUp: true });
  // Synchronous, so the event loop cannot read: more than the socket's 1 MB of news.
  for (let round = 0; round < 4000; round++) netlink.setLink('a', { mtu: 1300 + (round & 1) });
  netlink.setLink('a', { newName: 'last' });
  t.ok(await until(() => events.some(event => event.kind === 'resync')));
  netlink.setLink('last', { mtu: 1299 });
  t.ok(await until(() => events.some(event => event.kind === 'link' && event.link.mtu === 1299)), 'and news go on');
  stop();
});

t.test('the watcher may stop itself', { skip }, async t => {
  const { path, netlink } = sandbox.open('self');
  let calls = 0;
  const stop = watchLinks(path, () => {
    calls++;
    stop();
  });
  netlink.createVeth({ name: 'a', peerName: 'b' });
  t.ok(await until(() => calls > 0));
  netlink.deleteLink('a');
  await new Promise(resolve => setTimeout(resolve, 20));
  t.equal(calls, 1);
});

t.test('a wireless driver that tells of its scan tells nothing about the link', async t => {
  const IFLA_WIRELESS = 11; // linux/if_link.h
  const news = (fill: (builder: MessageBuilder) => void): NetworkEvent[] => {
    const builder = new MessageBuilder(RTM_NEWLINK, 0)
      .body(IFINFOMSG_BYTES, (view, little) => view.setInt32(4, 3, little))
      .text(IFLA_IFNAME, 'wlan0');
    fill(builder);
    return parseMessages(builder.finish(0)).flatMap(eventsOf);
  };
  t.same(
    news(builder => builder.bytes(IFLA_WIRELESS, new Uint8Array(8))),
    [],
  );
  t.match(
    news(builder => builder.u32(IFLA_MTU, 1500)),
    [{ kind: 'link', link: { index: 3, name: 'wlan0', mtu: 1500 } }],
  );
});
