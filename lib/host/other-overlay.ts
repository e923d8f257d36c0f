/**
 * Another overlay of the same network on this node: flannel that still runs, or what it left behind. Its routes are more
 * specific than ours, so packets for other nodes would go where nobody takes them any more; its daemon and ours would write
 * the same annotations and files. It is found by what it leaves in the kernel, whatever it is called:
 *
 *   vxlan, wireguard   10.42.2.0/24 via 10.42.2.0 dev flannel.1      a route of another node's subnet
 *   host-gw            10.42.2.0/24 via 10.88.0.2 dev eth0           the same
 *   udp                10.42.0.0/16 dev flannel0                     a device with an address of the network
 *   cni0               10.42.9.1/24                                  a bridge for pods of another subnet than this node's
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
/** A list for a person. */
const mostNamed = 3;

/** Throws TulleError 'other-overlay', one line with what to do. */
export function refuseOtherOverlay(
  netlink: Pick<Rtnetlink, 'routes' | 'addresses'>,
  ranges: readonly OverlayRange[],
): void {
  const routes = [...netlink.routes(4, mainTable), ...netlink.routes(6, mainTable)];
  const addresses = netlink.addresses();
  for (const range of ranges) {
    const text = printNetwork(range);
    const foreign = routes.filter(route => isForeign(range, route));
    if (foreign.length > 0) {
      const [{ link = '' }] = foreign;
      throw refusal(`packets for ${text} already leave by other routes (${printRoutes(foreign)})`, link, foreign);
    }
    const stray = addresses.find(address => isStray(range, address));
    if (stray !== undefined) {
      const what = `${stray.link} has ${stray.address}/${stray.prefixLength}, which is in ${text}`;
      throw refusal(`${what} and not in this node's subnet ${printOwn(range)}`, stray.link, []);
    }
  }
}

function refusal(what: string, link: string, routes: readonly Route[]): TulleError {
  const named = new Set(routes.flatMap(route => (route.link?.startsWith('flannel') ? [route.link] : [])));
  if (link.startsWith('flannel')) named.add(link);
  const remove =
    named.size > 0
      ? [...named].map(name => `"ip link delete ${name}"`).join(', ')
      : routes.length > 0
        ? `"ip route delete ${routes[0].destination}" for each`
        : `"ip link delete ${link}"`;
  return new TulleError(
    'other-overlay',
    `${what}: another overlay such as flannel runs here or left them behind: delete its DaemonSet ` +
      `(kubectl -n kube-flannel delete daemonset kube-flannel-ds), then on this node ${remove}, and start again`,
  );
}

/** A unicast route into the network that is neither into this node's own subnet nor made by the kernel for an address. */
function isForeign(range: OverlayRange, { destination, type, link, gateway }: Route): boolean {
  if (type !== 'unicast' || !insideNetwork(range, destination) || insideOwn(range, destination)) return false;
  // Where the whole network goes to a device without a next hop, the device decides: flannel's, or our own of a moment ago.
  return destination !== printNetwork(range) || gateway !== undefined || (link?.startsWith('flannel') ?? false);
}

function isStray(range: OverlayRange, { address, prefixLength }: Address): boolean {
  const cidr = `${address}/${prefixLength}`;
  const bits = address.includes(':') ? 128 : 32;
  return insideNetwork(range, `${address}/${bits}`) && !insideOwn(range, `${address}/${bits}`) && !isWhole(range, cidr);
}

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
const printOwn = ({ own }: OverlayRange): string => print(own);

function printRoutes(routes: readonly Route[]): string {
  const texts = routes.map(({ destination, link }) => `${destination} dev ${link ?? '?'}`);
  const more = texts.length > mostNamed ? `, and ${texts.length - mostNamed} more` : '';
  return `${texts.slice(0, mostNamed).join(', ')}${more}`;
}
