/** The bridge that pods are ports of, and its addresses: their gateways. */

import { IFF_PROMISC } from '../netlink/link.ts';
import type { Link, Rtnetlink } from '../netlink/netlink.ts';
import { firstHostOf, parseIpCidr } from './ipam/address.ts';
import { randomMac } from './names.ts';
import { CNI_ERROR, CniError } from './plugin.ts';

export interface BridgeWish {
  name: string;
  /** Indexes of bridges whose MAC address was pinned already. */
  pinned: Set<number>;
  /** Absent: as it is. */
  mtu?: number;
  promiscuous: boolean;
}

/**
 * The bridge, made where it is missing. Its MAC address is its own from the start: a bridge without one takes its ports'
 * lowest, so it has 00:00:00:00:00:00 without ports and another one whenever pods come and go, and every pod's neighbour
 * entry for its gateway is wrong then.
 * @returns the link, and whether it was made now
 */
export function ensureBridge(netlink: Rtnetlink, wish: BridgeWish): { link: Link; made: boolean } {
  const { name, mtu, promiscuous, pinned } = wish;
  let link = netlink.link(name);
  const made = link === undefined;
  if (link === undefined) {
    netlink.createBridge({ name, mac: randomMac(), up: true, ...(mtu !== undefined && { mtu }) });
  } else if (link.kind !== 'bridge') {
    throw new CniError(CNI_ERROR.config, `"${name}" already exists but is not a bridge: bridge`);
  } else if (!pinned.has(link.index) || isNoMac(link.mac)) {
    // One that somebody else made may have a floating address; setting what it has pins it.
    netlink.setLink(name, { mac: isNoMac(link.mac) ? randomMac() : link.mac });
  }
  const isRight =
    link?.up && (mtu === undefined || mtu === link.mtu) && (!promiscuous || (link.flags & IFF_PROMISC) !== 0);
  if (!isRight)
    netlink.setLink(name, { up: true, ...(mtu !== undefined && { mtu }), ...(promiscuous && { promiscuous }) });
  if (link === undefined || !isRight || isNoMac(link.mac)) link = mustHave(netlink, name);
  pinned.add(link.index);
  return { link, made };
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
  /** Whether another address of the bridge is a gateway that nobody needs any more and may go. */
  isStale(address: string): boolean;
  /** The subnet is the lease's, which may change: an address of an older lease may stay beside the new one. */
  leased: boolean;
}

/**
 * Gives the bridge a gateway's address.
 * @returns whether it was added now
 * @throws CniError when the bridge has another IPv4 address, or one of an overlapping IPv6 subnet
 */
export function ensureGateway(netlink: Rtnetlink, wish: GatewayWish): boolean {
  const { bridge, index, cidr } = wish;
  const wanted = parseIpCidr(cidr);
  if (wanted === undefined) throw new CniError(CNI_ERROR.internal, `gateway ${cidr} is not an address`);
  const { family } = wanted;
  for (const { address, prefixLength, scope } of netlink.addresses({ link: bridge, index, family })) {
    const text = `${address}/${prefixLength}`;
    if (text === cidr) return false;
    if (family === 6 && (scope === 'link' || !overlaps(text, cidr))) continue;
    if (wish.forceAddress || (wish.leased && wish.isStale(address))) netlink.deleteAddress(bridge, text);
    else if (!wish.leased || overlaps(text, cidr)) {
      throw new CniError(
        CNI_ERROR.config,
        `"${bridge}" already has an IP address different from ${cidr}: ${text} (forceAddress replaces it)`,
      );
    }
  }
  netlink.addAddress(bridge, cidr, { index, nodad: family === 6 });
  return true;
}

function overlaps(a: string, b: string): boolean {
  const [x, y] = [parseIpCidr(a), parseIpCidr(b)];
  if (x === undefined || y === undefined) return false;
  const bits = x.family === 4 ? 32 : 128;
  const shift = BigInt(bits - Math.min(x.prefixLength, y.prefixLength));
  return x.value >> shift === y.value >> shift;
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
