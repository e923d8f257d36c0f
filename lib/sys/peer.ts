/** Who is at the other end of a Unix socket. */
import { check, native } from './addon.ts';

/** Of the process that connected, at the moment when it did: see unix(7), SO_PEERCRED. */
export interface PeerCredentials {
  pid: number;
  uid: number;
  gid: number;
}

/**
 * @param fd a descriptor, not a handle: Node's sockets belong to its event loop. The caller keeps it open.
 * Throws EBADF or ENOTSOCK for what is no socket.
 */
export function peerCredentials(fd: number): PeerCredentials {
  const words = new Uint32Array(3);
  check(native.peerCredentials(fd, new Uint8Array(words.buffer)));
  const [pid, uid, gid] = words;
  return { pid, uid, gid };
}
