import t from 'tap';
import * as sys from '../../lib/sys/sys.ts';
import { arena, namespace, noNamespaces, random, readable } from './support.ts';

// The arena of these tests: tables first, then payload to send, then slots to receive into.
const MESSAGES = 0;
const IOVS = 16_384;
const RECORDS = 114_688;
const POLL = 118_784;
const ADDRESSES = 119_808;
const PAYLOAD = 131_072;
const SLOTS = 262_144;
const SLOT = 66_048;
const BYTES = SLOTS + 64 * SLOT;

interface Message {
  pieces: [offset: number, length: number][];
  segment?: number;
  address?: number;
}
const memory = arena(BYTES);

/** Writes the tables, sends, and returns the count and each message's status. */
function send(handle: number, messages: readonly Message[]): { count: number; statuses: string[] } {
  const { words, id } = memory;
  let iov = 0;
  messages.forEach(({ pieces, segment = 0, address = ADDRESSES }, i) => {
    words.set([iov, pieces.length, segment, address, -1], (MESSAGES + i * 20) / 4);
    for (const piece of pieces) words.set(piece, (IOVS + iov++ * 8) / 4);
  });
  const count = sys.sendUdp(handle, id, MESSAGES, messages.length, IOVS);
  const statuses = messages.map((_, i) => words[(MESSAGES + i * 20) / 4 + 4]);
  return { count, statuses: statuses.map(status => (status === 0 ? 'sent' : sys.errnoName(status))) };
}

interface Received {
  bytes: Uint8Array;
  stride: number;
  cut: boolean;
  from: sys.Address;
}

/** Receives until `bytes` bytes are there, or five seconds have passed. */
function receive(handle: number, bytes: number, slotBytes = SLOT): Received[] {
  const found: Received[] = [];
  let sum = 0;
  while (sum < bytes && readable(handle, memory, POLL)) {
    const count = sys.receiveUdp(handle, memory.id, SLOTS, SLOT, slotBytes, 64, RECORDS);
    if (count < 0) throw new Error(sys.errnoName(count));
    for (let i = 0; i < count; i++) {
      const at = (RECORDS + i * 48) / 4;
      const [length, stride, flags] = memory.words.subarray(at, at + 3);
      const slot = SLOTS + i * SLOT;
      const from = sys.decodeAddress(memory.bytes, RECORDS + i * 48 + 16);
      found.push({ bytes: memory.bytes.slice(slot, slot + length), stride, cut: flags === 1, from });
      sum += length;
    }
  }
  return found;
}

function fillPayload(seed: number): void {
  const next = random(seed);
  for (let i = PAYLOAD; i < SLOTS; i++) memory.bytes[i] = next(256);
}

/** Two sockets in a namespace, the second one's address at ADDRESSES. */
function pair(
  path: string,
  address: string,
  options: { gro?: boolean } = {},
): { from: number; port: number; to: number } {
  return sys.withNamespace(path, () => {
    const from = sys.openUdp({ address, port: 0, dontFragment: true, sendBuffer: 8 << 20 });
    const to = sys.openUdp({ address, port: 0, receiveBuffer: 8 << 20, ...options });
    sys.encodeAddress(memory.bytes, ADDRESSES, address, to.port);
    return { from: from.handle, port: from.port, to: to.handle };
  });
}

for (const address of ['127.0.0.1', '::1']) {
  t.test(`a train arrives whole: ${address}`, { skip: noNamespaces }, async t => {
    const { from, to, port } = pair(namespace(t), address, { gro: true });
    fillPayload(1);
    sys.probeUdpTrains(from);
    const train: Message = {
      pieces: [
        [PAYLOAD, 5000],
        [PAYLOAD + 9000, 7500],
      ],
      segment: 1200,
    };
    t.same(send(from, [train]), { count: 1, statuses: ['sent'] });
    const [got, ...rest] = receive(to, 12_500);
    t.same(rest, []);
    t.equal(got.stride, 1200);
    t.equal(got.cut, false);
    t.same(got.from, { family: address === '::1' ? 6 : 4, address, port });
    const sent = Buffer.concat([
      memory.bytes.slice(PAYLOAD, PAYLOAD + 5000),
      memory.bytes.slice(PAYLOAD + 9000, PAYLOAD + 16_500),
    ]);
    t.ok(sent.equals(got.bytes));

    sys.setUdpGro(to, false); // the same train, one datagram at a time
    send(from, [train]);
    const datagrams = receive(to, 12_500);
    t.same(
      datagrams.map(({ bytes, stride }) => [bytes.length, stride]),
      [...Array(10).fill([1200, 0]), [500, 0]],
    );
    t.ok(sent.equals(Buffer.concat(datagrams.map(({ bytes }) => bytes))));
    sys.close(from);
    sys.close(to);
  });
}

