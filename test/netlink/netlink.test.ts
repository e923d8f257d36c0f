import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import { formatAddress } from '../../lib/netlink/address-text.ts';
import type { Route, Rtnetlink } from '../../lib/netlink/netlink.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

/** Connects from `client` to a server in `server`, which sends a word; gives what the client saw. */
async function say(server: string, client: string, address: string, word: string): Promise<string> {
  const listener = createServer(socket => socket.end(word));
  withNamespace(server, () => listener.listen(7070)); // without a host, listen binds before it returns
  const program = `
    const socket = require('node:net').connect(7070, ${JSON.stringify(address)});
    socket.setTimeout(10000, () => socket.destroy(new Error('timeout')));
    socket.pipe(process.stdout);
    socket.on('error', error => { console.log(error.message); process.exitCode = 1; });`;
  const child = withNamespace(client, () => spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 2] }));
  let heard = '';
  child.stdout?.setEncoding('utf8').on('data', text => {
    heard += text;
  });
  await once(child, 'close');
  listener.close();
  return heard;
}

// two namespaces, one wire:   left [eth0 10.1.0.1/24 fd01::1/64] ---- [eth0 10.1.0.2/24 fd01::2/64] right
t.test('a veth pair carries TCP between namespaces', { skip }, async t => {
  const left = sandbox.open('left');
  const right = sandbox.open('right');
  left.netlink.createVeth({ name: 'eth0', peerName: 'eth0', peerNamespace: right.path, up: true, peerUp: true });
  left.netlink.addAddress('eth0', '10.1.0.1/24');
  left.netlink.addAddress('eth0', 'fd01::1/64', { nodad: true });
  right.netlink.addAddress('eth0', '10.1.0.2/24');
  right.netlink.addAddress('eth0', 'fd01::2/64', { nodad: true });
  t.equal(await say(right.path, left.path, '10.1.0.2', 'hello over IPv4'), 'hello over IPv4');
  t.equal(await say(left.path, right.path, 'fd01::1', 'hello over IPv6'), 'hello over IPv6');
});

//   pod1 [eth0 10.2.0.11/24] --- h1 \                                  pod3 [eth0 10.3.0.11/24]
//                                    br0 10.2.0.1/24   node   h3 10.3.0.1/24 --- '
//   pod2 [eth0 10.2.0.12/24] --- h2 /
t.test('a bridge with two ports, and a default route through its node', { skip }, async t => {
  const node = sandbox.open('node');
  const pods = ['pod1', 'pod2', 'pod3'].map(name => sandbox.open(name));
  node.netlink.createBridge({ name: 'br0', mtu: 1400, up: true });
  node.netlink.addAddress('br0', '10.2.0.1/24');
  for (const [index, pod] of pods.entries()) {
    const bridged = index < 2;
    node.netlink.createVeth({
      name: `h${index + 1}`,
      peerName: 'eth0',
      peerNamespace: pod.path,
      mtu: 1400,
      up: true,
      peerUp: true,
      ...(bridged && { master: 'br0' }),
    });
    pod.netlink.addAddress('eth0', bridged ? `10.2.0.1${index + 1}/24` : '10.3.0.11/24');
    pod.netlink.addRoute({ destination: 'default', gateway: bridged ? '10.2.0.1' : '10.3.0.1' });
  }
  node.netlink.addAddress('h3', '10.3.0.1/24');
  withNamespace(node.path, () => execFileSync('sh', ['-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward']));
  t.equal(await say(pods[1].path, pods[0].path, '10.2.0.12', 'next door'), 'next door');
  t.equal(await say(pods[2].path, pods[0].path, '10.3.0.11', 'routed'), 'routed');
  pods[0].netlink.deleteRoute({ destination: 'default' });
  t.match(await say(pods[2].path, pods[0].path, '10.3.0.11', 'routed'), /ENETUNREACH/);
});

// ---- the ip command as a naive twin ----------------------------------------------------------------------------

const hasIp = (): boolean => {
  try {
    execFileSync('ip', ['-V'], { stdio: 'ignore' });
    return true;
  } catch {
    console.error('SKIPPED: no comparison with the ip command, iproute2 is not installed');
    return false;
  }
};
const noTwin = skip || (hasIp() ? false : 'iproute2 is not installed');

type Json = Record<string, unknown>;
const ip = (namespace: string, ...args: string[]): Json[] =>
  JSON.parse(withNamespace(namespace, () => execFileSync('ip', ['-j', ...args], { encoding: 'utf8' })) || '[]');
const sorted = (items: unknown[]): string[] => items.map(item => JSON.stringify(item)).sort();
const clean = (item: Json): Json => JSON.parse(JSON.stringify(item)); // drops what is undefined

