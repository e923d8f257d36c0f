// Two real nodes, each in a namespace, with one registry: IPv4 and IPv6 inside, over either underlay.
import { readFileSync } from 'node:fs';
import t from 'tap';
import { ping } from '../../lib/lab/ping.ts';
import { parseSubnetEnv } from '../../lib/lease/subnet-env.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { formatAddress4 } from '../../lib/wire/ip4.ts';
import { bigintToAddress6, formatAddress6 } from '../../lib/wire/ip6.ts';
import { makeNode, skip } from '../daemon/node.ts';
import { spawnTulled } from '../daemon/process.ts';
import { ping6, transfer } from '../support/pods.ts';

for (const underlay of ['ipv4', 'ipv6'] as const) {
  t.test(`dual stack over ${underlay}`, { skip }, async t => {
    const net = { Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:5::/48' };
    const world = makeNode(t, JSON.stringify({ ...net, Backend: { Type: 'tulle', Underlay: underlay } }));
    for (const [i, path] of [world.node, world.far].entries()) {
      withRtnetlink(path, netlink => netlink.addAddress('eth0', `2001:db8::${i + 1}/64`, { nodad: true }));
    }
    const one = world.start('-node-id=node1');
    const farFile = `${world.subnetFile}.far`;
    const two = withNamespace(world.far, () =>
      spawnTulled([
        '-iface=eth0',
        '-node-id=node2',
        '--cni-socket=',
        `-subnet-file=${farFile}`,
        `--registry=file:${world.registry}`,
      ]),
    );
    t.teardown(() => two.end('SIGKILL'));
    await Promise.all([one.saw(/ ready /), two.saw(/ ready /)]);

    t.equal(world.leases().length, 2);
    for (const name of world.leases()) {
      t.match(name, /^10\.5\.\d+\.0-24&fd00:5:0:[\da-f]*::-64$/, "flannel's key of a dual-stack lease");
      t.match(world.lease(name).PublicIPv6, /^2001:db8::[12]$/);
    }
    const env = parseSubnetEnv(readFileSync(farFile, 'utf8'));
    t.equal(env.mtu, underlay === 'ipv6' ? 1440 : 1460);
    const device4 = formatAddress4(env.subnets[0].address);
    const device6 = formatAddress6(bigintToAddress6(env.subnets6[0].address));
    // Each has listed the other: at the start, or in the watch a moment later.
    let reached = 0;
    for (let tries = 0; tries < 50 && reached === 0; tries++) reached = await ping6(world.node, device6, 1);
    t.equal(await ping6(world.node, device6, 3), 3);
    t.equal((await ping(world.node, device4, { count: 3, intervalMs: 1, timeoutMs: 2_000 })).received, 3);
    t.equal(await transfer(world.node, world.far, device6, 3_000_000), 'whole');

    for (const path of [world.node, world.far]) {
      withRtnetlink(path, netlink => netlink.setLink('eth0', { mtu: 1400 }));
    }
    const mtu = (): number | undefined => parseSubnetEnv(readFileSync(farFile, 'utf8')).mtu;
    for (let tries = 0; tries < 500 && mtu() === env.mtu; tries++) await new Promise(done => setTimeout(done, 10));
    t.equal(mtu(), underlay === 'ipv6' ? 1340 : 1360, 'subnet.env follows the underlay');
    t.equal(await transfer(world.node, world.far, device6, 3_000_000), 'whole');
    t.equal((await one.end('SIGTERM')).code, 0, one.stderr());
    t.equal((await two.end('SIGTERM')).code, 0, two.stderr());
  });
}