t.test('one failed message does not stop the others', { skip: noNamespaces }, async t => {
  const { from, to } = pair(namespace(t), '127.0.0.1', { gro: true });
  fillPayload(2);
  sys.encodeAddress(memory.bytes, ADDRESSES + 32, '10.9.9.9', 9); // no route
  sys.encodeAddress(memory.bytes, ADDRESSES + 64, '::1', 9); // another family
  memory.bytes.fill(0xff, ADDRESSES + 96, ADDRESSES + 128); // no address at all
  const good = (length: number): Message => ({ pieces: [[PAYLOAD, length]] });
  const messages: [Message, RegExp][] = [
    [good(100), /sent/],
    [{ ...good(100), address: ADDRESSES + 32 }, /ENETUNREACH/],
    [{ ...good(100), address: ADDRESSES + 64 }, /EAFNOSUPPORT|EINVAL/],
    [{ ...good(100), address: ADDRESSES + 96 }, /EAFNOSUPPORT|EINVAL/],
    [{ ...good(100), address: BYTES - 31 }, /EFAULT/],
    [{ ...good(100), address: -1 }, /EFAULT/],
    [good(101), /sent/],
    [{ ...good(65_000), segment: 100 }, /EINVAL|EMSGSIZE/], // more than 128 segments
    [{ ...good(100), segment: 70_000 }, /EINVAL/],
    [{ ...good(100), segment: -1 }, /EINVAL/],
    [good(65_508), /EMSGSIZE/],
    [{ pieces: [[BYTES - 10, 11]] }, /EFAULT/],
    [{ pieces: [[-1, 1]] }, /EFAULT/],
    [{ pieces: [[PAYLOAD, -1]] }, /EFAULT/],
    [{ pieces: [[0x7fffffff, 0x7fffffff]] }, /EFAULT/],
    [{ pieces: [] }, /EINVAL/],
    [{ pieces: Array(1025).fill([PAYLOAD, 1]) }, /EINVAL/],
    [{ pieces: Array(1024).fill([PAYLOAD, 1]) }, /sent/],
    [good(0), /sent/],
    [good(102), /sent/],
  ];
  const { count, statuses } = send(
    from,
    messages.map(([message]) => message),
  );
  for (const [i, [, expected]] of messages.entries()) t.match(statuses[i], expected, `message ${i}`);
  t.equal(count, 5);
  const lengths = receive(to, 100 + 101 + 1024 + 102).map(({ bytes }) => bytes.length);
  t.same(lengths, [100, 101, 1024, 0, 102]);
  sys.close(from);
  sys.close(to);
});

