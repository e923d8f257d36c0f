/**
 * Which link carries the underlay: flanneld's rules (pkg/ipmatch/match.go and main.go), in its order.
 *   1. --iface, each a link's name or one of its addresses: the first that fits
 *   2. --iface-regex, each tried on the IPv4 addresses, then on the names: the first that fits
 *   3. --iface-can-reach: the link of the route to that address
 *   4. none of these given: the link that has --public-ip (or --public-ipv6), else that of the default route
 * When options of 1 to 3 were given and nothing fits, 4 is not tried.
 */
import { isIP } from 'node:net';
import type { Address, Family, Link, Route, Rtnetlink } from '../netlink/netlink.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import { formatAddress6, parseAddress6 } from '../wire/address6.ts';

export interface InterfaceOptions {
  /** names or addresses */
  iface?: readonly string[];
  /** not anchored; a leading "(?i)" is understood, as with Go */
  ifaceRegex?: readonly string[];
  ifaceCanReach?: string;
  publicIp?: string;
  publicIp6?: string;
  /** must have an IPv4 address; default true */
  needIp4?: boolean;
  /** must have an IPv6 address; default false */
  needIp6?: boolean;
}

export interface ChosenInterface {
  name: string;
  index: number;
  /** bytes, never 0 */
  mtu: number;
  /** of the underlay: the one that was named, else the link's first that others can reach */
  address4?: string;
  address6?: string;
}

/** What the choice needs of an Rtnetlink. */
export type InterfaceSource = Pick<Rtnetlink, 'links' | 'addresses' | 'routes' | 'routeTo'>;

interface Match {
  link: Link;
  /** the address that led here */
  address?: string;
}

/**
 * Throws a TulleError with one line: 'bad-pattern' for a regex that does not compile, 'no-interface' when nothing fits,
 * 'no-mtu' and 'no-address' when what fits cannot be used.
 */
export function chooseInterface(netlink: InterfaceSource, options: InterfaceOptions = {}): ChosenInterface {
  const machine = new Machine(netlink);
  const { link, address } = find(machine, options);
  const { needIp4 = true, needIp6 = false } = options;
  if (link.mtu === 0)
    throw new TulleError('no-mtu', `interface ${link.name} has an MTU of 0: set one, or choose another`);
  const address4 = address !== undefined && isIP(address) === 4 ? address : machine.usable(link, 4)[0];
  const address6 = address !== undefined && isIP(address) === 6 ? address : machine.usable(link, 6)[0];
  for (const [needed, found, family] of [
    [needIp4, address4, 4],
    [needIp6, address6, 6],
  ] as const) {
    if (!needed || found !== undefined) continue;
    throw new TulleError(
      'no-address',
      `interface ${link.name} has no IPv${family} address: give it one, or choose another with --iface`,
    );
  }
  return {
    name: link.name,
    index: link.index,
    mtu: link.mtu,
    ...(address4 !== undefined && { address4 }),
    ...(address6 !== undefined && { address6 }),
  };
}

function find(machine: Machine, options: InterfaceOptions): Match {
  const { iface = [], ifaceRegex = [], ifaceCanReach, publicIp, publicIp6 } = options;
  const patterns = ifaceRegex.map(compile); // all of them first: a wrong one must not hide behind a match
  const tried: string[] = [];
  for (const wanted of iface) {
    const match = isIP(wanted) === 0 ? machine.byName(wanted) : machine.byAddress(wanted);
    if (match !== undefined) return match;
    tried.push(isIP(wanted) === 0 ? `no interface named ${wanted}` : `no interface with address ${wanted}`);
  }
  for (const [index, pattern] of patterns.entries()) {
    const match = machine.byPattern(pattern);
    if (match !== undefined) return match;
    tried.push(`no interface whose address or name matches "${ifaceRegex[index]}"`);
  }
  if (ifaceCanReach !== undefined) {
    const { match, reason } = machine.byReach(ifaceCanReach);
    if (match !== undefined) return match;
    tried.push(`no interface that can reach ${ifaceCanReach} (${reason})`);
  }
  if (tried.length > 0) throw machine.nothing(tried);
  const wanted = publicIp ?? publicIp6;
  if (wanted !== undefined) {
    const match = machine.byAddress(wanted);
    if (match !== undefined) return match;
    throw machine.nothing([
      `no interface with the public address ${wanted} (name one with --iface if it is behind NAT)`,
    ]);
  }
  const match = machine.byDefaultRoute(options.needIp4 === false ? [6] : [4]);
  if (match !== undefined) return match;
  throw machine.nothing(['no default route to choose an interface by (name one with --iface)']);
}

