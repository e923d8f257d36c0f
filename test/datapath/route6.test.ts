import t from 'tap';
import { Route6, staysOnLink6, subnetIndex6 } from '../../lib/datapath/route6.ts';
import { contains6, maskOf6 } from '../../lib/wire/cidr.ts';
import { bigintToAddress6 } from '../../lib/wire/ip6.ts';
import { address6 } from '../support/packets.ts';
import { below, prng, randomBytes, testSeed } from '../support/prng.ts';

t.test('the index agrees with division, for networks of every length', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const any = (): bigint => randomBytes(next, 16).reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
  for (let round = 0; round < 4_000; round++) {
    const prefixLength = below(next, 127);
    const subnetLength = prefixLength + below(next, Math.min(20, 128 - prefixLength) + 1);
    const network = { address: any() & maskOf6(prefixLength), prefixLength };
    const route = new Route6(network, subnetLength);
    // Inside; outside by one bit; anywhere.
    const inside = network.address | (any() & ~maskOf6(prefixLength) & maskOf6(128));
    const outside = inside ^ (1n << BigInt(127 - below(next, Math.max(1, prefixLength))));
    for (const address of [inside, outside, any()]) {
      const expected = contains6(network, address)
        ? Number((address - network.address) >> BigInt(128 - subnetLength))
        : -1;
      const bytes = Uint8Array.from([7, 7, 7, ...bigintToAddress6(address)]);
      const got = route.index(bytes, 3);
      const subnet = { address: address & maskOf6(subnetLength), prefixLength: subnetLength };
      if (got !== expected || subnetIndex6(subnet, network, subnetLength) !== expected) {
        t.fail(`${address.toString(16)} in ${network.address.toString(16)}/${prefixLength}, /${subnetLength}: ${got}`);
        return;
      }
    }
  }
});

t.test('what is no subnet of the network has no index', async t => {
  const network = { address: 0xfd00n << 112n, prefixLength: 48 };
  const at = (address: bigint, prefixLength = 64): number => subnetIndex6({ address, prefixLength }, network, 64);
  t.equal(at(network.address), 0);
  t.equal(at(network.address + (5n << 64n)), 5);
  t.equal(at(network.address + 1n), -1, 'host bits');
  t.equal(at(network.address, 65), -1, 'another length');
  t.equal(at(0n), -1);
  t.equal(at(0xfe00n << 112n), -1);
});

t.test('addresses that stay on their link', async t => {
  for (const text of ['ff02::1', 'ff0e::1', 'fe80::1', 'febf::1', '::', '::1'])
    t.ok(staysOnLink6(address6(text), 0), text);
  for (const text of ['fec0::1', 'fd00::1', '2001:db8::', '::2', '1::', '::ffff:10.0.0.1'])
    t.notOk(staysOnLink6(address6(text), 0), text);
});
