// Writing a file so that nobody ever reads half of it, also when this process is killed between any two system calls.
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  readdirSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';

/**
 * Writes beside the target, brings it to the disk and renames it over the target. Throws Node's system error; the
 * temporary file is gone then. A kill in between leaves one that `sweepTemporaryFiles` knows.
 */
export function writeFileAtomic(path: string, content: string | Uint8Array, mode = 0o644): void {
  const folder = dirname(path);
  // Not by the process's number: in containers each is the same one, and a killed one would bar the way for the next.
  const temporary = join(folder, `.${basename(path)}.${randomBytes(8).toString('hex')}.tulle-tmp`);
  const file = openSync(temporary, 'wx', mode);
  try {
    try {
      fchmodSync(file, mode); // whatever the umask says
      for (let rest = Buffer.from(content); rest.length > 0; ) rest = rest.subarray(writeSync(file, rest));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    try {
      unlinkSync(temporary);
    } catch {
      // It is the first error that matters.
    }
    throw error;
  }
  syncFolder(folder);
}

/** Makes renames and removals in a folder durable. */
export function syncFolder(folder: string): void {
  const file = openSync(folder, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Removes what killed writers left. Only for who knows that nobody is writing there, by a lock. */
export function sweepTemporaryFiles(folder: string): void {
  for (const name of readdirSync(folder)) if (name.endsWith('.tulle-tmp')) unlinkSync(join(folder, name));
}

/** Nobody writes a file for so long. */
const OLD_MS = 600_000;

/** Removes what writers of one file left that were killed some time ago, where others may be writing. */
export function removeOldTemporaryFiles(folder: string, name: string): void {
  for (const each of readdirSync(folder)) {
    if (!each.startsWith(`.${name}.`) || !each.endsWith('.tulle-tmp')) continue;
    const path = join(folder, each);
    if (Date.now() - statSync(path).mtimeMs > OLD_MS) unlinkSync(path);
  }
}
