/** IPv6 addresses as text (RFC 4291 §2.2, RFC 5952), as 16 bytes and as bigint. */
import { get16, set16, set32 } from './bytes.ts';
import { formatAddress4, parseAddress4 } from './ip4.ts';

const FIELD = /^[0-9a-fA-F]{1,4}$/;

/**
 * 16 bytes, or undefined. All of RFC 4291's forms: eight groups, one "::" that stands for at least one group, and a
 * dotted quad in place of the last two. No zone, no brackets, no whitespace.
 */
export function parseAddress6(text: string): Uint8Array | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0], halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1], true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const bytes = new Uint8Array(16);
  head.forEach((group, i) => {
    set16(bytes, i * 2, group);
  });
  tail.forEach((group, i) => {
    set16(bytes, (head.length + missing + i) * 2, group);
  });
  return bytes;
}

/** Groups of one side of "::"; a dotted quad may only end the whole address. */
function parseGroups(text: string, endsAddress: boolean): number[] | undefined {
  if (text === '') return [];
  const groups: number[] = [];
  const fields = text.split(':');
  for (const [i, field] of fields.entries()) {
    if (FIELD.test(field)) {
      groups.push(Number.parseInt(field, 16));
    } else if (endsAddress && i === fields.length - 1) {
      const quad = parseAddress4(field);
      if (quad === undefined) return undefined;
      groups.push(quad >>> 16, quad & 0xffff);
    } else {
      return undefined;
    }
  }
  return groups;
}

/** RFC 5952: lower case, no leading zeros, the first of the longest runs of zero groups (two or more) as "::". */
export function formatAddress6(bytes: Uint8Array, offset = 0): string {
  const groups: number[] = [];
  for (let i = 0; i < 8; i++) groups.push(get16(bytes, offset + i * 2));
  // RFC 5952 §5: mixed notation where the prefix says that an IPv4 address is embedded (::ffff:0:0/96).
  if (groups[5] === 0xffff && groups.slice(0, 5).every(group => group === 0)) {
    return `::ffff:${formatAddress4(((groups[6] << 16) | groups[7]) >>> 0)}`;
  }
  let start = -1;
  let longest = 1;
  for (let i = 0; i < 8; i++) {
    let run = 0;
    while (i + run < 8 && groups[i + run] === 0) run++;
    if (run > longest) {
      start = i;
      longest = run;
    }
  }
  const hex = groups.map(group => group.toString(16));
  if (start < 0) return hex.join(':');
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + longest).join(':')}`;
}

/** The address as one number, 0..2^128-1. */
export function address6ToBigint(bytes: Uint8Array, offset = 0): bigint {
  let value = 0n;
  for (let i = 0; i < 16; i++) value = (value << 8n) | BigInt(bytes[offset + i]);
  return value;
}

/** The 16 bytes of a number 0..2^128-1. */
export function bigintToAddress6(value: bigint): Uint8Array {
  const bytes = new Uint8Array(16);
  for (let i = 0; i < 4; i++) set32(bytes, i * 4, Number((value >> BigInt(96 - i * 32)) & 0xffff_ffffn));
  return bytes;
}
