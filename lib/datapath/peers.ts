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
import type { Subnet4 } from '../wire/cidr.ts';
import { formatCidr4, maskOf } from '../wire/cidr.ts';
import {
  CONTROL_EPOCH,
  CONTROL_HASH,
  NO_LEASE,
  NO_LIMIT,
  OWN_SUBNET,
  PEER_ADDRESS,
  PEER_BYTES,
  PEER_FORMAT,
  PEER_KEY,
  PEER_LIMIT,
  PEER_MASK,
  PEER_PORT,
  PEER_SUBNET,
  type Slab,
} from './slab.ts';

const AF_INET = 2;

export interface Network {
  network: Subnet4;
  /** Prefix length of every subnet in the network. */
  subnetLength: number;
}

export interface Peer {
  subnet: Subnet4;
  /** The endpoint: an IPv4 address as a number, and a UDP port. */
  address: number;
  port: number;
  /** The lease key that this peer's datagrams must carry. */
  key: number;
  /** FORMAT_BARE or FORMAT_TULLE. */
  format: number;
}

export const subnetCountOf = (network: Network): number => 2 ** (network.subnetLength - network.network.prefixLength);

/** Where the search for an endpoint begins. */
export function endpointHash(address: number, port: number, mask: number): number {
  const mixed = Math.imul(address ^ (port << 16) ^ port, 0x9e3779b1);
  return (mixed ^ (mixed >>> 15)) & mask;
}

/** The number of the peer with this endpoint, or -1. */
export function findPeer(slab: Slab, address: number, port: number): number {
  const hash = slab.hashes[slab.control[CONTROL_HASH] === 0 ? 0 : 1];
  const mask = hash.length - 1;
  for (let at = endpointHash(address, port, mask); hash[at] !== 0; at = (at + 1) & mask) {
    const peer = hash[at] - 1;
    const word = (slab.peersOffset + peer * PEER_BYTES) >> 2;
    if (slab.words[word + PEER_ADDRESS] === (address | 0) && slab.words[word + PEER_PORT] === port) return peer;
  }
  return -1;
}

export class PeerTable {
  readonly #slab: Slab;
  readonly #network: Network;
  /** Peers that are known, by the number of their subnet. */
  readonly #live = new Map<number, { place: number; peer: Peer }>();
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

  /** Says which subnet is this node's own. */
  own(subnet: Subnet4): void {
    Atomics.store(this.#slab.routes, this.#indexOf(subnet), OWN_SUBNET);
  }

  /**
   * Makes these peers known (or replaces what was known of their subnets) and forgets those of the removed subnets,
   * in one step, because the endpoint hash is rebuilt once for all of them. Forgetting an unknown peer is fine. When it
   * throws (a subnet that is none of the network; 'peers-full'), nothing has changed.
   */
  update(puts: readonly Peer[], removals: readonly Subnet4[]): void {
    this.#checkRoom(puts.length);
    for (const subnet of [...removals, ...puts.map(peer => peer.subnet)]) this.#indexOf(subnet);
    const gone: number[] = [];
    const forget = (index: number): void => {
      const before = this.#live.get(index);
      if (before !== undefined) gone.push(before.place);
    };
    for (const subnet of removals) {
      const index = this.#indexOf(subnet);
      forget(index);
      if (this.#live.delete(index)) Atomics.store(this.#slab.routes, index, NO_LEASE);
    }
    const linked: [number, number][] = [];
    for (const peer of puts) {
      const index = this.#indexOf(peer.subnet);
      const place = this.#takePlace();
      this.#write(place, peer);
      forget(index);
      this.#live.set(index, { place, peer });
      linked.push([index, place]);
    }
    this.#publishHash();
    for (const [index, place] of linked) Atomics.store(this.#slab.routes, index, place);
    const epoch = Atomics.load(this.#slab.control, CONTROL_EPOCH);
    for (const place of gone) this.#unlinked.push({ place, epoch });
  }

  /** Forgets how narrow the ways to the peers are: the worker learns it again. */
  forgetLimits(): void {
    for (const { place } of this.#live.values()) {
      Atomics.store(this.#slab.words, ((this.#slab.peersOffset + place * PEER_BYTES) >> 2) + PEER_LIMIT, NO_LIMIT);
    }
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

  #write(place: number, peer: Peer): void {
    const offset = this.#slab.peersOffset + place * PEER_BYTES;
    const bytes = this.#slab.bytes;
    bytes.fill(0, offset, offset + PEER_BYTES);
    // struct sockaddr_in (linux/in.h): family in the machine's order, port and address in the network's.
    new Uint16Array(bytes.buffer, offset, 1)[0] = AF_INET;
    bytes[offset + 2] = peer.port >>> 8;
    bytes[offset + 3] = peer.port;
    for (let i = 0; i < 4; i++) bytes[offset + 4 + i] = peer.address >>> (24 - 8 * i);
    const word = offset >> 2;
    const words = this.#slab.words;
    words[word + PEER_KEY] = peer.key;
    words[word + PEER_SUBNET] = peer.subnet.address;
    words[word + PEER_MASK] = maskOf(peer.subnet.prefixLength);
    words[word + PEER_ADDRESS] = peer.address;
    words[word + PEER_PORT] = peer.port;
    words[word + PEER_FORMAT] = peer.format;
    words[word + PEER_LIMIT] = NO_LIMIT;
  }

  /** Rebuilds the hash that is not in use and makes it the valid one. */
  #publishHash(): void {
    const next = this.#slab.control[CONTROL_HASH] === 0 ? 1 : 0;
    const hash = this.#slab.hashes[next];
    const mask = hash.length - 1;
    hash.fill(0);
    for (const { place, peer } of this.#live.values()) {
      let at = endpointHash(peer.address, peer.port, mask);
      while (hash[at] !== 0 && !this.#isEndpoint(hash[at] - 1, peer)) at = (at + 1) & mask;
      // A node whose subnet changed has two leases until the old one expires: the newer one is what it speaks for.
      if (hash[at] === 0 || this.#keyAt(hash[at] - 1) <= peer.key) hash[at] = place + 1;
    }
    Atomics.store(this.#slab.control, CONTROL_HASH, next);
  }

  #isEndpoint(place: number, peer: Peer): boolean {
    const word = (this.#slab.peersOffset + place * PEER_BYTES) >> 2;
    return (
      this.#slab.words[word + PEER_ADDRESS] === (peer.address | 0) && this.#slab.words[word + PEER_PORT] === peer.port
    );
  }

  #keyAt(place: number): number {
    return this.#slab.words[((this.#slab.peersOffset + place * PEER_BYTES) >> 2) + PEER_KEY] >>> 0;
  }
}
