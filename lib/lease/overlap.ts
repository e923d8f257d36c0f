// Which subnets overlap. Two prefixes overlap exactly when one contains the other, so a table of prefixes answers in a
// handful of look-ups: one for each prefix length in use, which in a network is one.
import { hasHostBits, hasHostBits6, maskOf, maskOf6, type Subnet4 } from '../wire/cidr.ts';
import type { LeaseSubnets } from './lease.ts';

export interface OverlapIndex<V> {
  add(subnets: LeaseSubnets, value: V | undefined): void;
  /** Somebody who overlaps these subnets in IPv4 or IPv6, or undefined. */
  find(subnets: LeaseSubnets): { value: V | undefined } | undefined;
}

/** Why these subnets cannot be leased by anybody, or undefined when they can. */
export function subnetProblem({ subnet, subnet6 }: LeaseSubnets): string | undefined {
  if (isEmpty4(subnet) && subnet6 === undefined) return 'has no subnet';
  if (!isEmpty4(subnet)) {
    if (!isPrefixLength(subnet.prefixLength, 32)) return 'has an IPv4 prefix that is no prefix';
    if (hasHostBits(subnet)) return 'has IPv4 address bits below its prefix';
  }
  if (subnet6 !== undefined) {
    if (!isPrefixLength(subnet6.prefixLength, 128)) return 'has an IPv6 prefix that is no prefix';
    if (hasHostBits6(subnet6)) return 'has IPv6 address bits below its prefix';
  }
  return undefined;
}

const isPrefixLength = (length: number, bits: number): boolean =>
  Number.isInteger(length) && length >= 1 && length <= bits;

export function createOverlapIndex<V>(): OverlapIndex<V> {
  const four = createFamily<number, V>((address, length) => ((address & maskOf(length)) >>> 0) * 64 + length);
  const six = createFamily<bigint, V>((address, length) => ((address & maskOf6(length)) << 8n) | BigInt(length));
  return {
    add({ subnet, subnet6 }, value) {
      if (!isEmpty4(subnet)) four.add(subnet.address, subnet.prefixLength, value);
      if (subnet6 !== undefined) six.add(subnet6.address, subnet6.prefixLength, value);
    },
    find({ subnet, subnet6 }) {
      const clash = isEmpty4(subnet) ? undefined : four.find(subnet.address, subnet.prefixLength);
      if (clash !== undefined || subnet6 === undefined) return clash;
      return six.find(subnet6.address, subnet6.prefixLength);
    },
  };
}

/** `keyOf` gives one key for a prefix: the address cut to the length, and the length. */
function createFamily<A extends number | bigint, V>(keyOf: (address: A, length: number) => A) {
  type Entry = { address: A; length: number; value: V | undefined };
  const exact = new Map<A, Entry>(); // every prefix that was added
  const above = new Map<A, Entry>(); // every prefix of a length in use that contains one that was added, itself too
  const entries: Entry[] = [];
  const lengths = new Set<number>();

  return {
    add(address: A, length: number, value: V | undefined): void {
      const entry = { address, length, value };
      entries.push(entry);
      exact.set(keyOf(address, length), entry);
      if (!lengths.has(length)) {
        lengths.add(length);
        for (const other of entries) if (other.length >= length) above.set(keyOf(other.address, length), other);
      }
      for (const used of lengths) if (used <= length) above.set(keyOf(address, used), entry);
    },
    find(address: A, length: number): Entry | undefined {
      for (const used of lengths) {
        const found = used <= length ? exact.get(keyOf(address, used)) : undefined;
        if (found !== undefined) return found;
      }
      if (lengths.has(length)) return above.get(keyOf(address, length));
      const key = keyOf(address, length); // a length that nobody uses: rare, so look at everybody
      return entries.find(entry => entry.length > length && keyOf(entry.address, length) === key);
    },
  };
}

const isEmpty4 = (subnet: Subnet4): boolean => subnet.address === 0 && subnet.prefixLength === 0;
