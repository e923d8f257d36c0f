/** ping(8), for tests of paths. */
import { close, openRaw, rawReceive, rawSend } from '../../lib/sys/sys.ts';
import { finish, sum } from '../../lib/wire/checksum.ts';

/** Sends ICMP echo requests from a namespace until one is answered or the time is over. */
export function isHeard(namespace: string, address: string, limitMs: number): boolean {
  const socket = openRaw({ family: 4, protocol: 1, namespace });
  const request = Uint8Array.of(8, 0, 0, 0, 0, 7, 0, 1);
  new DataView(request.buffer).setUint16(2, finish(sum(request, 0, request.length)));
  const answer = new Uint8Array(1500);
  const deadline = performance.now() + limitMs;
  try {
    while (performance.now() < deadline) {
      rawSend(socket, request, address);
      // An answer is 20 bytes of IPv4 header and ICMP type 0; the kernel's "host unreachable" is type 3.
      for (let got = rawReceive(socket, answer, 100); got !== undefined; got = rawReceive(socket, answer, 0)) {
        if (answer[20] === 0) return true;
      }
    }
    return false;
  } finally {
    close(socket);
  }
}
