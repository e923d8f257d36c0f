/**
 * A file of records that only grows, until it is written anew with what still counts. One record is one line:
 *
 *   crc32 of the rest, 8 hex digits | blank | JSON | line feed
 *
 * A record is written by one write(2) and counts once its line feed is there, so a process that is killed at any instant
 * leaves whole records and at most one torn line at the end, which the next one cuts off. It is not brought to the disk
 * (fsync): what it describes, attachments to namespaces, does not outlive a loss of power either; after one, the checksum
 * tells which lines arrived. docs/decisions/0009-one-journal-of-attachments.md has the measurements.
 */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { writeFileAtomic } from '../lease/atomic-file.ts';
import { crc32 } from './crc32.ts';

export interface JournalContent {
  records: unknown[];
  /** Lines that are no records and are not the torn end: somebody else wrote here, or the disk lost something. */
  damaged: number;
}

export class Journal {
  readonly path: string;
  #file: number;
  #length: number;
  #failed = false;
  #closed = false;
  /** The file at the path is not the one that we have open. */
  #moved = false;
  readonly #write: typeof writeSync;

  private constructor(path: string, file: number, length: number, write: typeof writeSync) {
    this.#write = write;
    this.path = path;
    this.#file = file;
    this.#length = length;
  }

  /**
   * Opens or makes the file and reads it; the caller holds the lock that keeps others away.
   * @param write for tests: a disk that is full
   */
  static open(path: string, write: typeof writeSync = writeSync): { journal: Journal; content: JournalContent } {
    const file = openSync(path, 'a+', 0o600);
    try {
      const bytes = readFileSync(path);
      const { length, content } = readRecords(bytes);
      if (length < bytes.length) ftruncateSync(file, length);
      return { journal: new Journal(path, file, length, write), content };
    } catch (error) {
      closeSync(file);
      throw error;
    }
  }

  /** Bytes. */
  get length(): number {
    return this.#length;
  }

  /** Throws Node's system error (ENOSPC, EIO); nothing of the record is in the file then. */
  append(record: unknown): void {
    this.#throwClosed();
    if (this.#moved) this.#reopen();
    // Half a line that could not be taken back would swallow the next one.
    if (this.#failed) this.#takeBack();
    const bytes = Buffer.from(printRecord(record));
    try {
      for (let rest = bytes; rest.length > 0; ) rest = rest.subarray(this.#write(this.#file, rest));
    } catch (error) {
      this.#failed = true;
      try {
        this.#takeBack();
      } catch {
        // the next append tries again, before it writes
      }
      throw error;
    }
    this.#length += bytes.length;
  }

  #takeBack(): void {
    ftruncateSync(this.#file, this.#length);
    this.#failed = false;
  }

  /** Puts these records in the place of all; a kill in between leaves the old file or the new one. */
  rewrite(records: Iterable<unknown>): void {
    this.#throwClosed();
    let text = '';
    for (const record of records) text += printRecord(record);
    writeFileAtomic(this.path, text, 0o600);
    this.#length = Buffer.byteLength(text);
    this.#failed = false;
    this.#moved = true;
    this.#reopen();
  }

  /** Where this fails (too many open files) the next append tries again, and does not write where nobody reads. */
  #reopen(): void {
    const file = openSync(this.path, 'a', 0o600);
    closeSync(this.#file);
    this.#file = file;
    this.#moved = false;
  }

  /** The number of a closed file is soon another file's. */
  #throwClosed(): void {
    if (this.#closed) throw Object.assign(new Error(`EBADF: ${this.path} was closed`), { code: 'EBADF' });
  }

  /** Closing twice is harmless. */
  close(): void {
    if (!this.#closed) closeSync(this.#file);
    this.#closed = true;
  }
}

function printRecord(record: unknown): string {
  const text = JSON.stringify(record);
  return `${crc32(Buffer.from(text)).toString(16).padStart(8, '0')} ${text}\n`;
}

/** `length` is where the torn end begins, or the end. */
export function readRecords(bytes: Uint8Array): { length: number; content: JournalContent } {
  const content: JournalContent = { records: [], damaged: 0 };
  let at = 0;
  for (;;) {
    const end = bytes.indexOf(0x0a, at);
    if (end < 0) return { length: at, content };
    const record = readRecord(bytes.subarray(at, end));
    if (record === undefined) content.damaged++;
    else content.records.push(record);
    at = end + 1;
  }
}

function readRecord(line: Uint8Array): unknown {
  const text = Buffer.from(line.buffer, line.byteOffset, line.length).toString('utf8');
  const sum = /^([0-9a-f]{8}) /.exec(text)?.[1];
  if (sum === undefined || Number.parseInt(sum, 16) !== crc32(line.subarray(9))) return undefined;
  try {
    const record: unknown = JSON.parse(text.slice(9));
    return record === null ? undefined : record;
  } catch {
    return undefined;
  }
}
