/** Links as messages: RTM_*LINK with struct ifinfomsg. Source: include/uapi/linux/rtnetlink.h, if_link.h, Linux 6.18. */
import { AF_INET6, formatMac, parseMac } from './address-text.ts';
import { addPortFlags, type BridgePort, parsePort } from './bridge-port.ts';
import { NetlinkError } from './error.ts';
import {
  type Attributes,
  i32At,
  MessageBuilder,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REQUEST,
  nestedOf,
  parseAttributes,
  parseBody,
  textOf,
  u32At,
  u32Of,
} from './message.ts';

/** linux/rtnetlink.h */
export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
/** struct ifinfomsg: family 8, pad 8, type 16, index 32, flags 32, change 32 */
export const IFINFOMSG_BYTES = 16;
/** linux/if_link.h */
const IFLA_ADDRESS = 1;
export const IFLA_IFNAME = 3;
export const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_TXQLEN = 13;
export const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_AF_SPEC = 26;
const IFLA_GROUP = 27;
const IFLA_NET_NS_FD = 28;
const IFLA_EXT_MASK = 29;
const IFLA_NUM_TX_QUEUES = 31;
const IFLA_NUM_RX_QUEUES = 32;
const IFLA_GSO_MAX_SEGS = 40;
export const IFLA_INFO_KIND = 1;
export const IFLA_INFO_DATA = 2;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_INFO_SLAVE_DATA = 5;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const ADDR_GEN_EUI64 = 0;
const ADDR_GEN_NONE = 1;
/** linux/veth.h */
const VETH_INFO_PEER = 1;
/** linux/rtnetlink.h: leave the counters out, they are half of a message. */
const RTEXT_FILTER_SKIP_STATS = 8;
/** linux/if.h */
export const IFF_UP = 0x1;
export const IFF_RUNNING = 0x40;
export const IFF_PROMISC = 0x100;

export interface Link {
  index: number;
  name: string;
  /** what made it: 'veth', 'bridge', 'tun', ...; absent for hardware and lo */
  kind?: string;
  /** bytes */
  mtu: number;
  /** it is meant to carry frames (IFF_UP) */
  up: boolean;
  /** it can: the far end is there and up (IFF_RUNNING) */
  running: boolean;
  /** lower case with colons; empty for a TUN device */
  mac: string;
  /** index of the bridge that it is a port of */
  master?: number;
  /** index of a veth's other end, in that end's namespace */
  peerIndex?: number;
  /** IFF_ bits of linux/if.h */
  flags: number;
  txQueueLength: number;
  /** free text that somebody gave it */
  alias?: string;
  /** of a link that is a port of a bridge */
  port?: BridgePort;
}

/** What may be said about a link when it is made. */
export interface LinkProperties {
  mtu?: number;
  mac?: string;
  up?: boolean;
}

export interface VethProperties extends LinkProperties {
  name: string;
  peerName: string;
  /** path of the namespace in which the other end is born; none is the socket's own */
  peerNamespace?: string;
  peerMac?: string;
  /** set up after both are there: the kernel cannot open an end that has no other yet */
  peerUp?: boolean;
  /** name or index of a bridge that `name` becomes a port of */
  master?: string | number;
}

export interface BridgeProperties extends LinkProperties {
  name: string;
}

export interface LinkChanges {
  up?: boolean;
  promiscuous?: boolean;
  /**
   * IPv6: false makes the kernel give it no address of its own accord (IN6_ADDR_GEN_MODE_NONE); before it has a carrier,
   * and not in the same call as `up`, which the kernel does first. EAFNOSUPPORT, and then nothing of the call is done,
   * where the kernel has no IPv6 or the link's MTU is too small for it.
   */
  linkLocal?: boolean;
  /** free text, 254 bytes at most: what `ip link` shows a person */
  alias?: string;
  /** of a port; in the same call as `master` they would come too early */
  port?: Partial<BridgePort>;
  mtu?: number;
  /** name of a bridge; null takes the link out of the one that it is in */
  master?: string | null;
  mac?: string;
  /** path of the namespace to move to */
  namespace?: string;
  newName?: string;
  /** packets */
  txQueueLength?: number;
  /** segments of a super-packet that the link takes: 1 makes the kernel cut all of them before the link */
  gsoMaxSegments?: number;
}

