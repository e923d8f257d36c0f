/**
 * Coalescing of whole packets: neighbours of one flow that a kernel's GRO would join become one gathered write. It is
 * what the receiver does for flannel's format, where segments come as packets of their own, and for runs of UDP datagrams
 * in either format: one write instead of many.
 *
 * The rules are those of net/ipv4/tcp_offload.c (tcp_gro_receive), udp_offload.c and inet_gro_receive: same addresses,
 * ports, TOS (IPv6: traffic class, flow label), TTL and DF; TCP with the next sequence number, the same acknowledgement,
 * window and options and no flag but ACK and PSH; every payload as long as the first, a shorter one ends the run, and so does
 * PSH. Finished checksums, the IP header's too, are verified before a packet may join: the run gets new ones, so a damaged
 * packet would be made good otherwise.
 */
import { get16, get32 } from '../wire/bytes.ts';
import { pseudoSum4, pseudoSum6 } from '../wire/checksum.ts';
import { isIp6, rewriteSegment } from '../wire/either.ts';
import {
  IP4_HEADER_BYTES,
  IP4_PROTOCOL,
  ip4FragmentWord,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  verifyIp4Checksum,
} from '../wire/ip4.ts';
import { IP6_HEADER_BYTES, IP6_NEXT_HEADER } from '../wire/ip6.ts';
import {
  checkTcp,
  setTcpFlags,
  TCP_ACK,
  TCP_PSH,
  tcpFlags,
  tcpHeaderLength,
  tcpSequence,
  tcpWindow,
} from '../wire/tcp.ts';
import { UDP_HEADER_BYTES, udpChecksum, udpLength } from '../wire/udp.ts';
import {
  emitVnet,
  VNET_FLAG_NEEDS_CSUM,
  VNET_GSO_TCPV4,
  VNET_GSO_TCPV6,
  VNET_GSO_UDP_L4,
  VNET_HEADER_BYTES,
} from '../wire/vnet.ts';
import { type PacketTable, RUN_OF_PACKETS, RUN_OF_PARTIAL_PACKETS } from './packet-table.ts';
import { CONTROL_UDP_COALESCE_OFF, type Slab } from './slab.ts';

/** The folded ones' complement sum of arena bytes plus `initial` (RFC 1071): lib/sys's `checksum` without its arena. */
export type Sum = (offset: number, length: number, initial: number) => number;

/** The largest IP packet (RFC 791; an IPv6 packet may have 40 more); a run stays below it. */
const MAX_RUN_BYTES = 65_535;
/** UDP_MAX_SEGMENTS (include/linux/udp.h) is 128 in the kernels that take UDP GSO writes from a TUN. */
const MAX_UDP_RUN = 128;
const MAX_TCP_RUN = 1_000;

export class FlowRun {
  readonly #slab: Slab;
  readonly #table: PacketTable;
  readonly #sum: Sum;
  #count = 0;
  #ip = 0;
  #headers = 0;
  #size = 0;
  #payload = 0;
  #sequence = 0;
  #limit = 0;
  /** Whether the checksums of the run's packets came partial. */
  #partial = false;

  constructor(slab: Slab, table: PacketTable, sum: Sum) {
    this.#slab = slab;
    this.#table = table;
    this.#sum = sum;
  }

