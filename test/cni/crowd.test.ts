/** Many at once, and kills at any moment: nothing is given twice, nothing is left. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { hostLinkName } from '../../lib/cni/names.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { below, prng, testSeed } from '../support/prng.ts';
import { BRIDGE, FileRules, linksIn, makeNode } from './node.ts';

const skip = whyNot();
const CONFIG = { ...BRIDGE, ipMasq: true, ipam: { subnet: '10.9.0.0/22' } };

t.test('300 ADDs at once, then 300 DELs', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const pods = Array.from({ length: 300 }, (_, i) => `pod${i}`);
  for (const pod of pods) node.pod(pod);
  const results = await Promise.all(pods.map(pod => node.add(pod, CONFIG)));
  const addresses = results.map(result => result.ips[0].address);
  t.equal(new Set(addresses).size, 300, 'no address twice');
  const wrong = pods.filter((pod, i) =>
    withRtnetlink(node.pod(pod), netlink => {
      const [ip] = netlink.addresses({ link: 'eth0', family: 4 });
      return `${ip.address}/${ip.prefixLength}` !== addresses[i];
    }),
  );
  t.same(wrong, [], 'each has what its result says');
  t.equal(new Set(results.map(result => result.interfaces[0].mac)).size, 1, 'one bridge');
  t.equal(linksIn(node.netlink).length, 301);
  t.equal(node.rules.present.size, 300);
  await Promise.all(pods.map(pod => node.del(pod, CONFIG)));
  t.same(linksIn(node.netlink), ['cni0']);
  t.equal(node.rules.present.size, 0);
  t.match(await node.add('pod0', CONFIG), { ips: [{ address: '10.9.1.46/22' }] }, 'the next one never used before');
});

t.test('the same pod many times at once: one wins', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  node.pod('one');
  const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => node.add('one', CONFIG)));
  t.equal(outcomes.filter(outcome => outcome.status === 'fulfilled').length, 1);
  t.equal(linksIn(node.netlink).length, 2);
  await node.del('one', CONFIG);
  t.same(linksIn(node.netlink), ['cni0']);
});

t.test('SIGKILL at any moment of ADDs and DELs, then a start and GC', { skip }, async t => {
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const random = prng(seed);
  const node = makeNode();
  t.teardown(() => node.remove());
  const pods = Array.from({ length: 6 }, (_, i) => `pod${i}`);
  for (const pod of pods) node.pod(pod);
  const rules = new FileRules(join(node.directory, 'rules'));
  node.plugin.close();
  const program = fileURLToPath(new URL('./crowd-child.js', import.meta.url));
  let adds = 0;
  let leftovers = 0;
  for (let round = 0; round < 15; round++) {
    const child: ChildProcess = spawn(process.execPath, [program, node.directory, String(random())], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const closed = once(child, 'close');
    const opened = once(child.stdout!, 'data');
    child.stdout!.on('data', (text: Buffer) => {
      adds += text.length;
    });
    await Promise.race([opened, closed]);
    await new Promise(resolve => setTimeout(resolve, below(random, 25)));
    child.kill('SIGKILL');
    await closed;
    leftovers += linksIn(node.netlink).filter(name => name.startsWith('veth')).length + rules.keys().length;

    // A daemon is started again: what was half made goes, what was done stays; then the runtime says what it has.
    await node.restart({ rules });
    const keyOf = (pod: string): string => `net1/${pod}/eth0`;
    const linkOf = (pod: string): string => hostLinkName({ network: 'net1', containerId: pod, ifname: 'eth0' });
    const standing = pods.filter(pod => node.netlink.link(linkOf(pod)) !== undefined);
    t.same(rules.keys(), standing.map(keyOf).sort(), `round ${round}: a rule for each link`);
    const gc = node.request('GC', { config: CONFIG, validAttachments: [{ containerId: pods[0], ifname: 'eth0' }] });
    await node.plugin.gc(gc);
    const kept = standing.includes(pods[0]) ? [pods[0]] : [];
    t.same(
      linksIn(node.netlink).filter(name => name.startsWith('veth')),
      kept.map(linkOf),
      'no link more',
    );
    t.same(rules.keys(), kept.map(keyOf), 'no rule more');
    t.same(
      pods.filter(pod => linksIn(node.pod(pod)).length > 0),
      kept,
      'and none in a pod',
    );
    // All addresses but those of what stands can be had.
    const tiny = { ...CONFIG, ipam: { subnet: '10.9.0.0/29' } };
    const others = pods.filter(pod => !kept.includes(pod)).slice(0, 5 - kept.length);
    for (const pod of others) await node.add(pod, tiny);
    const status = await node.plugin.status(node.request('STATUS', { config: tiny })).catch(error => error.message);
    t.match(status, /no IP addresses available/, 'exactly as many as there are');
    for (const pod of others) await node.del(pod, tiny);
    node.plugin.close();
  }
  t.ok(adds > 15, `${adds} calls before the kills`);
  t.ok(leftovers > 0, `${leftovers} links and rules left by the kills`);
});
