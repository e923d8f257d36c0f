/**
 * From an IPv6 address in a packet to the number of its subnet. As with IPv4 all subnets of a network have one length, so
 * the bits between the network's length and theirs are an index. They are at most 20 (lease/config.ts), so four bytes hold them.
 */
import { get32 } from '../wire/bytes.ts';
import type { Subnet6 } from '../wire/cidr.ts';

interface Network6 {
  network6?: Subnet6;
  subnetLength6?: number;
}

export class Route6 {
  /** The network's four words, and which of their bits count. */
  readonly #words = new Int32Array(4);
  readonly #masks = new Int32Array(4);
  /** Where the four bytes with the index begin, and how they are shifted. */
  readonly #byte: number;
  readonly #left: number;
  readonly #right: number;

  constructor(network: Subnet6, subnetLength: number) {
    for (let i = 0; i < 4; i++) {
      const bits = Math.min(32, Math.max(0, network.prefixLength - 32 * i));
      this.#masks[i] = bits === 0 ? 0 : -1 << (32 - bits);
      this.#words[i] = Number((network.address >> BigInt(96 - 32 * i)) & 0xffff_ffffn) & this.#masks[i];
    }
    this.#byte = Math.min(12, network.prefixLength >> 3);
    this.#left = network.prefixLength - 8 * this.#byte;
    this.#right = 32 - (subnetLength - network.prefixLength);
  }

  /** The number of the subnet that holds the address at `at`, counted from the network's first; -1 outside. */
  index(bytes: Uint8Array, at: number): number {
    const words = this.#words;
    const masks = this.#masks;
    if (((get32(bytes, at) ^ words[0]) & masks[0]) !== 0 || ((get32(bytes, at + 4) ^ words[1]) & masks[1]) !== 0)
      return -1;
    if (((get32(bytes, at + 8) ^ words[2]) & masks[2]) !== 0 || ((get32(bytes, at + 12) ^ words[3]) & masks[3]) !== 0)
      return -1;
    // A shift by 32 is none: a network that is one subnet has index 0 only.
    return this.#right === 32 ? 0 : (get32(bytes, at + this.#byte) << this.#left) >>> this.#right;
  }
}

/** The number of a subnet of the network; -1 when it is none. */
export function subnetIndex6(subnet: Subnet6, network: Subnet6, subnetLength: number): number {
  const host = BigInt(128 - subnetLength);
  const distance = subnet.address - network.address;
  if (subnet.prefixLength !== subnetLength || distance < 0n || distance >> BigInt(128 - network.prefixLength) !== 0n)
    return -1;
  return (distance >> host) << host === distance ? Number(distance >> host) : -1;
}

/** What leads to the IPv6 subnets of a network; undefined when it has none. */
export function route6Of({ network6, subnetLength6 }: Network6): Route6 | undefined {
  return network6 === undefined || subnetLength6 === undefined ? undefined : new Route6(network6, subnetLength6);
}

/** `subnetIndex6`, where each of its arguments may be missing. */
export function indexOf6(subnet: Subnet6 | undefined, { network6, subnetLength6 }: Network6): number {
  if (subnet === undefined || network6 === undefined || subnetLength6 === undefined) return -1;
  return subnetIndex6(subnet, network6, subnetLength6);
}

/** True for an address that no router may send on: multicast, or link-local (RFC 4291 §2.7, §2.5.6), or none at all. */
export function staysOnLink6(bytes: Uint8Array, at: number): boolean {
  const first = bytes[at];
  if (first === 0xff) return true;
  if (first === 0xfe) return (bytes[at + 1] & 0xc0) === 0x80;
  return first === 0 && isUnspecifiedOrLoopback(bytes, at);
}

function isUnspecifiedOrLoopback(bytes: Uint8Array, at: number): boolean {
  for (let i = 1; i < 15; i++) if (bytes[at + i] !== 0) return false;
  return bytes[at + 15] <= 1;
}