/** Go's regexps and JavaScript's agree on what people write here but for the inline flag. */
function compile(text: string): RegExp {
  const flags = /^\(\?([ims]+)\)/.exec(text);
  try {
    return new RegExp(flags === null ? text : text.slice(flags[0].length), flags?.[1] ?? '');
  } catch (cause) {
    throw new TulleError('bad-pattern', `--iface-regex "${text}" is not a regular expression: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/** Links and addresses of one namespace, read once. */
class Machine {
  readonly #netlink: InterfaceSource;
  readonly #links: Link[];
  readonly #addresses: Address[];

  constructor(netlink: InterfaceSource) {
    this.#netlink = netlink;
    this.#links = netlink.links();
    this.#addresses = netlink.addresses();
  }

  /** Addresses of a link that others may send to: global ones, else link-local ones (RFC 3927, RFC 4291 2.5.6). */
  usable(link: Link, family: Family): string[] {
    const all = this.#addresses.filter(
      ({ index, family: own, scope }) => index === link.index && own === family && scope !== 'host',
    );
    const isLinkLocal = ({ address }: Address): boolean => /^(169\.254\.|fe[89ab][0-9a-f]:)/i.test(address);
    const global = all.filter(address => !isLinkLocal(address));
    return (global.length > 0 ? global : all).map(({ address }) => address);
  }

  byName(name: string): Match | undefined {
    const link = this.#links.find(link => link.name === name);
    return link === undefined ? undefined : { link };
  }

  byAddress(address: string): Match | undefined {
    const same = canonical(address);
    const owner = this.#addresses.find(other => canonical(other.address) === same);
    return this.#match(owner?.index, owner?.address);
  }

  byPattern(pattern: RegExp): Match | undefined {
    for (const link of this.#links) {
      const address = this.usable(link, 4).find(address => pattern.test(address));
      if (address !== undefined) return { link, address };
    }
    const link = this.#links.find(({ name }) => pattern.test(name));
    return link === undefined ? undefined : { link };
  }

  byReach(address: string): { match?: Match; reason?: string } {
    if (isIP(address) === 0) return { reason: 'not an IP address' };
    try {
      const { index, source } = this.#netlink.routeTo(address);
      const match = this.#match(index, source);
      return match === undefined ? { reason: 'its link is gone' } : { match };
    } catch (error) {
      return { reason: messageOf(error) };
    }
  }

  byDefaultRoute(families: Family[]): Match | undefined {
    const isDefault = ({ destination, type, table }: Route): boolean =>
      destination === 'default' && type === 'unicast' && table === 254;
    for (const family of families) {
      const routes = this.#netlink.routes(family).filter(isDefault);
      const best = routes.sort((a, b) => a.metric - b.metric)[0];
      const match = this.#match(best?.index, best?.source);
      if (match !== undefined) return match;
    }
    return undefined;
  }

  #match(index: number | undefined, address: string | undefined): Match | undefined {
    const link = this.#links.find(link => link.index === index);
    if (link === undefined) return undefined;
    return address === undefined ? { link } : { link, address };
  }

  nothing(tried: string[]): TulleError {
    const names = this.#links.map(({ name }) => name).join(', ');
    return new TulleError('no-interface', `${tried.join('; ')}; this machine has: ${names === '' ? 'none' : names}`);
  }
}

/** One spelling for each IPv6 address. */
function canonical(address: string): string {
  const bytes = parseAddress6(address);
  return bytes === undefined ? address : formatAddress6(bytes);
}
