import t from 'tap';
import { checkSubnetCount, fieldOf, fitsConfig, parseNetworkConfig } from '../../lib/lease/config.ts';
import { parseSubnetKey } from '../../lib/lease/lease.ts';
import { formatCidr4, formatCidr6 } from '../../lib/wire/cidr.ts';
import { formatAddress4 } from '../../lib/wire/ip4.ts';

/** The IPv4 part as one line: network, subnet length, first and last subnet. */
function four(json: object): string {
  const config = parseNetworkConfig(JSON.stringify(json));
  const [min, max] = [formatAddress4(config.subnetMin), formatAddress4(config.subnetMax)];
  return `${formatCidr4(config.network)} /${config.subnetLength} ${min} ${max} ${config.backendType}`;
}

function six(json: object): string {
  const config = parseNetworkConfig(JSON.stringify({ EnableIPv4: false, EnableIPv6: true, ...json }));
  const at = (address: bigint | undefined) => formatCidr6({ address: address!, prefixLength: config.subnetLength6! });
  return `${formatCidr6(config.network6!)} ${at(config.subnetMin6)} ${at(config.subnetMax6)}`;
}

t.test('the defaults are flannel’s', async t => {
  t.equal(four({ Network: '10.5.0.0/16' }), '10.5.0.0/16 /24 10.5.1.0 10.5.255.0 udp');
  t.equal(four({ Network: '10.5.3.4/22' }), '10.5.0.0/22 /24 10.5.1.0 10.5.3.0 udp', 'host bits are cut');
  t.equal(four({ Network: '10.5.0.0/23' }), '10.5.0.0/23 /25 10.5.0.128 10.5.1.128 udp');
  t.equal(four({ Network: '10.5.0.0/28' }), '10.5.0.0/28 /30 10.5.0.4 10.5.0.12 udp');
  t.equal(four({ Network: '10.0.0.0/8', SubnetLen: 20 }), '10.0.0.0/8 /20 10.0.16.0 10.255.240.0 udp');
  t.equal(four({ Network: '255.255.0.0/16' }), '255.255.0.0/16 /24 255.255.1.0 255.255.255.0 udp', 'the end of all');
  t.equal(
    four({
      Network: '10.0.0.0/8',
      SubnetLen: 20,
      SubnetMin: '10.10.0.0',
      SubnetMax: '10.99.0.0',
      Backend: { Type: 'x' },
    }),
    '10.0.0.0/8 /20 10.10.0.0 10.99.0.0 x',
  );
  t.equal(
    four({ Network: '10.5.0.0/16', SubnetMin: '10.5.0.0' }),
    '10.5.0.0/16 /24 10.5.0.0 10.5.255.0 udp',
    'by hand',
  );
  t.equal(four({ Network: '10.5.0.0/16', SubnetMin: '0.0.0.0', SubnetLen: 0 }), four({ Network: '10.5.0.0/16' }));
  t.equal(six({ IPv6Network: 'fd00::/48' }), 'fd00::/48 fd00:0:0:1::/64 fd00:0:0:ffff::/64');
  t.equal(six({ IPv6Network: 'fd00::/63' }), 'fd00::/63 fd00::8000:0:0:0/65 fd00:0:0:1:8000::/65');
  t.equal(six({ IPv6Network: 'fd00::/124' }), 'fd00::/124 fd00::4/126 fd00::c/126');
});

t.test('keys are matched as Go matches them', async t => {
  t.equal(
    four({ NETWORK: '10.5.0.0/16', subnetlen: 26, backend: { type: 'tulle' } }),
    '10.5.0.0/16 /26 10.5.0.64 10.5.255.192 tulle',
  );
  t.equal(
    four({ Network: '10.5.0.0/16', network: '10.6.0.0/16' }),
    four({ Network: '10.6.0.0/16' }),
    'the last one counts',
  );
  t.equal(parseNetworkConfig('{"Network":"10.5.0.0/16","enableipv4":null}').enableIPv4, true, 'null changes nothing');
  t.equal(parseNetworkConfig('{"Network":"10.5.0.0/16","EnableNFTables":true}').enableNFTables, true);
  const { backend } = parseNetworkConfig('{"Network":"10.5.0.0/16","Backend":{"Type":"udp","pOrT":8286}}');
  t.equal(fieldOf(backend, 'Port'), 8286);
});

