import t from 'tap';
import { BAD_CHECKSUM_PLACE, BAD_KIND, BAD_SEGMENT_SIZE, OK, TOO_SHORT } from '../../lib/wire/reason.ts';
import * as vnet from '../../lib/wire/vnet.ts';
import { bordersIntact, contentOf, poisoned, toHex } from './packets.ts';

const header = (flags: number, gsoType: number, gsoSize: number, start = 20, offset = 16): Uint8Array => {
  const bytes = new Uint8Array(10);
  vnet.emitVnet(bytes, 0, flags, gsoType, 52, gsoSize, start, offset);
  return bytes;
};

t.test('what is emitted is read again, little-endian, and nothing else is touched', async t => {
  const place = poisoned(10);
  const { bytes, offset } = place;
  const type = vnet.VNET_GSO_TCPV4 | vnet.VNET_GSO_ECN;
  t.equal(vnet.emitVnet(bytes, offset, vnet.VNET_FLAG_NEEDS_CSUM, type, 0x0102, 0x0304, 0x0506, 0x0708), 10);
  t.equal(toHex(contentOf(place)), '01810201040306050807');
  t.equal(vnet.vnetFlags(bytes, offset), 1);
  t.equal(vnet.vnetGsoType(bytes, offset), 0x81);
  t.equal(vnet.vnetHeaderLength(bytes, offset), 0x0102);
  t.equal(vnet.vnetGsoSize(bytes, offset), 0x0304);
  t.equal(vnet.vnetChecksumStart(bytes, offset), 0x0506);
  t.equal(vnet.vnetChecksumOffset(bytes, offset), 0x0708);
  t.ok(bordersIntact(place));
});

t.test('one spoiled field, one reason', async t => {
  const check = (bytes: Uint8Array, length = 10 + 1460): number => vnet.checkVnet(bytes, 0, length);
  t.equal(check(header(0, vnet.VNET_GSO_NONE, 0)), OK);
  t.equal(check(header(1, vnet.VNET_GSO_TCPV4, 1408)), OK);
  t.equal(check(header(1, vnet.VNET_GSO_TCPV4 | vnet.VNET_GSO_ECN, 1408)), OK);
  t.equal(check(header(1, vnet.VNET_GSO_TCPV6, 1388, 40)), OK);
  t.equal(check(header(1, vnet.VNET_GSO_UDP_L4, 1432, 20, 6)), OK);
  t.equal(check(header(1, vnet.VNET_GSO_TCPV4, 1408), 9), TOO_SHORT);
  t.equal(check(header(1, vnet.VNET_GSO_TCPV4, 0)), BAD_SEGMENT_SIZE);
  t.equal(check(header(1, vnet.VNET_GSO_UDP, 1408)), BAD_KIND);
  t.equal(check(header(1, 2, 1408)), BAD_KIND);
  t.equal(check(header(1, vnet.VNET_GSO_ECN, 1408)), BAD_KIND, 'ECN alone');
  t.equal(check(header(1, vnet.VNET_GSO_UDP_L4 | vnet.VNET_GSO_ECN, 1408)), BAD_KIND, 'ECN beside UDP');
  t.equal(check(header(1, 0, 0, 20, 16), 10 + 38), OK);
  t.equal(check(header(1, 0, 0, 20, 16), 10 + 37), BAD_CHECKSUM_PLACE);
  t.equal(check(header(1, 0, 0, 0xffff, 0xffff)), BAD_CHECKSUM_PLACE);
  t.equal(check(header(0, 0, 0, 0xffff, 0xffff)), OK, 'the place means nothing without the flag');
});

t.test('as text', async t => {
  t.equal(vnet.printVnet(header(1, 0x81, 1408), 0), 'vnet gso tcp4+ecn size 1408 headers 52 checksum 20+16');
  t.equal(vnet.printVnet(header(2, 0, 0), 0), 'vnet gso none headers 52 valid');
});
