/** Netlink and raw sockets: cold, synchronous, one message a call. */
import { check, native } from './addon.ts';
import { monotonicMs } from './handles.ts';
import { ADDRESS_BYTES, decodeAddress } from './udp.ts';

/** The addon sleeps in slices, so that a worker can be terminated; this puts them together. */
const SLICE_MS = 500;

function* slices(timeoutMs: number): Generator<number> {
  const deadline = monotonicMs() + timeoutMs;
  yield Math.max(0, Math.min(SLICE_MS, timeoutMs));
  for (;;) {
    const left = Math.ceil(deadline - monotonicMs());
    if (left <= 0) return;
    yield Math.min(SLICE_MS, left);
  }
}

/**
 * Opens a netlink socket (protocol 0 = NETLINK_ROUTE) in the namespace of a file such as /run/netns/x, or in that of the
 * calling thread; `groups` is the RTMGRP_ mask of events to receive. Extended acks and strict checking are on where the
 * kernel has them.
 */
export function openNetlink(options: { protocol: number; namespace?: string; groups?: number }): number {
  const { protocol, namespace = '', groups = 0 } = options;
  return check(native.openNetlink(protocol, namespace, groups), namespace === '' ? {} : { subject: namespace });
}

/** Sends one message (or several, joined) to the kernel. */
export function netlinkSend(handle: number, message: Uint8Array): void {
  check(native.netlinkSend(handle, message));
}

/**
 * Sends one message in a thread of its own and returns at once: for requests in which the kernel waits (a link's deletion
 * takes tens of milliseconds after the link is gone). The acknowledgement is received as ever, and a message that could not
 * be sent makes the next netlinkReceive that finds none throw. Closing the handle is allowed at any time and takes effect
 * when the message was sent.
 */
export function netlinkSendAside(handle: number, message: Uint8Array): void {
  check(native.netlinkSendAside(handle, message));
}

/**
 * Receives one datagram of the kernel's. Returns its bytes, 0 after the timeout. Throws ENOBUFS when events were lost
 * (list again), EMSGSIZE when `into` was too small (32 KB are enough for a dump).
 */
export function netlinkReceive(handle: number, into: Uint8Array, timeoutMs: number): number {
  for (const slice of slices(timeoutMs)) {
    const bytes = check(native.netlinkReceive(handle, into, slice));
    if (bytes > 0) return bytes;
  }
  return 0;
}

/**
 * Sends messages to the kernel and receives its answers, as netlinkSend and netlinkReceive do, in one call. Returns the
 * bytes of the answers, one behind the other. It goes on while `into` has room for another one of 32 KB, the longest part
 * of a dump; what is left then (or comes later) is received as ever. Throws EMSGSIZE when the first did not fit.
 */
export function netlinkExchange(handle: number, message: Uint8Array, into: Uint8Array): number {
  return check(native.netlinkExchange(handle, message, into));
}

/**
 * The index of the link of this name (15 bytes at most) in the socket's namespace; 0 when there is none. A link that is
 * being deleted is none once nobody can find it; the kernel goes on with it for some milliseconds then, which this does not
 * wait for. Throws EPERM without CAP_NET_RAW.
 */
export function netlinkLinkIndex(handle: number, name: string): number {
  return check(native.netlinkLinkIndex(handle, name), { subject: name });
}

/**
 * Opens a raw IP socket. With protocol 255 (IPPROTO_RAW) it sends packets that bring their own IP header; with any other,
 * the kernel adds it (and ICMPv6's checksum). Needs CAP_NET_RAW.
 */
export function openRaw(options: { family: 4 | 6; protocol: number; namespace?: string }): number {
  const { family, protocol, namespace = '' } = options;
  return check(native.openRaw(family, protocol, namespace), namespace === '' ? {} : { subject: namespace });
}

/** Sends a packet to an address; returns its bytes. */
export function rawSend(handle: number, packet: Uint8Array, address: string): number {
  return check(native.rawSend(handle, packet, address), { subject: address });
}

/**
 * Receives one packet of the socket's protocol: over IPv4 with its IP header, over IPv6 without. `address` is the sender.
 * Undefined after the timeout. What does not fit in `into` is cut.
 */
export function rawReceive(
  handle: number,
  into: Uint8Array,
  timeoutMs: number,
): { bytes: number; address: string } | undefined {
  const sender = new Uint8Array(ADDRESS_BYTES);
  for (const slice of slices(timeoutMs)) {
    const bytes = native.rawReceive(handle, into, sender, slice);
    if (bytes !== -EAGAIN) return { bytes: check(bytes), address: decodeAddress(sender, 0).address };
  }
  return undefined;
}

const EAGAIN = 11;
