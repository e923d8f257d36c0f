/** UDP sockets and their addresses. */
import { check, native } from './addon.ts';
import { close } from './handles.ts';

/** Bytes of an address in an arena: a sockaddr_in or sockaddr_in6, padded with zeros. */
export const ADDRESS_BYTES = 32;

/** Most messages of one receiveUdp. */
export const BATCH_MESSAGES = 64;

const AF_INET = 2;
const AF_INET6 = 10;

/**
 * Opens and binds a UDP socket, IPv4 or IPv6 (never both) by its address, non-blocking, in the network namespace of the
 * calling thread. Port 0 lets the kernel choose. Buffers are bytes; less than wished is no error. dontFragment: true sets
 * the DF bit and makes a datagram over the path MTU fail with EMSGSIZE, false lets it be fragmented, undefined leaves the
 * system's rule. Throws SysError: EADDRINUSE, EADDRNOTAVAIL, EINVAL for an address that is none.
 */
export function openUdp(options: {
  address: string;
  port: number;
  receiveBuffer?: number;
  sendBuffer?: number;
  gro?: boolean;
  dontFragment?: boolean;
  reusePort?: boolean;
}): { handle: number; port: number } {
  const { address, port, receiveBuffer = 0, sendBuffer = 0, gro = false, dontFragment, reusePort = false } = options;
  const fragment = dontFragment === undefined ? 0 : dontFragment ? 2 : 8;
  const flags = (gro ? 1 : 0) | fragment | (reusePort ? 4 : 0);
  const handle = check(native.openUdp(address, port, receiveBuffer, sendBuffer, flags), {
    subject: `${address} port ${port}`,
  });
  try {
    return { handle, port: localAddress(handle).port };
  } catch (error) {
    close(handle);
    throw error;
  }
}

/** Whether trains of datagrams are handed over in one piece (UDP_GRO). */
export function setUdpGro(handle: number, on: boolean): void {
  check(native.setUdpGro(handle, on ? 1 : 0));
}

/** Throws when the kernel knows no trains to be sent (UDP_SEGMENT, Linux 4.18): it would send one as a single datagram. */
export function probeUdpTrains(handle: number): void {
  check(native.probeUdpTrains(handle));
}

/** Where a UDP socket is bound. */
export function localAddress(handle: number): Address {
  const bytes = new Uint8Array(ADDRESS_BYTES);
  check(native.localAddress(handle, bytes));
  return decodeAddress(bytes, 0);
}

export interface Address {
  family: 4 | 6;
  address: string;
  port: number;
}

/**
 * Writes an address, for sendUdp, into 32 bytes at offset. IPv6 may name its link ("fe80::1%eth0"). Throws EINVAL for
 * text that is no address.
 */
export function encodeAddress(bytes: Uint8Array, offset: number, address: string, port: number): void {
  check(native.encodeAddress(address, port, bytes.subarray(offset, offset + ADDRESS_BYTES)), { subject: address });
}

/** Reads the address that receiveUdp wrote at offset. */
export function decodeAddress(bytes: Uint8Array, offset: number): Address {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, ADDRESS_BYTES);
  const family = new Uint16Array(bytes.slice(offset, offset + 2).buffer)[0];
  const port = view.getUint16(2);
  if (family === AF_INET) return { family: 4, address: bytes.subarray(offset + 4, offset + 8).join('.'), port };
  if (family === AF_INET6) return { family: 6, address: text6(view, 8), port };
  return { family: 4, address: '0.0.0.0', port: 0 };
}

/** RFC 5952: the longest run of two or more zero words becomes "::", the first of equals. */
function text6(view: DataView, offset: number): string {
  const words = Array.from({ length: 8 }, (_, i) => view.getUint16(offset + i * 2).toString(16));
  const runs = [...words.join(':').matchAll(/\b0(?::0)+\b/g)].map(match => match[0]);
  const longest = runs.reduce((best, run) => (run.length > best.length ? run : best), '');
  const text = words.join(':');
  if (longest === '') return text;
  const at = text.search(new RegExp(`\\b${longest}\\b`));
  return `${text.slice(0, at).replace(/:$/, '')}::${text.slice(at + longest.length).replace(/^:/, '')}`;
}

/**
 * Hot: sendUdp(handle, arena, messagesOffset, messageCount, iovsOffset).
 * Message record: [firstIov, iovCount (1 to 1024), segmentSize (0 = plain, else UDP_SEGMENT), addressOffset,
 * status (out: 0 or errno)]; iov record: [offset, length]. A failed message does not stop the others: EMSGSIZE, EINVAL
 * and EIO on a train say that this path does not take it, EAGAIN that the socket's buffer stayed full for some
 * milliseconds. Returns the number sent.
 */
export const sendUdp = native.sendUdp;

/**
 * Hot: receiveUdp(handle, arena, slotsOffset, slotStride, slotBytes, maxMessages, recordsOffset).
 * Receives up to 64 messages, one a slot. Record, 48 bytes: [length, segmentSize (stride of a train, 0 = one datagram),
 * flags (1 = cut: slotBytes was too small), 0, sender's sockaddr in 32 bytes]. Returns the count, 0 when nothing is there.
 */
export const receiveUdp = native.receiveUdp;
