// The value of a lease key, byte for byte as flanneld writes it: Go's json.Marshal of LeaseAttrs (pkg/lease/lease.go)
//   {"PublicIP":"10.88.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{…},"BackendV6Data":{…}}
// The last three are left out when they are empty. Keys that flannel does not know follow them.
import { isIPv4, isIPv6 } from 'node:net';
import type { LeaseAttributes } from '../lib/lease/lease.ts';

const flannelKeys = ['PublicIP', 'PublicIPv6', 'BackendType', 'BackendData', 'BackendV6Data'] as const;
const flannelKeyOf = new Map<string, string>(flannelKeys.map(key => [key.toLowerCase(), key]));

/** The text of the value: no spaces, flannel's order, Go's escapes. */
export function encodeAttributes(attributes: LeaseAttributes): string {
  const { PublicIP, PublicIPv6, BackendType, BackendData, BackendV6Data, ...others } = attributes;
  const ordered: Record<string, unknown> = { PublicIP, PublicIPv6: PublicIPv6 ?? null };
  if (BackendType !== undefined && BackendType !== '') ordered['BackendType'] = BackendType; // omitempty
  if (BackendData !== undefined) ordered['BackendData'] = BackendData;
  if (BackendV6Data !== undefined) ordered['BackendV6Data'] = BackendV6Data;
  return goEscape(JSON.stringify({ ...ordered, ...others }));
}

/**
 * The attributes in a value, or undefined when flannel's decoder would refuse it: not a JSON object, or a field of
 * flannel's with a wrong type or a malformed address. As in Go, flannel's keys are found in any case and the last wins.
 */
export function decodeAttributes(text: string): LeaseAttributes | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return undefined;
  const found: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(json)) found[flannelKeyOf.get(key.toLowerCase()) ?? key] = value;

  const { PublicIP = '0.0.0.0', PublicIPv6 = null, BackendType, ...rest } = found;
  if (typeof PublicIP !== 'string' || !isIPv4(PublicIP)) return undefined;
  if (PublicIPv6 !== null && (typeof PublicIPv6 !== 'string' || !isIPv6(PublicIPv6))) return undefined;
  if (BackendType !== undefined && typeof BackendType !== 'string') return undefined;
  return { PublicIP, PublicIPv6, ...(BackendType ? { BackendType } : {}), ...rest };
}

// encoding/json escapes these so that the text is safe inside HTML; they can only stand inside JSON strings.
// JSON.stringify writes U+0008 and U+000C as \b and \f, as Go does since 1.22.
function goEscape(json: string): string {
  return json.replace(/[<>&\u2028\u2029]/g, char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
