import { isIPv6 } from 'node:net';
import t from 'tap';
import { address6ToBigint, bigintToAddress6, formatAddress6, parseAddress6 } from '../../lib/wire/address6.ts';
import { below, pick, prng, testSeed } from '../support/prng.ts';
import { toHex } from './packets.ts';

const canonical = (text: string): string | undefined => {
  const bytes = parseAddress6(text);
  return bytes && formatAddress6(bytes);
};

t.test('the examples of RFC 5952', async t => {
  const examples: [string, string][] = [
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'], // §1, and the first of two equal runs, §4.2.3
    ['2001:0db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8::1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8::0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0db8::1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:0:1::1', '2001:db8::1:0:0:1'],
    ['2001:db8:0000:0:1::1', '2001:db8::1:0:0:1'],
    ['2001:DB8:0:0:1::1', '2001:db8::1:0:0:1'],
    ['2001:db8:aaaa:bbbb:cccc:dddd:eeee:0001', '2001:db8:aaaa:bbbb:cccc:dddd:eeee:1'], // §2.1
    ['2001:db8:0:0:0:0:2:1', '2001:db8::2:1'], // §4.2.1
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'], // §4.2.2, one group is not shortened
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'], // §4.2.3, the longest run
    ['0:0:0:0:0:ffff:c000:0201', '::ffff:192.0.2.1'], // §5
    ['::ffff:192.0.2.1', '::ffff:192.0.2.1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::2:3:4:5:6:7:8', '0:2:3:4:5:6:7:8'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['1:2:3:4:5:6:1.2.3.4', '1:2:3:4:5:6:102:304'],
  ];
  for (const [text, expected] of examples) t.equal(canonical(text), expected, text);
});

t.test('what is not an address', async t => {
  const wrong = [
    '',
    ':',
    ':::',
    '1',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1::2::3',
    '::1::',
    '12345::',
    'g::',
    '1:2:3:4:5:6:7:8::',
  ];
  wrong.push(
    '::1:2:3:4:5:6:7:8',
    '1:2:3:4::5:6:7:8',
    ':1:2:3:4:5:6:7:8',
    '1:2:3:4:5:6:7:8:',
    ':1::2',
    '1::2:',
    ' ::1',
    '::1 ',
    '::1\n',
  );
  wrong.push(
    'fe80::1%eth0',
    '[::1]',
    '::1/64',
    '1.2.3.4',
    '1.2.3.4::',
    '::1.2.3.4:5',
    '::1.2.3',
    '::1.2.3.256',
    '::01.2.3.4',
  );
  wrong.push('1:2:3:4:5:6:7:1.2.3.4', '-1::', '+1::');
  for (const text of wrong) t.equal(parseAddress6(text), undefined, JSON.stringify(text));
});

t.test('random addresses: forth and back, canonical, and as bigint', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  for (let round = 0; round < 2000; round++) {
    // Many zero groups, so that runs of all lengths occur.
    const groups = Array.from({ length: 8 }, () => (below(next, 2) === 0 ? 0 : next() & 0xffff));
    const full = groups.map(group => group.toString(16).padStart(4, '0')).join(':');
    const bytes = parseAddress6(full)!;
    const short = formatAddress6(bytes);
    if (toHex(bytes) !== full.replaceAll(':', '')) t.fail(`parse ${full}`);
    if (toHex(parseAddress6(short)!) !== toHex(bytes)) t.fail(`format ${full} as ${short}`);
    // The naive twin of the shortening: every window of zero groups, the widest first, then the leftmost.
    const plain = groups.map(group => group.toString(16));
    let expected = plain.join(':');
    for (let width = 2; width <= 8; width++) {
      for (let start = 8 - width; start >= 0; start--) {
        if (!groups.slice(start, start + width).every(group => group === 0)) continue;
        expected = `${plain.slice(0, start).join(':')}::${plain.slice(start + width).join(':')}`;
      }
    }
    if (short !== expected && !short.includes('.')) t.fail(`${short} should be ${expected}`);
    const value = BigInt(`0x${toHex(bytes)}`);
    if (address6ToBigint(bytes) !== value || toHex(bigintToAddress6(value)) !== toHex(bytes)) t.fail(`bigint ${full}`);
  }
});

t.test('random text is accepted exactly when Node takes it for an address without zone', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  let accepted = 0;
  for (let round = 0; round < 50_000; round++) {
    let text = '';
    for (let i = below(next, 12); i >= 0; i--)
      text += pick(next, ['1', 'ab', '0', 'ffff', ':', ':', ':', '::', '::', '.', '1.2.3.4']);
    const bytes = parseAddress6(text);
    if ((bytes !== undefined) !== isIPv6(text)) t.fail(JSON.stringify(text));
    if (bytes !== undefined) accepted++;
  }
  t.ok(accepted > 100, `${accepted} were addresses`);
});
