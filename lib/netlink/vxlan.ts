/** A VXLAN device (RFC 7348) between two hosts, as a message. Source: include/uapi/linux/if_link.h, Linux 6.18. */
import { parseAddress } from './address-text.ts';
import { Channel } from './channel.ts';
import {
  checkLinkName,
  IFINFOMSG_BYTES,
  IFLA_IFNAME,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_LINKINFO,
  IFLA_MTU,
  RTM_NEWLINK,
} from './link.ts';
import { MessageBuilder, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST } from './message.ts';

/** linux/if_link.h */
const IFLA_VXLAN_ID = 1;
const IFLA_VXLAN_GROUP = 2;
const IFLA_VXLAN_LOCAL = 4;
const IFLA_VXLAN_PORT = 15;

export interface VxlanProperties {
  name: string;
  /** 0 to 2^24 - 1 */
  id: number;
  /** IPv4 addresses of this host and of the one that gets every frame without a better entry */
  local: string;
  remote: string;
  port: number;
  mtu?: number;
}

export function createVxlanMessage({ name, id, local, remote, port, mtu }: VxlanProperties): MessageBuilder {
  const builder = new MessageBuilder(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  builder.body(IFINFOMSG_BYTES, () => {});
  builder.text(IFLA_IFNAME, checkLinkName(name));
  if (mtu !== undefined) builder.u32(IFLA_MTU, mtu);
  return builder.nest(IFLA_LINKINFO, info => {
    info.text(IFLA_INFO_KIND, 'vxlan');
    info.nest(IFLA_INFO_DATA, data => {
      data.u32(IFLA_VXLAN_ID, id);
      data.bytes(IFLA_VXLAN_GROUP, parseAddress(remote).bytes);
      data.bytes(IFLA_VXLAN_LOCAL, parseAddress(local).bytes);
      data.bytes(IFLA_VXLAN_PORT, Uint8Array.of(port >>> 8, port & 0xff)); // __be16
    });
  });
}

/** Makes the device in `namespace`; it is down. EEXIST when there is a link of that name, or one with this id and port. */
export function createVxlan(namespace: string | undefined, properties: VxlanProperties): void {
  const channel = new Channel(namespace);
  try {
    channel.request(`create vxlan ${properties.name}`, createVxlanMessage(properties));
  } finally {
    channel.close();
  }
}
