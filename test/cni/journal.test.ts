import {
  appendFileSync,
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { crc32 } from '../../lib/cni/crc32.ts';
import { Journal, readRecords } from '../../lib/cni/journal.ts';

const directory = mkdtempSync(join(tmpdir(), `tulle-cni-${process.pid}-`));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));

t.test("crc32 is gzip's", async t => {
  t.equal(crc32(Buffer.from('123456789')), 0xcbf4_3926); // the check value of the catalogue of CRCs
  t.equal(crc32(new Uint8Array(0)), 0);
});

t.test('what was appended is read again', async t => {
  const path = join(directory, 'again');
  const { journal, content } = Journal.open(path);
  t.same(content, { records: [], damaged: 0 });
  journal.append({ a: 1 });
  journal.append({ b: 'ä\n"' });
  journal.close();
  t.same(Journal.open(path).content, { records: [{ a: 1 }, { b: 'ä\n"' }], damaged: 0 });
});

t.test('cut off at any byte, the whole records before it are read and the rest is gone', async t => {
  const path = join(directory, 'torn');
  const { journal } = Journal.open(path);
  const ends = [0];
  for (let i = 0; i < 3; i++) {
    journal.append({ i });
    ends.push(journal.length);
  }
  journal.close();
  const bytes = readFileSync(path);
  for (let length = 0; length <= bytes.length; length++) {
    writeFileSync(path, bytes.subarray(0, length));
    const opened = Journal.open(path);
    const whole = ends.filter(end => end > 0 && end <= length).length;
    t.same(opened.content, { records: [0, 1, 2].slice(0, whole).map(i => ({ i })), damaged: 0 }, `${length} bytes`);
    opened.journal.append({ next: true });
    opened.journal.close();
    t.same(readRecords(readFileSync(path)).content.records.at(-1), { next: true });
    t.equal(readRecords(readFileSync(path)).content.damaged, 0, 'nothing sticks to the torn end');
  }
});

t.test('a damaged line is counted and passed over', async t => {
  const path = join(directory, 'damaged');
  const { journal } = Journal.open(path);
  for (let i = 0; i < 3; i++) journal.append({ i });
  journal.close();
  const text = readFileSync(path, 'utf8');
  writeFileSync(path, text.replace('{"i":1}', '{"i":7}'));
  appendFileSync(path, 'no record\n');
  t.same(Journal.open(path).content, { records: [{ i: 0 }, { i: 2 }], damaged: 2 });
});

t.test('a full disk throws and leaves no half record', async t => {
  const path = join(directory, 'full');
  let room = Number.POSITIVE_INFINITY;
  // As the kernel does it: what fits is written, the rest is an error.
  const write = ((file: number, bytes: Uint8Array): number => {
    const count = Math.min(room, bytes.length);
    if (count === 0) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    room -= count;
    return writeSync(file, bytes, 0, count);
  }) as typeof writeSync;
  const { journal } = Journal.open(path, write);
  journal.append({ a: 1 });
  const { length } = journal;
  room = 5;
  t.throws(() => journal.append({ b: 2 }), { code: 'ENOSPC' });
  t.equal(readFileSync(path).length, length);
  room = 1000;
  journal.append({ c: 3 });
  t.same(readRecords(readFileSync(path)).content, { records: [{ a: 1 }, { c: 3 }], damaged: 0 });
});

t.test('written anew', async t => {
  const path = join(directory, 'anew');
  const { journal } = Journal.open(path);
  for (let i = 0; i < 100; i++) journal.append({ i });
  journal.rewrite([{ only: 1 }]);
  journal.append({ more: 2 });
  t.equal(journal.length, readFileSync(path).length);
  journal.close();
  t.same(Journal.open(path).content.records, [{ only: 1 }, { more: 2 }]);
});

t.test('closed', async t => {
  const path = join(directory, 'closed');
  const { journal } = Journal.open(path);
  journal.append({ a: 1 });
  journal.close();
  const other = openSync(join(directory, 'other'), 'w'); // has the number by now
  t.throws(() => journal.append({ b: 2 }), { code: 'EBADF' });
  t.throws(() => journal.rewrite([]), { code: 'EBADF' });
  journal.close();
  closeSync(other);
  t.equal(readFileSync(join(directory, 'other')).length, 0);
  t.same(Journal.open(path).content.records, [{ a: 1 }]);
});