function ourRoutes(netlink: Rtnetlink, family: 4 | 6): Json[] {
  const names: Record<number, string> = { 254: 'main', 255: 'local' };
  const text = (route: Route): string => route.destination.replace(family === 4 ? /\/32$/ : /\/128$/, '');
  return netlink.routes(family).map(route =>
    clean({
      dst: text(route),
      type: route.type,
      gateway: route.gateway,
      dev: route.link,
      prefsrc: route.source,
      metric: route.metric || undefined,
      table: names[route.table] ?? String(route.table),
      scope: family === 4 ? route.scope : undefined,
    }),
  );
}
const theirRoutes = (namespace: string, family: 4 | 6): Json[] =>
  ip(namespace, `-${family}`, '-d', 'route', 'show', 'table', 'all').map(route =>
    clean({
      dst: route['dst'],
      type: route['type'] ?? 'unicast',
      gateway: route['gateway'],
      dev: route['dev'],
      prefsrc: route['prefsrc'],
      metric: route['metric'] || undefined,
      table: route['table'] ?? 'main',
      scope: family === 4 ? route['scope'] : undefined,
    }),
  );

t.test('500 addresses and their routes, as the ip command sees them', { skip: noTwin }, async t => {
  const { path, netlink } = sandbox.open('twin');
  netlink.createVeth({ name: 'a', peerName: 'b', mtu: 1300, up: true, peerUp: true });
  netlink.createBridge({ name: 'br0' });
  netlink.setLink('b', { master: 'br0' });
  for (let index = 0; index < 250; index++) {
    netlink.addAddress('a', `10.${index}.7.1/${20 + (index % 13)}`);
    netlink.addAddress('a', `fd00:${index.toString(16)}::1/64`, { nodad: true });
  }
  netlink.addRoute({ destination: 'default', gateway: '10.3.7.2' });
  netlink.addRoute({ destination: '172.16.0.0/12', type: 'blackhole', metric: 9 });
  netlink.addRoute({ destination: '192.168.5.0/24', link: 'a', table: 4000 });
  netlink.addRoute({ destination: 'fd77::/48', gateway: 'fd00:3::2' });

  const links = ip(path, '-d', 'link', 'show');
  t.same(
    sorted(
      netlink
        .links()
        .map(({ index, name, mtu, mac, kind, txQueueLength }) => clean({ index, name, mtu, mac, kind, txQueueLength })),
    ),
    sorted(
      links.map(link =>
        clean({
          index: link['ifindex'],
          name: link['ifname'],
          mtu: link['mtu'],
          mac: link['address'],
          kind: (link['linkinfo'] as Json | undefined)?.['info_kind'],
          txQueueLength: link['txqlen'],
        }),
      ),
    ),
  );
  t.equal(links.find(link => link['ifname'] === 'b')?.['master'], 'br0');

  const addresses = netlink.addresses();
  t.ok(addresses.length >= 500, `${addresses.length} addresses`);
  t.same(
    sorted(
      addresses.map(({ link, family, address, prefixLength, scope }) => ({
        link,
        family,
        address,
        prefixLength,
        scope,
      })),
    ),
    sorted(
      ip(path, 'addr', 'show').flatMap(link =>
        (link['addr_info'] as Json[]).map(info => ({
          link: link['ifname'],
          family: info['family'] === 'inet' ? 4 : 6,
          address: info['local'],
          prefixLength: info['prefixlen'],
          scope: info['scope'],
        })),
      ),
    ),
  );
  for (const family of [4, 6] as const) {
    // Both look at different times, and the kernel adds routes of IPv6 addresses a moment after the addresses.
    let [ours, theirs] = [ourRoutes(netlink, family), theirRoutes(path, family)];
    for (const deadline = performance.now() + 15_000; performance.now() < deadline; ) {
      if (isDeepStrictEqual(sorted(ours), sorted(theirs))) break;
      [ours, theirs] = [ourRoutes(netlink, family), theirRoutes(path, family)];
    }
    t.ok(ours.length >= 500, `${ours.length} IPv${family} routes`);
    t.same(sorted(ours), sorted(theirs));
  }
});

t.test('what the ip command makes is read the same way', { skip: noTwin }, async t => {
  const { path, netlink } = sandbox.open('theirs');
  const run = (text: string): unknown => withNamespace(path, () => execFileSync('ip', text.split(' ')));
  run('link add name near type veth peer name far');
  run('link set near up');
  run('link set far up');
  run('addr add 10.0.0.1 peer 10.9.9.9/24 dev near');
  run('route add default nexthop via 10.9.9.2 dev near weight 1 nexthop dev far weight 2');
  run('route add 10.77.0.0/16 via inet6 fe80::9 dev near');
  run('route add unreachable 10.78.0.0/16');
  t.match(netlink.addresses({ link: 'near', family: 4 }), [{ address: '10.0.0.1', prefixLength: 24 }]);
  const routes = netlink.routes(4, 254);
  const [near, far] = ['near', 'far'].map(name => netlink.link(name)?.index);
  t.match(
    routes.find(({ destination }) => destination === 'default'),
    { gateway: '10.9.9.2', link: 'near', nextHops: [{ index: near, gateway: '10.9.9.2' }, { index: far }] },
  );
  t.match(
    routes.find(({ destination }) => destination === '10.77.0.0/16'),
    { gateway: 'fe80::9', link: 'near' },
  );
  t.match(
    routes.find(({ destination }) => destination === '10.78.0.0/16'),
    { type: 'unreachable' },
  );
  t.equal(formatAddress(Uint8Array.of(255, 1, 2, 3)), '255.1.2.3');
});
