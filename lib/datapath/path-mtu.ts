/**
 * The width of the way to each peer. A datagram that the kernel refuses with EMSGSIZE is too long for the underlay's path:
 * its link became narrower, or a router on the way said so (RFC 1191, RFC 8201) and the kernel remembers it. We ask the
 * kernel what it believes, keep it in the peer's record (PEER_LIMIT), and tell the senders of longer packets before they
 * are sent. It is forgotten after ten minutes, as the kernel does (ip-sysctl.rst: route/mtu_expires), so that a path that became
 * wide again is found.
 *
 * What routers say can be forged by anyone who can guess our ports, so nothing below what every host must take is believed:
 * 576 bytes outside for IPv4 (RFC 791), 1280 for IPv6 (RFC 8200).
 */
import { IP4_HEADER_BYTES } from '../wire/ip4.ts';
import { IP6_HEADER_BYTES } from '../wire/ip6.ts';
import { HEADER_BYTES } from '../wire/tulle.ts';
import { UDP_HEADER_BYTES } from '../wire/udp.ts';
import { FORMAT_TULLE, PEER_BYTES, PEER_FORMAT, PEER_LIMIT, PEER_PROVEN, type Slab } from './slab.ts';

/** The underlay's MTU towards the struct sockaddr at this offset of the slab, as the kernel believes it; 0: it does not say. */
export type PathLookup = (addressOffset: number) => number;

const AF_INET = 2;
const LEAST_PATH4 = 576;
const LEAST_PATH6 = 1_280;
const FORGET_AFTER_MS = 10 * 60 * 1_000;

export class PathMtu {
  readonly #slab: Slab;
  readonly #lookup: PathLookup;
  readonly #now: () => number;
  /** When each peer's limit was learnt; the worker's own. */
  readonly #learntAt: Float64Array;

  constructor(slab: Slab, lookup: PathLookup, now: () => number) {
    this.#slab = slab;
    this.#lookup = lookup;
    this.#now = now;
    this.#learntAt = new Float64Array(slab.peerCapacity);
  }

  /** The limit of a peer for a packet that exceeds it: forgotten by now, if it is old. */
  limitNow(peer: number): number {
    const word = this.#word(peer);
    if (this.#now() - this.#learntAt[peer] >= FORGET_AFTER_MS) this.#slab.words[word] = this.#proven(peer);
    return this.#slab.words[word];
  }

  /** The kernel refused a datagram with an inner packet of `tried` bytes. Learns and returns the limit; it may not be lower. */
  learn(peer: number, tried: number): number {
    const { words } = this.#slab;
    const record = (this.#slab.peersOffset + peer * PEER_BYTES) >> 2;
    const four = (words[record] & 0xffff) === AF_INET;
    const least = four ? LEAST_PATH4 : LEAST_PATH6;
    const overhead =
      (four ? IP4_HEADER_BYTES : IP6_HEADER_BYTES) +
      UDP_HEADER_BYTES +
      (words[record + PEER_FORMAT] === FORMAT_TULLE ? HEADER_BYTES : 0);
    const path = this.#lookup(this.#slab.peersOffset + peer * PEER_BYTES);
    let limit = Math.max(path, least) - overhead;
    // The kernel's word and its deed disagree: something narrower than the path is in between. Halve until it fits.
    if (path === 0 || limit >= tried) limit = Math.max(least - overhead, tried >> 1);
    words[this.#word(peer)] = limit;
    this.#learntAt[peer] = this.#now();
    return limit;
  }

  /** What probes found does not grow old here: they look again by themselves. */
  #proven(peer: number): number {
    return this.#slab.words[((this.#slab.peersOffset + peer * PEER_BYTES) >> 2) + PEER_PROVEN];
  }

  #word(peer: number): number {
    return ((this.#slab.peersOffset + peer * PEER_BYTES) >> 2) + PEER_LIMIT;
  }
}
