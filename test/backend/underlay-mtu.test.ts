import t from 'tap';
import { watchUnderlayMtu } from '../../lib/backend/underlay-mtu.ts';
import { NetlinkError } from '../../lib/netlink/error.ts';
import { Rtnetlink, withRtnetlink } from '../../lib/netlink/netlink.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { twoNodes } from '../support/overlays.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

t.test('tables that change while they are read are read again', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const [node] = nodes.namespaces;
  withRtnetlink(node, netlink => {
    netlink.createVeth({ name: 'eth1', peerName: 'eth2', peerNamespace: node });
    netlink.setLink('eth1', { mtu: 1400, up: true });
  });
  let heard: (mtu: number) => void = () => {};
  const mtu = new Promise<number>(resolve => {
    heard = resolve;
  });
  const underlay = withNamespace(node, () => watchUnderlayMtu('10.88.0.1', value => heard(value)));
  t.teardown(() => underlay.stop());
  const { addresses } = Rtnetlink.prototype;
  let refused = 0;
  Rtnetlink.prototype.addresses = function (...call) {
    if (refused++ > 0) return addresses.apply(this, call);
    throw new NetlinkError('EAGAIN', 'addresses: the table changed during each of 20 readings: try again');
  };
  t.teardown(() => {
    Rtnetlink.prototype.addresses = addresses;
  });
  withRtnetlink(node, netlink => {
    netlink.deleteAddress('eth0', '10.88.0.1/24');
    netlink.addAddress('eth1', '10.88.0.1/24');
  });
  t.equal(await mtu, 1400, 'the other link has it now');
  t.ok(refused > 1);
});
