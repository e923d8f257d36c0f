/** Routes as messages: RTM_*ROUTE with struct rtmsg. Source: include/uapi/linux/rtnetlink.h, Linux 6.18. */
import { type Scope, scopeNumber, scopeOf } from './address.ts';
import {
  type AddressBytes,
  addressFamilyOf,
  bitsOf,
  type CidrBytes,
  type Family,
  familyOf,
  formatAddress,
  parseAddress,
  parseCidr,
} from './address-text.ts';
import { NetlinkError } from './error.ts';
import {
  type Attributes,
  i32At,
  MessageBuilder,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  NLM_F_REQUEST,
  nestedOf,
  parseAttributes,
  parseBody,
  u16At,
  u32At,
  u32Of,
} from './message.ts';

/** linux/rtnetlink.h */
export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
/** struct rtmsg: family 8, dst_len 8, src_len 8, tos 8, table 8, protocol 8, scope 8, type 8, flags 32 */
const RTMSG_BYTES = 12;
/** enum rtattr_type_t */
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_METRICS = 8;
const RTA_MULTIPATH = 9;
const RTA_TABLE = 15;
const RTA_VIA = 18;
const RTAX_MTU = 2;
const RTAX_ADVMSS = 8;
const RTNH_F_ONLINK = 4;
/** struct rtnexthop: length 16, flags 8, hops 8, index 32 */
const RTNEXTHOP_BYTES = 8;
const RTPROT_STATIC = 4;
const RT_TABLE_MAIN = 254;
/** A copy that the kernel keeps of a lookup's result (IPv6 exceptions), not a route that somebody made. */
const RTM_F_CLONED = 0x200;

/** RTN_ of linux/rtnetlink.h, in the order of their numbers from 1. */
const ROUTE_TYPES = [
  'unicast',
  'local',
  'broadcast',
  'anycast',
  'multicast',
  'blackhole',
  'unreachable',
  'prohibit',
  'throw',
] as const;
export type RouteType = (typeof ROUTE_TYPES)[number];
const typeNumber = (type: RouteType): number => ROUTE_TYPES.indexOf(type) + 1;
/** These say what becomes of a packet, so they need no link. */
const LINKLESS: ReadonlySet<RouteType> = new Set(['blackhole', 'unreachable', 'prohibit', 'throw']);

export interface NextHop {
  /** index of the link */
  index: number;
  gateway?: string;
}

/** A route as the kernel lists it. */
export interface Route {
  family: Family;
  /** 'default' or a CIDR */
  destination: string;
  type: RouteType;
  gateway?: string;
  /** name and index of the link that packets leave by; of the first hop when there are several */
  link?: string;
  index?: number;
  /** the preferred source address */
  source?: string;
  scope: Scope;
  /** lower wins; 0 when none was given (IPv6: 1024) */
  metric: number;
  /** 254 = main, 255 = local */
  table: number;
  /** RTPROT_: 2 = kernel, 3 = boot, 4 = static, ... */
  protocol: number;
  onlink: boolean;
  /** bytes; absent when the link's counts */
  mtu?: number;
  /** bytes */
  advertisedMss?: number;
  /** only when there are several */
  nextHops?: NextHop[];
}

/** What identifies a route when it is deleted: what is absent matches anything. */
export interface RouteKey {
  /** 'default' or a CIDR; host bits must be zero */
  destination: string;
  gateway?: string;
  /** name of the link that packets leave by */
  link?: string;
  metric?: number;
  /** default: main */
  table?: number;
  type?: RouteType;
  scope?: Scope;
  /** of a default route that neither gateway nor source tells; default 4 */
  family?: Family;
}

export interface RouteOptions extends RouteKey {
  source?: string;
  /** the link's, from who knows it */
  index?: number;
  /** the gateway is on the link even if no address says so */
  onlink?: boolean;
  /** RTPROT_ number; default 4, static */
  protocol?: number;
  /** bytes */
  mtu?: number;
  /** the TCP segment size to tell peers, bytes */
  advertisedMss?: number;
  /** take the place of a route with the same destination, metric and table */
  replace?: boolean;
  /** succeed when exactly this route is there */
  ensure?: boolean;
}

/** A RouteKey or RouteOptions with its texts parsed. */
export interface ParsedRoute {
  destination: CidrBytes;
  gateway: AddressBytes | undefined;
  source: AddressBytes | undefined;
  type: RouteType;
}