/** What the kernel takes as a name (net/core/dev.c, dev_valid_name); IFNAMSIZ is 16 with the zero. */
export const isLinkName = (name: string): boolean =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a zero byte would end the name early
  Buffer.byteLength(name) <= 15 && /^[^\s/:\x00]+$/.test(name) && name !== '.' && name !== '..';

export function checkLinkName(name: string): string {
  if (isLinkName(name)) return name;
  throw new NetlinkError('EINVAL', `"${name}" cannot be a link's name: 1 to 15 bytes without spaces, "/" and ":"`);
}

function linkMessage(type: number, flags: number, index: number, up?: boolean, promiscuous?: boolean): MessageBuilder {
  return new MessageBuilder(type, NLM_F_REQUEST | flags).body(IFINFOMSG_BYTES, (view, little) =>
    fillBody(view, little, index, up, promiscuous),
  );
}

function fillBody(view: DataView, little: boolean, index: number, up?: boolean, promiscuous?: boolean): void {
  view.setInt32(4, index, little);
  const meant = (up === undefined ? 0 : IFF_UP) | (promiscuous === undefined ? 0 : IFF_PROMISC);
  view.setUint32(8, (up === true ? IFF_UP : 0) | (promiscuous === true ? IFF_PROMISC : 0), little);
  view.setUint32(12, meant, little); // which of the flags are meant
}

function addProperties(builder: MessageBuilder, { mtu, mac }: LinkProperties): void {
  if (mtu !== undefined) builder.u32(IFLA_MTU, mtu);
  if (mac !== undefined) builder.bytes(IFLA_ADDRESS, parseMac(mac));
}

export const listLinksMessage = (): MessageBuilder =>
  linkMessage(RTM_GETLINK, NLM_F_DUMP, 0).u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);

/** @param link name or index */
export function getLinkMessage(link: string | number): MessageBuilder {
  const builder = linkMessage(RTM_GETLINK, NLM_F_ACK, typeof link === 'number' ? link : 0);
  builder.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  return typeof link === 'number' ? builder : builder.text(IFLA_IFNAME, link);
}

/** @param link name or index */
export function deleteLinkMessage(link: string | number): MessageBuilder {
  const builder = linkMessage(RTM_DELLINK, NLM_F_ACK, typeof link === 'number' ? link : 0);
  return typeof link === 'number' ? builder : builder.text(IFLA_IFNAME, link);
}

/** Puts a link into a group of links; everyone is in group 0 until somebody says otherwise. */
export const setGroupMessage = (index: number, group: number): MessageBuilder =>
  linkMessage(RTM_NEWLINK, NLM_F_ACK, index).u32(IFLA_GROUP, group);

/** Deletes all links of a group or, when one of them cannot be deleted, none. */
export const deleteGroupMessage = (group: number): MessageBuilder =>
  linkMessage(RTM_DELLINK, NLM_F_ACK, 0).u32(IFLA_GROUP, group);

export function createBridgeMessage(properties: BridgeProperties): MessageBuilder {
  const builder = linkMessage(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 0, properties.up);
  builder.text(IFLA_IFNAME, checkLinkName(properties.name));
  addProperties(builder, properties);
  return builder.nest(IFLA_LINKINFO, info => info.text(IFLA_INFO_KIND, 'bridge'));
}

/**
 * One queue each way. Unasked the kernel makes one for each processor, with an entry in /sys for every one of them, and
 * then uses the first (drivers/net/veth.c, veth_init_queues): a third of the time that a pair takes on two processors.
 */
function addQueues(builder: MessageBuilder): void {
  builder.u32(IFLA_NUM_TX_QUEUES, 1).u32(IFLA_NUM_RX_QUEUES, 1);
}

/**
 * @param peerNamespaceFd an open file of the peer's namespace
 * @param master index of the bridge
 */
export function createVethMessage(
  properties: VethProperties,
  peerNamespaceFd: number | undefined,
  master: number | undefined,
): MessageBuilder {
  const { name, peerName, mtu, peerMac } = properties;
  const builder = linkMessage(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 0, properties.up);
  builder.text(IFLA_IFNAME, checkLinkName(name));
  addProperties(builder, properties);
  addQueues(builder);
  if (master !== undefined) builder.u32(IFLA_MASTER, master);
  return builder.nest(IFLA_LINKINFO, info => {
    info.text(IFLA_INFO_KIND, 'veth');
    info.nest(IFLA_INFO_DATA, data =>
      data.nest(VETH_INFO_PEER, peer => {
        peer.body(IFINFOMSG_BYTES, (view, little) => fillBody(view, little, 0));
        peer.text(IFLA_IFNAME, checkLinkName(peerName));
        addProperties(peer, { ...(mtu !== undefined && { mtu }), ...(peerMac !== undefined && { mac: peerMac }) });
        addQueues(peer);
        if (peerNamespaceFd !== undefined) peer.u32(IFLA_NET_NS_FD, peerNamespaceFd);
      }),
    );
  });
}

