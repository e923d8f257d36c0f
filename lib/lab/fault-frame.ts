/**
 * Ethernet frames as the relay sees them: who a frame is for, the ICMP error about a packet that is too long, its
 * fragments, and network address translation. Bytes only, no file descriptors.
 *
 *   frame   destination MAC 6, source MAC 6, EtherType 2, packet
 *
 * Whatever cannot be read as one of these passes unchanged: a relay must not judge.
 */
import { get16, get32, set16, set32 } from '../wire/bytes.ts';
import { update32 } from '../wire/checksum.ts';
import { emitFragmentationNeeded4, mayReport4 } from '../wire/icmp.ts';
import {
  checkIp4,
  IP4_CHECKSUM,
  IP4_DESTINATION,
  IP4_FRAGMENT,
  IP4_HEADER_BYTES,
  IP4_MORE_FRAGMENTS,
  IP4_OFFSET_MASK,
  IP4_SOURCE,
  ip4DontFragment,
  ip4FragmentOffset,
  ip4FragmentWord,
  ip4HeaderLength,
  ip4Protocol,
  ip4TotalLength,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  setIp4Checksum,
  setIp4TotalLength,
} from '../wire/ip4.ts';
import { OK } from '../wire/reason.ts';
import { TCP_CHECKSUM, TCP_HEADER_BYTES } from '../wire/tcp.ts';
import { UDP_CHECKSUM, UDP_HEADER_BYTES } from '../wire/udp.ts';

export const ETHERNET_BYTES = 14;
const MAC_BYTES = 6;
const ETHERTYPE = 12;
const ETHERTYPE_IP4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
/** RFC 826 for IPv4 over Ethernet: addresses of the sender and of the target after 8 bytes of kinds and lengths. */
const ARP_OPERATION = ETHERNET_BYTES + 6;
const ARP_SENDER_MAC = ETHERNET_BYTES + 8;
const ARP_SENDER_IP = ETHERNET_BYTES + 14;
const ARP_TARGET_IP = ETHERNET_BYTES + 24;
const ARP_BYTES = ETHERNET_BYTES + 28;
const ARP_REQUEST = 1;
const ARP_REPLY = 2;

/** A place on the switch, as frames name it. */
export interface Station {
  /** 6 bytes as one number, so that it can be compared at once. */
  readonly mac: number;
  /** IPv4, as a number. */
  readonly address: number;
}

/** 6 bytes as one number, below 2^48. */
export function macAt(frame: Uint8Array, offset: number): number {
  return get16(frame, offset) * 0x1_0000_0000 + get32(frame, offset + 2);
}

/** "02:00:0a:58:00:01" as a number; NaN for what is none. */
export function macOf(text: string): number {
  return /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text) ? Number.parseInt(text.replaceAll(':', ''), 16) : Number.NaN;
}

/** True when the frame goes to the station (`out`) or comes from it. A broadcast question (ARP) counts by whom it asks for. */
export function concerns(frame: Uint8Array, bytes: number, out: boolean, { mac, address }: Station): boolean {
  if (bytes < ETHERNET_BYTES) return false;
  if (macAt(frame, out ? 0 : MAC_BYTES) === mac) return true;
  if (!out || (frame[0] & 1) === 0) return false;
  return get16(frame, ETHERTYPE) === ETHERTYPE_ARP && bytes >= ARP_BYTES && get32(frame, ARP_TARGET_IP) === address;
}

/** The length of the frame's IPv4 packet; 0 when it holds none. */
export function ip4Bytes(frame: Uint8Array, bytes: number): number {
  if (bytes < ETHERNET_BYTES || get16(frame, ETHERTYPE) !== ETHERTYPE_IP4) return 0;
  if (checkIp4(frame, ETHERNET_BYTES, bytes - ETHERNET_BYTES) !== OK) return 0;
  return ip4TotalLength(frame, ETHERNET_BYTES);
}

/**
 * What a router with a link of `mtu` bytes makes of a packet that is too long (only after ip4Bytes): its fragments, or with
 * DF an error that goes back to the sender; nothing where an error must not be sent.
 * @param router the address that the error comes from
 */
export function tooLong(
  frame: Uint8Array,
  bytes: number,
  mtu: number,
  router: number,
): { forward: Uint8Array[]; back: Uint8Array | undefined } {
  if (!ip4DontFragment(frame, ETHERNET_BYTES)) return { forward: fragments(frame, mtu), back: undefined };
  if (!mayReport4(frame, ETHERNET_BYTES)) return { forward: [], back: undefined };
  const back = new Uint8Array(ETHERNET_BYTES + 576);
  back.set(frame.subarray(MAC_BYTES, 2 * MAC_BYTES), 0);
  back.set(frame.subarray(0, MAC_BYTES), MAC_BYTES);
  set16(back, ETHERTYPE, ETHERTYPE_IP4);
  const about = bytes - ETHERNET_BYTES;
  const length = emitFragmentationNeeded4(back, ETHERNET_BYTES, mtu, router, frame, ETHERNET_BYTES, about);
  return { forward: [], back: back.subarray(0, ETHERNET_BYTES + length) };
}

