/** Names and marks that lead from an attachment to its link and back. */
import { createHash, randomBytes } from 'node:crypto';
import { formatMac } from '../netlink/address-text.ts';
import type { RuleKey } from './host-rules.ts';
import { parseIp } from './ipam/address.ts';

/**
 * The host's end of an attachment: "veth" and 44 bits of a hash. Made from the key, so whoever knows the attachment
 * knows the link, also when its record is lost.
 */
export function hostLinkName({ network, containerId, ifname }: RuleKey): string {
  const hash = createHash('sha256').update(`${network}\0${containerId}\0${ifname}`).digest('hex');
  return `veth${hash.slice(0, 11)}`;
}

/** What `ip link` shows beside the host's end; the kernel takes 255 bytes with the zero. No part can hold a slash. */
export const aliasOf = ({ network, containerId, ifname }: RuleKey): string =>
  `tulle:${network}/${containerId}/${ifname}`.slice(0, 254);

/** The inverse, for one network; undefined for other aliases. */
export function keyOfAlias(alias: string | undefined, network: string): RuleKey | undefined {
  if (alias === undefined || !alias.startsWith(`tulle:${network}/`)) return undefined;
  const [containerId, ifname, ...rest] = alias.slice(`tulle:${network}/`.length).split('/');
  if (!containerId || !ifname || rest.length > 0) return undefined;
  return { network, containerId, ifname };
}

/**
 * The MAC address of a pod, made from its first address, so that who has one in mind from the address's last holder is
 * right still. 0a:58 is what Kubernetes' first network plugins put before an IPv4 address; an IPv6 address is hashed.
 */
export function macOf(address: string): string {
  const ip4 = parseIp(address);
  if (ip4?.family === 4) {
    const bytes = Buffer.from([0x0a, 0x58, 0, 0, 0, 0]);
    bytes.writeUInt32BE(Number(ip4.value), 2);
    return formatMac(bytes);
  }
  return localMac(createHash('sha256').update(address).digest().subarray(0, 6));
}

/** Locally administered, not a group's. */
export function randomMac(): string {
  return localMac(randomBytes(6));
}

function localMac(bytes: Uint8Array): string {
  bytes[0] = (bytes[0] & 0xfc) | 0x02;
  return formatMac(bytes);
}