  /**
   * Takes a checked packet (`total` bytes at `ip`, no fragment) into the open run or into a new one. False when it is none that
   * could ever be coalesced: the caller writes it as it is. Needs room for a packet and two gather entries.
   */
  take(ip: number, total: number, partial: boolean): boolean {
    const headers = this.#headersOf(ip, total);
    if (headers < 0) return false;
    const payload = total - headers;
    if (partial === this.#partial && this.#continues(ip, headers, payload)) {
      if (!partial && !this.#verified(ip, total)) return false;
      this.#table.iov(ip + headers, payload);
      this.#count++;
      this.#payload += payload;
      this.#sequence = (this.#sequence + payload) >>> 0;
      const psh = this.#isTcp(ip) && (tcpFlags(this.#slab.bytes, this.#l4(ip)) & TCP_PSH) !== 0;
      if (psh) this.#setPsh();
      if (payload < this.#size || psh) this.close();
      return true;
    }
    this.close();
    if (!partial && !this.#verified(ip, total)) return false;
    if (!this.#table.hasRoom(1, 2)) this.#table.flush();
    const tcp = this.#isTcp(ip);
    this.#table.iov(this.#table.vnetOffset(), VNET_HEADER_BYTES);
    this.#table.iov(ip, total);
    this.#count = 1;
    this.#ip = ip;
    this.#headers = headers;
    this.#size = payload;
    this.#payload = payload;
    this.#partial = partial;
    this.#limit = tcp ? MAX_TCP_RUN : MAX_UDP_RUN;
    this.#sequence = tcp ? (tcpSequence(this.#slab.bytes, this.#l4(ip)) + payload) >>> 0 : 0;
    if (tcp && (tcpFlags(this.#slab.bytes, this.#l4(ip)) & TCP_PSH) !== 0) this.close();
    return true;
  }

  /** Writes the run's headers and closes its packet. */
  close(): void {
    const count = this.#count;
    if (count === 0) return;
    this.#count = 0;
    const { bytes } = this.#slab;
    const ip = this.#ip;
    const vnet = this.#table.vnetOffset();
    const ipLength = this.#l4(ip) - ip;
    const tcp = this.#isTcp(ip);
    const field = tcp ? 16 : 6;
    if (count > 1) {
      rewriteSegment(bytes, ip, this.#headers, 0, this.#size, this.#payload, true);
      const gsoType = tcp ? (isIp6(bytes, ip) ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4) : VNET_GSO_UDP_L4;
      emitVnet(bytes, vnet, VNET_FLAG_NEEDS_CSUM, gsoType, this.#headers, this.#size, ipLength, field);
    } else if (this.#partial) emitVnet(bytes, vnet, VNET_FLAG_NEEDS_CSUM, 0, 0, 0, ipLength, field);
    else emitVnet(bytes, vnet, 0, 0, 0, 0, 0, 0);
    const kind = this.#partial ? RUN_OF_PARTIAL_PACKETS : RUN_OF_PACKETS;
    this.#table.packet(count + 1, kind, count, this.#headers + this.#payload);
  }

  /** Bytes of IP and L4 header of a packet that may be coalesced; -1 for all others. */
  #headersOf(ip: number, total: number): number {
    const { bytes } = this.#slab;
    // Options, extension headers and fragments are never joined (inet_gro_receive).
    const four = bytes[ip] === 0x45;
    if (four ? (ip4FragmentWord(bytes, ip) & 0x3fff) !== 0 : !isIp6(bytes, ip)) return -1;
    if (four && !verifyIp4Checksum(bytes, ip)) return -1;
    const distance = four ? IP4_HEADER_BYTES : IP6_HEADER_BYTES;
    const l4 = ip + distance;
    const l4Length = total - distance;
    const protocol = this.#protocol(ip);
    if (protocol === PROTOCOL_UDP) {
      if (this.#slab.control[CONTROL_UDP_COALESCE_OFF] !== 0) return -1;
      if (l4Length <= UDP_HEADER_BYTES || udpLength(bytes, l4) !== l4Length || udpChecksum(bytes, l4) === 0) return -1;
      return distance + UDP_HEADER_BYTES;
    }
    if (protocol !== PROTOCOL_TCP || checkTcp(bytes, l4, l4Length) !== 0) return -1;
    const headers = distance + tcpHeaderLength(bytes, l4);
    return (tcpFlags(bytes, l4) & ~TCP_PSH) === TCP_ACK && total > headers ? headers : -1;
  }

  #continues(ip: number, headers: number, payload: number): boolean {
    if (this.#count === 0 || this.#count >= this.#limit || headers !== this.#headers || payload > this.#size)
      return false;
    if (this.#headers + this.#payload + payload > MAX_RUN_BYTES || !this.#table.hasRoom(1, 1)) return false;
    const { bytes } = this.#slab;
    const first = this.#ip;
    if (bytes[ip] !== bytes[first] || !(isIp6(bytes, ip) ? this.#sameHeader6(ip, first) : this.#sameHeader4(ip, first)))
      return false;
    if (get32(bytes, this.#l4(ip)) !== get32(bytes, this.#l4(first))) return false; // ports
    if (!this.#isTcp(ip)) return true;
    const l4 = this.#l4(ip);
    const firstL4 = this.#l4(first);
    if (tcpSequence(bytes, l4) !== this.#sequence || get32(bytes, l4 + 8) !== get32(bytes, firstL4 + 8)) return false;
    if (tcpWindow(bytes, l4) !== tcpWindow(bytes, firstL4)) return false; // an update would be lost
    for (let at = 20; at < headers - (l4 - ip); at += 4) {
      if (get32(bytes, l4 + at) !== get32(bytes, firstL4 + at)) return false;
    }
    return true;
  }

  /** Addresses; TOS; DF; TTL and protocol. The total length and the id may differ. */
  #sameHeader4(ip: number, first: number): boolean {
    const { bytes } = this.#slab;
    if (get32(bytes, ip + 12) !== get32(bytes, first + 12) || get32(bytes, ip + 16) !== get32(bytes, first + 16))
      return false;
    if (bytes[ip + 1] !== bytes[first + 1] || bytes[ip + 6] !== bytes[first + 6]) return false;
    return get16(bytes, ip + 8) === get16(bytes, first + 8);
  }

  /** Traffic class and flow label; next header and hop limit; addresses. The payload length may differ. */
  #sameHeader6(ip: number, first: number): boolean {
    const { bytes } = this.#slab;
    if (get32(bytes, ip) !== get32(bytes, first) || get16(bytes, ip + 6) !== get16(bytes, first + 6)) return false;
    for (let at = 8; at < IP6_HEADER_BYTES; at += 4) {
      if (get32(bytes, ip + at) !== get32(bytes, first + at)) return false;
    }
    return true;
  }

  #verified(ip: number, total: number): boolean {
    const { bytes } = this.#slab;
    const l4 = this.#l4(ip);
    const length = total - (l4 - ip);
    const protocol = this.#protocol(ip);
    const pseudo = isIp6(bytes, ip) ? pseudoSum6(bytes, ip, protocol, length) : pseudoSum4(bytes, ip, protocol, length);
    return this.#sum(l4, length, pseudo) === 0xffff;
  }

  #protocol(ip: number): number {
    const { bytes } = this.#slab;
    return bytes[ip + (isIp6(bytes, ip) ? IP6_NEXT_HEADER : IP4_PROTOCOL)];
  }

  #isTcp(ip: number): boolean {
    return this.#protocol(ip) === PROTOCOL_TCP;
  }

  #l4(ip: number): number {
    return ip + (isIp6(this.#slab.bytes, ip) ? IP6_HEADER_BYTES : IP4_HEADER_BYTES);
  }

  #setPsh(): void {
    const l4 = this.#l4(this.#ip);
    setTcpFlags(this.#slab.bytes, l4, tcpFlags(this.#slab.bytes, l4) | TCP_PSH);
  }
}
