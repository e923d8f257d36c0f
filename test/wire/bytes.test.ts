import t from 'tap';
import { get16, get32, set16, set32 } from '../../lib/wire/bytes.ts';
import { bordersIntact, poisoned } from './packets.ts';

t.test('integers are big-endian and unsigned', async t => {
  const place = poisoned(6);
  const { bytes, offset } = place;
  set16(bytes, offset, 0xfedc);
  set32(bytes, offset + 2, 0xfedc_ba98);
  t.same([...bytes.subarray(offset, offset + 6)], [0xfe, 0xdc, 0xfe, 0xdc, 0xba, 0x98]);
  t.equal(get16(bytes, offset), 0xfedc);
  t.equal(get32(bytes, offset + 2), 0xfedc_ba98);
  t.ok(bordersIntact(place));
});

t.test('values are cut to their width, also past 32 bits and below zero', async t => {
  const bytes = new Uint8Array(4);
  set16(bytes, 0, 0x1_2345);
  t.equal(get16(bytes, 0), 0x2345);
  set32(bytes, 0, 0x1_0000_0005);
  t.equal(get32(bytes, 0), 5);
  set32(bytes, 0, -1);
  t.equal(get32(bytes, 0), 0xffff_ffff);
});
