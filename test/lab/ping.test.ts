import t from 'tap';
import { emitEcho, median, replySequence } from '../../lib/lab/ping.ts';
import { finish, sum } from '../../lib/wire/checksum.ts';

t.test('an echo request', async t => {
  const bytes = new Uint8Array(64).fill(0xaa);
  emitEcho(bytes, 0x1234, 7);
  t.same([...bytes.subarray(0, 2), ...bytes.subarray(4, 10)], [8, 0, 0x12, 0x34, 0, 7, 8, 9]);
  t.equal(finish(sum(bytes, 0, bytes.length)), 0, 'its checksum is right');
});

t.test('only our replies count', async t => {
  const packet = (type: number, identifier: number, headerLength = 20): Uint8Array => {
    const bytes = new Uint8Array(headerLength + 8);
    bytes[0] = 0x40 | (headerLength >> 2);
    bytes[headerLength] = type;
    bytes.set([identifier >> 8, identifier & 255, 1, 2], headerLength + 4);
    return bytes;
  };
  const sequence = (bytes: Uint8Array, length = bytes.length) => replySequence(bytes, length, 0x1234);
  t.equal(sequence(packet(0, 0x1234)), 0x0102);
  t.equal(sequence(packet(0, 0x1234, 24)), 0x0102, 'with IP options');
  t.equal(sequence(packet(8, 0x1234)), -1, 'our own request');
  t.equal(sequence(packet(0, 0x1235)), -1, 'somebody else’s');
  t.equal(sequence(packet(0, 0x1234), 27), -1, 'cut off');
  t.equal(sequence(new Uint8Array(64), 0), -1);
});

t.test('median', async t => {
  t.equal(median([]), null);
  t.equal(median([3, 1, 2]), 2);
  t.equal(median([10, 9]), 10);
});
