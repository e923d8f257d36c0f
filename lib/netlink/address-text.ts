/** IP and MAC addresses between their text and the bytes of netlink attributes (network order). */
import { formatAddress6, parseAddress6 } from '../wire/address6.ts';
import { formatAddress4, parseAddress4 } from '../wire/ip4.ts';
import { NetlinkError } from './error.ts';

export type Family = 4 | 6;

/** linux/socket.h */
export const AF_INET = 2;
export const AF_INET6 = 10;

export const addressFamilyOf = (family: Family): number => (family === 4 ? AF_INET : AF_INET6);
export const familyOf = (addressFamily: number): Family | undefined =>
  addressFamily === AF_INET ? 4 : addressFamily === AF_INET6 ? 6 : undefined;
export const bitsOf = (family: Family): number => (family === 4 ? 32 : 128);

export interface AddressBytes {
  family: Family;
  /** 4 or 16 */
  bytes: Uint8Array;
}

/** Throws EINVAL with one line when the text is no IPv4 or IPv6 address. */
export function parseAddress(text: string): AddressBytes {
  const address4 = parseAddress4(text);
  if (address4 !== undefined) {
    return { family: 4, bytes: Uint8Array.of(address4 >>> 24, address4 >>> 16, address4 >>> 8, address4) };
  }
  const address6 = parseAddress6(text);
  if (address6 !== undefined) return { family: 6, bytes: address6 };
  throw new NetlinkError('EINVAL', `"${text}" is not an IPv4 or IPv6 address`);
}

export interface CidrBytes extends AddressBytes {
  prefixLength: number;
}

/** "10.1.2.3/24"; without a length the address alone (/32, /128). Host bits are kept. */
export function parseCidr(text: string): CidrBytes {
  const slash = text.indexOf('/');
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash));
  const bits = bitsOf(address.family);
  if (slash < 0) return { ...address, prefixLength: bits };
  const lengthText = text.slice(slash + 1);
  const prefixLength = Number(lengthText);
  if (!/^(0|[1-9]\d{0,2})$/.test(lengthText) || prefixLength > bits) {
    throw new NetlinkError('EINVAL', `"${text}": the length after "/" must be 0 to ${bits}`);
  }
  return { ...address, prefixLength };
}

/** Text of 4 or 16 bytes; anything else is a malformed message. */
export function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === 4)
    return formatAddress4(((bytes[0] << 24) | (bytes[1] << 16) | (bytes[2] << 8) | bytes[3]) >>> 0);
  if (bytes.length === 16) return formatAddress6(bytes, 0);
  throw new NetlinkError('EBADMSG', `malformed netlink message: an address of ${bytes.length} bytes`);
}

/** "02:00:0a:01:02:03" to 6 bytes; EINVAL when it is not one, or is a group address, which no link may have. */
export function parseMac(text: string): Uint8Array {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) {
    throw new NetlinkError('EINVAL', `"${text}" is not a MAC address such as 02:00:0a:01:02:03`);
  }
  const bytes = Uint8Array.from(text.split(':'), part => Number.parseInt(part, 16));
  if ((bytes[0] & 1) === 1)
    throw new NetlinkError('EINVAL', `"${text}" is a group address: the first byte must be even`);
  return bytes;
}

export const formatMac = (bytes: Uint8Array): string =>
  Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join(':');
