/** Making folders. */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { codeOf } from '../util/errors.ts';

/**
 * Makes a folder (mode 0755) and those above it; one that is there is fine. Not by Node's `recursive`, which never ends
 * where the kernel has no folders to make and says ENOENT, as in /proc. @throws Node's system error
 */
export function ensureFolder(path: string): void {
  try {
    mkdirSync(path, 0o755);
  } catch (error) {
    const code = codeOf(error);
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT' || dirname(path) === path) throw error;
    ensureFolder(dirname(path));
    mkdirSync(path, 0o755);
  }
}
