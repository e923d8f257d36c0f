/** Datagrams to Unix sockets. */
import { check, native } from './addon.ts';

const encoder = new TextEncoder();

/**
 * Sends one datagram without waiting. `name` is an absolute path, or "@" and an abstract name (unix(7)).
 * @throws SysError EINVAL for another name, ENAMETOOLONG, ECONNREFUSED and ENOENT when nobody listens, EAGAIN when the
 * receiver's queue is full
 */
export function sendUnixDatagram(name: string, text: string): void {
  check(native.sendUnix(name, encoder.encode(text)), { subject: name });
}
