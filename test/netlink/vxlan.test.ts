import t from 'tap';
import { setSysctl } from '../../lib/host/sysctl.ts';
import { waitReachable } from '../../lib/lab/ping.ts';
import { createVxlan } from '../../lib/netlink/vxlan.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

//   left [eth0 10.1.0.1/24] ---- [eth0 10.1.0.2/24] right
//   left [vx0 10.2.0.1/24]  ==== [vx0 10.2.0.2/24] right
t.test('two hosts share a network over VXLAN', { skip }, async t => {
  const ends = [sandbox.open('left'), sandbox.open('right')];
  ends[0].netlink.createVeth({ name: 'eth0', peerName: 'eth0', peerNamespace: ends[1].path, up: true, peerUp: true });
  for (const [i, { path, netlink }] of ends.entries()) {
    setSysctl(path, 'net.ipv6.conf.default.disable_ipv6', '1');
    netlink.addAddress('eth0', `10.1.0.${i + 1}/24`);
    const wire = { id: 7, local: `10.1.0.${i + 1}`, remote: `10.1.0.${2 - i}`, port: 4789 };
    createVxlan(path, { name: 'vx0', mtu: 1400, ...wire });
    t.match(netlink.link('vx0'), { kind: 'vxlan', mtu: 1400, up: false });
    t.throws(() => createVxlan(path, { name: 'vx0', ...wire }), {
      code: 'EEXIST',
      message: /^create vxlan vx0: EEXIST/,
    });
    netlink.addAddress('vx0', `10.2.0.${i + 1}/24`);
    netlink.setLink('vx0', { up: true });
  }
  await waitReachable(ends[0].path, '10.2.0.2', 10_000);
  t.pass('the other end answers');
  ends[1].netlink.deleteLink('vx0');
  await t.rejects(
    waitReachable(ends[0].path, '10.2.0.2', 100),
    { code: 'unreachable' },
    'it was the tunnel that answered',
  );
});

t.test('what the kernel would not take', { skip }, async t => {
  const { path } = sandbox.open('bad');
  const wire = { local: '10.1.0.1', remote: '10.1.0.2', port: 4789 };
  t.throws(() => createVxlan(path, { name: 'vx0', id: 2 ** 24, ...wire }), { code: /^(ERANGE|EINVAL)$/ });
  t.throws(() => createVxlan(path, { name: 'vx 0', id: 1, ...wire }), { code: 'EINVAL' });
});
