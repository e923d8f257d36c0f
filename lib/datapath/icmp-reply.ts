/**
 * ICMP errors of our own: what the sender of a packet is told when it goes no further. They are written to the TUN, so that
 * the node's kernel takes them as news from beyond the tunnel and forwards them to the pod, or to the process on the node.
 *
 * Their source decides whether they arrive. A local address (flannel takes the device's own) is a martian source for the
 * kernel (fib_frontend.c: __fib_validate_source), and with rp_filter=1 so is every address that it would not send to
 * through the TUN. An address of the pod network outside our own subnet is neither. We take the network's first, which by
 * default no node gets, so that a traceroute shows the crossing as a hop of its own; if it lies in our subnet, the last.
 */
import { broadcast, contains4, contains6, maskOf6 } from '../wire/cidr.ts';
import { checkSuperHeaders, isIp6, rewriteSegment, superHeaderLength, totalLength } from '../wire/either.ts';
import {
  emitError4,
  emitError6,
  ICMP4_FRAGMENTATION_NEEDED,
  ICMP4_HOST_UNREACHABLE,
  ICMP4_NET_UNREACHABLE,
  ICMP4_TIME_EXCEEDED,
  ICMP4_UNREACHABLE,
  ICMP6_ADDRESS_UNREACHABLE,
  ICMP6_ERROR_MAX_BYTES,
  ICMP6_NO_ROUTE,
  ICMP6_PACKET_TOO_BIG,
  ICMP6_TIME_EXCEEDED,
  ICMP6_UNREACHABLE,
  mayReport4,
  mayReport6,
} from '../wire/icmp.ts';
import { bigintToAddress6 } from '../wire/ip6.ts';
import { emitVnet, VNET_GSO_NONE, VNET_HEADER_BYTES } from '../wire/vnet.ts';
import { flowIndex } from './counters.ts';
import type { Network, Own } from './peers.ts';
import { IOV_WORDS, PACKET_WORDS, REPLY_BYTES, SLOTS, type Slab, TUN_READ_OFFSET } from './slab.ts';

/** Hands `count` packets of the slab's reply table to the TUN, returns how many it took. */
export type WriteReplies = (count: number) => number;

/** What is reported. */
export const NO_ROUTE = 0;
export const NO_HOST = 1;
export const TIME_EXCEEDED = 2;
export const TOO_BIG = 3;

const TYPES4 = [ICMP4_UNREACHABLE, ICMP4_UNREACHABLE, ICMP4_TIME_EXCEEDED, ICMP4_UNREACHABLE];
const CODES4 = [ICMP4_NET_UNREACHABLE, ICMP4_HOST_UNREACHABLE, 0, ICMP4_FRAGMENTATION_NEEDED];
const TYPES6 = [ICMP6_UNREACHABLE, ICMP6_UNREACHABLE, ICMP6_TIME_EXCEEDED, ICMP6_PACKET_TOO_BIG];
const CODES6 = [ICMP6_NO_ROUTE, ICMP6_ADDRESS_UNREACHABLE, 0, 0];
/** A host need not believe in less (RFC 8201 §4), and must be able to send as much (RFC 8200 §5). */
const LEAST_MTU6 = 1_280;

/** A token bucket for the whole node, as the kernel's own (icmp_msgs_per_sec, icmp_msgs_burst in ip-sysctl.rst). */
const PER_SECOND = 1_000;
const BURST = 50;

const SENT = flowIndex('icmp-sent');
const LIMITED = flowIndex('icmp-limited');

/** The address that our errors come from: of the network, and not of our own subnet. */
export function replySource4({ network }: Network, { subnet }: Own): number {
  return contains4(subnet, network.address) ? broadcast(network) : network.address;
}

/** The same for IPv6; undefined in a network without it. */
export function replySource6({ network6 }: Network, { subnet6 }: Own): Uint8Array | undefined {
  if (network6 === undefined) return undefined;
  const isOwn = subnet6 !== undefined && contains6(subnet6, network6.address);
  const last = network6.address | (maskOf6(128) ^ maskOf6(network6.prefixLength));
  return bigintToAddress6(isOwn ? last : network6.address);
}

export class IcmpReply {
  readonly #slab: Slab;
  readonly #source4: number;
  readonly #source6: Uint8Array | undefined;
  readonly #write: WriteReplies;
  readonly #now: () => number;
  #count = 0;
  #tokens = BURST;
  #filledAt: number;