/** RFC 791 §3.2; options stay in the first fragment only, none of the usual ones is to be copied. */
function fragments(frame: Uint8Array, mtu: number): Uint8Array[] {
  const headerLength = ip4HeaderLength(frame, ETHERNET_BYTES);
  const word = ip4FragmentWord(frame, ETHERNET_BYTES);
  const start = ETHERNET_BYTES + headerLength;
  const payload = ip4TotalLength(frame, ETHERNET_BYTES) - headerLength;
  const made: Uint8Array[] = [];
  for (let at = 0; at < payload; ) {
    const header = at === 0 ? headerLength : IP4_HEADER_BYTES;
    const slice = Math.min((mtu - header) & ~7, payload - at);
    const isLast = at + slice === payload;
    const fragment = new Uint8Array(ETHERNET_BYTES + header + slice);
    fragment.set(frame.subarray(0, ETHERNET_BYTES + header));
    fragment.set(frame.subarray(start + at, start + at + slice), ETHERNET_BYTES + header);
    fragment[ETHERNET_BYTES] = 0x40 | (header >> 2);
    setIp4TotalLength(fragment, ETHERNET_BYTES, header + slice);
    const more = isLast ? word & IP4_MORE_FRAGMENTS : IP4_MORE_FRAGMENTS;
    set16(fragment, ETHERNET_BYTES + IP4_FRAGMENT, more | ((word & IP4_OFFSET_MASK) + (at >> 3)));
    setIp4Checksum(fragment, ETHERNET_BYTES);
    made.push(fragment);
    at += slice;
  }
  return made;
}

/**
 * Gives an IPv4 packet another address, in its source (`out`) or in its destination, and mends its checksums, which must be
 * finished. True when something was changed.
 */
export function translate(frame: Uint8Array, bytes: number, out: boolean, from: number, to: number): boolean {
  const ip = ETHERNET_BYTES;
  const field = ip + (out ? IP4_SOURCE : IP4_DESTINATION);
  if (ip4Bytes(frame, bytes) === 0 || get32(frame, field) !== from) return false;
  set32(frame, field, to);
  set16(frame, ip + IP4_CHECKSUM, update32(get16(frame, ip + IP4_CHECKSUM), from, to));
  if (ip4FragmentOffset(frame, ip) !== 0) return true; // the checksum is in the first fragment
  const l4 = ip + ip4HeaderLength(frame, ip);
  const protocol = ip4Protocol(frame, ip);
  if (protocol === PROTOCOL_TCP && l4 + TCP_HEADER_BYTES <= bytes) {
    set16(frame, l4 + TCP_CHECKSUM, update32(get16(frame, l4 + TCP_CHECKSUM), from, to));
  } else if (protocol === PROTOCOL_UDP && l4 + UDP_HEADER_BYTES <= bytes && get16(frame, l4 + UDP_CHECKSUM) !== 0) {
    set16(frame, l4 + UDP_CHECKSUM, update32(get16(frame, l4 + UDP_CHECKSUM), from, to) || 0xffff);
  }
  return true;
}

/** The answer to a question (ARP) for `address`: it is at `mac`. Undefined for any other frame. */
export function answerArp(frame: Uint8Array, bytes: number, { mac, address }: Station): Uint8Array | undefined {
  if (bytes < ARP_BYTES || get16(frame, ETHERTYPE) !== ETHERTYPE_ARP || get16(frame, ARP_OPERATION) !== ARP_REQUEST)
    return undefined;
  if (get32(frame, ARP_TARGET_IP) !== address || get32(frame, ARP_SENDER_IP) === address) return undefined;
  const reply = frame.slice(0, ARP_BYTES);
  reply.set(frame.subarray(ARP_SENDER_MAC, ARP_SENDER_MAC + MAC_BYTES), 0);
  putMac(reply, MAC_BYTES, mac);
  set16(reply, ARP_OPERATION, ARP_REPLY);
  putMac(reply, ARP_SENDER_MAC, mac);
  set32(reply, ARP_SENDER_IP, address);
  reply.set(frame.subarray(ARP_SENDER_MAC, ARP_SENDER_IP + 4), ARP_TARGET_IP - MAC_BYTES);
  return reply;
}

function putMac(frame: Uint8Array, offset: number, mac: number): void {
  set16(frame, offset, Math.floor(mac / 0x1_0000_0000));
  set32(frame, offset + 2, mac >>> 0);
}
