// One real node in a namespace of its own, with a file registry and a TUN device.
import { existsSync, readFileSync } from 'node:fs';
import t from 'tap';
import { openFileRegistry } from '../../lib/lease/file-registry.ts';
import { parseSubnetEnv } from '../../lib/lease/subnet-env.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { makeNode, skip } from '../daemon/node.ts';

t.test('up, what it wrote, and down again', { skip }, async t => {
  const world = makeNode(t);
  const before = world.links();
  const tulled = world.start('-node-id=node1', '-healthz-ip=127.0.0.1', '-healthz-port=18081');
  await tulled.saw(/ ready /);
  const [name] = world.leases();
  t.match(name, /^10\.5\.\d+\.0-24$/);
  const { PublicIP, PublicIPv6, BackendType, BackendData } = world.lease(name);
  t.same([PublicIP, PublicIPv6, BackendType, BackendData.NodeID], ['10.88.0.1', null, 'tulle', 'node1']);

  const subnet = name.replace('-24', '').replace(/0$/, '1');
  const text = `FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=${subnet}/24\nFLANNEL_MTU=1460\nFLANNEL_IPMASQ=false\n`;
  t.equal(readFileSync(world.subnetFile, 'utf8'), text);

  t.same(world.links(), [...before, 'tulle0'].sort());
  const device = withRtnetlink(world.node, netlink => netlink.link('tulle0'));
  t.equal(device?.mtu, 1460);
  t.ok(device?.up);

  const { code, ms } = await tulled.end('SIGTERM');
  t.equal(code, 0, tulled.stderr());
  t.ok(ms < 5000, `it took ${Math.round(ms)} ms`);
  t.same(world.links(), before, 'the device is gone');
  t.same(world.leases(), [name], 'the lease stays');
  t.ok(existsSync(world.subnetFile), 'subnet.env stays');
  t.equal(tulled.stderr().match(/ warn | error /g), null, tulled.stderr());
});

t.test('SIGINT is a clean stop too, and --release-on-exit gives the lease back', { skip }, async t => {
  const world = makeNode(t);
  const tulled = world.start('-node-id=node1', '--release-on-exit');
  await tulled.saw(/ ready /);
  t.equal(world.leases().length, 1);
  t.equal((await tulled.end('SIGINT')).code, 0);
  t.same(world.leases(), []);
});

t.test('after SIGKILL the next start gets the same subnet', { skip }, async t => {
  const world = makeNode(t);
  const subnet = () => parseSubnetEnv(readFileSync(world.subnetFile, 'utf8')).subnets[0]?.address;
  const first = world.start('-node-id=node1');
  await first.saw(/ ready /);
  const [before, leases] = [subnet(), world.leases()];
  t.equal((await first.end('SIGKILL')).signal, 'SIGKILL');
  const second = world.start('-node-id=node1');
  await second.saw(/ ready /);
  t.equal(subnet(), before);
  t.same(world.leases(), leases);
  t.equal((await second.end('SIGTERM')).code, 0);
});

t.test("flannel's backend: its device, its MTU, its lease", { skip }, async t => {
  const world = makeNode(t, '{"Network":"10.5.0.0/16"}');
  const tulled = world.start('-node-id=node1');
  await tulled.saw(/ ready /);
  t.ok(world.links().includes('flannel0'));
  t.equal(parseSubnetEnv(readFileSync(world.subnetFile, 'utf8')).mtu, 1472);
  const { PublicIP, BackendType } = world.lease(world.leases()[0]);
  t.same([PublicIP, BackendType], ['10.88.0.1', undefined]);
  t.equal((await tulled.end('SIGTERM')).code, 0);
});

t.test('the port is taken: one line, and neither lease nor device is left', { skip }, async t => {
  const world = makeNode(t);
  const first = world.start('-node-id=node1');
  await first.saw(/ ready /);
  const leases = world.leases();
  const before = world.links();
  const second = world.start('-node-id=node2', '-public-ip=10.88.0.77', `-subnet-file=${world.subnetFile}.2`);
  const { code } = await second.ended;
  t.equal(code, 1);
  t.match(second.stderr(), /^tulled: cannot listen on 10.88.0.1:8285 .*\n$/);
  t.same(world.leases(), leases);
  t.same(world.links(), before);
  t.notOk(existsSync(`${world.subnetFile}.2`));
  t.equal((await first.end('SIGTERM')).code, 0);
});

t.test('our lease is taken by another node: exit code 2, the device gone, the lease theirs', { skip }, async t => {
  const world = makeNode(t);
  const tulled = world.start('-node-id=node1');
  await tulled.saw(/ ready /);
  const [name] = world.leases();
  const registry = openFileRegistry(world.registry);
  const [lease] = (await registry.list()).leases;
  const theirs = { PublicIP: '10.88.0.2', PublicIPv6: null, BackendType: 'tulle', BackendData: { NodeID: 'node2' } };
  await registry.update(lease, theirs, 60);
  const { code } = await tulled.ended;
  t.equal(code, 2, tulled.stderr());
  t.match(tulled.stderr(), /\ntulled: the lease is lost: /);
  t.notOk(world.links().includes('tulle0'));
  t.match(world.lease(name), { PublicIP: '10.88.0.2' });
});
