/** Names and marks that lead from an attachment to its link and back. */
import { createHash, randomBytes } from 'node:crypto';
import { formatMac } from '../netlink/address-text.ts';
import type { RuleKey } from './host-rules.ts';

/**
 * The host's end of an attachment: "veth" and 44 bits of a hash. Made from the key, so whoever knows the attachment
 * knows the link, also when its record is lost.
 */
export function hostLinkName({ network, containerId, ifname }: RuleKey): string {
  const hash = createHash('sha256').update(`${network}\0${containerId}\0${ifname}`).digest('hex');
  return `veth${hash.slice(0, 11)}`;
}

/** What `ip link` shows beside the host's end; the kernel keeps 255 bytes. No part can hold a slash. */
export const aliasOf = ({ network, containerId, ifname }: RuleKey): string =>
  `tulle:${network}/${containerId}/${ifname}`.slice(0, 255);

/** The inverse, for one network; undefined for other aliases. */
export function keyOfAlias(alias: string | undefined, network: string): RuleKey | undefined {
  if (alias === undefined || !alias.startsWith(`tulle:${network}/`)) return undefined;
  const [containerId, ifname, ...rest] = alias.slice(`tulle:${network}/`.length).split('/');
  if (!containerId || !ifname || rest.length > 0) return undefined;
  return { network, containerId, ifname };
}

/** Locally administered, not a group's. */
export function randomMac(): string {
  const bytes = randomBytes(6);
  bytes[0] = (bytes[0] & 0xfc) | 0x02;
  return formatMac(bytes);
}
