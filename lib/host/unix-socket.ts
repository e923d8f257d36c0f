/**
 * The place of a daemon's Unix socket: mode 0600 in a folder that only its owner may write to, one daemon a path. A lock
 * beside it (SOCKET.lock) says whether a daemon is alive, so a socket that a killed one left is replaced and a living one
 * is not.
 */
import { chmodSync, lstatSync, rmSync, statSync } from 'node:fs';
import type { Server } from 'node:net';
import { dirname } from 'node:path';
import { close as closeHandle, flockOpen } from '../sys/sys.ts';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';
import { ensureFolder } from '../util/folder.ts';

/** sizeof(sun_path) of unix(7), without the closing zero. */
export const LONGEST_SOCKET_PATH = 107;

/** What is served there, for the errors: 'cni-socket' and 'cni-socket-taken', "CNI", "--cni-socket". */
export interface SocketUse {
  code: string;
  what: string;
  flag: string;
}

/** Takes the path for this process. @returns how to give it back. @throws TulleError CODE or CODE-taken */
export function claimSocket(path: string, use: SocketUse): () => void {
  const refuse = (why: string): TulleError => refusal(path, use, why);
  if (!path.startsWith('/') || Buffer.byteLength(path) > LONGEST_SOCKET_PATH) {
    throw refuse(`it must be an absolute path of at most ${LONGEST_SOCKET_PATH} bytes`);
  }
  checkFolder(path, refuse);
  const lock = takeLock(path, use);
  try {
    const old = lstatSync(path, { throwIfNoEntry: false });
    if (old !== undefined && !old.isSocket()) throw refuse('there is something that is not a socket; remove it');
    rmSync(path, { force: true });
  } catch (error) {
    closeHandle(lock);
    throw error instanceof TulleError ? error : refuse(messageOf(error));
  }
  return () => {
    rmSync(path, { force: true });
    closeHandle(lock);
  };
}

function checkFolder(path: string, refuse: (why: string) => TulleError): void {
  const folder = dirname(path);
  let status: ReturnType<typeof statSync>;
  try {
    ensureFolder(folder);
    status = statSync(folder);
  } catch (error) {
    throw refuse(messageOf(error));
  }
  const isTrusted = status.uid === 0 || status.uid === process.geteuid?.();
  const isOpen = (status.mode & 0o022) !== 0 && (status.mode & 0o1000) === 0;
  if (isTrusted && !isOpen) return;
  throw refuse(`others may write to ${folder}; give it to this user, with mode 0755`);
}

function takeLock(path: string, use: SocketUse): number {
  try {
    return flockOpen(`${path}.lock`);
  } catch (error) {
    if (codeOf(error) === 'EWOULDBLOCK') {
      const text = `another tulled serves ${use.what} at ${path}; give this one a ${use.flag}`;
      throw new TulleError(`${use.code}-taken`, text, { cause: error });
    }
    throw refusal(path, use, messageOf(error));
  }
}

function refusal(path: string, { code, what }: SocketUse, why: string): TulleError {
  return new TulleError(code, `cannot serve ${what} at ${path}: ${why}`);
}

/** Resolves when the server listens at a claimed path, where from the first moment nobody else can connect. */
export async function listenAt(server: Server, path: string, use: SocketUse): Promise<void> {
  const umask = process.umask(0o177);
  try {
    // The bind happens within this call, so the umask holds for nothing else.
    server.listen(path);
  } finally {
    process.umask(umask);
  }
  await new Promise<void>((resolve, reject) => {
    server.once('listening', resolve);
    server.once('error', error => reject(refusal(path, use, messageOf(error))));
  });
  chmodSync(path, 0o600);
}
