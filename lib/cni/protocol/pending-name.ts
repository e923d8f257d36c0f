/**
 * Where DELs are written down while there is no daemon: SOCKET.pending, one file for each network, container and
 * interface. cmd/tulle-cni/pending.c makes the same names.
 */

export function pendingFolder(socket: string): string {
  return `${socket}.pending`;
}

/** FNV-1a, 64 bits, of the three with a zero byte after each: a container's id may be longer than a file's name. */
export function pendingName(network: string, containerId: string, ifname: string): string {
  let sum = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(`${network}\0${containerId}\0${ifname}\0`)) {
    sum = BigInt.asUintN(64, (sum ^ BigInt(byte)) * 0x100000001b3n);
  }
  return `${sum.toString(16).padStart(16, '0')}.del`;
}