/**
 * @param link index, or name where it does not change
 * @param namespaceFd an open file of the namespace to move to
 * @param master index of the bridge, 0 for none
 */
export function setLinkMessage(
  link: number | string,
  { up, promiscuous, mtu, mac, newName, txQueueLength, gsoMaxSegments, alias, port, linkLocal }: LinkChanges,
  namespaceFd: number | undefined,
  master: number | undefined,
): MessageBuilder {
  const builder = linkMessage(RTM_NEWLINK, NLM_F_ACK, typeof link === 'number' ? link : 0, up, promiscuous);
  if (typeof link === 'string') builder.text(IFLA_IFNAME, link);
  if (newName !== undefined) builder.text(IFLA_IFNAME, checkLinkName(newName));
  addProperties(builder, { ...(mtu !== undefined && { mtu }), ...(mac !== undefined && { mac }) });
  if (txQueueLength !== undefined) builder.u32(IFLA_TXQLEN, txQueueLength);
  if (gsoMaxSegments !== undefined) builder.u32(IFLA_GSO_MAX_SEGS, gsoMaxSegments);
  if (master !== undefined) builder.u32(IFLA_MASTER, master);
  if (namespaceFd !== undefined) builder.u32(IFLA_NET_NS_FD, namespaceFd);
  if (alias !== undefined) builder.text(IFLA_IFALIAS, alias);
  if (linkLocal !== undefined) {
    builder.nest(IFLA_AF_SPEC, spec =>
      spec.nest(AF_INET6, inet6 =>
        inet6.bytes(IFLA_INET6_ADDR_GEN_MODE, Uint8Array.of(linkLocal ? ADDR_GEN_EUI64 : ADDR_GEN_NONE)),
      ),
    );
  }
  if (port !== undefined) {
    builder.nest(IFLA_LINKINFO, info => {
      info.text(IFLA_INFO_SLAVE_KIND, 'bridge');
      info.nest(IFLA_INFO_SLAVE_DATA, data => addPortFlags(data, port));
    });
  }
  return builder;
}

function need<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new NetlinkError('EBADMSG', `malformed netlink message: a link without ${what}`);
  return value;
}

/** The payload of an RTM_NEWLINK or RTM_DELLINK. */
export function parseLink(payload: Uint8Array): Link {
  const body = parseBody(payload, IFINFOMSG_BYTES);
  const attributes: Attributes = parseAttributes(payload, IFINFOMSG_BYTES);
  const flags = u32At(body, 8);
  const info = nestedOf(attributes, IFLA_LINKINFO);
  const kind = textOf(info, IFLA_INFO_KIND);
  const isPort = textOf(info, IFLA_INFO_SLAVE_KIND) === 'bridge';
  const port = isPort ? parsePort(nestedOf(info, IFLA_INFO_SLAVE_DATA)) : undefined;
  const alias = textOf(attributes, IFLA_IFALIAS);
  const master = u32Of(attributes, IFLA_MASTER);
  const peerIndex = kind === 'veth' ? u32Of(attributes, IFLA_LINK) : undefined;
  return {
    index: i32At(body, 4),
    name: need(textOf(attributes, IFLA_IFNAME), 'a name'),
    ...(kind !== undefined && { kind }),
    mtu: need(u32Of(attributes, IFLA_MTU), 'an MTU'),
    up: (flags & IFF_UP) !== 0,
    running: (flags & IFF_RUNNING) !== 0,
    mac: formatMac(attributes.get(IFLA_ADDRESS) ?? new Uint8Array(0)),
    ...(master !== undefined && { master }),
    ...(peerIndex !== undefined && { peerIndex }),
    flags,
    txQueueLength: u32Of(attributes, IFLA_TXQLEN) ?? 0,
    ...(alias !== undefined && alias !== '' && { alias }),
    ...(port !== undefined && { port }),
  };
}
