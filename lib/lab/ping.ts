/**
 * ICMP echo (RFC 792) through a raw socket in a pod's namespace. The socket is ours, so no child has to be started, and
 * the wait for a reply is the kernel's: its round trips are those that ping(8) sees.
 */
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import * as sys from '../sys/sys.ts';
import { TulleError } from '../util/errors.ts';
import { get16, set16 } from '../wire/bytes.ts';
import { finish, sum } from '../wire/checksum.ts';
import { IP4_HEADER_BYTES, ip4HeaderLength, PROTOCOL_ICMP } from '../wire/ip4.ts';

const ECHO_REQUEST = 8;
const ECHO_REPLY = 0;
const HEADER_BYTES = 8;
/** As ping(8): 56 bytes of payload, 84 bytes of IP packet. */
const PACKET_BYTES = IP4_HEADER_BYTES + HEADER_BYTES + 56;
/** We never block the event loop longer than this, so that a signal is heard. */
const SLICE_MS = 100;

export interface PingOptions {
  readonly count: number;
  readonly intervalMs: number;
  /** How long the last echo may take. */
  readonly timeoutMs: number;
  /** Of the whole IP packet, 28 and more; 84 as ping(8) unless told. */
  readonly bytes?: number;
}

export interface PingResult {
  readonly sent: number;
  readonly received: number;
  /** In the order in which the echoes were sent; lost ones are missing. */
  readonly rttsMs: readonly number[];
  /** Replies to an echo that had one already. */
  readonly duplicates: number;
  /** The echoes' numbers in the order in which their first replies came. */
  readonly order: readonly number[];
}

/** Writes an echo request into `bytes` (all of it). */
export function emitEcho(bytes: Uint8Array, identifier: number, sequence: number): void {
  bytes[0] = ECHO_REQUEST;
  bytes[1] = 0;
  set16(bytes, 2, 0);
  set16(bytes, 4, identifier);
  set16(bytes, 6, sequence);
  for (let i = HEADER_BYTES; i < bytes.length; i++) bytes[i] = i;
  set16(bytes, 2, finish(sum(bytes, 0, bytes.length)));
}

/** The sequence number of our echo reply in an IPv4 packet as a raw socket gives it; -1 for anything else. */
export function replySequence(packet: Uint8Array, bytes: number, identifier: number): number {
  if (bytes < IP4_HEADER_BYTES) return -1;
  const start = ip4HeaderLength(packet, 0);
  if (bytes < start + HEADER_BYTES || packet[start] !== ECHO_REPLY || get16(packet, start + 4) !== identifier)
    return -1;
  return get16(packet, start + 6);
}

/** Pings `address` from the namespace. Never fails for lost echoes: the result says how many came back. */
export async function ping(namespaceFile: string, address: string, options: PingOptions): Promise<PingResult> {
  const handle = sys.openRaw({ family: 4, protocol: PROTOCOL_ICMP, namespace: namespaceFile });
  try {
    return await exchange(handle, address, options);
  } finally {
    sys.close(handle);
  }
}

async function exchange(handle: number, address: string, options: PingOptions): Promise<PingResult> {
  const identifier = process.pid & 0xffff;
  const request = new Uint8Array((options.bytes ?? PACKET_BYTES) - IP4_HEADER_BYTES);
  const packet = new Uint8Array(Math.max(2048, options.bytes ?? 0));
  const sentAt: number[] = [];
  const rtts: (number | undefined)[] = [];
  const order: number[] = [];
  let duplicates = 0;
  let due = performance.now();

  while (order.length < options.count) {
    const now = performance.now();
    if (sentAt.length < options.count && now >= due) {
      emitEcho(request, identifier, sentAt.length);
      sentAt.push(performance.now());
      sendQuietly(handle, request, address);
      due = sentAt.length < options.count ? now + options.intervalMs : performance.now() + options.timeoutMs;
    }
    const wait = due - performance.now();
    if (wait <= 0) {
      if (sentAt.length === options.count) break;
      continue;
    }
    const reply = sys.rawReceive(handle, packet, Math.ceil(Math.min(wait, SLICE_MS)));
    const at = performance.now();
    const sequence = reply?.address === address ? replySequence(packet, reply.bytes, identifier) : -1;
    if (sequence >= 0 && sequence < sentAt.length) {
      if (rtts[sequence] !== undefined) duplicates++;
      else {
        rtts[sequence] = at - sentAt[sequence];
        order.push(sequence);
      }
    }
    await nextTurn();
  }
  const rttsMs = rtts.filter(rtt => rtt !== undefined);
  return { sent: sentAt.length, received: order.length, rttsMs, duplicates, order };
}

/** No route yet, or the path refuses: an echo that is lost, no more. */
function sendQuietly(handle: number, request: Uint8Array, address: string): void {
  try {
    sys.rawSend(handle, request, address);
  } catch {
    // counted as lost
  }
}

/** Waits until one echo to `address` comes back; an error after `deadlineMs`. */
export async function waitReachable(namespaceFile: string, address: string, deadlineMs: number): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const { received } = await ping(namespaceFile, address, { count: 1, intervalMs: 0, timeoutMs: 200 });
    if (received > 0) return;
    if (performance.now() >= deadline) {
      throw new TulleError(
        'unreachable',
        `${address} does not answer a ping within ${Math.round(deadlineMs / 1000)} s`,
      );
    }
    await delay(20);
  }
}

export function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? null;
}
