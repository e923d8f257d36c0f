/**
 * What a bridge knows about one of its ports: flags as attributes of the port's link, and entries of the bridge's table
 * of MAC addresses. Source: include/uapi/linux/if_link.h, neighbour.h, net/bridge/br_netlink.c, Linux 6.18.
 */
import { parseMac } from './address-text.ts';
import {
  type Attributes,
  MessageBuilder,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  NLM_F_REQUEST,
  u8Of,
} from './message.ts';

export interface BridgePort {
  /** frames may leave by the port that they came in by */
  hairpin: boolean;
  /** frames pass between this port and ports that are not isolated, only */
  isolated: boolean;
  /** the bridge notes which addresses it sees behind the port */
  learning: boolean;
  /** frames come in only from addresses that the bridge's table has behind the port; Linux 5.16 and newer */
  locked: boolean;
}

/** linux/if_link.h, IFLA_BRPORT_ */
const TYPES: readonly (readonly [keyof BridgePort, number])[] = [
  ['hairpin', 4], // IFLA_BRPORT_MODE
  ['learning', 8],
  ['isolated', 33],
  ['locked', 39],
];

export function addPortFlags(builder: MessageBuilder, port: Partial<BridgePort>): void {
  for (const [name, type] of TYPES) {
    const value = port[name];
    if (value !== undefined) builder.bytes(type, Uint8Array.of(value ? 1 : 0));
  }
}

/** A flag that this kernel does not know is false. */
export function parsePort(attributes: Attributes): BridgePort {
  const port: BridgePort = { hairpin: false, isolated: false, learning: false, locked: false };
  for (const [name, type] of TYPES) port[name] = u8Of(attributes, type) === 1;
  return port;
}

/** linux/rtnetlink.h, neighbour.h */
const RTM_NEWNEIGH = 28;
const AF_BRIDGE = 7;
/** struct ndmsg: family 8, pad 8, pad 16, index 32, state 16, flags 8, type 8 */
const NDMSG_BYTES = 12;
const NUD_NOARP = 0x40;
const NTF_MASTER = 0x04;
const NDA_LLADDR = 2;

/** An entry that does not age and does not move to another port: "bridge fdb add MAC dev LINK master static". */
export const addPortMacMessage = (index: number, mac: string): MessageBuilder =>
  new MessageBuilder(RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
    .body(NDMSG_BYTES, (view, little) => {
      view.setUint8(0, AF_BRIDGE);
      view.setInt32(4, index, little);
      view.setUint16(8, NUD_NOARP, little);
      view.setUint8(10, NTF_MASTER);
    })
    .bytes(NDA_LLADDR, parseMac(mac));
