/** Addresses of both families as numbers to count with, and as the one text that stands for each of them. */
import { address6ToBigint, bigintToAddress6, formatAddress6, parseAddress6 } from '../../wire/address6.ts';
import { formatAddress4, parseAddress4 } from '../../wire/ip4.ts';

export type Family = 4 | 6;

export interface IpNumber {
  family: Family;
  value: bigint;
}

export const bitsOf = (family: Family): number => (family === 4 ? 32 : 128);

/** "10.5.1.2", "fd00::2" or the IPv4 address in "::ffff:10.5.1.2"; undefined for anything else. */
export function parseIp(text: string): IpNumber | undefined {
  const address4 = parseAddress4(text);
  if (address4 !== undefined) return { family: 4, value: BigInt(address4) };
  const bytes = parseAddress6(text);
  if (bytes === undefined) return undefined;
  const value = address6ToBigint(bytes);
  return value >> 32n === 0xffffn ? { family: 4, value: value & 0xffff_ffffn } : { family: 6, value };
}

/** RFC 5952 for IPv6: equal addresses are equal texts. */
export const formatIp = (family: Family, value: bigint): string =>
  family === 4 ? formatAddress4(Number(value)) : formatAddress6(bigintToAddress6(value));

/** "10.5.1.2/24" with its host bits; undefined when it is none. */
export function parseIpCidr(text: string): (IpNumber & { prefixLength: number }) | undefined {
  const slash = text.indexOf('/');
  const ip = slash < 0 ? undefined : parseIp(text.slice(0, slash));
  const lengthText = text.slice(slash + 1);
  if (ip === undefined || !/^(0|[1-9]\d{0,2})$/.test(lengthText)) return undefined;
  const prefixLength = Number(lengthText);
  return prefixLength <= bitsOf(ip.family) ? { ...ip, prefixLength } : undefined;
}

export const familyOfText = (text: string): Family => (text.includes(':') ? 6 : 4);

/** The bits of a host in a subnet of this length, all ones. */
export const hostMask = (family: Family, prefixLength: number): bigint =>
  (1n << BigInt(bitsOf(family) - prefixLength)) - 1n;

/** The first host address of the subnet that `cidr` lies in: where a gateway is when nobody says where. */
export function firstHostOf(cidr: string): string | undefined {
  const parsed = parseIpCidr(cidr);
  if (parsed === undefined) return undefined;
  const mask = hostMask(parsed.family, parsed.prefixLength);
  return formatIp(parsed.family, (parsed.value & ~mask) + 1n);
}

/** The subnet of an address as the kernel writes it: "10.5.1.0/24". */
export function canonicalCidr({ family, value, prefixLength }: IpNumber & { prefixLength: number }): string {
  return `${formatIp(family, value & ~hostMask(family, prefixLength))}/${prefixLength}`;
}
