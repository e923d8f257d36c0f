// Running tulleds that lose what they run on: the device, the worker, the underlay. Each time traffic is back by itself, and one
// line says so. The requirement is 2 s after the cause is gone; the deadline is longer, so that a busy machine does not fail
// the test, and the time that it took is in the output. Most of it is the start of a worker.
import t, { type Test } from 'tap';
import { ping } from '../../lib/lab/ping.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { makeNode, skip } from '../daemon/node.ts';
import { crashable } from '../support/crash.ts';

const DEADLINE_MS = 15_000;

/** Two nodes with a tulled each, which know each other. */
async function twoTulleds(t: Test, ...args: string[]) {
  const world = makeNode(t);
  const tulled = world.startWith(crashable, '-node-id=node1', ...args);
  const other = world.startFar('-node-id=node2', ...args);
  await Promise.all([tulled.saw(/ ready /), other.saw(/ ready /)]);
  const deviceOf = (namespace: string): string =>
    withRtnetlink(namespace, netlink => netlink.addresses({ link: 'tulle0', family: 4 })[0].address);
  const address = deviceOf(world.far);
  const crosses = async (timeoutMs: number): Promise<boolean> =>
    (await ping(world.node, address, { count: 1, intervalMs: 0, timeoutMs })).received === 1;
  /** Waits until a ping crosses. */
  const resumes = async (cause: string): Promise<void> => {
    const begin = performance.now();
    let isBack = false;
    while (!isBack && performance.now() - begin < DEADLINE_MS) isBack = await crosses(50);
    t.ok(isBack, cause);
    t.comment(`${cause}: traffic is back after ${Math.round(performance.now() - begin)} ms`);
  };
  await resumes('at the start');
  const said = (text: string): number => tulled.stderr().split(text).length - 1;
  const end = async (): Promise<void> => {
    for (const one of [tulled, other]) t.equal((await one.end('SIGTERM')).code, 0);
  };
  return { world, tulled, crosses, resumes, said, end };
}

t.test('a deleted TUN device is made again, with its address and route', { skip }, async t => {
  const { world, tulled, resumes, said, end } = await twoTulleds(t);
  for (let round = 1; round <= 3; round++) {
    const before = withRtnetlink(world.node, netlink => netlink.link('tulle0')?.index);
    withRtnetlink(world.node, netlink => netlink.deleteLink('tulle0'));
    await resumes('a deleted device');
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
  t.equal(said('the TUN device is gone'), 3, tulled.stderr());
  await end();
});

for (const transport of ['offload', 'dgram']) {
  t.test(`a worker that crashed is made again (${transport})`, { skip }, async t => {
    const { tulled, crosses, resumes, said, end } = await twoTulleds(t, `--transport=${transport}`);
    for (let round = 1; round <= 2; round++) {
      tulled.child.kill('SIGUSR2');
      const noticed = tulled.saw(new RegExp(`(the data path crashed: out of luck[^]*){${round}}`));
      await crosses(1);
      await noticed;
      await resumes('a crash');
      await tulled.saw(new RegExp(`(data path is back[^]*){${round}}`));
    }
    t.equal(said('the data path crashed'), 2, tulled.stderr());
    t.equal(said('did not end'), 0);
    await end();
  });
}

t.test('an underlay that comes back is used again', { skip }, async t => {
  const { world, tulled, crosses, resumes, said, end } = await twoTulleds(t);
  const inNode1 = (change: Parameters<typeof withRtnetlink<void>>[1]): void => withRtnetlink(world.node, change);
  const isLost = async (): Promise<void> => {
    t.notOk(await crosses(50), 'nothing crosses');
  };
  inNode1(netlink => netlink.setLink('eth0', { up: false }));
  await isLost();
  inNode1(netlink => netlink.setLink('eth0', { up: true }));
  await resumes('a link that was down');
  inNode1(netlink => netlink.deleteAddress('eth0', '10.88.0.1/24'));
  await isLost();
  inNode1(netlink => netlink.addAddress('eth0', '10.88.0.1/24'));
  await resumes('an address that was removed');
  await tulled.saw(/takes datagrams again[\s\S]*takes datagrams again/);
  t.equal(said('refuses all datagrams'), 2, tulled.stderr());
  t.equal(said('refused an offload'), 0);
  await end();
});
