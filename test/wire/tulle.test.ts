import t from 'tap';
import { set16 } from '../../lib/wire/bytes.ts';
import { BAD_BUNDLE, BAD_KIND, BAD_SEGMENT_SIZE, BAD_VERSION, OK, TOO_SHORT } from '../../lib/wire/reason.ts';
import * as tulle from '../../lib/wire/tulle.ts';
import { bordersIntact, buildTcp4, contentOf, poisoned, spoil, toHex } from './packets.ts';

const datagram = (kind: number, size: number, index: number, bytesBehind: number): Uint8Array => {
  const bytes = new Uint8Array(12 + bytesBehind);
  tulle.emitTulle(bytes, 0, kind, 0, size, 42, 7, index);
  return bytes;
};

const bundle = (...packets: Uint8Array[]): Uint8Array => {
  const bytes = datagram(
    tulle.KIND_BUNDLE,
    0,
    packets.length,
    packets.reduce((total, packet) => total + 2 + packet.length, 0),
  );
  let at = 12;
  for (const packet of packets) {
    set16(bytes, at, packet.length);
    bytes.set(packet, at + 2);
    at += 2 + packet.length;
  }
  return bytes;
};

t.test('the header is the one that docs/wire.md draws', async t => {
  const place = poisoned(12);
  const { bytes, offset } = place;
  const flags = tulle.FLAG_PARTIAL_CHECKSUM | tulle.FLAG_LAST_SEGMENT;
  t.equal(tulle.emitTulle(bytes, offset, tulle.KIND_SEGMENT, flags, 1408, 0xfedcba98, 0x1234, 45), tulle.HEADER_BYTES);
  t.equal(toHex(contentOf(place)), '11030580fedcba981234002d');
  t.equal(tulle.datagramVersion(bytes, offset), tulle.TULLE_VERSION);
  t.equal(tulle.tulleKind(bytes, offset), tulle.KIND_SEGMENT);
  t.equal(tulle.tulleFlags(bytes, offset), flags);
  t.equal(tulle.tulleSegmentSize(bytes, offset), 1408);
  t.equal(tulle.tulleKey(bytes, offset), 0xfedcba98);
  t.equal(tulle.tulleId(bytes, offset), 0x1234);
  t.equal(tulle.tulleIndex(bytes, offset), 45);
  t.ok(bordersIntact(place));
  t.equal(tulle.printTulle(bytes, offset), 'tulle segment key fedcba98 size 1408 id 4660 index 45 partial last');
});

t.test('one spoiled field, one reason', async t => {
  const check = (bytes: Uint8Array): number => tulle.checkTulle(bytes, 0, bytes.length);
  t.equal(check(datagram(tulle.KIND_PACKET, 0, 0, 20)), OK);
  t.equal(check(new Uint8Array(11).fill(0x10)), TOO_SHORT);
  t.equal(tulle.checkTulle(new Uint8Array(0), 0, 0), TOO_SHORT);
  for (const version of [0, 2, 4, 6, 15]) {
    const spoiled = spoil(datagram(tulle.KIND_PACKET, 0, 0, 20), bytes => bytes.fill(version << 4, 0, 1));
    t.equal(check(spoiled), BAD_VERSION, `version ${version}`);
  }
  for (let kind = 7; kind <= 15; kind++) t.equal(check(datagram(kind, 0, 0, 20)), BAD_KIND, `kind ${kind}`);
  t.equal(check(datagram(tulle.KIND_SEGMENT, 1, 0, 20)), OK);
  t.equal(check(datagram(tulle.KIND_SEGMENT, 0, 0, 20)), BAD_SEGMENT_SIZE);
  const strangeFlags = spoil(datagram(tulle.KIND_PACKET, 0, 0, 20), bytes => bytes.fill(0xfc, 1, 2));
  t.equal(check(strangeFlags), OK, 'unknown flags are ignored');
});

t.test('bundles', async t => {
  const packets = [buildTcp4(), buildTcp4({ payload: new Uint8Array(7) }), buildTcp4({ id: 9 })];
  const bytes = bundle(...packets);
  const check = (datagram: Uint8Array): number => tulle.checkTulle(datagram, 0, datagram.length);
  t.equal(check(bytes), OK);
  const found: Uint8Array[] = [];
  for (let at = tulle.HEADER_BYTES; at < bytes.length; at = tulle.nextInBundle(bytes, at)) {
    const start = tulle.bundlePacket(at);
    found.push(bytes.slice(start, start + tulle.bundlePacketLength(bytes, at)));
  }
  t.same(found, packets);
  t.equal(tulle.printTulle(bytes, 0), 'tulle bundle key 0000002a packets 3');

  t.equal(check(bytes.slice(0, -1)), BAD_BUNDLE, 'cut');
  t.equal(check(Uint8Array.from([...bytes, 0])), BAD_BUNDLE, 'a byte too many');
  t.equal(check(spoil(bytes, b => set16(b, tulle.TULLE_INDEX, 2))), BAD_BUNDLE, 'a count too low');
  t.equal(check(spoil(bytes, b => set16(b, tulle.TULLE_INDEX, 4))), BAD_BUNDLE, 'a count too high');
  t.equal(check(spoil(bytes, b => set16(b, tulle.TULLE_INDEX, 0))), BAD_BUNDLE, 'a count of zero');
  t.equal(check(spoil(bytes, b => set16(b, 12, 0))), BAD_BUNDLE, 'a packet of no bytes');
  t.equal(check(spoil(bytes, b => set16(b, 12, 0xffff))), BAD_BUNDLE, 'a packet past the end');
  t.equal(check(bundle()), BAD_BUNDLE, 'empty');
});

t.test('probes', async t => {
  const place = poisoned(tulle.PROBE_BYTES);
  const { bytes, offset } = place;
  tulle.emitTulle(bytes, offset, tulle.KIND_PROBE, 0, 0, 42, 65_535, 0);
  for (const [high, low] of [
    [0, 0],
    [1, 2],
    [0xffff_ffff, 0x8000_0000],
  ]) {
    tulle.setProbeToken(bytes, offset, high, low);
    t.equal(tulle.probeTokenHigh(bytes, offset), high);
    t.equal(tulle.probeTokenLow(bytes, offset), low);
  }
  t.ok(bordersIntact(place));
  t.equal(tulle.checkTulle(bytes, offset, 20), OK);
  t.equal(tulle.checkTulle(bytes, offset, 19), TOO_SHORT);
  t.equal(tulle.checkTulle(bytes, offset, 30), OK, 'padding');
  t.equal(tulle.printTulle(bytes, offset), 'tulle probe key 0000002a sequence 65535');
});
