/** TUN devices. */
import { check, native } from './addon.ts';
import { SysError } from './errors.ts';
import { close } from './handles.ts';

// What the reader of a TUN device takes on itself (linux/if_tun.h).
export const TUN_F_CSUM = 0x01; // packets without their checksum
export const TUN_F_TSO4 = 0x02; // TCP super-packets over IPv4
export const TUN_F_TSO6 = 0x04; // TCP super-packets over IPv6
export const TUN_F_TSO_ECN = 0x08; // TCP super-packets with CWR
export const TUN_F_USO4 = 0x20; // UDP super-packets over IPv4; only together with USO6
export const TUN_F_USO6 = 0x40;

/** What becomes of wished offloads on older kernels, one step after the other: USO came with 6.2. */
function fallbacks(offloads: number): number[] {
  const withoutUso = offloads & ~(TUN_F_USO4 | TUN_F_USO6);
  const withoutEcn = withoutUso & ~TUN_F_TSO_ECN;
  return [...new Set([offloads, withoutUso, withoutEcn, withoutEcn & TUN_F_CSUM, 0])];
}

const HINTS: Readonly<Record<string, string>> = {
  ENOENT: 'make it with "mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200"; in a container, pass the device in',
  ENODEV: 'this kernel has no TUN driver; try "modprobe tun"',
  ENXIO: 'this kernel has no TUN driver; try "modprobe tun"',
  EPERM: 'run as root or with CAP_NET_ADMIN',
  EACCES: 'run as root, or allow this user to open the device',
  EBUSY: 'another process has a device of this name open',
};

/** The error of openTun, with the cure where there is one. */
function explain(errno: number, name: string): SysError {
  const step = native.errorStep();
  const plain = new SysError(errno, step);
  const subject = step.startsWith('ioctl') ? { subject: name } : {};
  const hint =
    plain.code === 'EINVAL' && step === 'ioctl TUNSETIFF'
      ? 'is the name taken by a link of another kind?'
      : HINTS[plain.code];
  return new SysError(errno, step, hint === undefined ? subject : { ...subject, hint });
}

/**
 * Makes (or attaches to) the TUN device `name`, which may hold one %d for the first free number, in the network namespace
 * of the calling thread: IFF_TUN | IFF_NO_PI, non-blocking. With `frames` it is a TAP device instead: whole Ethernet
 * frames (IFF_TAP). With `vnetHeader` each packet starts with the 10-byte virtio_net_hdr; without, `offloads` are none.
 * `offloads` are TUN_F_ bits; what the kernel does not know is left out, and the accepted ones come back.
 * The device goes away with its last handle. Throws SysError: EPERM, EACCES, ENOENT, EBUSY, EINVAL…
 */
export function openTun(options: {
  name: string;
  vnetHeader: boolean;
  offloads: number;
  multiQueue?: boolean;
  frames?: boolean;
}): {
  handle: number;
  name: string;
  offloads: number;
} {
  const { name, vnetHeader, offloads, multiQueue = false, frames = false } = options;
  const handle = native.openTun(name, (vnetHeader ? 1 : 0) | (multiQueue ? 2 : 0) | (frames ? 4 : 0));
  if (handle < 0) throw explain(-handle, name);
  try {
    const into = new Uint8Array(16);
    const bytes = check(native.tunName(handle, into));
    const wishes = vnetHeader ? fallbacks(offloads) : [0]; // without the header nobody would know what was left undone
    const accepted = wishes.find(wish => native.setTunOffloads(handle, wish) === 0);
    return { handle, name: new TextDecoder().decode(into.subarray(0, bytes)), offloads: accepted ?? 0 };
  } catch (error) {
    close(handle);
    throw error;
  }
}

/** Sets the TUN_F_ bits exactly; throws EINVAL for those the kernel does not know. */
export function setTunOffloads(handle: number, offloads: number): void {
  check(native.setTunOffloads(handle, offloads));
}

/**
 * Hot: readTun(handle, arena, slotsOffset, slotStride, slotBytes, maxSlots, lengthsOffset).
 * Reads packets, one a slot, until there is none or maxSlots are full. Slot i is at slotsOffset + i * slotStride;
 * lengthsOffset[i] = its bytes, vnet header included. Returns the count, 0 when nothing is there. An error after some
 * packets ends the batch and comes back at the next call: -EBADFD when the device was deleted. The kernel cuts silently
 * what does not fit in slotBytes: 65,545 bytes hold every packet.
 */
export const readTun = native.readTun;

/**
 * Hot: writeTun(handle, arena, packetsOffset, packetCount, iovsOffset).
 * Packet record: [firstIov, iovCount (1 to 1024), status (out: 0 or errno)]; iov record: [offset, length].
 * Each packet is one writev; a failed one does not stop the others. Returns the number written.
 */
export const writeTun = native.writeTun;
