/**
 * The gateways of earlier leases. When the lease changes pods keep their addresses, and the bridge keeps the old gateway's
 * address beside the new one's: until no pod has an address behind it any more. Then it must go, because the subnet is
 * somebody else's by now, and with the address goes the route that leads to it over the bridge.
 *
 * What may go is only what we put there ourselves for a lease, by the record; an address that a configuration or a person
 * gave the bridge stays.
 */
import type { Rtnetlink } from '../netlink/netlink.ts';
import { hostMask, parseIpCidr } from './ipam/address.ts';
import type { AttachmentRecord, AttachmentStore, Gateway } from './store.ts';

export interface GatewayPlace {
  netlink: Rtnetlink;
  /** All that are open: any network may have pods on a bridge. */
  stores: Iterable<AttachmentStore>;
  boot: string;
}

/**
 * Removes gateways that nobody needs.
 * @param current of these subnets the gateways stay, whether there are pods or not; CIDRs
 * @param except an attachment that is being made
 * @param removed is called for each that went: the addresses can be given back
 */
export function dropStaleGateways(
  { netlink, stores, boot }: GatewayPlace,
  current: readonly string[],
  except?: AttachmentRecord,
  removed: (gateway: Gateway, store: AttachmentStore) => void = () => {},
): void {
  const all = [...stores];
  for (const store of all) {
    for (const gateway of store.gateways()) {
      const isThisBoot = gateway.boot === boot;
      if (isThisBoot && current.some(subnet => overlaps(subnet, gateway.cidr))) continue;
      if (isThisBoot && all.some(other => other.list().some(record => record !== except && needs(record, gateway)))) {
        continue;
      }
      if (isThisBoot) netlink.deleteAddress(gateway.bridge, gateway.cidr);
      store.forgetGateway(gateway);
      if (isThisBoot) removed(gateway, store);
    }
  }
}

/** Whether an attachment has an address behind a gateway. Where another plugin gives the addresses we do not know them. */
export const needs = ({ bridge, delegated, ips }: AttachmentRecord, gateway: Omit<Gateway, 'boot'>): boolean =>
  bridge === gateway.bridge &&
  (delegated !== undefined || ips.some(ip => overlaps(`${ip}/${bitsFor(ip)}`, gateway.cidr)));

const bitsFor = (address: string): number => (address.includes(':') ? 128 : 32);

/** Whether the subnets of two CIDRs have an address in common. */
export function overlaps(a: string, b: string): boolean {
  const [x, y] = [parseIpCidr(a), parseIpCidr(b)];
  if (x === undefined || y === undefined || x.family !== y.family) return false;
  const mask = ~hostMask(x.family, Math.min(x.prefixLength, y.prefixLength));
  return (x.value & mask) === (y.value & mask);
}
