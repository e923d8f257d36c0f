/**
 * CIDR prefixes. IPv4 addresses are unsigned 32-bit numbers, IPv6 addresses bigints. Parsing is strict: no leading zeros,
 * no whitespace, a length is required. Host bits are kept as written; `hasHostBits` asks for them, `networkOf` clears them.
 */
import { address6ToBigint, bigintToAddress6, formatAddress6, parseAddress6 } from './address6.ts';
import { formatAddress4, parseAddress4 } from './ip4.ts';

export interface Subnet4 {
  /** Unsigned 32 bits. */
  address: number;
  /** 0..32 */
  prefixLength: number;
}

export interface Subnet6 {
  /** Unsigned 128 bits. */
  address: bigint;
  /** 0..128 */
  prefixLength: number;
}

const LENGTH = /^(0|[1-9][0-9]{0,2})$/;

function parseLength(text: string, max: number): number | undefined {
  if (!LENGTH.test(text)) return undefined;
  const length = Number(text);
  return length <= max ? length : undefined;
}

/** "10.5.1.0/24" */
export function parseCidr4(text: string): Subnet4 | undefined {
  const slash = text.indexOf('/');
  if (slash < 0) return undefined;
  const address = parseAddress4(text.slice(0, slash));
  const prefixLength = parseLength(text.slice(slash + 1), 32);
  return address === undefined || prefixLength === undefined ? undefined : { address, prefixLength };
}

export function formatCidr4(subnet: Subnet4): string {
  return `${formatAddress4(subnet.address)}/${subnet.prefixLength}`;
}

/** The netmask of a prefix length 0..32, unsigned. */
export function maskOf(prefixLength: number): number {
  // A shift by 32 is a shift by 0 in JavaScript.
  return prefixLength === 0 ? 0 : (0xffff_ffff << (32 - prefixLength)) >>> 0;
}

/** Addresses in a prefix: 2^(32 - prefixLength). */
export function sizeOf(prefixLength: number): number {
  return 2 ** (32 - prefixLength);
}

/** The prefix that holds the address, host bits cleared. */
export function networkOf(subnet: Subnet4): Subnet4 {
  return { address: (subnet.address & maskOf(subnet.prefixLength)) >>> 0, prefixLength: subnet.prefixLength };
}

export function hasHostBits(subnet: Subnet4): boolean {
  return (subnet.address & ~maskOf(subnet.prefixLength)) !== 0;
}

export function contains4(subnet: Subnet4, address: number): boolean {
  return ((subnet.address ^ address) & maskOf(subnet.prefixLength)) === 0;
}

export function overlaps4(a: Subnet4, b: Subnet4): boolean {
  return a.prefixLength <= b.prefixLength ? contains4(a, b.address) : contains4(b, a.address);
}

export function equals4(a: Subnet4, b: Subnet4): boolean {
  return a.address === b.address && a.prefixLength === b.prefixLength;
}

/** The last address of the prefix. */
export function broadcast(subnet: Subnet4): number {
  return (subnet.address | ~maskOf(subnet.prefixLength)) >>> 0;
}

/** The first address that a host may have: the one behind the network's own; in a /31 or /32 the first of all. */
export function firstHost(subnet: Subnet4): number {
  const first = (subnet.address & maskOf(subnet.prefixLength)) >>> 0;
  return subnet.prefixLength >= 31 ? first : first + 1;
}

/** The number of the subnet of length `subnetLength` that holds `address`, counted from the network's first; -1 outside. */
export function subnetIndex(address: number, network: Subnet4, subnetLength: number): number {
  if (!contains4(network, address)) return -1;
  const distance = (address & ~maskOf(network.prefixLength)) >>> 0;
  return Math.floor(distance / sizeOf(subnetLength));
}

/** The inverse: subnet number `index` of the network. */
export function subnetAt(index: number, network: Subnet4, subnetLength: number): Subnet4 {
  const first = (network.address & maskOf(network.prefixLength)) >>> 0;
  return { address: first + index * sizeOf(subnetLength), prefixLength: subnetLength };
}

/** "fd00:1::/64" */
export function parseCidr6(text: string): Subnet6 | undefined {
  const slash = text.indexOf('/');
  if (slash < 0) return undefined;
  const bytes = parseAddress6(text.slice(0, slash));
  const prefixLength = parseLength(text.slice(slash + 1), 128);
  if (bytes === undefined || prefixLength === undefined) return undefined;
  return { address: address6ToBigint(bytes), prefixLength };
}

export function formatCidr6(subnet: Subnet6): string {
  return `${formatAddress6(bigintToAddress6(subnet.address))}/${subnet.prefixLength}`;
}

/** The netmask of a prefix length 0..128. */
export function maskOf6(prefixLength: number): bigint {
  return ((1n << 128n) - 1n) ^ ((1n << BigInt(128 - prefixLength)) - 1n);
}

export function networkOf6(subnet: Subnet6): Subnet6 {
  return { address: subnet.address & maskOf6(subnet.prefixLength), prefixLength: subnet.prefixLength };
}

export function hasHostBits6(subnet: Subnet6): boolean {
  return (subnet.address & maskOf6(subnet.prefixLength)) !== subnet.address;
}

export function contains6(subnet: Subnet6, address: bigint): boolean {
  return ((subnet.address ^ address) & maskOf6(subnet.prefixLength)) === 0n;
}

export function overlaps6(a: Subnet6, b: Subnet6): boolean {
  return a.prefixLength <= b.prefixLength ? contains6(a, b.address) : contains6(b, a.address);
}

export function equals6(a: Subnet6, b: Subnet6): boolean {
  return a.address === b.address && a.prefixLength === b.prefixLength;
}
