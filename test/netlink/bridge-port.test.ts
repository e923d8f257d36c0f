import t from 'tap';
import { isHeard } from './echo.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

t.test("a port's flags, a link's alias, promiscuous", { skip }, async t => {
  const { netlink } = sandbox.open('flags');
  netlink.createBridge({ name: 'br0', mac: '02:00:00:00:00:0b', up: true });
  netlink.createVeth({ name: 'p', peerName: 'q', master: 'br0', up: true });
  t.same(netlink.link('p')?.port, { hairpin: false, isolated: false, learning: true, locked: false });
  t.equal(netlink.link('q')?.port, undefined);
  t.equal(netlink.link('p')?.alias, undefined);
  netlink.setLink('p', { alias: 'pod 1', port: { hairpin: true, isolated: true } });
  t.match(netlink.link('p'), { alias: 'pod 1', port: { hairpin: true, isolated: true, learning: true } });
  netlink.setLink('p', { port: { hairpin: false, learning: false, locked: true } });
  t.same(netlink.link('p')?.port, { hairpin: false, isolated: true, learning: false, locked: true });
  t.throws(() => netlink.setLink('q', { port: { hairpin: true } }), 'only a port has them');

  const promiscuous = (): boolean => ((netlink.link('br0')?.flags ?? 0) & 0x100) !== 0;
  netlink.setLink('br0', { promiscuous: true });
  t.equal(promiscuous(), true);
  t.equal(netlink.link('br0')?.up, true, 'the other flags stay');
  netlink.setLink('br0', { promiscuous: false });
  t.equal(promiscuous(), false);
});

t.test('a locked port lets in only the address that the bridge was told', { skip }, async t => {
  const { netlink } = sandbox.open('host');
  const pod = sandbox.open('pod');
  netlink.createBridge({ name: 'br0', mac: '02:00:00:00:00:0b', up: true });
  netlink.addAddress('br0', '10.9.0.1/24');
  const peer = { peerName: 'eth0', peerNamespace: pod.path, peerMac: '02:00:00:00:00:01' };
  netlink.createVeth({ name: 'p', ...peer, master: 'br0', up: true, peerUp: true });
  netlink.setLink('p', { port: { locked: true, learning: false } });
  netlink.addPortMac('p', '02:00:00:00:00:01');
  netlink.addPortMac('p', '02:00:00:00:00:01'); // again is fine
  pod.netlink.addAddress('eth0', '10.9.0.2/24');
  t.throws(() => netlink.addPortMac('none', '02:00:00:00:00:01'), { code: 'ENODEV' });
  t.ok(isHeard(pod.path, '10.9.0.1', 5000), 'the address that it was told');
  pod.netlink.setLink('eth0', { up: false });
  pod.netlink.setLink('eth0', { mac: '02:00:00:00:00:99', up: true });
  t.notOk(isHeard(pod.path, '10.9.0.1', 500), 'another one');
  netlink.setLink('p', { port: { locked: false } });
  t.ok(isHeard(pod.path, '10.9.0.1', 5000), 'any, where the port is not locked');
});