t.test('dual stack', async t => {
  const text = '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}';
  const config = parseNetworkConfig(text);
  const fits = (key: string): boolean => fitsConfig(config, parseSubnetKey(key)!);
  t.ok(fits('10.5.1.0-24&fd00:0:0:1::-64'));
  t.notOk(fits('10.5.1.0-24'), 'an IPv6 subnet is missing');
  t.notOk(fits('10.5.1.0-24&fd00::-64'), 'the first IPv6 subnet is skipped');
  t.notOk(fits('10.5.0.0-24&fd00:0:0:1::-64'), 'and the first IPv4 subnet');
  t.notOk(fits('10.5.1.0-25&fd00:0:0:1::-64'), 'another length');
  t.notOk(fits('10.6.1.0-24&fd00:0:0:1::-64'), 'another network');
  const only6 = parseNetworkConfig('{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}');
  t.ok(fitsConfig(only6, parseSubnetKey('0.0.0.0-0&fd00:0:0:1::-64')!));
  t.notOk(fitsConfig(only6, parseSubnetKey('10.5.1.0-24&fd00:0:0:1::-64')!));
});

t.test('every refusal is one line that names field, value and what is allowed', async t => {
  const network = { Network: '10.5.0.0/16' };
  const ipv6 = { EnableIPv4: false, EnableIPv6: true };
  const cases: [unknown, RegExp][] = [
    ['', /not JSON/],
    ['{"Network": }', /not JSON/],
    ['[]', /not a JSON object/],
    ['null', /not a JSON object/],
    [{}, /^Network is missing.*10\.5\.0\.0\/16/],
    [{ Network: 7 }, /^Network 7 is not a network/],
    [{ Network: '10.5.0.0' }, /^Network "10\.5\.0\.0" is not a network/],
    [{ Network: '10.5.0.0/33' }, /^Network "10\.5\.0\.0\/33" is not a network/],
    [{ Network: '0.0.0.0/0' }, /^Network "0\.0\.0\.0\/0" is everything/],
    [{ Network: '10.5.0.0/29' }, /^Network is a \/29, which is too small.*\/28/],
    [{ ...network, SubnetLen: 31 }, /^SubnetLen 31 .*from 18 to 30/],
    [{ ...network, SubnetLen: 17 }, /^SubnetLen 17 .*from 18 to 30/],
    [{ ...network, SubnetLen: '24' }, /^SubnetLen "24" /],
    [{ ...network, SubnetLen: 24.5 }, /^SubnetLen 24\.5 /],
    [{ ...network, SubnetMin: '10.6.0.0' }, /^SubnetMin 10\.6\.0\.0 is not in Network 10\.5\.0\.0\/16/],
    [{ ...network, SubnetMax: '10.6.0.0' }, /^SubnetMax 10\.6\.0\.0 is not in Network/],
    [{ ...network, SubnetMin: '10.5.1.1' }, /^SubnetMin 10\.5\.1\.1 is not the first.*10\.5\.1\.0 would be/],
    [{ ...network, SubnetMax: '10.5.9.128' }, /^SubnetMax 10\.5\.9\.128 is not the first/],
    [{ ...network, SubnetMin: 'x' }, /^SubnetMin "x" is not an address/],
    [{ ...network, SubnetMin: '10.5.9.0', SubnetMax: '10.5.8.0' }, /^SubnetMin 10\.5\.9\.0 is above SubnetMax/],
    [{ ...network, EnableIPv6: 'yes' }, /^EnableIPv6 is "yes": true or false/],
    [{ ...network, EnableIPv4: false }, /both false/],
    [{ ...network, EnableIPv6: true }, /^IPv6Network is missing/],
    [{ ...ipv6, IPv6Network: 'fd00::/125' }, /^IPv6Network is a \/125.*\/124/],
    [{ ...ipv6, IPv6Network: 'fd00::/48', IPv6SubnetLen: 49 }, /^IPv6SubnetLen 49 .*from 50 to 126/],
    [{ ...ipv6, IPv6Network: 'fd00::/48', IPv6SubnetMin: 'fd01::' }, /^IPv6SubnetMin fd01:: is not in IPv6Network/],
    [{ ...ipv6, IPv6Network: 'fd00::/48', IPv6SubnetMax: 'fd00::1' }, /^IPv6SubnetMax fd00::1 is not the first/],
    [{ ...network, Backend: 'udp' }, /^Backend is "udp": an object/],
    [{ ...network, Backend: {} }, /^Backend\.Type is missing/],
    [{ ...network, Backend: { Type: 3 } }, /^Backend\.Type is 3/],
  ];
  for (const [config, message] of cases) {
    const text = typeof config === 'string' ? config : JSON.stringify(config);
    t.throws(() => parseNetworkConfig(text), { code: 'bad-config', message }, text);
    try {
      parseNetworkConfig(text);
    } catch (error) {
      t.notMatch((error as Error).message, /\n/, 'one line');
    }
  }
});

t.test('a network of more subnets than the route table indexes', async t => {
  const check = (json: object): void => checkSubnetCount(parseNetworkConfig(JSON.stringify(json)));
  check({ Network: '10.0.0.0/8', SubnetLen: 28 });
  t.throws(() => check({ Network: '10.0.0.0/8', SubnetLen: 29 }), {
    code: 'bad-config',
    message: /2097152 subnets.*28 or less/,
  });
});
