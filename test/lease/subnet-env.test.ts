import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t from 'tap';
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { parseSubnetKey, subnetKey } from '../../lib/lease/lease.ts';
import {
  formatSubnetEnv,
  parseSubnetEnv,
  previousSubnetOf,
  readSubnetEnv,
  writeSubnetEnv,
} from '../../lib/lease/subnet-env.ts';
import { formatCidr4, formatCidr6 } from '../../lib/wire/cidr.ts';

const config4 = parseNetworkConfig('{"Network":"10.50.0.0/16"}');
const dual = parseNetworkConfig('{"Network":"10.50.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}');
const only6 = parseNetworkConfig('{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}');
const content = (config: typeof dual, key: string) => ({
  config,
  lease: parseSubnetKey(key)!,
  mtu: 1472,
  ipMasq: false,
});

const text4 = 'FLANNEL_NETWORK=10.50.0.0/16\nFLANNEL_SUBNET=10.50.91.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n';
const text6 = 'FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64\n';

t.test('the text is flannel’s, byte for byte', async t => {
  t.equal(formatSubnetEnv(content(config4, '10.50.91.0-24')), text4);
  t.equal(
    formatSubnetEnv(content(dual, '10.50.91.0-24&fd00:0:0:1::-64')),
    text4.replace('FLANNEL_MTU', `${text6}FLANNEL_MTU`),
  );
  t.equal(
    formatSubnetEnv(content(only6, '0.0.0.0-0&fd00:0:0:1::-64')),
    `${text6}FLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n`,
  );
});

t.test('reading gives back subnets, from comma lists too', async t => {
  const env = parseSubnetEnv(formatSubnetEnv(content(dual, '10.50.91.0-24&fd00:0:0:1::-64')));
  const previous = previousSubnetOf(env);
  t.equal(subnetKey({ subnet: previous.subnet!, subnet6: previous.subnet6! }), '10.50.91.0-24&fd00:0:0:1::-64');
  t.match(env, { mtu: 1472, ipMasq: false });
  const lists = parseSubnetEnv(
    'FLANNEL_NETWORK=10.5.0.0/16,10.6.0.0/16\r\nexport FLANNEL_SUBNET="10.5.1.1/24, 10.6.1.1/24"\nFLANNEL_IPV6_SUBNET=fd00::1/64,x\n',
  );
  t.same(lists.networks.map(formatCidr4), ['10.5.0.0/16', '10.6.0.0/16']);
  t.same(lists.subnets.map(formatCidr4), ['10.5.1.0/24', '10.6.1.0/24']);
  t.same(lists.subnets6.map(formatCidr6), ['fd00::/64']);
  t.same(parseSubnetEnv('nonsense\n=\nFLANNEL_SUBNET=999.1.1.1/24\nFLANNEL_MTU=x'), {
    networks: [],
    subnets: [],
    networks6: [],
    subnets6: [],
  });
  t.same(previousSubnetOf(undefined), {});
});

t.test('the file', async t => {
  const folder = mkdtempSync(join(tmpdir(), `lease-env-${process.pid}-`));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'run', 'flannel', 'subnet.env');
  t.equal(readSubnetEnv(path), undefined, 'none yet');
  const umask = process.umask(0o077);
  try {
    writeSubnetEnv(path, content(config4, '10.50.91.0-24'));
  } finally {
    process.umask(umask);
  }
  t.equal(readFileSync(path, 'utf8'), text4);
  t.equal(statSync(path).mode & 0o777, 0o644, 'readable for all, whatever the umask');
  t.equal(statSync(dirname(path)).mode & 0o777, 0o755);
  writeSubnetEnv(path, content(config4, '10.50.92.0-24'));
  t.match(readFileSync(path, 'utf8'), '10.50.92.1/24');
  t.same(readdirSync(dirname(path)), ['subnet.env'], 'nothing beside it');

  const blocked = join(folder, 'file', 'subnet.env');
  writeFileSync(join(folder, 'file'), '');
  t.throws(() => writeSubnetEnv(blocked, content(config4, '10.50.91.0-24')), {
    code: 'subnet-file',
    message: /-subnet-file/,
  });
  mkdirSync(join(folder, 'folder.env'));
  t.throws(() => readSubnetEnv(join(folder, 'folder.env')), { code: 'subnet-file' });
  t.throws(() => writeSubnetEnv(join(folder, 'folder.env'), content(config4, '10.50.91.0-24')), {
    code: 'subnet-file',
  });
  t.same(readdirSync(folder).sort(), ['file', 'folder.env', 'run'], 'a failed write leaves nothing');
});
