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

/** errno.h: this thread is being terminated. */
const ECANCELED = 125;

/**
 * V8 looks for terminate() where a function is entered, and only now and then in a loop: a worker whose loop does nothing
 * but call into C would sleep on for minutes. This function is called once in a worker's life, so it is never inlined,
 * and entering it ends the thread. The loop is for a V8 that thinks otherwise.
 */
function endThread(): void {
  for (let turn = 0; turn < 1e7; turn++) Math.random();
}

/**
 * Hot. Table at pollOffset: [handle, events, revents (out)] per entry, at most 256.
 * Sleeps until a handle is ready, but 500 ms at most, whatever the timeout: the thread may have to end. Returns the number
 * of entries with revents; 0 after the timeout, and now and then sooner; -errno for wrong arguments. A closed handle
 * reports POLLNVAL at once, also when it is closed during the sleep.
 */
export function poll(arena: number, pollOffset: number, count: number, timeoutMs: number): number {
  const ready = native.poll(arena, pollOffset, count, timeoutMs);
  if (ready === -ECANCELED) endThread();
  return ready;
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