/** Throws EINVAL with one line for bad or mixed addresses. */
export function parseRoute(options: RouteOptions): ParsedRoute {
  const gateway = options.gateway === undefined ? undefined : parseAddress(options.gateway);
  const source = options.source === undefined ? undefined : parseAddress(options.source);
  let destination: CidrBytes;
  if (options.destination === 'default') {
    const family = options.family ?? gateway?.family ?? source?.family ?? 4;
    destination = { family, bytes: new Uint8Array(bitsOf(family) / 8), prefixLength: 0 };
  } else {
    destination = parseCidr(options.destination);
  }
  for (const [name, address] of [
    ['gateway', gateway],
    ['source', source],
  ] as const) {
    if (address !== undefined && address.family !== destination.family) {
      throw new NetlinkError(
        'EINVAL',
        `route ${options.destination}: its ${name} must be an IPv${destination.family} address too`,
      );
    }
  }
  return { destination, gateway, source, type: options.type ?? 'unicast' };
}

/** The scope that the ip command gives: how far away the destination is. IPv6 has no scopes. */
function usualScope({ destination, gateway, type }: ParsedRoute): Scope {
  if (destination.family === 6 || gateway !== undefined || LINKLESS.has(type)) return 'global';
  return type === 'local' ? 'host' : 'link';
}

function routeMessage(
  messageType: number,
  flags: number,
  { destination, gateway, type }: ParsedRoute,
  options: RouteOptions,
  index: number | undefined,
  scope: Scope,
): MessageBuilder {
  const table = options.table ?? RT_TABLE_MAIN;
  const adding = messageType === RTM_NEWROUTE;
  const builder = new MessageBuilder(messageType, NLM_F_REQUEST | NLM_F_ACK | flags);
  builder.body(RTMSG_BYTES, (view, little) => {
    view.setUint8(0, addressFamilyOf(destination.family));
    view.setUint8(1, destination.prefixLength);
    view.setUint8(4, table < 256 ? table : 0);
    view.setUint8(5, adding ? (options.protocol ?? RTPROT_STATIC) : 0);
    view.setUint8(6, scopeNumber(scope));
    view.setUint8(7, adding || options.type !== undefined ? typeNumber(type) : 0);
    view.setUint32(8, options.onlink ? RTNH_F_ONLINK : 0, little);
  });
  if (destination.prefixLength > 0) builder.bytes(RTA_DST, destination.bytes);
  if (table >= 256) builder.u32(RTA_TABLE, table);
  if (gateway !== undefined) builder.bytes(RTA_GATEWAY, gateway.bytes);
  if (index !== undefined) builder.u32(RTA_OIF, index);
  if (options.metric !== undefined) builder.u32(RTA_PRIORITY, options.metric);
  return builder;
}

/** @param index of the link that packets leave by */
export function addRouteMessage(route: ParsedRoute, options: RouteOptions, index: number | undefined): MessageBuilder {
  const flags = NLM_F_CREATE | (options.replace ? NLM_F_REPLACE : NLM_F_EXCL);
  const builder = routeMessage(RTM_NEWROUTE, flags, route, options, index, options.scope ?? usualScope(route));
  if (route.source !== undefined) builder.bytes(RTA_PREFSRC, route.source.bytes);
  const { mtu, advertisedMss } = options;
  if (mtu !== undefined || advertisedMss !== undefined) {
    builder.nest(RTA_METRICS, metrics => {
      if (mtu !== undefined) metrics.u32(RTAX_MTU, mtu);
      if (advertisedMss !== undefined) metrics.u32(RTAX_ADVMSS, advertisedMss);
    });
  }
  return builder;
}

export const deleteRouteMessage = (route: ParsedRoute, key: RouteKey, index: number | undefined): MessageBuilder =>
  routeMessage(RTM_DELROUTE, 0, route, key, index, key.scope ?? 'nowhere'); // RT_SCOPE_NOWHERE matches any

export const listRoutesMessage = (family: Family): MessageBuilder =>
  new MessageBuilder(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP).body(RTMSG_BYTES, view =>
    view.setUint8(0, addressFamilyOf(family)),
  );

