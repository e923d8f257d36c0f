/**
 * The peers of a data path and the route table that leads to them.
 *
 * All subnets of a network have one length, so a destination's subnet number indexes `routes` directly: no trie, one load.
 * One thread writes (the control plane), one reads (the worker), without a lock:
 *   - a peer's record is never changed while it can be found; a change takes a new record and swaps the numbers that
 *     lead to it (record first, then hash, then route);
 *   - a record that was unlinked is used again only after the worker has begun another turn (CONTROL_EPOCH), so no batch
 *     in progress sees it change.
 */
import { TulleError } from '../util/errors.ts';
import { set32 } from '../wire/bytes.ts';
import type { Subnet4, Subnet6 } from '../wire/cidr.ts';
import { formatCidr4, formatCidr6, maskOf } from '../wire/cidr.ts';
import { formatAddress4 } from '../wire/ip4.ts';
import { formatAddress6 } from '../wire/ip6.ts';
import { indexOf6 } from './route6.ts';
import {
  CONTROL_EPOCH,
  CONTROL_HASH,
  NO_LEASE,
  NO_LIMIT,
  OWN_SUBNET,
  PEER_BYTES,
  PEER_FORMAT,
  PEER_HEARD,
  PEER_INDEX6,
  PEER_KEY,
  PEER_LIMIT,
  PEER_MASK,
  PEER_PROVEN,
  PEER_SUBNET,
  type Slab,
} from './slab.ts';

const AF_INET = 2;
const AF_INET6 = 10;

export interface Network {
  network: Subnet4;
  /** Prefix length of every subnet in the network. */
  subnetLength: number;
  /** The same for IPv6, in a dual-stack network. */
  network6?: Subnet6;
  subnetLength6?: number;
}

/** What this node holds itself. */
export interface Own {
  subnet: Subnet4;
  subnet6?: Subnet6;
}

export interface Peer {
  subnet: Subnet4;
  subnet6?: Subnet6;
  /** The endpoint: an IPv4 address as a number, or the 16 bytes of an IPv6 address; and a UDP port. */
  address: number | Uint8Array;
  port: number;
  /** The lease key that this peer's datagrams must carry. */
  key: number;
  /** FORMAT_BARE or FORMAT_TULLE. */
  format: number;
}

export const subnetCountOf = (network: Network): number => 2 ** (network.subnetLength - network.network.prefixLength);
/** 0 in a network without IPv6. */
export const subnetCount6Of = ({ network6, subnetLength6 }: Network): number =>
  network6 === undefined || subnetLength6 === undefined ? 0 : 2 ** (subnetLength6 - network6.prefixLength);

// An endpoint is a struct sockaddr_in or sockaddr_in6 (linux/in.h, in6.h), named by the index of its first word. That word
// holds family and port; the address is word 1, or words 2 to 5. Flow label and scope do not count.

/** Where the search for an endpoint begins. */
function endpointHash(words: Int32Array, at: number, mask: number): number {
  let mixed = Math.imul(words[at], 0x85ebca6b);
  if ((words[at] & 0xffff) === AF_INET) mixed ^= words[at + 1];
  else for (let i = 2; i < 6; i++) mixed = Math.imul(mixed ^ words[at + i], 0xc2b2ae35);
  mixed = Math.imul(mixed, 0x9e3779b1);
  return (mixed ^ (mixed >>> 15)) & mask;
}

function sameEndpoint(words: Int32Array, a: number, b: number): boolean {
  if (words[a] !== words[b]) return false;
  if ((words[a] & 0xffff) === AF_INET) return words[a + 1] === words[b + 1];
  for (let i = 2; i < 6; i++) if (words[a + i] !== words[b + i]) return false;
  return true;
}

/** The number of the peer whose endpoint is the struct sockaddr at this word of the slab, or -1. */
export function findPeer(slab: Slab, address: number): number {
  const { words } = slab;
  const hash = slab.hashes[slab.control[CONTROL_HASH] === 0 ? 0 : 1];
  const mask = hash.length - 1;
  for (let at = endpointHash(words, address, mask); hash[at] !== 0; at = (at + 1) & mask) {
    const peer = hash[at] - 1;
    if (sameEndpoint(words, (slab.peersOffset + peer * PEER_BYTES) >> 2, address)) return peer;
  }
  return -1;
}

