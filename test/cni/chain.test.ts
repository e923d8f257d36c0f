/** The reference plugins behind ours, for real: Debian's containernetworking-plugins, fetched into the cache folder. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { runDelegate } from '../../lib/cni/delegate.ts';
import type { CniCommand, CniResult } from '../../lib/cni/plugin.ts';
import { Fields, type JsonObject, strict } from '../../lib/cni/protocol/fields.ts';
import { printResult, readResult } from '../../lib/cni/protocol/result.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { openRuleTools } from '../host/rule-tools.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { addressesOf, BRIDGE, linksIn, makeNode, type Node } from './node.ts';

function findRoot(from: string): string {
  return existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from));
}
const root = findRoot(dirname(fileURLToPath(import.meta.url)));

/** The folder of the reference plugins, or the reason why there is none, said aloud. */
async function findReference(): Promise<{ folder: string } | { reason: string }> {
  const { fetchDebian } = (await import(join(root, 'scripts/fetch-debian.mjs'))) as {
    fetchDebian(options: object): { path: string } | { reason: string };
  };
  const found = fetchDebian({ package: 'containernetworking-plugins', program: 'host-local' });
  if ('path' in found) return { folder: dirname(found.path) };
  console.error(`SKIPPED: ${found.reason}`);
  return { reason: `SKIPPED: ${found.reason}` };
}

const unprivileged = whyNot();
const reference = unprivileged === false ? await findReference() : { reason: unprivileged };
const tools = unprivileged === false ? openRuleTools() : unprivileged;
const folder = 'folder' in reference ? reference.folder : '/nowhere';
const skip = 'reason' in reference ? reference.reason : typeof tools === 'string' ? tools : false;
if (typeof tools !== 'string') t.teardown(() => tools.remove());
// The plugins look for iptables on the PATH.
if (typeof tools !== 'string') process.env['PATH'] = `${tools.path('iptables')[0]}:${process.env['PATH'] ?? ''}`;

const VERSION = '0.4.0';
const CONFIG = { ...BRIDGE, cniVersion: VERSION };

/** Calls a plugin of the reference in the node's namespace, as a runtime calls the second one of a chain. */
async function call(
  node: Node,
  command: CniCommand,
  type: string,
  pod: string,
  keys: object,
  prevResult: CniResult,
): Promise<CniResult> {
  const config = { cniVersion: VERSION, name: 'net1', type, ...keys, prevResult: printResult(prevResult, VERSION) };
  const text = await runDelegate({
    command,
    type,
    containerId: pod,
    ifname: 'eth0',
    netns: node.pod(pod),
    argsText: '',
    path: [folder],
    config,
    namespace: node.host,
  });
  if (text === '') return prevResult;
  return readResult(new Fields(JSON.parse(text) as JsonObject, 'result', strict), VERSION);
}

const check = (node: Node, pod: string, prevResult: CniResult, config: object = CONFIG): Promise<void> =>
  node.plugin.check(node.request('CHECK', { containerId: pod, netns: node.pod(pod), config, prevResult }));

/** A Node.js program in a namespace; its first output is there when this resolves. */
async function start(t: Test, namespace: string, program: string): Promise<{ child: ChildProcess; first: string }> {
  const child = withNamespace(namespace, () =>
    spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] }),
  );
  t.teardown(() => child.kill('SIGKILL'));
  const [first] = await once(child.stdout!, 'data');
  return { child, first: String(first).trim() };
}

