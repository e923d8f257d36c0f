/**
 * Handles. A handle is a small positive integer, good in every thread of the process, that stands for an open descriptor.
 * It is not a descriptor number: a closed handle stays closed for ever, whatever the kernel opens next.
 */
import { check, native } from './addon.ts';

/**
 * Closes a handle. Calls in progress on it, in any thread, end at once where they wait, and the descriptor is closed when
 * the last of them has returned. Throws EBADF for a handle that is closed already.
 */
export function close(handle: number): void {
  check(native.close(handle));
}

/** Takes a handle from the thread that opened it: it stays open when that thread ends. */
export function keep(handle: number): void {
  check(native.keep(handle));
}

/** How many handles the process has open: for tests that look for leaks. */
export function handleCount(): number {
  return native.handleCount();
}

/**
 * Opens, or creates with mode 0644, a file and locks it without waiting (flock(2)): for writing alone, or shared.
 * Throws EWOULDBLOCK while another holds it. The lock ends with close(handle), or with the process, however that ends.
 */
export function flockOpen(path: string, exclusive = true): number {
  const handle = native.flockOpen(path, exclusive ? 1 : 0);
  return check(handle, handle === -11 ? { subject: path, code: 'EWOULDBLOCK' } : { subject: path });
}

/** CLOCK_BOOTTIME in milliseconds: never set back, and it counts the time that the machine slept. */
export function monotonicMs(): number {
  return native.monotonicMs();
}