/** Writes an endpoint as a struct sockaddr: family in the machine's order, port and address in the network's. 32 bytes. */
export function writeEndpoint(bytes: Uint8Array, offset: number, address: number | Uint8Array, port: number): void {
  bytes.fill(0, offset, offset + 32);
  // All of Node's Linux machines that we serve are little-endian (wire/vnet.ts).
  bytes[offset] = typeof address === 'number' ? AF_INET : AF_INET6;
  bytes[offset + 2] = port >>> 8;
  bytes[offset + 3] = port;
  if (typeof address === 'number') set32(bytes, offset + 4, address);
  else bytes.set(address, offset + 8);
}

/** "10.88.0.1:8285" or "[2001:db8::1]:8285". */
export function printEndpoint({ address, port }: Pick<Peer, 'address' | 'port'>): string {
  return typeof address === 'number' ? `${formatAddress4(address)}:${port}` : `[${formatAddress6(address, 0)}]:${port}`;
}

export class PeerTable {
  readonly #slab: Slab;
  readonly #network: Network;
  /** Peers that are known, by the number of their subnet. */
  readonly #live = new Map<number, { place: number; peer: Peer; index6: number }>();
  #fresh = 0;
  /** Places to be used again, each with the epoch in which it was unlinked. */
  readonly #unlinked: { place: number; epoch: number }[] = [];

  constructor(slab: Slab, network: Network) {
    this.#slab = slab;
    this.#network = network;
  }

  get size(): number {
    return this.#live.size;
  }

