/** The pod's end of the pair: addresses, routes, settings, inside the pod's namespace. */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { writeSetting } from '../host/sysctl.ts';
import type { Batch } from '../netlink/batch.ts';
import { openRtnetlink, type RouteOptions, type Rtnetlink, withRtnetlink } from '../netlink/netlink.ts';
import { withNamespace } from '../sys/sys.ts';
import { codeOf, messageOf } from '../util/errors.ts';
import { canonicalCidr, familyOfText, parseIpCidr } from './ipam/address.ts';
import { CNI_ERROR, CniError, type CniIp, type CniRoute } from './plugin.ts';

export interface PodEnd {
  netns: string;
  ifname: string;
  /** The link's, in its namespace. */
  index: number;
  ips: readonly CniIp[];
  routes: readonly CniRoute[];
  /** Duplicate address detection for IPv6. */
  dad: boolean;
  /** Everything goes through the gateway, the pod's own subnet too. */
  pointToPoint: boolean;
}

/** Duplicate address detection takes a second; the reference waits 5. */
const SETTLE_MS = 5000;

/**
 * Configures the end and sets it up: all of it in one piece, so nobody sees it half done but the pod.
 * Without an IPv6 address of its own it gets no link-local one either: docs/decisions/0012-no-link-local-without-ipv6.md
 */
export function configurePodEnd(pod: PodEnd): void {
  const { index } = pod;
  const hasIp6 = pod.ips.some(ip => familyOfText(ip.address) === 6);
  const netlink = withNamespace(pod.netns, () => {
    if (hasIp6) writeIp6Settings(pod);
    return openRtnetlink();
  });
  try {
    const batch = netlink.batch();
    const routes = new Map<number, CniRoute>();
    if (!hasIp6) batch.setLink(index, { linkLocal: false });
    const needed = batch.length;
    // IPv4 first, so that the pod has its address when it is up; IPv6 after, when it can be used at once.
    const [before, after] = [4, 6].map(family => pod.ips.filter(ip => familyOfText(ip.address) === family));
    for (const ip of before) batch.addAddress(index, ip.address, { noPrefixRoute: pod.pointToPoint });
    batch.setLink(index, { up: true });
    for (const ip of after) batch.addAddress(index, ip.address, { noPrefixRoute: pod.pointToPoint, nodad: !pod.dad });
    if (pod.pointToPoint) for (const ip of pod.ips) addGatewayRoutes(batch, pod, ip);
    for (const route of pod.routes) {
      routes.set(batch.length, route);
      batch.addRoute(routeOf(pod, route));
    }
    for (const [place, refusal] of batch.run()) {
      const route = routes.get(place);
      // One that is there already may be exactly this one.
      if (route !== undefined) ensureRoute(netlink, pod, route);
      // Where there is no IPv6 there is no link-local address to do without.
      else if (place >= needed) throw refusal.error();
    }
  } finally {
    netlink.close();
  }
}

function writeIp6Settings({ ifname, dad }: PodEnd): void {
  const folder = `/proc/sys/net/ipv6/conf/${ifname}`;
  if (!write(`${folder}/disable_ipv6`, '0')) {
    throw new CniError(CNI_ERROR.config, `an IPv6 address is asked for ${ifname}, and this kernel has no IPv6`);
  }
  if (!dad) write(`${folder}/accept_dad`, '0');
  write(`${folder}/ndisc_notify`, '1');
}

/** False when the kernel has no such setting. */
function write(path: string, value: string): boolean {
  try {
    // A read-only /proc/sys that is right already will do.
    if (readFileSync(path, 'latin1').trimEnd() !== value) writeSetting(path, value);
    return true;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw new CniError(CNI_ERROR.io, `cannot write ${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** In place of the route to the subnet that comes with an address: the gateway is on the link, the rest behind it. */
function addGatewayRoutes(batch: Batch, { ifname: link, index }: PodEnd, { address, gateway }: CniIp): void {
  const parsed = parseIpCidr(address);
  if (gateway === undefined || parsed === undefined) return;
  const source = address.split('/')[0];
  const family = parsed.family;
  batch.addRoute({ destination: `${gateway}/${family === 4 ? 32 : 128}`, link, index, source });
  batch.addRoute({ destination: networkOf(address), gateway, link, index, source, scope: 'global' });
}

function networkOf(cidr: string): string {
  const parsed = parseIpCidr(cidr);
  if (parsed === undefined) throw new CniError(CNI_ERROR.internal, `${cidr} is not an address`);
  return canonicalCidr(parsed);
}

/** Without a gateway of its own a route takes the one of its family's first address, as the reference does. */
function routeOf({ ifname: link, index, ips }: PodEnd, route: CniRoute): RouteOptions & { index: number } {
  const family = familyOfText(route.dst);
  const gateway = route.gw ?? ips.find(ip => familyOfText(ip.address) === family && ip.gateway !== undefined)?.gateway;
  return {
    destination: destinationOf(route.dst),
    link,
    index,
    family,
    ensure: true,
    ...(gateway !== undefined && { gateway }),
    ...(route.mtu && { mtu: route.mtu }),
    ...(route.advmss && { advertisedMss: route.advmss }),
    ...(route.priority && { metric: route.priority }),
    ...(route.table !== undefined && { table: route.table }),
    ...(route.scope !== undefined && { scope: route.scope }),
  };
}

function ensureRoute(netlink: Rtnetlink, pod: PodEnd, route: CniRoute): void {
  const options = routeOf(pod, route);
  try {
    netlink.addRoute(options);
  } catch (error) {
    const { gateway, link } = options;
    throw new CniError(
      CNI_ERROR.internal,
      `failed to add route ${route.dst}${gateway === undefined ? '' : ` via ${gateway}`} to ${link}: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/** "default" or the CIDR without host bits, as the kernel lists it. */
export function destinationOf(dst: string): string {
  const parsed = parseIpCidr(dst);
  if (parsed === undefined) throw new CniError(CNI_ERROR.config, `route ${dst}: not a CIDR`);
  return parsed.prefixLength === 0 ? 'default' : canonicalCidr(parsed);
}

/** Waits until duplicate address detection is over. */
export async function settle({ netns, ifname }: PodEnd): Promise<void> {
  const deadline = performance.now() + SETTLE_MS;
  const tentative = (): boolean =>
    withRtnetlink(netns, netlink => netlink.addresses({ link: ifname, family: 6 }).some(ip => ip.tentative));
  while (tentative()) {
    if (performance.now() > deadline) {
      throw new CniError(CNI_ERROR.tryLater, `IPv6 addresses of ${ifname} are still tentative after 5 s`);
    }
    await delay(20);
  }
}
