// A cluster that flanneld has filled, taken up by us: golden keys and values, as flannel v0.20 to v0.28 writes them.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { DEFAULT_PORT, peerOf } from '../../lib/backend/backend.ts';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { parseSubnetKey, subnetKey } from '../../lib/lease/lease.ts';
import { LeaseManager } from '../../lib/lease/manager.ts';
import { emptyView, reconcile } from '../../lib/lease/reconcile.ts';
import { writeSubnetEnv } from '../../lib/lease/subnet-env.ts';
import { type Bench, bench, requireEtcd } from './support.ts';

requireEtcd();
const prefix = '/coreos.com/network';

const flannels = {
  '10.5.10.0-24': '{"PublicIP":"10.88.0.1","PublicIPv6":null}',
  '10.5.20.0-24': '{"PublicIP":"10.88.0.2","PublicIPv6":null}',
  '10.5.30.0-24':
    '{"PublicIP":"10.88.0.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"ee:76:f0:10:7d:95"}}',
  '10.5.40.0-24&fd00:5:40::-64':
    '{"PublicIP":"10.88.0.4","PublicIPv6":"fd88::4","BackendType":"host-gw","NodeLabel":"x<y","Zone":{"b":1,"a":[2]}}',
};

/** As flanneld leaves it: each key on an etcd lease of a day of its own. */
async function fill({ raw }: Bench, conf: string): Promise<void> {
  await raw.put(`${prefix}/config`).value(conf);
  for (const [key, value] of Object.entries(flannels)) {
    await raw.lease(86_400, { autoKeepAlive: false }).put(`${prefix}/subnets/${key}`).value(value);
  }
}

const strings = ({ raw }: Bench): Promise<Record<string, string>> =>
  raw.getAll().prefix(`${prefix}/subnets/`).strings();

t.test(
  'the udp backend: our node is taken up by its address, byte for byte what flanneld wrote; the others are peers',
  async t => {
    const made = await bench(t);
    await fill(made, '{ "Network": "10.5.0.0/16", "Backend": {"Type": "udp", "Port": 8285} }');
    const before = await strings(made);
    const registry = made.registry();
    const config = parseNetworkConfig((await registry.config()).text);
    // flannel's udp says nothing but the address; a node id has no place in it.
    const attributes = { PublicIP: '10.88.0.1', PublicIPv6: null };
    const manager = new LeaseManager({ registry });
    const own = await manager.acquire({ config, nodeId: 'a-machine-id', attributes, ttlSeconds: 86_400 });
    t.equal(subnetKey(own), '10.5.10.0-24');
    t.same(await strings(made), before, 'not a byte is different');
    t.equal((await made.raw.leaseClient.leaseLeases()).leases.length, 4, "flannel's etcd lease of that key is revoked");

    const { view, changes } = reconcile(emptyView({ nodeId: 'a-machine-id', lease: own }), await registry.list());
    const backend = { type: 'udp', port: DEFAULT_PORT } as const;
    const peers = changes.map(({ lease }) => [subnetKey(lease), peerOf(lease, backend)]);
    t.match(peers, [
      ['10.5.20.0-24', { port: 8285, key: Number, subnet: parseSubnetKey('10.5.20.0-24')?.subnet }],
      ['10.5.30.0-24', /its backend is "vxlan"/],
      ['10.5.40.0-24&fd00:5:40::-64', /its backend is "host-gw"/],
    ]);
    t.same([...view.problems], []);
  },
);

t.test('a new node beside them writes what flanneld would; a free subnet, none of theirs', async t => {
  const made = await bench(t);
  await fill(made, '{"Network":"10.5.0.0/16","Backend":{"Type":"udp"}}');
  const registry = made.registry();
  const config = parseNetworkConfig((await registry.config()).text);
  const attributes = { PublicIP: '10.88.0.77', PublicIPv6: null };
  const own = await new LeaseManager({ registry }).acquire({ config, nodeId: 'x', attributes, ttlSeconds: 86_400 });
  t.same(await strings(made), {
    ...Object.fromEntries(Object.entries(flannels).map(([key, value]) => [`${prefix}/subnets/${key}`, value])),
    [`${prefix}/subnets/${subnetKey(own)}`]: '{"PublicIP":"10.88.0.77","PublicIPv6":null}',
  });
  const [lease] = (await registry.list()).leases.filter(other => subnetKey(other) === subnetKey(own));
  t.same(lease.attributes, attributes);
  const id = (await made.raw.kv.range({ key: Buffer.from(`${prefix}/subnets/${subnetKey(own)}`) })).kvs[0].lease;
  const { grantedTTL } = await made.raw.leaseClient.leaseTimeToLive({ ID: id });
  t.equal(grantedTTL, '86400', "flannel's TTL");
});

t.test('what we do not understand in our own value is kept, in place of order and with its escapes', async t => {
  const made = await bench(t);
  await fill(
    made,
    '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"host-gw"}}',
  );
  const registry = made.registry();
  const config = parseNetworkConfig((await registry.config()).text);
  const attributes = { PublicIP: '10.88.0.4', PublicIPv6: 'fd88::4', BackendType: 'host-gw' };
  // The subnet of IPv6 does not lie in this network: the lease is replaced, as flannel does it.
  const other = await new LeaseManager({ registry }).acquire({ config, nodeId: 'x', attributes, ttlSeconds: 86_400 });
  t.not(subnetKey(other), '10.5.40.0-24&fd00:5:40::-64');
  t.notOk(Object.keys(await strings(made)).some(key => key.endsWith('fd00:5:40::-64')));

  await made.raw.put(`${prefix}/subnets/10.5.40.0-24&fd00:5:0:40::-64`).value(flannels['10.5.40.0-24&fd00:5:40::-64']);
  await registry.remove(other);
  const own = await new LeaseManager({ registry }).acquire({ config, nodeId: 'x', attributes, ttlSeconds: 86_400 });
  t.equal(subnetKey(own), '10.5.40.0-24&fd00:5:0:40::-64');
  t.equal(
    (await strings(made))[`${prefix}/subnets/10.5.40.0-24&fd00:5:0:40::-64`],
    '{"PublicIP":"10.88.0.4","PublicIPv6":"fd88::4","BackendType":"host-gw","NodeLabel":"x\\u003cy","Zone":{"b":1,"a":[2]}}',
    'the keys stay, "<" is written as Go writes it',
  );
});

t.test('a shell that sources our subnet.env, as mk-docker-opts and CNI wrappers do', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-subnet-env-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'subnet.env');
  const text = '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}';
  const lease = parseSubnetKey('10.5.91.0-24&fd00:5:0:1::-64')!;
  writeSubnetEnv(file, { config: parseNetworkConfig(text), lease, mtu: 1472, ipMasq: false });
  // flannel's dist/mk-docker-opts.sh: sources the file, then builds Docker's flags from what is set.
  const script = `set -eu; . "$1"; ipmasq=true; [ "$FLANNEL_IPMASQ" = true ] && ipmasq=false
    echo "--bip=$FLANNEL_SUBNET --ip-masq=$ipmasq --mtu=$FLANNEL_MTU $FLANNEL_NETWORK $FLANNEL_IPV6_SUBNET $FLANNEL_IPV6_NETWORK"`;
  const { stdout, stderr, status } = spawnSync('/bin/sh', ['-c', script, 'sh', file], { encoding: 'utf8', env: {} });
  t.same([stderr, status], ['', 0]);
  t.equal(stdout, '--bip=10.5.91.1/24 --ip-masq=true --mtu=1472 10.5.0.0/16 fd00:5:0:1::1/64 fd00:5::/48\n');
});
