import t from 'tap';
import * as cidr from '../../lib/wire/cidr.ts';
import { parseAddress4 } from '../../lib/wire/ip4.ts';
import { below, prng, testSeed } from '../support/prng.ts';

const four = (text: string): cidr.Subnet4 => cidr.parseCidr4(text) ?? { address: -1, prefixLength: -1 };
const six = (text: string): cidr.Subnet6 => cidr.parseCidr6(text) ?? { address: -1n, prefixLength: -1 };

t.test('IPv4 text is strict', async t => {
  t.same(cidr.parseCidr4('10.5.1.0/24'), { address: 0x0a050100, prefixLength: 24 });
  t.same(cidr.parseCidr4('10.5.1.7/24'), { address: 0x0a050107, prefixLength: 24 }, 'host bits are kept');
  t.same(cidr.parseCidr4('0.0.0.0/0'), { address: 0, prefixLength: 0 });
  t.same(cidr.parseCidr4('255.255.255.255/32'), { address: 0xffff_ffff, prefixLength: 32 });
  const wrong = [
    '',
    '/',
    '10.5.1.0',
    '10.5.1.0/',
    '10.5.1.0/33',
    '10.5.1.0/024',
    '10.5.1.0/-1',
    '10.5.1.0/ 8',
    '10.5.1.0/8 ',
  ];
  wrong.push(
    '10.5.1/24',
    '10.5.01.0/24',
    '10.5.1.0/24/24',
    '10.5.1.0/2.4',
    '10.5.1.0/1e1',
    ' 10.5.1.0/24',
    '10.5.1.0-24',
    '::/0',
  );
  for (const text of wrong) t.equal(cidr.parseCidr4(text), undefined, JSON.stringify(text));
});

t.test('IPv4 masks and members against a naive twin of text bits', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const bits = (address: number): string => address.toString(2).padStart(32, '0');
  for (let round = 0; round < 5000; round++) {
    const subnet = { address: next(), prefixLength: below(next, 33) };
    // Half of the addresses share a long beginning, so that both answers occur.
    const shared = below(next, 33);
    const address = Number.parseInt(bits(subnet.address).slice(0, shared) + bits(next()).slice(shared), 2);
    const prefix = bits(subnet.address).slice(0, subnet.prefixLength);
    const rest = 32 - subnet.prefixLength;
    const low = Number.parseInt(prefix + '0'.repeat(rest), 2);
    const high = Number.parseInt(prefix + '1'.repeat(rest), 2);
    const label = `${cidr.formatCidr4(subnet)} ${address}`;
    if (cidr.maskOf(subnet.prefixLength) !== Number.parseInt('1'.repeat(subnet.prefixLength) + '0'.repeat(rest), 2))
      t.fail(label);
    if (cidr.contains4(subnet, address) !== bits(address).startsWith(prefix)) t.fail(`contains ${label}`);
    if (cidr.networkOf(subnet).address !== low) t.fail(`network ${label}`);
    if (cidr.broadcast(subnet) !== high) t.fail(`broadcast ${label}`);
    if (cidr.hasHostBits(subnet) !== (subnet.address !== low)) t.fail(`host bits ${label}`);
    if (cidr.sizeOf(subnet.prefixLength) !== high - low + 1) t.fail(`size ${label}`);
    if (!cidr.equals4(cidr.parseCidr4(cidr.formatCidr4(subnet))!, subnet)) t.fail(`text ${label}`);
    const other = { address, prefixLength: below(next, 33) };
    const otherPrefix = bits(address).slice(0, other.prefixLength);
    const overlap = prefix.startsWith(otherPrefix) || otherPrefix.startsWith(prefix);
    if (cidr.overlaps4(subnet, other) !== overlap || cidr.overlaps4(other, subnet) !== overlap)
      t.fail(`overlap ${label}`);
  }
});

t.test('first host', async t => {
  t.equal(cidr.firstHost(four('10.5.1.0/24')), parseAddress4('10.5.1.1'));
  t.equal(cidr.firstHost(four('10.5.1.9/30')), parseAddress4('10.5.1.9'));
  t.equal(cidr.firstHost(four('10.5.1.7/31')), parseAddress4('10.5.1.6'));
  t.equal(cidr.firstHost(four('10.5.1.7/32')), parseAddress4('10.5.1.7'));
});

t.test('subnet numbers', async t => {
  const network = four('10.5.0.0/16');
  const index = (address: string, length = 24): number =>
    cidr.subnetIndex(parseAddress4(address) ?? 0, network, length);
  t.equal(index('10.5.0.0'), 0);
  t.equal(index('10.5.1.255'), 1);
  t.equal(index('10.5.255.1'), 255);
  t.equal(index('10.6.0.0'), -1);
  t.equal(index('10.5.3.9', 16), 0);
  t.equal(index('10.5.0.9', 32), 9);
  t.equal(cidr.subnetIndex(0xffff_ffff, four('0.0.0.0/0'), 32), 0xffff_ffff);
  t.equal(cidr.subnetIndex(0xffff_ffff, four('0.0.0.0/0'), 0), 0);
  t.equal(cidr.subnetIndex(0x0a050301, four('10.5.7.7/16'), 24), 3, 'host bits of the network do not matter');
  for (const i of [0, 1, 77, 255]) {
    const subnet = cidr.subnetAt(i, network, 24);
    t.equal(cidr.formatCidr4(subnet), `10.5.${i}.0/24`);
    t.equal(cidr.subnetIndex(cidr.broadcast(subnet), network, 24), i);
  }
  t.equal(cidr.formatCidr4(cidr.subnetAt(1, four('0.0.0.0/0'), 1)), '128.0.0.0/1');
});

t.test('IPv6', async t => {
  t.same(cidr.parseCidr6('fd00:1::/64'), { address: 0xfd000001n << 96n, prefixLength: 64 });
  t.equal(cidr.formatCidr6(six('FD00:0001:0::/64')), 'fd00:1::/64');
  for (const text of ['fd00::', 'fd00::/129', 'fd00::/064', '/64', 'fd00::/', '10.0.0.0/8', 'fd00::/64 ']) {
    t.equal(cidr.parseCidr6(text), undefined, JSON.stringify(text));
  }
  t.equal(cidr.maskOf6(0), 0n);
  t.equal(cidr.maskOf6(128), (1n << 128n) - 1n);
  t.equal(cidr.maskOf6(64), 0xffff_ffff_ffff_ffffn << 64n);
  t.ok(cidr.contains6(six('fd00::/64'), six('fd00::1/128').address));
  t.notOk(cidr.contains6(six('fd00::/64'), six('fd00:0:0:1::/128').address));
  t.ok(cidr.hasHostBits6(six('fd00::1/64')));
  t.notOk(cidr.hasHostBits6(six('fd00::/64')));
  t.equal(cidr.formatCidr6(cidr.networkOf6(six('fd00::1/64'))), 'fd00::/64');
  t.ok(cidr.overlaps6(six('fd00::/8'), six('fd12::/64')));
  t.ok(cidr.overlaps6(six('fd12::/64'), six('fd00::/8')));
  t.notOk(cidr.overlaps6(six('fd12::/64'), six('fd13::/64')));
  t.ok(cidr.equals6(six('fd12::/64'), six('fd12:0::/64')));
});
