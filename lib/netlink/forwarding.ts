/**
 * Whether the kernel forwards packets of a family, as a message: RTM_GETNETCONF with struct netconfmsg. The same as
 * /proc/sys/net/ipv4/ip_forward and ipv6/conf/all/forwarding, without opening a file. Source: linux/netconf.h, Linux 6.18.
 */
import { addressFamilyOf, type Family } from './address-text.ts';
import { MessageBuilder, NLM_F_ACK, NLM_F_REQUEST, parseAttributes, parseBody, u32Of } from './message.ts';

/** linux/rtnetlink.h */
const RTM_GETNETCONF = 82;
/** linux/netconf.h: struct netconfmsg has a family alone, and netlink pads it */
const NETCONFMSG_BYTES = 4;
const NETCONFA_IFINDEX = 1;
const NETCONFA_FORWARDING = 2;
const NETCONFA_IFINDEX_ALL = 0xffffffff; // -1

export const getForwardingMessage = (family: Family): MessageBuilder =>
  new MessageBuilder(RTM_GETNETCONF, NLM_F_REQUEST | NLM_F_ACK)
    .body(NETCONFMSG_BYTES, view => view.setUint8(0, addressFamilyOf(family)))
    .u32(NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL);

/** The payload of an RTM_NEWNETCONF; undefined where it does not say. */
export function parseForwarding(payload: Uint8Array): boolean | undefined {
  parseBody(payload, NETCONFMSG_BYTES);
  const value = u32Of(parseAttributes(payload, NETCONFMSG_BYTES), NETCONFA_FORWARDING);
  return value === undefined ? undefined : value !== 0;
}
