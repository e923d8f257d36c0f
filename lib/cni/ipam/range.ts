/**
 * Ranges of addresses as host-local's configuration gives them (plugins/ipam/host-local/backend/allocator/range.go and
 * range_set.go): what is left out is filled in, what cannot be is refused in the same words.
 */
import { CNI_ERROR, CniError, type IpRange } from '../plugin.ts';
import { type Family, formatIp, hostMask, type IpNumber, parseIp, parseIpCidr } from './address.ts';

export interface Range {
  family: Family;
  prefixLength: number;
  /** the subnet's first and last address */
  network: bigint;
  networkEnd: bigint;
  /** the addresses that may be given out; none when first > last */
  first: bigint;
  last: bigint;
  /** never given out; perhaps outside */
  gateway: bigint;
}

/** Ranges of one family that do not overlap; an attachment gets one address out of each set. */
export interface RangeSet {
  ranges: Range[];
  /** "10.5.1.1-10.5.1.254,…": as host-local's messages name a set */
  text: string;
}

const refuse = (message: string): CniError => new CniError(CNI_ERROR.config, message);

/** @throws CniError 7 */
export function parseRangeSets(sets: readonly (readonly IpRange[])[]): RangeSet[] {
  const parsed = sets.map((set, i) => {
    try {
      return parseRangeSet(set);
    } catch (error) {
      throw error instanceof CniError ? refuse(`invalid range set ${i}: ${error.message}`) : error;
    }
  });
  parsed.forEach((set, i) => {
    const other = parsed.findIndex((earlier, j) => j < i && overlap(earlier.ranges, set.ranges));
    if (other >= 0) throw refuse(`range set ${i} overlaps with ${other}`);
  });
  return parsed;
}

function parseRangeSet(set: readonly IpRange[]): RangeSet {
  if (set.length === 0) throw refuse('empty range set');
  const ranges = set.map(parseRange);
  if (ranges.some(range => range.family !== ranges[0].family)) throw refuse('mixed address families');
  ranges.forEach((range, i) => {
    const other = ranges.slice(0, i).find(earlier => overlap([earlier], [range]));
    if (other !== undefined) throw refuse(`subnets ${printRange(other)} and ${printRange(range)} overlap`);
  });
  return { ranges, text: ranges.map(printRange).join(',') };
}

function parseRange(range: IpRange): Range {
  const subnet = parseIpCidr(range.subnet);
  if (subnet === undefined) throw refuse(`subnet ${range.subnet} is not a subnet like 10.5.1.0/24`);
  const { family, value: network, prefixLength } = subnet;
  const mask = hostMask(family, prefixLength);
  if (mask < 3n) throw refuse(`Network ${range.subnet} too small to allocate from`);
  if ((network & mask) !== 0n) {
    const right = formatIp(family, network & ~mask);
    throw refuse(
      `Network has host bits set. For a subnet mask of length ${prefixLength} the network address is ${right}: subnet ${range.subnet}`,
    );
  }
  const networkEnd = network | mask;
  const inside = (name: string, text: string): bigint => {
    const ip = parseIp(text);
    if (ip?.family !== family || ip.value < network || ip.value > networkEnd) {
      throw refuse(`${name} ${text} not in network ${range.subnet}`);
    }
    return ip.value;
  };
  const gateway = range.gateway === undefined ? undefined : parseIp(range.gateway);
  if (range.gateway !== undefined && gateway?.family !== family) {
    throw refuse(`gateway ${range.gateway} is not of the family of ${range.subnet}`);
  }
  return {
    family,
    prefixLength,
    network,
    networkEnd,
    first: range.rangeStart === undefined ? network + 1n : inside('RangeStart', range.rangeStart),
    // The last address of an IPv4 subnet is its broadcast address.
    last:
      range.rangeEnd === undefined ? (family === 4 ? networkEnd - 1n : networkEnd) : inside('RangeEnd', range.rangeEnd),
    gateway: gateway?.value ?? network + 1n,
  };
}

const printRange = ({ family, first, last }: Range): string => `${formatIp(family, first)}-${formatIp(family, last)}`;

const overlap = (a: readonly Range[], b: readonly Range[]): boolean =>
  a.some(x => b.some(y => x.family === y.family && x.network <= y.networkEnd && y.network <= x.networkEnd));

/** The range that may give this address out. */
export const rangeFor = (set: RangeSet, ip: IpNumber): Range | undefined =>
  set.ranges.find(range => range.family === ip.family && ip.value >= range.first && ip.value <= range.last);
