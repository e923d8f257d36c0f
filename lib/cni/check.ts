/**
 * CHECK: whether the attachment still is what the result says. The result is the last one of the chain, so what later
 * plugins changed and told (a MAC address by tuning) is expected as they told it; what they change without a word (an
 * MTU, although results have had one since 1.1.0; a sysctl) is theirs to check.
 */
import { type Link, type Rtnetlink, withRtnetlink } from '../netlink/netlink.ts';
import { messageOf } from '../util/errors.ts';
import { familyOfText, formatIp, parseIpCidr } from './ipam/address.ts';
import { CNI_ERROR, CniError, type CniInterface, type CniRequest, type CniResult } from './plugin.ts';
import { destinationOf } from './pod-end.ts';
import { ownIps } from './previous.ts';
import type { Settings } from './settings.ts';
import type { AttachmentRecord } from './store.ts';

/** A code of our own: something is not as ADD left it. (100 is the one of the socket.) */
export const CHECK_FAILED = 101;

const failed = (message: string): CniError => new CniError(CHECK_FAILED, message);

/** @throws CniError 101 for a difference, 7 without prevResult */
export function checkAttachment(
  netlink: Rtnetlink,
  request: CniRequest,
  settings: Settings,
  record: AttachmentRecord | undefined,
): void {
  const { prevResult: result } = request;
  if (result === undefined) throw new CniError(CNI_ERROR.config, 'CHECK needs the result of the ADD: prevResult');
  const container = containerOf(request, result);
  const inside = inNamespace(request, there => {
    const link = there.link(request.ifname);
    if (link === undefined) throw failed(`interface ${request.ifname} is missing in ${request.netns}`);
    checkLink(link, container, 'veth');
    if (settings.config.disableContainerInterface) return link;
    if (!link.up) throw failed(`interface ${request.ifname} is down`);
    checkAddresses(there, request, result);
    checkRoutes(there, request, result);
    return link;
  });
  checkHostEnd(netlink, request, settings, result, inside, record);
  if (record !== undefined) checkReservation(record, result);
  else if (settings.addressing.kind === 'built-in') {
    throw failed(`tulle: Failed to find address added by container ${request.containerId}`);
  }
}

function containerOf({ ifname, netns }: CniRequest, { interfaces }: CniResult): CniInterface {
  const found = interfaces.find(candidate => candidate.name === ifname && candidate.sandbox !== undefined);
  if (found === undefined) throw failed(`prevResult has no interface ${ifname} with a sandbox`);
  if (found.sandbox !== netns) {
    throw failed(`sandbox in prevResult ${found.sandbox} doesn't match configured netns: ${netns}`);
  }
  return found;
}

function inNamespace<T>({ netns }: CniRequest, action: (netlink: Rtnetlink) => T): T {
  try {
    return withRtnetlink(netns, action);
  } catch (error) {
    throw error instanceof CniError ? error : failed(`namespace ${netns}: ${messageOf(error)}`);
  }
}

function checkLink(link: Link, told: CniInterface, kind: string): void {
  if (link.kind !== kind) throw failed(`interface ${link.name} is not a ${kind}`);
  if (told.mac !== undefined && told.mac.toLowerCase() !== link.mac) {
    throw failed(`interface ${link.name} has MAC ${link.mac}, and prevResult says ${told.mac}`);
  }
}

function checkAddresses(netlink: Rtnetlink, { ifname }: CniRequest, result: CniResult): void {
  const present = new Set(netlink.addresses({ link: ifname }).map(ip => `${ip.address}/${ip.prefixLength}`));
  for (const { address } of ownIps(result, ifname)) {
    if (!present.has(canonical(address))) throw failed(`address ${address} is missing on ${ifname}`);
  }
}

function canonical(cidr: string): string {
  const parsed = parseIpCidr(cidr);
  return parsed === undefined ? cidr : `${formatIp(parsed.family, parsed.value)}/${parsed.prefixLength}`;
}

function checkRoutes(netlink: Rtnetlink, { ifname }: CniRequest, { routes }: CniResult): void {
  for (const { dst, gw, table } of routes) {
    const destination = destinationOf(dst);
    const found = netlink
      .routes(familyOfText(dst), table ?? 254)
      .some(route => route.destination === destination && (gw === undefined || route.gateway === gw));
    if (!found) throw failed(`route ${dst}${gw === undefined ? '' : ` via ${gw}`} is missing beside ${ifname}`);
  }
}

function checkHostEnd(
  netlink: Rtnetlink,
  request: CniRequest,
  settings: Settings,
  result: CniResult,
  inside: Link,
  record: AttachmentRecord | undefined,
): void {
  const { config } = settings;
  const hosts = result.interfaces.filter(candidate => candidate.sandbox === undefined);
  const told =
    hosts.find(candidate => candidate.name === record?.hostLink) ??
    hosts.find(candidate => netlink.link(candidate.name)?.kind === 'veth');
  const link = told === undefined ? undefined : netlink.link(told.name);
  if (told === undefined || link === undefined) throw failed(`the host's end of ${request.ifname} is missing`);
  checkLink(link, told, 'veth');
  if (link.peerIndex !== inside.index) throw failed(`${link.name} is not the other end of ${request.ifname}`);
  if (!link.up) throw failed(`interface ${link.name} is down`);
  if (config.mode === 'ptp') {
    checkGateways(netlink, link.name, ownIps(result, request.ifname));
    return;
  }
  const bridge = netlink.link(config.bridge);
  if (bridge === undefined) throw failed(`bridge ${config.bridge} is missing`);
  if (bridge.kind !== 'bridge') throw failed(`interface ${config.bridge} is not a bridge`);
  checkLink(bridge, hosts.find(candidate => candidate.name === config.bridge) ?? { name: config.bridge }, 'bridge');
  if (!bridge.up) throw failed(`bridge ${config.bridge} is down`);
  if (link.master !== bridge.index) throw failed(`${link.name} is not a port of ${config.bridge}`);
  if (config.hairpinMode && !link.port?.hairpin) throw failed(`port ${link.name} is not in hairpin mode`);
  if (config.portIsolation && !link.port?.isolated) throw failed(`port ${link.name} is not isolated`);
  if (config.macspoofchk && !link.port?.locked) throw failed(`port ${link.name} takes frames from any MAC address`);
  if (settings.isGateway) checkGateways(netlink, config.bridge, ownIps(result, request.ifname));
}

function checkGateways(netlink: Rtnetlink, link: string, ips: CniResult['ips']): void {
  const present = new Set(netlink.addresses({ link }).map(ip => ip.address));
  for (const { gateway } of ips) {
    if (gateway === undefined) continue;
    const text = canonical(`${gateway}/${gateway.includes(':') ? 128 : 32}`).split('/')[0];
    if (!present.has(text)) throw failed(`gateway ${gateway} is missing on ${link}`);
  }
}

function checkReservation({ ips: reserved, delegated }: AttachmentRecord, { ips }: CniResult): void {
  if (delegated !== undefined) return;
  const told = new Set(ips.map(ip => canonical(ip.address).split('/')[0]));
  for (const address of reserved) {
    if (!told.has(address)) throw failed(`address ${address} is reserved, and prevResult does not have it`);
  }
}
