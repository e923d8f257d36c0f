/**
 * ICMP errors of our own: what the sender of a packet is told when it goes no further. They are written to the TUN, so that
 * the node's kernel takes them as news from beyond the tunnel and forwards them to the pod, or to the process on the node.
 *
 * Their source decides whether they arrive. A local address (flannel takes the device's own) is a martian source for the
 * kernel (fib_frontend.c: __fib_validate_source), and with rp_filter=1 so is every address that it would not send to
 * through the TUN. An address of the pod network outside our own subnet is neither. We take the network's first, which by
 * default no node gets, so that a traceroute shows the crossing as a hop of its own; if it lies in our subnet, the last.
 */
import { broadcast, contains4, type Subnet4 } from '../wire/cidr.ts';
import { checkSuperHeaders4, rewriteSegment4, superHeaderLength4 } from '../wire/gso.ts';
import {
  emitError4,
  ICMP4_FRAGMENTATION_NEEDED,
  ICMP4_HOST_UNREACHABLE,
  ICMP4_NET_UNREACHABLE,
  ICMP4_TIME_EXCEEDED,
  ICMP4_UNREACHABLE,
  ICMP6_ERROR_MAX_BYTES,
  mayReport4,
} from '../wire/icmp.ts';
import { ip4TotalLength } from '../wire/ip4.ts';
import { emitVnet, VNET_GSO_NONE, VNET_HEADER_BYTES } from '../wire/vnet.ts';
import { flowIndex } from './counters.ts';
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

/** A token bucket for the whole node, as the kernel's own (icmp_msgs_per_sec, icmp_msgs_burst in ip-sysctl.rst). */
const PER_SECOND = 1_000;
const BURST = 50;

const SENT = flowIndex('icmp-sent');
const LIMITED = flowIndex('icmp-limited');

/** The address that our errors come from: of the network, and not of our own subnet. */
export function replySource4(network: Subnet4, own: Subnet4): number {
  return contains4(own, network.address) ? broadcast(network) : network.address;
}

export class IcmpReply {
  readonly #slab: Slab;
  readonly #source4: number;
  readonly #write: WriteReplies;
  readonly #now: () => number;
  #count = 0;
  #tokens = BURST;
  #filledAt: number;

  /** `now`: milliseconds of a clock that nobody sets; asked once a report, not once a packet. */
  constructor(slab: Slab, network: Subnet4, own: Subnet4, write: WriteReplies, now: () => number) {
    this.#slab = slab;
    this.#source4 = replySource4(network, own);
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
    if (!mayReport4(bytes, ip)) return;
    if (!this.#takeToken()) {
      counters[LIMITED]++;
      return;
    }
    if (this.#count === SLOTS) this.flush();
    const about = segmentSize === 0 ? ip : this.#firstSegment(ip, segmentSize);
    const quotable = Math.min(ip4TotalLength(bytes, about), ICMP6_ERROR_MAX_BYTES);
    const vnet = this.#slab.repliesOffset + this.#count * REPLY_BYTES + TUN_READ_OFFSET;
    const at = vnet + VNET_HEADER_BYTES;
    emitVnet(bytes, vnet, 0, VNET_GSO_NONE, 0, 0, 0, 0);
    const rest = what === TOO_BIG ? mtu : 0;
    const length = emitError4(bytes, at, TYPES4[what], CODES4[what], rest, this.#source4, bytes, about, quotable);
    this.#add(vnet, VNET_HEADER_BYTES + length);
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
    const total = ip4TotalLength(bytes, ip);
    if (checkSuperHeaders4(bytes, ip, total) !== 0) return ip;
    const copy = this.#slab.repliesOffset + SLOTS * REPLY_BYTES;
    bytes.copyWithin(copy, ip, ip + Math.min(total, ICMP6_ERROR_MAX_BYTES));
    const inner = superHeaderLength4(bytes, ip);
    const payload = Math.min(segmentSize, total - inner);
    rewriteSegment4(bytes, copy, inner, 0, segmentSize, payload, payload === total - inner);
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
