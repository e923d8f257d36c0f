import t from 'tap';
import { checksum, close, errnoName, unregisterArena } from '../../lib/sys/sys.ts';
import { arena, fixture, random, run } from './support.ts';

/** RFC 1071, word by word. */
function naive(bytes: Uint8Array, initial: number): number {
  let sum = initial;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i] << 8) | (i + 1 < bytes.length ? bytes[i + 1] : 0);
    sum = (sum & 0xffff) + (sum >>> 16);
  }
  return sum;
}

t.test('checksum equals the naive sum', async t => {
  const seed = Date.now() >>> 0;
  t.comment(`seed ${seed}`);
  const next = random(seed);
  for (const memory of [arena(70_000), arena(70_000, false)]) {
    for (let i = 0; i < memory.bytes.length; i++) memory.bytes[i] = next(256);
    for (let round = 0; round < 500; round++) {
      const offset = next(2000);
      const length = round < 50 ? round : next(round % 5 === 0 ? 68_000 : 1600);
      const initial = next(0x10000);
      const expected = naive(memory.bytes.subarray(offset, offset + length), initial);
      const found = checksum(memory.id, offset, length, initial);
      if (found !== expected) t.fail(`offset ${offset} length ${length} initial ${initial}: ${found}, not ${expected}`);
    }
    memory.bytes.fill(0xff);
    t.equal(checksum(memory.id, 0, 70_000, 0xffff), 0xffff, 'all ones');
    memory.bytes.fill(0);
    t.equal(checksum(memory.id, 1, 69_999, 0), 0, 'all zeros');
  }
});

t.test('places outside the arena are refused', async t => {
  const { id } = arena(4096);
  const cases: [number, number, string | number][] = [
    [0, 4096, 0],
    [4096, 0, 0],
    [0, 4097, 'EFAULT'],
    [4095, 2, 'EFAULT'],
    [-1, 1, 'EFAULT'],
    [0, -1, 'EFAULT'],
    [0x7fffffff, 0x7fffffff, 'EFAULT'],
    [-0x80000000, -0x80000000, 'EFAULT'],
  ];
  for (const [offset, length, expected] of cases) {
    const value = checksum(id, offset, length, 0);
    t.equal(value < 0 ? errnoName(value) : value, expected, `${offset}, ${length}`);
  }
  t.equal(errnoName(checksum(99, 0, 1, 0)), 'EINVAL', 'no such arena');
  t.equal(errnoName(checksum(-1, 0, 1, 0)), 'EINVAL');
});

t.test('an arena is let go of once', async t => {
  const { id } = arena(4096);
  unregisterArena(id);
  t.throws(() => close(0), { code: 'EBADF', syscall: 'close' });
  for (const each of [id, -1, 99]) {
    t.throws(() => unregisterArena(each), { code: 'EINVAL', syscall: 'unregisterArena' }, 'it names its own step');
  }
});

t.test('hot calls survive any argument', async t => {
  const seed = String(Date.now() % 1e9);
  const { status, stdout, stderr } = run(process.execPath, [fixture('hostile'), seed]);
  t.equal(status, 0, `seed ${seed}: ${stderr}`);
  t.match(stdout, /sendUdp ok/, 'some of them are good');
});

t.test('arenas live as long as they are registered, and may move or shrink', async t => {
  const { status, stderr } = run(process.execPath, ['--expose-gc', fixture('garbage')]);
  t.equal(status, 0, stderr);
});
