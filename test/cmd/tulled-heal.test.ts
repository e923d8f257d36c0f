// A running tulled whose device somebody deletes.
import t from 'tap';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { makeNode, skip } from '../daemon/node.ts';

t.test(
  'a deleted TUN device is made again, with its address and route, and said in one line each',
  { skip },
  async t => {
    const world = makeNode(t);
    const tulled = world.start('-node-id=node1');
    await tulled.saw(/ ready /);
    for (let round = 1; round <= 3; round++) {
      const before = withRtnetlink(world.node, netlink => netlink.link('tulle0')?.index);
      withRtnetlink(world.node, netlink => netlink.deleteLink('tulle0'));
      await tulled.saw(new RegExp(`(data path is back[^]*){${round}}`));
      withRtnetlink(world.node, netlink => {
        const device = netlink.link('tulle0');
        t.ok(device?.up, 'up');
        t.not(device?.index, before, 'another device of the same name');
        t.equal(device?.mtu, 1460);
        t.equal(netlink.addresses({ link: 'tulle0', family: 4 }).length, 1);
        t.match(
          netlink.routes(4).find(route => route.link === 'tulle0' && route.destination === '10.5.0.0/16'),
          { type: 'unicast' },
        );
      });
    }
    const said = tulled.stderr();
    t.equal(said.match(/the TUN device is gone/g)?.length, 3, said);
    t.equal((await tulled.end('SIGTERM')).code, 0);
  },
);
