// Services over the overlay: what kube-proxy's rules do with packets, tulle must carry, there and back. Real tulled, real
// nftables, real TCP; the servers say whom they saw, so it is also held where a source is kept and where it is not.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import t from 'tap';
import { BRIDGE_NETFILTER } from '../../lib/host/bridge-netfilter.ts';
import { getSysctl, setSysctl } from '../../lib/host/sysctl.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { skip as noNode } from '../daemon/node.ts';
import { openRuleTools } from '../host/rule-tools.ts';
import { type KubeCluster, makeKubeCluster, type Pod, WORLD } from '../support/kube-cluster.ts';
import { loadRules, proxyRules, type Service } from '../support/kube-proxy.ts';
import { runIn } from '../support/pods.ts';

const tools = noNode === false ? openRuleTools() : noNode;
const skip = typeof tools === 'string' ? tools : false;
t.teardown(() => {
  if (typeof tools !== 'string') tools.remove();
});

/** Answers each TCP connection at its end with "NAME saw ADDRESS: BYTES DIGEST", and each datagram the same way. */
const serverProgram = (name: string, port: number, host: string): string => `
  const { createHash } = require('crypto');
  require('net').createServer({ allowHalfOpen: true }, socket => {
    const hash = createHash('sha256');
    let bytes = 0;
    socket.on('error', () => {});
    socket.on('data', data => { bytes += data.length; hash.update(data); });
    socket.on('end', () => {
      const head = '${name} saw ' + socket.remoteAddress + ': ' + bytes + ' ' + hash.digest('hex') + '\\n';
      socket.end(head + 'x'.repeat(bytes));
    });
  }).listen(${port}, '${host}', () => console.log('listening'));
  const udp = require('dgram').createSocket('udp4');
  udp.on('message', (data, from) => udp.send('${name} saw ' + from.address + ': ' + data.length, from.port, from.address));
  udp.bind(${port}, '${host}');`;

/** As many bytes come back as were sent. Prints what the server said, or what went wrong. */
const clientProgram = (address: string, port: number, bytes: number): string => `
  const { createHash, randomBytes } = require('crypto');
  const data = randomBytes(${bytes});
  const socket = require('net').connect({ host: '${address}', port: ${port} });
  socket.setTimeout(8000, () => { console.log('timeout'); process.exit(); });
  let got = [];
  socket.on('connect', () => socket.end(data));
  socket.on('data', part => got.push(part));
  socket.on('error', e => { console.log(e.code); process.exit(); });
  socket.on('end', () => {
    const answer = Buffer.concat(got);
    const line = answer.subarray(0, answer.indexOf(10)).toString();
    const digest = createHash('sha256').update(data).digest('hex');
    const whole = line.endsWith(' ${bytes} ' + digest) && answer.length === line.length + 1 + ${bytes};
    console.log(whole ? line.split(':')[0] : 'broken: ' + line + ' and ' + answer.length);
  });`;

const ask = (namespace: string, address: string, port: number, bytes = 300_000): Promise<string> =>
  runIn(namespace, clientProgram(address, port, bytes));

const askUdp = (namespace: string, address: string, port: number): Promise<string> =>
  runIn(
    namespace,
    `const s = require('dgram').createSocket('udp4');
     s.on('message', m => { console.log(m.toString().split(':')[0]); process.exit(); });
     const send = () => s.send('hello', ${port}, '${address}');
     send(); setInterval(send, 500); setTimeout(() => { console.log('timeout'); process.exit(); }, 8000);`,
  );

async function serve(t: { teardown(action: () => void): void }, namespace: string, name: string, host = '0.0.0.0') {
  const child: ChildProcess = withNamespace(namespace, () =>
    spawn(process.execPath, ['-e', serverProgram(name, 8080, host)], { stdio: ['ignore', 'pipe', 'inherit'] }),
  );
  t.teardown(() => void child.kill('SIGKILL'));
  await new Promise(resolve => child.stdout?.once('data', resolve));
}

