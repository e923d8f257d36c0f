/** Packet sockets: the frames of one link, whole (packet(7)). */
import { check, native } from './addon.ts';

/**
 * Takes part in a link: reads every frame that arrives on it, whoever it is for, and sends frames out of it, in the network
 * namespace of that file or of the calling thread. Frames are read with readTun and written with writeTun, each with the
 * 10-byte virtio_net_hdr before it. The frames still go to the kernel's own protocols, too. `receiveBuffer` in bytes, the
 * kernel's own unless told. Throws SysError: EPERM, ENODEV…
 */
export function openPacket(options: { link: string; namespace?: string; receiveBuffer?: number }): number {
  const { link, namespace = '', receiveBuffer = 0 } = options;
  return check(native.openPacket(link, namespace, receiveBuffer), { subject: link });
}

/** Frames that found the receive buffer full since the last call. */
export function packetDrops(handle: number): number {
  return check(native.packetDrops(handle));
}
