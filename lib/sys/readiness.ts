/** Waiting for handles: in a worker that blocks, and in an event loop that must not. */
import { check, native } from './addon.ts';

// Bits of poll(2).
export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLERR = 8;
export const POLLHUP = 16;
export const POLLNVAL = 32;

/** A counter that another thread can wait for: it wakes a worker that sleeps in poll. */
export function openEventFd(): number {
  return check(native.openEventFd());
}

/** Makes an event handle readable. */
export function wake(handle: number): void {
  check(native.wake(handle));
}

/** Hot: drain(handle). Makes an event handle unreadable again; returns how often it was woken, 0 = not at all. */
export const drain = native.drain;

/**
 * Hot: poll(arena, pollOffset, count, timeoutMs). Table at pollOffset: [handle, events, revents (out)] per entry, at most 256.
 * Sleeps until a handle is ready, but 500 ms at most, whatever the timeout: the thread may have to end. Returns the number
 * of entries with revents; 0 after the timeout, and now and then sooner; -errno for wrong arguments. A closed handle
 * reports POLLNVAL at once, also when it is closed during the sleep.
 *
 * A function of JavaScript, unlike the other hot calls: V8 looks for terminate() where one is entered, and in a loop only
 * now and then. A worker whose loop called nothing but C would sleep on for minutes after it was told to end.
 */
export function poll(arena: number, pollOffset: number, count: number, timeoutMs: number): number {
  return native.poll(arena, pollOffset, count, timeoutMs);
}

/**
 * Calls `callback` on this thread's event loop while the handle is readable: once, and again after it has returned if
 * there is still something to read. Returns a function that ends this; closing the handle ends it, too. Until then the
 * event loop is kept alive.
 */
export function pollReadable(handle: number, callback: () => void): () => void {
  const watch = check(native.pollReadable(handle, callback));
  return () => {
    native.stopPolling(watch);
  };
}
