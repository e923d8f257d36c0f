/**
 * Another overlay of the same network on this node: flannel that still runs, or what it left behind. Its routes are more
 * specific than ours, so packets for other nodes would go where nobody takes them any more; its daemon and ours would write
 * the same annotations and files. It is found by what it leaves in the kernel, whatever it is called:
 *
 *   vxlan, wireguard   10.42.2.0/24 via 10.42.2.0 dev flannel.1      a route of another node's subnet
 *   host-gw            10.42.2.0/24 via 10.88.0.2 dev eth0           the same
 *   udp                10.42.0.0/16 dev flannel0                     a device with an address of the network
 *   any, alone so far  10.42.1.0/32 on flannel.1                     the same, and no other node to have a route to
 */
import type { Address } from '../netlink/address.ts';
import type { Rtnetlink } from '../netlink/netlink.ts';
import type { Route } from '../netlink/route.ts';
import { TulleError } from '../util/errors.ts';
import {
  contains4,
  contains6,
  formatCidr4,
  formatCidr6,
  networkOf,
  networkOf6,
  parseCidr4,
  parseCidr6,
  type Subnet4,
  type Subnet6,
} from '../wire/cidr.ts';

/** One family's network and this node's part of it. */
export type OverlayRange = { network: Subnet4; own: Subnet4 } | { network: Subnet6; own: Subnet6 };

const mainTable = 254;
/** For who runs both. */
export const DELETE_FLANNEL = 'kubectl -n kube-flannel delete daemonset kube-flannel-ds';
/** A list for a person. */
const mostNamed = 3;

/**
 * Throws TulleError 'other-overlay', one line with what to do. Returns what is odd but in nobody's way: addresses of the network
 * that are not this node's, as a bridge keeps them whose pods are of a subnet that the node had before.
 * @param device our own, which may have a name of flannel's
 */
export function refuseOtherOverlay(
  netlink: Pick<Rtnetlink, 'routes' | 'addresses'>,
  ranges: readonly OverlayRange[],
  device?: string,
): { link: string; address: string }[] {
  const isOthers = ({ link }: { link?: string }): boolean => link === undefined || link !== device;
  const routes = [...netlink.routes(4, mainTable), ...netlink.routes(6, mainTable)].filter(isOthers);
  for (const range of ranges) {
    const foreign = routes.filter(route => isForeign(range, route));
    if (foreign.length > 0) throw refusal(printNetwork(range), foreign);
  }
  const addresses = netlink.addresses().filter(isOthers);
  for (const range of ranges) {
    const held = addresses.find(address => isFlannels(address) && insideOwn(range, hostCidr(address)));
    if (held !== undefined) throw heldRefusal(held);
  }
  return ranges
    .flatMap(range => addresses.filter(address => isStray(range, address)))
    .map(({ link, address, prefixLength }) => ({
      link,
      address: `${address}/${prefixLength}`,
    }));
}

function refusal(network: string, routes: readonly Route[]): TulleError {
  const named = new Set(routes.flatMap(route => (isFlannels(route) ? [route.link] : [])));
  const remove =
    named.size > 0
      ? [...named].map(name => `"ip link delete ${name}"`).join(', ')
      : `"ip route delete ${routes[0].destination}" for each`;
  const found = `packets for ${network} already leave by other routes (${printRoutes(routes)})`;
  return new TulleError(
    'other-overlay',
    `${found}: another overlay such as flannel runs here or left them behind: ${advice(remove)}`,
  );
}

function heldRefusal({ link, address }: Address): TulleError {
  return new TulleError(
    'other-overlay',
    `${link} has the address ${address} of this node's subnet: flannel runs here or left it behind: ` +
      advice(`"ip link delete ${link}"`),
  );
}

const advice = (remove: string): string =>
  `delete its DaemonSet (${DELETE_FLANNEL}), then on this node ${remove}, and start again`;

const isFlannels = ({ link }: { link?: string }): boolean => link?.startsWith('flannel') ?? false;

/** A way into the network that is neither into this node's own subnet nor to a link of its own: through a gateway, or flannel's device. */
function isForeign(range: OverlayRange, route: Route): boolean {
  const { destination, type, gateway } = route;
  if (type !== 'unicast' || !insideNetwork(range, destination) || insideOwn(range, destination)) return false;
  return gateway !== undefined || isFlannels(route);
}

function isStray(range: OverlayRange, { address, prefixLength }: Address): boolean {
  const host = hostCidr({ address });
  return insideNetwork(range, host) && !insideOwn(range, host) && !isWhole(range, `${address}/${prefixLength}`);
}

const hostCidr = ({ address }: Pick<Address, 'address'>): string => `${address}/${address.includes(':') ? 128 : 32}`;

/** An address with the network's own prefix is the way to it, as some put it on a router: none of an overlay. */
const isWhole = (range: OverlayRange, cidr: string): boolean =>
  Number(cidr.split('/')[1]) <= range.network.prefixLength;

const insideNetwork = (range: OverlayRange, cidr: string): boolean => inside(range.network, cidr);
const insideOwn = (range: OverlayRange, cidr: string): boolean => inside(range.own, cidr);

function inside(outer: Subnet4 | Subnet6, cidr: string): boolean {
  if (typeof outer.address === 'number') {
    const four = parseCidr4(cidr);
    const subnet = outer as Subnet4;
    return four !== undefined && four.prefixLength >= outer.prefixLength && contains4(subnet, networkOf(four).address);
  }
  const six = parseCidr6(cidr);
  const subnet = outer as Subnet6;
  return six !== undefined && six.prefixLength >= outer.prefixLength && contains6(subnet, networkOf6(six).address);
}

const print = (subnet: Subnet4 | Subnet6): string =>
  typeof subnet.address === 'number' ? formatCidr4(subnet as Subnet4) : formatCidr6(subnet as Subnet6);
const printNetwork = ({ network }: OverlayRange): string => print(network);

function printRoutes(routes: readonly Route[]): string {
  const texts = routes.map(({ destination, link }) => `${destination} dev ${link ?? '?'}`);
  const more = texts.length > mostNamed ? `, and ${texts.length - mostNamed} more` : '';
  return `${texts.slice(0, mostNamed).join(', ')}${more}`;
}