/** Asks which route a packet to this address would take. */
export const lookupMessage = ({ family, bytes }: AddressBytes): MessageBuilder =>
  new MessageBuilder(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_ACK)
    .body(RTMSG_BYTES, view => {
      view.setUint8(0, addressFamilyOf(family));
      view.setUint8(1, bitsOf(family));
    })
    .bytes(RTA_DST, bytes);

/** RTA_GATEWAY, or RTA_VIA (family 16, address) for a gateway of the other family. */
function gatewayOf(attributes: Attributes): string | undefined {
  const gateway = attributes.get(RTA_GATEWAY);
  if (gateway !== undefined) return formatAddress(gateway);
  const via = attributes.get(RTA_VIA);
  return via === undefined ? undefined : formatAddress(via.subarray(2));
}

function nextHopsOf(value: Uint8Array): NextHop[] {
  const hops: NextHop[] = [];
  for (let at = 0; at < value.length; ) {
    const body = parseBody(value.subarray(at), RTNEXTHOP_BYTES);
    const length = u16At(body, 0);
    if (length < RTNEXTHOP_BYTES || length > value.length - at) {
      throw new NetlinkError('EBADMSG', `malformed netlink message: a next hop of length ${length}`);
    }
    const gateway = gatewayOf(parseAttributes(value.subarray(at, at + length), RTNEXTHOP_BYTES));
    hops.push({ index: i32At(body, 4), ...(gateway !== undefined && { gateway }) });
    at += (length + 3) & ~3;
  }
  return hops;
}

/** The payload of an RTM_NEWROUTE or RTM_DELROUTE; undefined for other families, new types and cached copies. */
export function parseRouteMessage(payload: Uint8Array): Omit<Route, 'link'> | undefined {
  const body = parseBody(payload, RTMSG_BYTES);
  const family = familyOf(body.getUint8(0));
  const type = ROUTE_TYPES[body.getUint8(7) - 1];
  const flags = u32At(body, 8);
  if (family === undefined || type === undefined || (flags & RTM_F_CLONED) !== 0) return undefined;
  return readRoute(payload, body, family, type, flags);
}

/** The answer to a lookup: one route, always marked as a copy. */
export function parseLookup(payload: Uint8Array): Omit<Route, 'link'> | undefined {
  const body = parseBody(payload, RTMSG_BYTES);
  const family = familyOf(body.getUint8(0));
  const type = ROUTE_TYPES[body.getUint8(7) - 1];
  return family === undefined || type === undefined
    ? undefined
    : readRoute(payload, body, family, type, u32At(body, 8));
}

function readRoute(
  payload: Uint8Array,
  body: DataView,
  family: Family,
  type: RouteType,
  flags: number,
): Omit<Route, 'link'> {
  const attributes = parseAttributes(payload, RTMSG_BYTES);
  const prefixLength = body.getUint8(1);
  const destination = attributes.get(RTA_DST) ?? new Uint8Array(bitsOf(family) / 8);
  const multipath = attributes.get(RTA_MULTIPATH);
  const nextHops = multipath === undefined ? [] : nextHopsOf(multipath);
  const gateway = gatewayOf(attributes) ?? nextHops[0]?.gateway;
  const index = u32Of(attributes, RTA_OIF) ?? nextHops[0]?.index;
  const source = attributes.get(RTA_PREFSRC);
  const metrics = nestedOf(attributes, RTA_METRICS);
  const mtu = u32Of(metrics, RTAX_MTU);
  const advertisedMss = u32Of(metrics, RTAX_ADVMSS);
  return {
    family,
    destination: prefixLength === 0 ? 'default' : `${formatAddress(destination)}/${prefixLength}`,
    type,
    ...(gateway !== undefined && { gateway }),
    ...(index !== undefined && { index }),
    ...(source !== undefined && { source: formatAddress(source) }),
    scope: scopeOf(body.getUint8(6)),
    metric: u32Of(attributes, RTA_PRIORITY) ?? 0,
    table: u32Of(attributes, RTA_TABLE) ?? body.getUint8(4),
    protocol: body.getUint8(5),
    onlink: (flags & RTNH_F_ONLINK) !== 0,
    ...(mtu !== undefined && { mtu }),
    ...(advertisedMss !== undefined && { advertisedMss }),
    ...(nextHops.length > 1 && { nextHops }),
  };
}