t.test('batches longer than sendmmsg takes, gathered at random, equal their twins', { skip: noNamespaces }, async t => {
  const seed = Date.now() >>> 0;
  t.comment(`seed ${seed}`);
  const next = random(seed);
  const { from, to } = pair(namespace(t), '127.0.0.1');
  fillPayload(seed);
  for (let round = 0; round < 20; round++) {
    const expected: Buffer[] = [];
    let iovs = 0;
    const messages = Array.from({ length: 1 + next(200) }, (_, i): Message => {
      const most = next(10) === 0 ? 900 : 20; // some of them fill a chunk's iovecs
      const pieces = Array.from({ length: Math.min(1 + next(most), 12_000 - iovs) || 1 }, (): [number, number] => [
        PAYLOAD + next(100_000),
        next(60),
      ]);
      iovs += pieces.length;
      pieces[0] = [PAYLOAD + next(100_000), 1 + (i % 60)]; // never empty
      expected.push(Buffer.concat(pieces.map(([offset, length]) => memory.bytes.slice(offset, offset + length))));
      return { pieces };
    });
    const { count, statuses } = send(from, messages);
    t.equal(count, messages.length, `seed ${seed} round ${round}: ${statuses.filter(status => status !== 'sent')}`);
    const total = expected.reduce((sum, { length }) => sum + length, 0);
    const got = receive(to, total);
    if (got.length !== expected.length) t.fail(`seed ${seed} round ${round}: ${got.length} of ${expected.length}`);
    got.forEach(({ bytes }, i) => {
      if (!expected[i].equals(bytes)) t.fail(`seed ${seed} round ${round}: message ${i} differs`);
    });
  }
  sys.close(from);
  sys.close(to);
});

t.test('what does not fit is cut, and said to be', { skip: noNamespaces }, async t => {
  const { from, to } = pair(namespace(t), '127.0.0.1');
  memory.bytes.fill(0xee, SLOTS, SLOTS + 200);
  send(from, [{ pieces: [[PAYLOAD, 150]] }]);
  const [got] = receive(to, 100, 100);
  t.equal(got.cut, true);
  t.equal(got.bytes.length, 100);
  t.equal(memory.bytes[SLOTS + 100], 0xee, 'the slot ends where it ends');
  sys.close(from);
  sys.close(to);
});

t.test('opening, options and errors', { skip: noNamespaces }, async t => {
  sys.withNamespace(namespace(t), () => {
    const first = sys.openUdp({ address: '127.0.0.1', port: 8285, dontFragment: false });
    t.equal(first.port, 8285);
    t.same(sys.localAddress(first.handle), { family: 4, address: '127.0.0.1', port: 8285 });
    t.throws(() => sys.openUdp({ address: '127.0.0.1', port: 8285 }), {
      code: 'EADDRINUSE',
      message: 'bind 127.0.0.1 port 8285: EADDRINUSE (address already in use)',
    });
    const shared = [1, 2].map(() => sys.openUdp({ address: '0.0.0.0', port: 9000, reusePort: true }).handle);
    const both = [sys.openUdp({ address: '::', port: 9001 }), sys.openUdp({ address: '0.0.0.0', port: 9001 })];
    t.same(sys.localAddress(both[0].handle), { family: 6, address: '::', port: 9001 }, 'IPv6 alone');
    t.throws(() => sys.openUdp({ address: '10.4.4.4', port: 0 }), { code: 'EADDRNOTAVAIL' });
    for (const address of ['', 'localhost', '1.2.3', '1.2.3.4.5', '::g', '::1%nolink', `${'1'.repeat(200)}`])
      t.throws(() => sys.openUdp({ address, port: 0 }), { code: 'EINVAL' }, `"${address}"`);
    for (const port of [-1, 65_536, 1e10])
      t.throws(() => sys.openUdp({ address: '127.0.0.1', port }), { code: 'EINVAL' }, `${port}`);
    for (const handle of [first.handle, ...shared, ...both.map(({ handle }) => handle)]) sys.close(handle);
  });
  t.equal(sys.handleCount(), 0);
});

t.test('addresses there and back', async t => {
  const bytes = new Uint8Array(64);
  for (const address of [
    '0.0.0.0',
    '10.5.1.255',
    '::',
    '::1',
    'fe80::',
    '2001:db8::1:0:0:1',
    '1:2:3:4:5:6:7:8',
    '1:0:3:4:5:6:7:8',
    '1:2:3:4:5:6::',
    'a::10:0:0:b',
    '0:0:3::',
  ]) {
    sys.encodeAddress(bytes, 8, address, 51820);
    const family = address.includes(':') ? 6 : 4;
    t.same(sys.decodeAddress(bytes, 8), { family, address: address === '0:0:3::' ? '0:0:3::' : address, port: 51820 });
  }
  t.throws(() => sys.encodeAddress(bytes, 40, '10.0.0.1', 1), { code: 'EINVAL' }, 'no room');
});
