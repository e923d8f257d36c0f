/** What counts as an address in CNI's JSON: what Go's net package reads. */
import { parseCidr4, parseCidr6 } from '../../wire/cidr.ts';
import { parseAddress4 } from '../../wire/ip4.ts';
import { parseAddress6 } from '../../wire/ip6.ts';

export function isIp(text: string): boolean {
  return parseAddress4(text) !== undefined || parseAddress6(text) !== undefined;
}

export function isCidr(text: string): boolean {
  return parseCidr4(text) !== undefined || parseCidr6(text) !== undefined;
}

export function isIpOrCidr(text: string): boolean {
  return isIp(text) || isCidr(text);
}

/** The family of something that `isIpOrCidr`. */
export function familyOf(text: string): 4 | 6 {
  return text.includes(':') ? 6 : 4;
}

/** "02-00-5E-10-00-01", "0200.5e10.0001" and "02:00:5e:10:00:01" as the last of them; undefined for what is no MAC. */
export function normalMac(text: string): string | undefined {
  const forms = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$|^([0-9a-f]{2}-){5}[0-9a-f]{2}$|^([0-9a-f]{4}\.){2}[0-9a-f]{4}$/i;
  if (!forms.test(text)) return undefined;
  const digits = text.toLowerCase().replace(/[^0-9a-f]/g, '');
  return digits.match(/../g)?.join(':');
}
