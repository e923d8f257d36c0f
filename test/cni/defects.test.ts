/**
 * The defects of the reference plugins that were reproduced when this one was planned, each by the issue that tells of
 * it: here is shown that they are not ours. a to i as in the list that the plan was made from.
 */
import { appendFileSync, closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { printResult } from '../../lib/cni/protocol/result.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { removeNamespace } from '../../lib/sys/sys.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { makeFakeIpam } from './delegated.ts';
import { addressesOf, BRIDGE, linksIn, makeNode, rejection } from './node.ts';

const skip = whyNot();
const MASQUERADED = { ...BRIDGE, ipMasq: true };
const DELEGATED = { ...BRIDGE, ipam: { type: 'fake-ipam' } };

t.test("a: the bridge's MAC address stays what it is (plugins#620, nerdctl#4283)", { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  // The first ADD fails after the bridge was made; then DEL, then ADD: the reference's "invalid argument".
  node.rules.failure = 'told to fail';
  t.match(await rejection(node.add('one', MASQUERADED)), { message: /told to fail/ });
  await node.del('one', MASQUERADED);
  node.rules.failure = undefined;
  const first = await node.add('one', MASQUERADED);
  const mac = first.interfaces[0].mac;
  t.match(mac, /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/);
  t.not(mac, '00:00:00:00:00:00');
  await node.add('two', MASQUERADED);
  await node.del('one', MASQUERADED);
  t.equal(node.netlink.link('cni0')?.mac, mac, 'with other ports');
  await node.del('two', MASQUERADED);
  t.equal(node.netlink.link('cni0')?.mac, mac, 'without any');
  await node.add('one', MASQUERADED);
  await node.add('two', MASQUERADED);
  t.equal(node.netlink.link('cni0')?.mac, mac);

  // A bridge that somebody else left: without ports it has no address at all, with ports a floating one.
  node.netlink.createBridge({ name: 'br9' });
  node.netlink.createVeth({ name: 'x', peerName: 'y', mac: '02:00:00:00:00:99', master: 'br9' });
  node.netlink.deleteLink('x');
  t.equal(node.netlink.link('br9')?.mac, '00:00:00:00:00:00');
  const foreign = { ...BRIDGE, name: 'net9', bridge: 'br9', ipam: { subnet: '10.99.0.0/24' } };
  const three = await node.add('three', foreign);
  node.netlink.createVeth({ name: 'x', peerName: 'y', mac: '02:00:00:00:00:01', master: 'br9' });
  t.equal(node.netlink.link('br9')?.mac, three.interfaces[0].mac);
  const check = { containerId: 'three', netns: node.pod('three'), config: foreign, prevResult: three };
  await t.resolves(
    node.plugin.check(node.request('CHECK', check)),
    'a later port does not fail the check of an earlier',
  );
});

t.test('b: a kill between two steps loses no address (plugins#498)', { skip }, async t => {
  // Every prefix of the journal is what some kill leaves: test/cni/journal.test.ts and store.test.ts go through all of
  // them. Here one is shown with the plugin above it.
  const node = makeNode();
  t.teardown(() => node.remove());
  const small = { ...BRIDGE, ipam: { subnet: '10.9.0.0/30' } };
  await node.add('one', small);
  await node.del('one', small);
  node.plugin.close();
  appendFileSync(join(node.dataDir, 'net1/journal'), 'd00df00d {"op":"begin","containerId":"two","ifna');
  await node.restart();
  t.match(await node.add('three', small), { ips: [{ address: '10.9.0.2/30' }] }, 'the only address there is');
});

t.test('c: rules go although the namespace went first (plugins#810, PR 1078)', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  for (const netns of ['', '/run/netns/gone']) {
    await node.add('one', MASQUERADED);
    t.equal(node.rules.present.size, 1);
    node.removePod('one');
    await node.plugin.del(node.request('DEL', { containerId: 'one', netns, config: MASQUERADED }));
    t.equal(node.rules.present.size, 0, `CNI_NETNS "${netns}"`);
    await node.plugin.del(node.request('DEL', { containerId: 'one', netns, config: MASQUERADED }));
  }
  t.same(linksIn(node.netlink), ['cni0']);
});

t.test('d: a namespace file that is no longer a namespace (cri-o#438)', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  await node.add('one');
  const path = node.pod('one');
  removeNamespace(path);
  closeSync(openSync(path, 'w'));
  await node.del('one');
  t.same(linksIn(node.netlink), ['cni0']);
  await node.restart();
  await node.plugin.gc(node.request('GC', { validAttachments: [] }));
  t.same(linksIn(node.netlink), ['cni0']);
});

