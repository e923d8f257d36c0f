/** The bridge that pods are ports of, and its addresses: their gateways. */

import { IFF_PROMISC } from '../netlink/link.ts';
import type { Address, Link, Rtnetlink } from '../netlink/netlink.ts';
import type { Undo } from '../util/undo.ts';
import { overlaps } from './gateways.ts';
import { firstHostOf, parseIpCidr } from './ipam/address.ts';
import { randomMac } from './names.ts';
import { CNI_ERROR, CniError } from './plugin.ts';

export interface BridgeWish {
  name: string;
  /** Bridges whose MAC address was pinned already, and the indexes that they had. */
  pinned: Map<string, number>;
  /** Absent: as it is. */
  mtu?: number;
  promiscuous: boolean;
}

export interface BridgeState {
  link: Link;
  /** It was made now. */
  made: boolean;
  addresses: readonly Omit<Address, 'link'>[];
}

/**
 * The bridge, made where it is missing. Its MAC address is its own from the start: a bridge without one takes its ports'
 * lowest, so it has 00:00:00:00:00:00 without ports and another one whenever pods come and go, and every pod's neighbour
 * entry for its gateway is wrong then.
 */
export function ensureBridge(netlink: Rtnetlink, wish: BridgeWish): BridgeState {
  const { name, mtu, promiscuous, pinned } = wish;
  const found = look(netlink, name, pinned.get(name));
  let { link } = found;
  const made = link === undefined;
  if (link === undefined) {
    netlink.createBridge({ name, mac: randomMac(), up: true, ...(mtu !== undefined && { mtu }) });
  } else if (link.kind !== 'bridge') {
    throw new CniError(CNI_ERROR.config, `"${name}" already exists but is not a bridge: bridge`);
  } else if (pinned.get(name) !== link.index || isNoMac(link.mac)) {
    // One that somebody else made may have a floating address; setting what it has pins it.
    netlink.setLink(name, { mac: isNoMac(link.mac) ? randomMac() : link.mac });
  }
  const isRight =
    link?.up && (mtu === undefined || mtu === link.mtu) && (!promiscuous || (link.flags & IFF_PROMISC) !== 0);
  if (!isRight)
    netlink.setLink(name, { up: true, ...(mtu !== undefined && { mtu }), ...(promiscuous && { promiscuous }) });
  if (link === undefined || !isRight || isNoMac(link.mac)) link = mustHave(netlink, name);
  pinned.set(name, link.index);
  const addresses = found.link?.index === link.index ? found.addresses : undefined;
  return { link, made, addresses: addresses ?? netlink.addresses({ link: name, index: link.index }) };
}

/** The bridge and its addresses; those in one piece where it is one that was seen before. */
function look(
  netlink: Rtnetlink,
  name: string,
  last: number | undefined,
): { link: Link | undefined; addresses?: BridgeState['addresses'] } {
  const batch = netlink.batch();
  const answer = batch.link(name);
  const addresses = last === undefined ? undefined : batch.addresses(last);
  for (const refusal of batch.run().values()) if (refusal.code !== 'ENODEV') throw refusal.error();
  const link = answer.value;
  return addresses === undefined || link?.index !== last ? { link } : { link, addresses };
}

const isNoMac = (mac: string): boolean => /^(00:){5}00$/.test(mac);

function mustHave(netlink: Rtnetlink, name: string): Link {
  const link = netlink.link(name);
  if (link === undefined) throw new CniError(CNI_ERROR.internal, `link ${name} was removed while a pod was attached`);
  return link;
}

export interface GatewayWish {
  bridge: string;
  index: number;
  /** The gateway's address with the subnet's prefix length. */
  cidr: string;
  forceAddress: boolean;
  /** The subnet is the lease's, which may change: an address of an older lease may stay beside the new one. */
  leased: boolean;
  /** Called before it is added, where it is not there. */
  before(): void;
  /** What undoes that and the adding. */
  undo(): void;
}

/**
 * Gives the bridge a gateway's address.
 * @param present the bridge's addresses
 * @throws CniError when the bridge has another IPv4 address, or one of an overlapping IPv6 subnet
 */
export function ensureGateway(
  netlink: Rtnetlink,
  wish: GatewayWish,
  present: BridgeState['addresses'],
  undo: Undo,
): void {
  const { bridge, index, cidr } = wish;
  const wanted = parseIpCidr(cidr);
  if (wanted === undefined) throw new CniError(CNI_ERROR.internal, `gateway ${cidr} is not an address`);
  const { family } = wanted;
  for (const { address, prefixLength, scope, family: other } of present) {
    if (other !== family) continue;
    const text = `${address}/${prefixLength}`;
    if (text === cidr) return;
    if (family === 6 && (scope === 'link' || !overlaps(text, cidr))) continue;
    if (wish.forceAddress) {
      netlink.deleteAddress(bridge, text);
      undo.push(`without address ${text} of ${bridge}`, () =>
        netlink.addAddress(bridge, text, { nodad: family === 6 }),
      );
    } else if (!wish.leased || overlaps(text, cidr)) {
      throw new CniError(
        CNI_ERROR.config,
        `"${bridge}" already has an IP address different from ${cidr}: ${text} (forceAddress replaces it)`,
      );
    }
  }
  wish.before();
  netlink.addAddress(bridge, cidr, { index, nodad: family === 6 });
  undo.push(`address ${cidr} of ${bridge}`, wish.undo);
}

/** The gateway that an address has when nobody names one. */
export function gatewayFor(cidr: string): string {
  const gateway = firstHostOf(cidr);
  if (gateway === undefined) throw new CniError(CNI_ERROR.internal, `${cidr} is not an address`);
  return gateway;
}

/** Whether any link is a port of this bridge. Reads all links. */
export function hasPorts(netlink: Rtnetlink, bridge: string): boolean {
  const index = netlink.link(bridge)?.index;
  return index !== undefined && netlink.links().some(link => link.master === index);
}
