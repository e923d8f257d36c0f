/** Addresses as messages: RTM_*ADDR with struct ifaddrmsg. Source: include/uapi/linux/if_addr.h, Linux 6.18. */
import { addressFamilyOf, type CidrBytes, type Family, familyOf, formatAddress } from './address-text.ts';
import { NetlinkError } from './error.ts';
import {
  MessageBuilder,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REQUEST,
  parseAttributes,
  parseBody,
  u32At,
  u32Of,
} from './message.ts';

/** linux/rtnetlink.h */
export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
/** struct ifaddrmsg: family 8, prefixlen 8, flags 8, scope 8, index 32 */
const IFADDRMSG_BYTES = 8;
/** linux/if_addr.h */
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
const IFA_F_NODAD = 0x02;
const IFA_F_TENTATIVE = 0x40;
const IFA_F_NOPREFIXROUTE = 0x200;

/** Named as in linux/rtnetlink.h (RT_SCOPE_); 'global' is RT_SCOPE_UNIVERSE. A number is one that somebody made up. */
export type Scope = 'global' | 'site' | 'link' | 'host' | 'nowhere' | number;
const SCOPES: ReadonlyMap<Scope, number> = new Map([
  ['global', 0],
  ['site', 200],
  ['link', 253],
  ['host', 254],
  ['nowhere', 255],
]);
const SCOPE_NAMES = new Map([...SCOPES].map(([name, number]) => [number, name]));
export const scopeNumber = (scope: Scope): number =>
  typeof scope === 'number' ? scope & 0xff : (SCOPES.get(scope) ?? 0);
export const scopeOf = (number: number): Scope => SCOPE_NAMES.get(number) ?? number;

export interface Address {
  /** of the link that has it */
  index: number;
  /** name of that link */
  link: string;
  family: Family;
  address: string;
  prefixLength: number;
  scope: Scope;
  /** IPv6 only: duplicate address detection is not over, and nothing can be bound to it yet */
  tentative: boolean;
}

export interface AddressOptions {
  /** do not make the route to the prefix that comes with an address */
  noPrefixRoute?: boolean;
  /** IPv6: usable at once, without duplicate address detection */
  nodad?: boolean;
  scope?: Scope;
  /** the link's, from who knows it */
  index?: number;
}

function addressMessage(
  type: number,
  flags: number,
  index: number,
  { family, prefixLength, bytes }: CidrBytes,
  scope = 0,
): MessageBuilder {
  const builder = new MessageBuilder(type, NLM_F_REQUEST | flags).body(IFADDRMSG_BYTES, (view, little) => {
    view.setUint8(0, addressFamilyOf(family));
    view.setUint8(1, prefixLength);
    view.setUint8(3, scope);
    view.setUint32(4, index, little);
  });
  return builder.bytes(IFA_LOCAL, bytes).bytes(IFA_ADDRESS, bytes);
}

/** @param index of one link, or 0 for all */
export const listAddressesMessage = (index: number): MessageBuilder =>
  new MessageBuilder(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP).body(IFADDRMSG_BYTES, (view, little) =>
    view.setUint32(4, index, little),
  );

export function addAddressMessage(index: number, cidr: CidrBytes, options: AddressOptions): MessageBuilder {
  // 127/8 is of scope host unless somebody says otherwise, as with the ip command.
  const usual: Scope = cidr.family === 4 && cidr.bytes[0] === 127 ? 'host' : 'global';
  const scope = scopeNumber(options.scope ?? usual);
  const flags = (options.nodad ? IFA_F_NODAD : 0) | (options.noPrefixRoute ? IFA_F_NOPREFIXROUTE : 0);
  return addressMessage(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, index, cidr, scope).u32(IFA_FLAGS, flags);
}

export const deleteAddressMessage = (index: number, cidr: CidrBytes): MessageBuilder =>
  addressMessage(RTM_DELADDR, NLM_F_ACK, index, cidr);

/** The payload of an RTM_NEWADDR or RTM_DELADDR; undefined for a family other than IPv4 and IPv6. */
export function parseAddressMessage(payload: Uint8Array): Omit<Address, 'link'> | undefined {
  const body = parseBody(payload, IFADDRMSG_BYTES);
  const family = familyOf(body.getUint8(0));
  if (family === undefined) return undefined;
  const attributes = parseAttributes(payload, IFADDRMSG_BYTES);
  // On a point-to-point link IFA_ADDRESS is the far end's; IFA_LOCAL, where present, is always ours.
  const bytes = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
  if (bytes === undefined || bytes.length !== (family === 4 ? 4 : 16)) {
    throw new NetlinkError('EBADMSG', 'malformed netlink message: an address entry without its address');
  }
  const flags = u32Of(attributes, IFA_FLAGS) ?? body.getUint8(2);
  return {
    index: u32At(body, 4),
    family,
    address: formatAddress(bytes),
    prefixLength: body.getUint8(1),
    scope: scopeOf(body.getUint8(3)),
    tentative: (flags & IFA_F_TENTATIVE) !== 0,
  };
}