  /** `now`: milliseconds of a clock that nobody sets; asked once a report, not once a packet. */
  constructor(slab: Slab, network: Network, own: Own, write: WriteReplies, now: () => number) {
    this.#slab = slab;
    this.#source4 = replySource4(network, own);
    this.#source6 = replySource6(network, own);
    this.#write = write;
    this.#now = now;
    this.#filledAt = now();
  }

  /**
   * Reports about the checked packet at `ip`, which stays as it is. `segmentSize`: of a super-packet (else 0); then its
   * first segment is quoted, because that is what its sender knows. `mtu`: for TOO_BIG.
   */
  report(what: number, ip: number, segmentSize: number, mtu: number): void {
    const { bytes, counters } = this.#slab;
    const six = isIp6(bytes, ip);
    if (six ? !mayReport6(bytes, ip, TYPES6[what]) : !mayReport4(bytes, ip)) return;
    if (!this.#takeToken()) {
      counters[LIMITED]++;
      return;
    }
    if (this.#count === SLOTS) this.flush();
    const about = segmentSize === 0 ? ip : this.#firstSegment(ip, segmentSize);
    const quotable = Math.min(totalLength(bytes, about), ICMP6_ERROR_MAX_BYTES);
    const vnet = this.#slab.repliesOffset + this.#count * REPLY_BYTES + TUN_READ_OFFSET;
    const at = vnet + VNET_HEADER_BYTES;
    emitVnet(bytes, vnet, 0, VNET_GSO_NONE, 0, 0, 0, 0);
    const length = six ? this.#emit6(at, what, mtu, about, quotable) : this.#emit4(at, what, mtu, about, quotable);
    this.#add(vnet, VNET_HEADER_BYTES + length);
  }

  #emit4(at: number, what: number, mtu: number, about: number, quotable: number): number {
    const { bytes } = this.#slab;
    const rest = what === TOO_BIG ? mtu : 0;
    return emitError4(bytes, at, TYPES4[what], CODES4[what], rest, this.#source4, bytes, about, quotable);
  }

  #emit6(at: number, what: number, mtu: number, about: number, quotable: number): number {
    const { bytes } = this.#slab;
    const rest = what === TOO_BIG ? Math.max(mtu, LEAST_MTU6) : 0;
    // Packets of IPv6 come this far only in a network that has it.
    return emitError6(bytes, at, TYPES6[what], CODES6[what], rest, this.#source6!, bytes, about, quotable);
  }

  /** Writes what is due. */
  flush(): void {
    const count = this.#count;
    if (count === 0) return;
    this.#count = 0;
    // A refused one (the device is down) is a message that gets lost, as any message of ICMP may.
    this.#slab.counters[SENT] += this.#write(count);
  }

  #add(offset: number, length: number): void {
    const { words } = this.#slab;
    const packet = (this.#slab.replyPacketsOffset >> 2) + this.#count * PACKET_WORDS;
    words[packet] = this.#count;
    words[packet + 1] = 1;
    words[packet + 2] = 0;
    const iov = (this.#slab.replyIovsOffset >> 2) + this.#count * IOV_WORDS;
    words[iov] = offset;
    words[iov + 1] = length;
    this.#count++;
  }

  /** A copy of a super-packet's beginning whose headers are those of its first segment. */
  #firstSegment(ip: number, segmentSize: number): number {
    const { bytes } = this.#slab;
    const total = totalLength(bytes, ip);
    if (checkSuperHeaders(bytes, ip, total) !== 0) return ip;
    const inner = superHeaderLength(bytes, ip);
    // Extension headers can be longer than what is quoted: then there is no L4 header in it to be rewritten.
    if (inner > ICMP6_ERROR_MAX_BYTES) return ip;
    const copy = this.#slab.repliesOffset + SLOTS * REPLY_BYTES;
    bytes.copyWithin(copy, ip, ip + Math.min(total, ICMP6_ERROR_MAX_BYTES));
    const payload = Math.min(segmentSize, total - inner);
    rewriteSegment(bytes, copy, inner, 0, segmentSize, payload, payload === total - inner);
    return copy;
  }

  #takeToken(): boolean {
    const now = this.#now();
    this.#tokens = Math.min(BURST, this.#tokens + ((now - this.#filledAt) * PER_SECOND) / 1_000);
    this.#filledAt = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