t.test('portmap: a port of the host leads to the pod', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const outside = node.pod('outside');
  node.netlink.createVeth({ name: 'up0', peerName: 'eth0', peerNamespace: outside, up: true, peerUp: true });
  node.netlink.addAddress('up0', '192.0.2.1/24');
  withRtnetlink(outside, netlink => netlink.addAddress('eth0', '192.0.2.2/24'));

  const result = await node.add('one', CONFIG);
  // containerd 1.6 writes the keys like this.
  const keys = {
    runtimeConfig: { portMappings: [{ HostPort: 18080, ContainerPort: 80, Protocol: 'tcp', HostIP: '' }] },
  };
  const final = await call(node, 'ADD', 'portmap', 'one', keys, result);
  t.same(final, { ...result, interfaces: result.interfaces.map(({ mtu: _, ...rest }) => rest) }, 'passed through');
  await start(
    t,
    node.pod('one'),
    "require('node:net').createServer(s => s.end('from ' + s.remoteAddress)).listen(80, '0.0.0.0', () => console.log('up'))",
  );
  const visit = `require('node:net').connect(18080, '192.0.2.1').on('data', d => console.log(String(d)))`;
  const { first } = await start(t, outside, visit);
  t.equal(first, 'from 192.0.2.2');
  await check(node, 'one', final);
  // portmap's own CHECK, in this version, looks for IPv6 chains that it did not make.
  await call(node, 'DEL', 'portmap', 'one', keys, final);
  await node.del('one', CONFIG);
  t.same(linksIn(node.netlink), ['cni0', 'up0']);
});

t.test('tuning, bandwidth and firewall: our CHECK knows what they changed', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  let result = await node.add('one', CONFIG);
  const chain: [string, object][] = [
    ['tuning', { mac: '02:00:00:00:00:42', mtu: 1400, sysctl: { 'net.ipv4.conf.eth0.log_martians': '1' } }],
    ['firewall', { backend: 'iptables' }],
    ['bandwidth', { ingressRate: 1_000_000, ingressBurst: 1_000_000, egressRate: 1_000_000, egressBurst: 1_000_000 }],
  ];
  const done: [string, object][] = [];
  for (const [type, keys] of chain) {
    const dataDir = join(node.directory, type);
    result = await call(node, 'ADD', type, 'one', { ...keys, dataDir }, result);
    done.unshift([type, { ...keys, dataDir }]);
  }
  t.equal(
    withRtnetlink(node.pod('one'), netlink => netlink.link('eth0')?.mac),
    '02:00:00:00:00:42',
  );
  t.ok(
    result.interfaces.some(link => link.name.startsWith('bwp')),
    'an interface more',
  );
  await check(node, 'one', result);
  for (const [type, keys] of done) await call(node, 'CHECK', type, 'one', keys, result);
  for (const [type, keys] of done) await call(node, 'DEL', type, 'one', keys, result);
  await node.del('one', CONFIG);
  t.same(linksIn(node.netlink), ['cni0']);
});

t.test('host-local manages the addresses', { skip }, async t => {
  const node = makeNode();
  t.teardown(() => node.remove());
  const dataDir = join(node.directory, 'host-local');
  const config = { ...CONFIG, ipam: { type: 'host-local', subnet: '10.9.0.0/24', dataDir } };
  const more = { path: [folder] };
  const files = (): string[] => readdirSync(join(dataDir, 'net1')).filter(name => name.startsWith('10.'));
  const result = await node.add('one', config, { ...more, args: 'MAC=02:00:00:00:00:43' });
  t.match(result.ips, [{ address: '10.9.0.2/24', gateway: '10.9.0.1', interface: 2 }]);
  t.equal(result.interfaces[2].mac, '02:00:00:00:00:43');
  t.same(addressesOf(node.pod('one'), 'eth0'), ['10.9.0.2/24']);
  t.same(files(), ['10.9.0.2']);
  const call = { containerId: 'one', netns: node.pod('one'), config, prevResult: result, ...more };
  await node.plugin.check(node.request('CHECK', call));
  node.rules.failure = 'told to fail';
  await t.rejects(node.add('two', { ...config, ipMasq: true }, more));
  t.same(files(), ['10.9.0.2'], 'given back');
  await node.plugin.gc(node.request('GC', { config, ...more, validAttachments: [] }));
  t.same(files(), []);
  await node.del('one', config, more);
});
