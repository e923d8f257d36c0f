import t from 'tap';
import { parseIp } from '../../../lib/cni/ipam/address.ts';
import { parseRangeSets, rangeFor } from '../../../lib/cni/ipam/range.ts';

t.test('what host-local fills in', async t => {
  const [set, six] = parseRangeSets([[{ subnet: '10.5.1.0/24' }], [{ subnet: 'fd00:0:0:1::/64' }]]);
  t.equal(set.text, '10.5.1.1-10.5.1.254');
  t.equal(set.ranges[0].gateway, parseIp('10.5.1.1')?.value);
  t.equal(six.text, 'fd00:0:0:1::1-fd00::1:ffff:ffff:ffff:ffff');
  const [narrow] = parseRangeSets([
    [{ subnet: '10.5.1.0/24', rangeStart: '10.5.1.20', rangeEnd: '10.5.1.30', gateway: '10.5.1.254' }],
  ]);
  t.equal(narrow.text, '10.5.1.20-10.5.1.30');
  t.equal(narrow.ranges[0].gateway, parseIp('10.5.1.254')?.value);
  for (const [text, inside] of [
    ['10.5.1.19', false],
    ['10.5.1.20', true],
    ['10.5.1.30', true],
    ['10.5.1.31', false],
    ['fd00::1', false],
  ] as const) {
    t.equal(rangeFor(narrow, parseIp(text)!) !== undefined, inside, text);
  }
});

t.test('what is refused, in words that name it', async t => {
  const refused = (sets: Parameters<typeof parseRangeSets>[0], message: RegExp): void => {
    t.throws(() => parseRangeSets(sets), { cniCode: 7, message });
  };
  refused([[]], /^invalid range set 0: empty range set$/);
  refused([[{ subnet: '10.5.1.0/31' }]], /10\.5\.1\.0\/31 too small/);
  refused([[{ subnet: '10.5.1.0/32' }]], /too small/);
  refused([[{ subnet: 'fd00::/127' }]], /too small/);
  refused([[{ subnet: '10.5.1.7/24' }]], /host bits set.*length 24.*10\.5\.1\.0.*10\.5\.1\.7\/24/);
  refused(
    [[{ subnet: '10.5.1.0/24', rangeStart: '10.5.2.1' }]],
    /RangeStart 10\.5\.2\.1 not in network 10\.5\.1\.0\/24/,
  );
  refused([[{ subnet: '10.5.1.0/24', rangeEnd: 'fd00::1' }]], /RangeEnd fd00::1 not in network/);
  refused([[{ subnet: '10.5.1.0/24', gateway: 'fd00::1' }]], /gateway fd00::1/);
  refused([[{ subnet: '10.5.1.0/24' }, { subnet: 'fd00::/64' }]], /mixed address families/);
  refused([[{ subnet: '10.5.1.0/24' }, { subnet: '10.5.0.0/16' }]], /subnets .* overlap/);
  refused([[{ subnet: '10.5.1.0/24' }], [{ subnet: '10.5.1.128/25' }]], /^range set 1 overlaps with 0$/);
});

t.test('the smallest subnet, and a gateway elsewhere', async t => {
  const [set] = parseRangeSets([[{ subnet: '10.5.1.0/30', gateway: '10.99.0.1' }]]);
  t.equal(set.text, '10.5.1.1-10.5.1.2');
});
