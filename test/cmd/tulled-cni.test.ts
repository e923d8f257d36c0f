// tulled and tulle-cni, both for real: a pod of a node gets an address of the node's lease.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace, withNamespace } from '../../lib/sys/sys.ts';
import { makeNode, skip } from '../daemon/node.ts';
import { client, invoke } from './tulle-cni-support.ts';

t.test('a pod on a node', { skip }, async t => {
  const world = makeNode(t);
  const pod = join(world.run, 'pod');
  makeNamespace(pod);
  t.teardown(() => removeNamespace(pod));
  const socket = join(world.run, 'cni.sock');
  const config = JSON.stringify({ cniVersion: '1.0.0', name: 'tulle', type: 'tulle-cni', socket });
  const call = (command: string) =>
    withNamespace(world.node, () => ({
      // the program is started within the call; its end comes later
      outcome: invoke(
        client(),
        {
          CNI_COMMAND: command,
          CNI_CONTAINERID: 'pod1',
          CNI_NETNS: pod,
          CNI_IFNAME: 'eth0',
          CNI_PATH: '/opt/cni/bin',
        },
        config,
      ),
    })).outcome;

  t.match((await call('ADD')).json, { code: 11, msg: /tulled is not there/ });
  const tulled = world.start('-node-id=node1', `-cni-socket=${socket}`);
  await tulled.saw(/ ready /);
  const [lease] = world.leases();
  const subnet = lease.replace(/\d+-\d+$/, '');

  const added = await call('ADD');
  t.equal(added.code, 0, `${added.stdout}${added.stderr}${tulled.stderr()}`);
  t.match(added.json, { cniVersion: '1.0.0', interfaces: [{ name: 'cni0' }, {}, { name: 'eth0', sandbox: pod }] });
  const [{ address }] = added.json['ips'] as { address: string }[];
  t.ok(address.startsWith(subnet), `${address} is of the lease ${lease}`);
  const inside = withRtnetlink(pod, netlink => ({
    mtu: netlink.link('eth0')?.mtu,
    addresses: netlink.addresses({ link: 'eth0' }).map(entry => `${entry.address}/${entry.prefixLength}`),
  }));
  t.equal(inside.mtu, 1460, "the overlay's MTU");
  t.ok(inside.addresses.includes(address), inside.addresses.join(' '));

  // Gone while the daemon is: it is done at the next start.
  t.equal((await tulled.end('SIGTERM')).code, 0, tulled.stderr());
  t.notOk(existsSync(socket));
  t.same(await call('DEL'), { code: 0, stdout: '', stderr: '', json: {} });
  t.ok(withRtnetlink(pod, netlink => netlink.link('eth0')));
  const again = world.start('-node-id=node1', `-cni-socket=${socket}`);
  await again.saw(/ ready /);
  t.notOk(
    withRtnetlink(pod, netlink => netlink.link('eth0')),
    again.stderr(),
  );
  t.equal((await call('DEL')).code, 0);
  t.equal((await again.end('SIGTERM')).code, 0, again.stderr());
});