t.test('e: an address plugin that fails leaves nothing, and the retry works', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const ipam = makeFakeIpam(node.directory);
  ipam.fail('ADD');
  const more = { path: ipam.path };
  t.same(await rejection(node.add('one', DELEGATED, more)), { code: 100, message: 'fake-ipam: told to fail' });
  t.same(ipam.calls(), ['ADD one', 'DEL one'], 'DEL follows an ADD that failed');
  t.same(linksIn(node.pod('one')), []);
  t.same(linksIn(node.netlink), []);
  ipam.fail('ADD', false);
  t.match(await node.add('one', DELEGATED, more), { ips: [{ address: '10.77.0.2/24' }] }, 'without a DEL in between');

  // Built in: a full pool.
  const tiny = { ...BRIDGE, name: 'tiny', ipam: { subnet: '10.8.0.0/30' }, bridge: 'br1' };
  await node.add('two', tiny);
  t.match(await rejection(node.add('three', tiny)), {
    code: 11,
    message: /no IP addresses available in range set: 10\.8/,
  });
  t.same(linksIn(node.pod('three')), []);
  await node.del('two', tiny);
  await node.add('three', tiny);
});

t.test('f: GC and STATUS do something (plugins#1047)', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  for (const pod of ['one', 'two', 'three']) await node.add(pod, MASQUERADED);
  const gc = node.request('GC', { config: MASQUERADED, validAttachments: [{ containerId: 'two', ifname: 'eth0' }] });
  await node.plugin.gc(gc);
  t.same([...node.rules.present.keys()], ['net1/two/eth0']);
  t.equal(linksIn(node.netlink).length, 2, 'the bridge and one pod');
  t.same(linksIn(node.pod('one')), []);
  t.same(addressesOf(node.pod('two'), 'eth0'), ['10.9.0.3/24']);
  const tiny = { ...BRIDGE, name: 'tiny', ipam: { subnet: '10.8.0.0/30' }, bridge: 'br1' };
  await node.plugin.status(node.request('STATUS', { config: tiny }));
  await node.add('four', tiny);
  t.match(await rejection(node.plugin.status(node.request('STATUS', { config: tiny }))), {
    code: 50,
    message: /no IP addresses available/,
  });
});

t.test('g: CHECK without what later plugins were not asked for', { skip }, async t => {
  // The reference's bandwidth panics where no bandwidth is configured: a CHECK with runtimeConfig, and without.
  const node = makeNode();
  t.teardown(() => node.remove());
  const result = await node.add('one');
  for (const runtimeConfig of [undefined, {}, { bandwidth: null }, { portMappings: [] }]) {
    const config = { ...BRIDGE, ...(runtimeConfig !== undefined && { runtimeConfig }) };
    const call = { containerId: 'one', netns: node.pod('one'), config, prevResult: result };
    await t.resolves(node.plugin.check(node.request('CHECK', call)), JSON.stringify(runtimeConfig));
  }
});

t.test('h: a MAC in CNI_ARGS does not break the address plugin', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const ipam = makeFakeIpam(node.directory);
  const result = await node.add('one', DELEGATED, { path: ipam.path, args: 'MAC=02:00:00:00:0a:0b;IP=10.77.0.2' });
  t.equal(result.interfaces[2].mac, '02:00:00:00:0a:0b');
  t.equal(
    withRtnetlink(node.pod('one'), inside => inside.link('eth0')?.mac),
    '02:00:00:00:0a:0b',
  );
  t.same(ipam.args(), ['MAC=02:00:00:00:0a:0b;IP=10.77.0.2;IgnoreUnknown=1']);
});

t.test('i: a result of a version that the runtime does not know leaks nothing', { skip }, async t => {
  // The plugin succeeds, the runtime gives up on the answer, and calls DEL with what it has.
  const node = makeNode();
  t.teardown(() => node.remove());
  const result = await node.add('one', MASQUERADED);
  t.equal(printResult(result, '1.1.0')['cniVersion'], '1.1.0');
  await node.del('one', MASQUERADED);
  t.same(linksIn(node.pod('one')), []);
  t.same(linksIn(node.netlink), ['cni0']);
  t.equal(node.rules.present.size, 0);
  await node.restart();
  t.match(await node.add('one', { ...MASQUERADED, cniVersion: '0.4.0' }), { ips: [{ address: '10.9.0.3/24' }] });
});
