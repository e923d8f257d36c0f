import t from 'tap';
import type { Link, Rtnetlink } from '../../lib/netlink/netlink.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

const linkOf = (netlink: Rtnetlink, name: string): Link => {
  const link = netlink.link(name);
  if (link === undefined) throw new Error(`no link ${name}`);
  return link;
};

t.test('lo of a new namespace is up', { skip }, async t => {
  const { netlink } = sandbox.open('lo');
  t.same(
    netlink.links().map(({ name, up, running, index }) => ({ name, up, running, index })),
    [{ name: 'lo', up: true, running: true, index: 1 }],
  );
  t.equal(netlink.link('lo')?.kind, undefined);
  t.equal(netlink.link('nothing'), undefined);
  t.equal(netlink.link('a name that no link can have'), undefined);
  t.throws(() => netlink.deleteLink('lo'), { code: 'EOPNOTSUPP', message: /^delete link lo: EOPNOTSUPP/ });
});

t.test('a veth pair, its far end born elsewhere', { skip }, async t => {
  const near = sandbox.open('near');
  const far = sandbox.open('far');
  near.netlink.createVeth({
    name: 'host0',
    peerName: 'eth0',
    peerNamespace: far.path,
    mtu: 1400,
    mac: '02:00:00:00:00:01',
    peerMac: '02:00:00:00:00:02',
    up: true,
    peerUp: true,
  });
  const host0 = linkOf(near.netlink, 'host0');
  const eth0 = linkOf(far.netlink, 'eth0');
  t.equal(near.netlink.link('eth0'), undefined);
  t.match(host0, { kind: 'veth', mtu: 1400, up: true, running: true, mac: '02:00:00:00:00:01', peerIndex: eth0.index });
  t.match(eth0, { kind: 'veth', mtu: 1400, up: true, running: true, mac: '02:00:00:00:00:02', peerIndex: host0.index });

  // The same again fails and leaves no half pair.
  const before = far.netlink.links();
  t.throws(() => near.netlink.createVeth({ name: 'host0', peerName: 'eth1', peerNamespace: far.path }), {
    code: 'EEXIST',
    message: /^create veth host0: EEXIST \(/,
  });
  t.throws(() => near.netlink.createVeth({ name: 'host1', peerName: 'eth0', peerNamespace: far.path }), {
    code: 'EEXIST',
  });
  t.equal(near.netlink.link('host1'), undefined);
  t.same(far.netlink.links(), before);

  // Errors before anything is made.
  t.throws(() => near.netlink.createVeth({ name: 'x', peerName: 'y', peerNamespace: '/nowhere/ns' }), {
    code: 'ENOENT',
    message: 'create veth x: cannot open the network namespace /nowhere/ns: ENOENT',
  });
  t.throws(() => near.netlink.createVeth({ name: 'x', peerName: 'y', peerNamespace: '/etc/passwd' }), {
    code: 'EINVAL',
  });
  t.throws(() => near.netlink.createVeth({ name: 'x', peerName: 'y', mtu: 10 }), { code: 'EINVAL' });
  t.throws(() => near.netlink.createVeth({ name: 'x', peerName: 'y', master: 'br9' }), {
    code: 'ENODEV',
    message: 'create veth x: ENODEV (there is no link named "br9")',
  });
  t.equal(near.netlink.link('x'), undefined);

  near.netlink.deleteLink('host0');
  t.equal(far.netlink.link('eth0'), undefined, 'both ends go');
  near.netlink.deleteLink('host0');
  near.netlink.deleteLink('a name that no link can have');
});

t.test('a bridge and its ports', { skip }, async t => {
  const { netlink } = sandbox.open('bridge');
  netlink.createBridge({ name: 'br0', mtu: 1400, mac: '02:00:00:00:00:0b', up: true });
  netlink.createVeth({ name: 'p1', peerName: 'q1', mtu: 1400, up: true, peerUp: true, master: 'br0' });
  netlink.createVeth({ name: 'p2', peerName: 'q2', mtu: 1400 });
  netlink.setLink('p2', { master: 'br0' });
  const bridge = linkOf(netlink, 'br0');
  t.match(bridge, { kind: 'bridge', mtu: 1400, mac: '02:00:00:00:00:0b', up: true });
  t.equal(netlink.link('p1')?.master, bridge.index);
  t.equal(netlink.link('p2')?.master, bridge.index);
  netlink.setLink('p2', { master: null });
  t.equal(netlink.link('p2')?.master, undefined);
  t.equal(netlink.link('br0')?.mac, '02:00:00:00:00:0b', 'a given address does not float with the ports');
  t.throws(() => netlink.createBridge({ name: 'br0' }), { code: 'EEXIST', message: /^create bridge br0: EEXIST/ });
  t.throws(() => netlink.setLink('p2', { master: 'p1' }), { code: 'EOPNOTSUPP' });
  t.throws(() => netlink.setLink('br0', { master: 'br0' }), { code: 'ELOOP', message: /Can not enslave/i });
  netlink.deleteLink('br0');
  t.equal(netlink.link('p1')?.master, undefined);
});

t.test('set link: up, down, MTU, MAC, queue, name, namespace', { skip }, async t => {
  const here = sandbox.open('here');
  const there = sandbox.open('there');
  here.netlink.createVeth({ name: 'a', peerName: 'b' });
  here.netlink.setLink('a', { up: true });
  t.match(linkOf(here.netlink, 'a'), { up: true, running: false });
  here.netlink.setLink('b', { up: true });
  t.match(linkOf(here.netlink, 'a'), { up: true, running: true });
  here.netlink.setLink('a', { up: false });
  t.equal(linkOf(here.netlink, 'a').up, false);
  here.netlink.setLink('a', { mtu: 9000, mac: '02:00:00:00:00:aa', txQueueLength: 500 });
  t.match(linkOf(here.netlink, 'a'), { mtu: 9000, mac: '02:00:00:00:00:aa', txQueueLength: 500, up: false });
  t.equal(linkOf(here.netlink, 'b').mtu, 1500, 'the other end is left alone');
  here.netlink.setLink('a', { newName: 'fifteen-letters' });
  t.equal(here.netlink.link('a'), undefined);
  here.netlink.setLink('fifteen-letters', { namespace: there.path, newName: 'eth0', up: true });
  t.equal(here.netlink.link('fifteen-letters'), undefined);
  t.match(linkOf(there.netlink, 'eth0'), { up: true, mtu: 9000 });
  t.throws(() => here.netlink.setLink('a', { up: true }), {
    code: 'ENODEV',
    message: 'set link a: ENODEV (there is no link named "a")',
  });
  t.throws(() => here.netlink.setLink('b', { newName: 'lo' }), { code: 'EEXIST' });
  t.throws(() => here.netlink.setLink('b', { newName: 'much too long a name' }), { code: 'EINVAL' });
  t.throws(() => here.netlink.setLink('b', { mtu: 70_000 }), {
    code: 'EINVAL',
    message: /mtu greater than device max/,
  });
  t.throws(() => here.netlink.setLink('b', { namespace: '/nowhere' }), { code: 'ENOENT' });
});

t.test('a closed socket says so', { skip }, async t => {
  const { netlink } = sandbox.open('closed');
  netlink.close();
  netlink.close();
  t.throws(() => netlink.links(), { code: 'EBADF' });
});
