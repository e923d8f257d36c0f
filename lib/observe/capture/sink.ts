/** Where a capture goes on this side of the socket: a file that is valid at every moment, or standard output. */
import { lstatSync } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { codeOf, messageOf, TulleError } from '../../util/errors.ts';

export interface Sink {
  /** Whole blocks of pcapng only. False: the reader has gone, and wants no more. */
  write(bytes: Uint8Array): Promise<boolean>;
  close(): Promise<void>;
}

/**
 * A file of mode 0600, which appears with its first blocks: they are written beside it and renamed, so that a capture that
 * never began leaves an older file alone. What is no file (a pipe, a device) is written to as it is.
 * @throws TulleError 'bad-file'
 */
export async function fileSink(path: string): Promise<Sink> {
  const isFile = isReplaceable(path);
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}`);
  const complain = (error: unknown): TulleError =>
    new TulleError('bad-file', `cannot write ${path}: ${messageOf(error)}`, { cause: error });
  let handle: FileHandle;
  try {
    handle = await open(isFile ? temporary : path, isFile ? 'wx' : 'w', 0o600);
  } catch (error) {
    throw complain(error);
  }
  let hidden = isFile;
  return {
    async write(bytes) {
      try {
        await handle.appendFile(bytes);
        if (hidden) await rename(temporary, path);
        hidden = false;
        return true;
      } catch (error) {
        if (codeOf(error) === 'EPIPE') return false;
        throw complain(error);
      }
    },
    async close() {
      await handle.close();
      if (hidden) await rm(temporary, { force: true });
    },
  };
}

function isReplaceable(path: string): boolean {
  try {
    return lstatSync(path).isFile() || lstatSync(path).isSymbolicLink();
  } catch {
    return true;
  }
}

/** Standard output, or what stands for it in a test. */
export function streamSink(stream: NodeJS.WritableStream): Sink {
  let gone = false;
  // For good: the error of a write may come after its callback.
  stream.on('error', () => {
    gone = true;
  });
  return {
    write: bytes =>
      new Promise(resolve => {
        if (gone) return resolve(false);
        stream.write(bytes, error => resolve(!error && !gone));
      }),
    close: async () => {},
  };
}