  /** Says which subnets are this node's own. */
  own({ subnet, subnet6 }: Own): void {
    const [index, index6] = [this.#indexOf(subnet), this.#index6Of(subnet6)];
    Atomics.store(this.#slab.routes, index, OWN_SUBNET);
    if (index6 >= 0) Atomics.store(this.#slab.routes6, index6, OWN_SUBNET);
  }

  /**
   * Makes these peers known (or replaces what was known of their subnets) and forgets those of the removed (IPv4) subnets,
   * in one step, because the endpoint hash is rebuilt once for all of them. Forgetting an unknown peer is fine. When it
   * throws (a subnet that is none of the network; 'peers-full'), nothing has changed.
   */
  update(puts: readonly Peer[], removals: readonly Subnet4[]): void {
    this.#checkRoom(puts.length);
    for (const subnet of [...removals, ...puts.map(peer => peer.subnet)]) this.#indexOf(subnet);
    for (const peer of puts) this.#index6Of(peer.subnet6);
    const { routes, routes6 } = this.#slab;
    const gone: number[] = [];
    const forget = (index: number): void => {
      const before = this.#live.get(index);
      if (before === undefined) return;
      gone.push(before.place);
      this.#live.delete(index);
      if (before.index6 >= 0 && routes6[before.index6] === before.place)
        Atomics.store(routes6, before.index6, NO_LEASE);
    };
    for (const subnet of removals) {
      const index = this.#indexOf(subnet);
      if (!this.#live.has(index)) continue;
      forget(index);
      Atomics.store(routes, index, NO_LEASE);
    }
    const linked: { index: number; index6: number; place: number }[] = [];
    for (const peer of puts) {
      const [index, index6] = [this.#indexOf(peer.subnet), this.#index6Of(peer.subnet6)];
      const place = this.#takePlace();
      this.#write(place, peer, index6);
      const before = this.#live.get(index);
      // The same IPv6 subnet goes straight from the old place to the new one.
      if (before !== undefined && before.index6 === index6) gone.push(before.place);
      else forget(index);
      this.#live.set(index, { place, peer, index6 });
      linked.push({ index, index6, place });
    }
    this.#publishHash();
    for (const { index, index6, place } of linked) {
      Atomics.store(routes, index, place);
      if (index6 >= 0) Atomics.store(routes6, index6, place);
    }
    const epoch = Atomics.load(this.#slab.control, CONTROL_EPOCH);
    for (const place of gone) this.#unlinked.push({ place, epoch });
  }

  /** Forgets how narrow the ways to the peers are: the worker learns it again. */
  forgetLimits(): void {
    for (const { place } of this.#live.values()) {
      this.#setLimit(place, NO_LIMIT);
    }
  }

  /** Probes have proven what the largest inner packet is that crosses to the peer of this (IPv4) subnet; NO_LIMIT: any. */
  setProven(subnet: Subnet4, limit: number): void {
    const live = this.#live.get(this.#indexOf(subnet));
    if (live !== undefined) this.#setLimit(live.place, limit);
  }

  /** What the worker knows of the way to the peer of this subnet: `heard` is CONTROL_CLOCK's time, 0 for never. */
  wayTo(subnet: Subnet4): { limit: number; heard: number } | undefined {
    const live = this.#live.get(this.#indexOf(subnet));
    if (live === undefined) return undefined;
    const word = this.#wordAt(live.place);
    const load = (field: number): number => Atomics.load(this.#slab.words, word + field);
    return { limit: load(PEER_LIMIT), heard: load(PEER_HEARD) };
  }

  /** The first is what it falls back to when the second, which the worker narrows, has grown old. */
  #setLimit(place: number, limit: number): void {
    const word = this.#wordAt(place);
    Atomics.store(this.#slab.words, word + PEER_PROVEN, limit);
    Atomics.store(this.#slab.words, word + PEER_LIMIT, limit);
  }

  peers(): Peer[] {
    return [...this.#live.values()].map(entry => entry.peer);
  }

  #indexOf(subnet: Subnet4): number {
    const { network, subnetLength } = this.#network;
    const inside = (subnet.address & maskOf(network.prefixLength)) >>> 0 === network.address;
    if (subnet.prefixLength !== subnetLength || !inside) {
      throw new TulleError(
        'bad-subnet',
        `${formatCidr4(subnet)} is no /${subnetLength} subnet of ${formatCidr4(network)}`,
      );
    }
    return (subnet.address - network.address) / 2 ** (32 - subnetLength);
  }

  /** -1 without an IPv6 subnet. */
  #index6Of(subnet: Subnet6 | undefined): number {
    if (subnet === undefined) return -1;
    const { network6, subnetLength6 } = this.#network;
    const index = indexOf6(subnet, this.#network);
    if (index >= 0) return index;
    const where = network6 === undefined ? 'a network without IPv6' : `${formatCidr6(network6)}`;
    throw new TulleError('bad-subnet', `${formatCidr6(subnet)} is no /${subnetLength6 ?? '?'} subnet of ${where}`);
  }

  /** The turn in progress when a place was unlinked may still look at it; the next one began after. */
  #isFree(unlinked: { epoch: number }): boolean {
    return unlinked.epoch !== Atomics.load(this.#slab.control, CONTROL_EPOCH);
  }

  #takePlace(): number {
    const oldest = this.#unlinked[0];
    if (oldest === undefined || !this.#isFree(oldest)) return this.#fresh++;
    this.#unlinked.shift();
    return oldest.place;
  }

  #checkRoom(places: number): void {
    const unlinked = this.#unlinked.filter(place => this.#isFree(place)).length;
    if (places <= this.#slab.peerCapacity - this.#fresh + unlinked) return;
    throw new TulleError(
      'peers-full',
      'too many peers changed at once for the data path; they are applied again shortly',
    );
  }

  #write(place: number, peer: Peer, index6: number): void {
    const offset = this.#slab.peersOffset + place * PEER_BYTES;
    this.#slab.bytes.fill(0, offset, offset + PEER_BYTES);
    writeEndpoint(this.#slab.bytes, offset, peer.address, peer.port);
    const word = offset >> 2;
    const words = this.#slab.words;
    words[word + PEER_KEY] = peer.key;
    words[word + PEER_SUBNET] = peer.subnet.address;
    words[word + PEER_MASK] = maskOf(peer.subnet.prefixLength);
    words[word + PEER_FORMAT] = peer.format;
    words[word + PEER_INDEX6] = index6;
    words[word + PEER_LIMIT] = NO_LIMIT;
    words[word + PEER_PROVEN] = NO_LIMIT;
  }

  /** Rebuilds the hash that is not in use and makes it the valid one. */
  #publishHash(): void {
    const next = this.#slab.control[CONTROL_HASH] === 0 ? 1 : 0;
    const hash = this.#slab.hashes[next];
    const mask = hash.length - 1;
    hash.fill(0);
    const { words } = this.#slab;
    for (const { place, peer } of this.#live.values()) {
      const word = this.#wordAt(place);
      let at = endpointHash(words, word, mask);
      while (hash[at] !== 0 && !sameEndpoint(words, this.#wordAt(hash[at] - 1), word)) at = (at + 1) & mask;
      // A node whose subnet changed has two leases until the old one expires: the newer one is what it speaks for.
      if (hash[at] === 0 || words[this.#wordAt(hash[at] - 1) + PEER_KEY] >>> 0 <= peer.key) hash[at] = place + 1;
    }
    Atomics.store(this.#slab.control, CONTROL_HASH, next);
  }

  /** The first word of a place's record. */
  #wordAt(place: number): number {
    return (this.#slab.peersOffset + place * PEER_BYTES) >> 2;
  }
}
