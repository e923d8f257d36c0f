/**
 * What the machine must have, looked at before anything is made, so that a machine that cannot carry the overlay does
 * not take a lease first.
 */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';

/** Bit numbers of linux/capability.h. */
const CAP_NET_ADMIN = 12;

/** @throws TulleError, one line that says what to do. */
export function checkMachine(tunPath = '/dev/net/tun', statusPath = '/proc/self/status'): void {
  checkTun(tunPath);
  if (!hasCapability(CAP_NET_ADMIN, statusPath)) {
    throw new TulleError(
      'no-permission',
      'no permission to make a TUN device: run tulled as root or with CAP_NET_ADMIN',
    );
  }
}

function checkTun(path: string): void {
  try {
    // Opening alone makes no device: that takes an ioctl.
    closeSync(openSync(path, 'r+'));
  } catch (error) {
    const advice: Record<string, string> = {
      ENOENT: 'it does not exist: "modprobe tun", or give the container the device',
      ENODEV: 'the kernel has no TUN driver: "modprobe tun"',
      ENXIO: 'the kernel has no TUN driver: "modprobe tun"',
      EACCES: 'no permission: run tulled as root, or allow the container the device',
      EPERM: 'no permission: run tulled as root, or allow the container the device',
    };
    throw new TulleError('no-tun', `cannot open ${path}: ${advice[codeOf(error) ?? ''] ?? messageOf(error)}`, {
      cause: error,
    });
  }
}

function hasCapability(bit: number, statusPath: string): boolean {
  const match = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync(statusPath, 'utf8'));
  return match === null || ((BigInt(`0x${match[1]}`) >> BigInt(bit)) & 1n) === 1n;
}