t.test('Services and the world', { skip }, async t => {
  if (typeof tools === 'string') return;
  const cluster: KubeCluster = await makeKubeCluster(t, 2);
  // As on a node where somebody switched it off; where the module is missing nothing of ours can make up for it.
  const hasModule = existsSync('/proc/sys/net/bridge');
  if (hasModule) for (const k of [1, 2]) setSysctl(cluster.node(k), BRIDGE_NETFILTER[4], 0);
  const PATH = tools.path('nft').join(':');
  const daemons = [1, 2].map(k => cluster.tulled(k, ['-ip-masq', '--probe-interval=0'], { PATH }));
  await Promise.all(daemons.map(tulled => tulled.saw(/ ready /)));
  const client: Pod = await cluster.addPod(1, 'client');
  const near: Pod = await cluster.addPod(1, 'near');
  const far: Pod = await cluster.addPod(2, 'far');
  t.same([client.address, near.address, far.address], ['10.42.0.2', '10.42.0.3', '10.42.1.2']);
  await serve(t, near.namespace, 'near');
  await serve(t, far.namespace, 'far');
  await serve(t, cluster.switch, 'world', WORLD);
  await serve(t, client.namespace, 'client');

  const endpoint = ({ address }: Pod) => ({ address, port: 8080 });
  const services: Service[] = [
    { name: 'far', clusterIp: '10.96.0.10', protocol: 'tcp', port: 80, nodePort: 30_080, endpoints: [endpoint(far)] },
    { name: 'dns', clusterIp: '10.96.0.53', protocol: 'udp', port: 53, nodePort: 30_053, endpoints: [endpoint(far)] },
    { name: 'near', clusterIp: '10.96.0.11', protocol: 'tcp', port: 80, nodePort: 30_081, endpoints: [endpoint(near)] },
    {
      name: 'own',
      clusterIp: '10.96.0.12',
      protocol: 'tcp',
      port: 80,
      nodePort: 30_082,
      endpoints: [endpoint(client)],
    },
    { name: 'both', clusterIp: '10.96.0.13', protocol: 'tcp', port: 80, endpoints: [endpoint(near), endpoint(far)] },
    { name: 'none', clusterIp: '10.96.0.14', protocol: 'tcp', port: 80, endpoints: [] },
  ];
  for (const k of [1, 2]) {
    loadRules(tools.nft, cluster.node(k), proxyRules(services, '10.42.0.0/16', `10.88.0.${k}`));
    setSysctl(cluster.node(k), 'net.ipv4.ip_forward', 1);
  }

  await t.test('ClusterIP', async t => {
    t.equal(await ask(client.namespace, '10.96.0.10', 80), 'far saw 10.42.0.2', 'across the overlay, source kept');
    t.equal(await ask(far.namespace, '10.96.0.11', 80), 'near saw 10.42.1.2', 'and the other way');
    if (hasModule) {
      t.equal(getSysctl(cluster.node(1), BRIDGE_NETFILTER[4]), '1', 'the answer passes the rules, too');
      t.equal(await ask(client.namespace, '10.96.0.11', 80), 'near saw 10.42.0.2', 'on one node');
    } else t.match(daemons[0].stderr(), /modprobe br_netfilter/, 'on one node it cannot work, and why is said');
    t.equal(await askUdp(client.namespace, '10.96.0.53', 53), 'far saw 10.42.0.2', 'UDP');
    t.equal(await ask(cluster.node(1), '10.96.0.10', 80), 'far saw 10.42.0.0', "from a node: its overlay's address");
    t.equal(await ask(client.namespace, '10.96.0.14', 80, 10), 'ECONNREFUSED', 'a service without endpoints');
    if (!hasModule) return;
    const seen = new Set<string>();
    for (let i = 0; i < 60 && seen.size < 2; i++) seen.add(await ask(client.namespace, '10.96.0.13', 80, 1000));
    t.same([...seen].sort(), ['far saw 10.42.0.2', 'near saw 10.42.0.2'], 'two endpoints take turns');
  });

  await t.test('hairpin: a pod that is its own endpoint', async t => {
    t.equal(await ask(client.namespace, '10.96.0.12', 80), 'client saw 10.42.0.1', "by the node's bridge");
    t.equal(await ask(far.namespace, '10.96.0.10', 80), 'far saw 10.42.1.1');
    t.equal(await ask(client.namespace, '10.88.0.1', 30_082), 'client saw 10.42.0.1', 'through its own node port');
    t.equal(await ask(client.namespace, '10.88.0.2', 30_082), 'client saw 10.42.1.0', "through another node's");
  });

  await t.test('NodePort', async t => {
    t.equal(await ask(cluster.switch, '10.88.0.2', 30_080), 'far saw 10.42.1.1', 'at the node of the endpoint');
    t.equal(await ask(cluster.switch, '10.88.0.1', 30_080), 'far saw 10.42.0.0', 'at another node: over the overlay');
    t.equal(await ask(cluster.switch, '10.88.0.2', 30_081), 'near saw 10.42.1.0', 'and the other way');
    t.equal(await askUdp(cluster.switch, '10.88.0.1', 30_053), 'far saw 10.42.0.0', 'UDP');
    t.equal(await ask(client.namespace, '10.88.0.2', 30_080), 'far saw 10.42.1.1', 'from a pod of another node');
  });

  await t.test('the world', async t => {
    t.equal(await ask(client.namespace, WORLD, 8080), 'world saw 10.88.0.1', 'masqueraded, the answer finds its pod');
    t.equal(await ask(far.namespace, WORLD, 8080), 'world saw 10.88.0.2');
    t.equal(await askUdp(client.namespace, WORLD, 8080), 'world saw 10.88.0.1', 'UDP');
    t.equal(await ask(client.namespace, far.address, 8080), 'far saw 10.42.0.2', 'pod to pod is not masqueraded');
    // Somebody outside who was told a way to the pods: by node 1, whichever node they are on.
    withRtnetlink(cluster.switch, netlink => netlink.addRoute({ destination: '10.42.0.0/16', gateway: '10.88.0.1' }));
    t.equal(await ask(cluster.switch, near.address, 8080), 'near saw 10.88.0.254', 'to a pod of that node as it is');
    t.equal(
      await ask(cluster.switch, far.address, 8080),
      'far saw 10.42.0.0',
      'to another one so that the answer returns',
    );
  });

  await t.test('rules of both, whoever writes last', async t => {
    // kube-proxy restarts and writes all of its table again; tulled's keeper must not need to touch anything.
    const said = daemons.map(tulled => tulled.stderr().length);
    for (const k of [1, 2]) {
      const rules = proxyRules(services, '10.42.0.0/16', `10.88.0.${k}`);
      loadRules(tools.nft, cluster.node(k), `add table ip kube-proxy\ndelete table ip kube-proxy\n${rules}`);
    }
    t.equal(await ask(client.namespace, '10.96.0.10', 80), 'far saw 10.42.0.2');
    t.equal(await ask(client.namespace, WORLD, 8080), 'world saw 10.88.0.1');
    t.same(
      daemons.map(tulled => tulled.stderr().length),
      said,
      'not a word of tulled',
    );
  });
});
