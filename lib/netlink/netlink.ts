/**
 * The face of this room: links, addresses and routes of one network namespace. Every call is synchronous, one request
 * and its acknowledgement, some tens of microseconds. Errors are NetlinkErrors: `code` is the errno name, the message
 * starts with what was asked for and ends with the kernel's own words. Removing what is missing succeeds.
 */
import { closeSync, openSync } from 'node:fs';
import { codeOf } from '../util/errors.ts';
import {
  type Address,
  type AddressOptions,
  addAddressMessage,
  deleteAddressMessage,
  listAddressesMessage,
  parseAddressMessage,
} from './address.ts';
import { type Family, formatAddress, parseAddress, parseCidr } from './address-text.ts';
import { Batch } from './batch.ts';
import { addPortMacMessage } from './bridge-port.ts';
import { Channel } from './channel.ts';
import { NetlinkError } from './error.ts';
import {
  type BridgeProperties,
  checkLinkName,
  createBridgeMessage,
  createVethMessage,
  deleteLinkMessage,
  isLinkName,
  type Link,
  type LinkChanges,
  listLinksMessage,
  parseLink,
  setLinkMessage,
  type VethProperties,
} from './link.ts';
import type { MessageBuilder } from './message.ts';
import {
  addRouteMessage,
  deleteRouteMessage,
  listRoutesMessage,
  lookupMessage,
  parseLookup,
  parseRoute,
  parseRouteMessage,
  type Route,
  type RouteKey,
  type RouteOptions,
  type RouteType,
} from './route.ts';

export type { Address, AddressOptions, Scope } from './address.ts';
export type { Family } from './address-text.ts';
export { type Answer, Batch, throwFirst } from './batch.ts';
export type { BridgePort } from './bridge-port.ts';
export type { Refusal } from './channel.ts';
export { NetlinkError } from './error.ts';
export type { BridgeProperties, Link, LinkChanges, VethProperties } from './link.ts';
export type { NextHop, Route, RouteKey, RouteOptions, RouteType } from './route.ts';

/** The way that a packet to one address would take. */
export interface Lookup {
  type: RouteType;
  /** name of the link that it leaves by; 'lo' for an address of this namespace */
  link: string;
  index: number;
  source?: string;
  gateway?: string;
  /** bytes; absent when the link's counts */
  mtu?: number;
}

/** @param namespace path of a network namespace's file; none is the calling thread's own */
export function openRtnetlink(namespace?: string): Rtnetlink {
  return new Rtnetlink(new Channel(namespace));
}

/** Opens, acts and closes. */
export function withRtnetlink<T>(namespace: string | undefined, action: (netlink: Rtnetlink) => T): T {
  const netlink = openRtnetlink(namespace);
  try {
    return action(netlink);
  } finally {
    netlink.close();
  }
}

export class Rtnetlink {
  readonly #channel: Channel;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** For requests that are sent in one piece. */
  batch(): Batch {
    return new Batch(this.#channel);
  }

  // ---- links

  links(): Link[] {
    return this.#channel.dump('list links', listLinksMessage(), message => parseLink(message.payload));
  }

  link(name: string): Link | undefined {
    if (!isLinkName(name)) return undefined;
    const batch = this.batch();
    const answer = batch.link(name);
    for (const refusal of batch.run().values()) if (refusal.code !== 'ENODEV') throw refusal.error();
    return answer.value;
  }

  /**
   * Of a link, without waiting for who is making or deleting others: one that is being deleted is gone a little before the
   * kernel is done with it. All other calls wait for that.
   */
  linkIndex(name: string): number | undefined {
    if (!isLinkName(name)) return undefined;
    try {
      return this.#channel.linkIndex(name) || undefined;
    } catch (error) {
      if (codeOf(error) !== 'EPERM') throw error;
      return this.link(name)?.index; // without CAP_NET_RAW
    }
  }

  /** A pair of links, the far one born inside `peerNamespace` under its own name; `mtu` counts for both. */
  createVeth(properties: VethProperties): void {
    const operation = `create veth ${properties.name}`;
    const { master: given } = properties;
    const master = typeof given === 'string' ? this.#indexOf(given, operation) : given;
    const create = (fd?: number): void => this.#channel.request(operation, createVethMessage(properties, fd, master));
    if (properties.peerNamespace === undefined) create();
    else withNamespaceFile(properties.peerNamespace, operation, create);
    if (!properties.peerUp) return;
    const { name, peerName, peerNamespace } = properties;
    try {
      if (peerNamespace === undefined) this.setLink(peerName, { up: true });
      else withRtnetlink(peerNamespace, peer => peer.setLink(peerName, { up: true }));
    } catch (error) {
      this.deleteLink(name);
      throw error;
    }
  }

  createBridge(properties: BridgeProperties): void {
    this.#channel.request(`create bridge ${properties.name}`, createBridgeMessage(properties));
  }

  deleteLink(name: string): void {
    if (!isLinkName(name)) return; // no link can have this name
    this.#request(`delete link ${name}`, deleteLinkMessage(name), 'ENODEV');
  }

  /**
   * Changes what is named and leaves the rest. The kernel makes the changes one after another and stops at the first
   * that fails: make unlike changes in separate calls where half of them must not stay.
   */
  setLink(name: string, changes: LinkChanges): void {
    const operation = `set link ${name}`;
    const { master: masterName } = changes;
    const master =
      masterName === undefined ? undefined : masterName === null ? 0 : this.#indexOf(masterName, operation);
    // By its name, which saves a question; a new name takes the name's place in the message.
    const link = changes.newName === undefined ? checkLinkName(name) : this.#indexOf(name, operation);
    const set = (fd?: number): void => {
      try {
        this.#channel.request(operation, setLinkMessage(link, changes, fd, master));
      } catch (error) {
        if (codeOf(error) === 'ENODEV') this.#indexOf(name, operation); // says which link is missing, if it is this one
        throw error;
      }
    };
    if (changes.namespace === undefined) set();
    else withNamespaceFile(changes.namespace, operation, set);
  }

  /** The bridge that `name` is a port of finds `mac` behind it from now on, whatever it sees. */
  addPortMac(name: string, mac: string): void {
    const operation = `add ${mac} to port ${name}`;
    this.#channel.request(operation, addPortMacMessage(this.#indexOf(name, operation), mac));
  }

  // ---- addresses

  /** Of one link, or of all. A link that does not exist has none. Who knows the link's index saves a question. */
  addresses(filter: { link?: string; index?: number; family?: Family } = {}): Address[] {
    const index = filter.link === undefined ? 0 : (filter.index ?? this.link(filter.link)?.index);
    if (index === undefined) return [];
    const found = this.#channel.dump('list addresses', listAddressesMessage(index), message =>
      parseAddressMessage(message.payload),
    );
    // The names of all links are a long list where there are many pods.
    const nameOf = filter.link === undefined ? this.#linkNames() : new Map([[index, filter.link]]);
    return found.flatMap(address => {
      const link = nameOf.get(address.index); // a link that went in between took its addresses along
      const wanted = (index === 0 || address.index === index) && (filter.family ?? address.family) === address.family;
      return link !== undefined && wanted ? [{ ...address, link }] : [];
    });
  }

  /** `cidr` is "10.1.2.3/24" (or an address alone: /32, /128). Succeeds when the link has exactly this one already. */
  addAddress(linkName: string, cidr: string, options: AddressOptions = {}): void {
    const operation = `add address ${cidr} to ${linkName}`;
    const wanted = parseCidr(cidr);
    const index = options.index ?? this.#indexOf(linkName, operation);
    try {
      this.#channel.request(operation, addAddressMessage(index, wanted, options));
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
      const text = formatAddress(wanted.bytes);
      const same = this.addresses({ link: linkName }).some(
        ({ address, prefixLength }) => address === text && prefixLength === wanted.prefixLength,
      );
      if (!same) throw error;
    }
  }

  deleteAddress(linkName: string, cidr: string): void {
    const wanted = parseCidr(cidr);
    const index = this.link(linkName)?.index;
    if (index === undefined) return;
    this.#request(
      `delete address ${cidr} from ${linkName}`,
      deleteAddressMessage(index, wanted),
      'EADDRNOTAVAIL',
      'ENODEV',
    );
  }

  // ---- routes

  /** Of all tables, also the kernel's own (254 is main, 255 local), or of one. */
  routes(family: Family, table?: number): Route[] {
    const found = this.#channel.dump(`list IPv${family} routes`, listRoutesMessage(family), message =>
      parseRouteMessage(message.payload),
    );
    const nameOf = this.#linkNames();
    return found.flatMap(route => {
      if (route.family !== family || (table !== undefined && route.table !== table)) return [];
      if (route.index === undefined) return [route];
      const link = nameOf.get(route.index);
      return link === undefined ? [] : [{ ...route, link }];
    });
  }

  /**
   * A route with the same destination, metric and table: EEXIST; with `replace` it is replaced, with `ensure` exactly
   * the same route is good enough.
   */
  addRoute(options: RouteOptions): void {
    const operation = `add route ${options.destination}`;
    const route = parseRoute(options);
    const index = options.index ?? (options.link === undefined ? undefined : this.#indexOf(options.link, operation));
    try {
      this.#channel.request(operation, addRouteMessage(route, options, index));
    } catch (error) {
      if (codeOf(error) !== 'EEXIST' || !options.ensure || !this.#hasRoute(options)) throw error;
    }
  }

  deleteRoute(key: RouteKey): void {
    const route = parseRoute(key);
    const index = key.link === undefined ? undefined : this.link(key.link)?.index;
    if (key.link !== undefined && index === undefined) return;
    // ENOENT: IPv6 found only the table's empty entry where the default route would be (net/ipv6/route.c, __ip6_del_rt).
    const missing = ['ESRCH', 'ENOENT', 'ENODEV'];
    this.#request(`delete route ${key.destination}`, deleteRouteMessage(route, key, index), ...missing);
  }

  #hasRoute(options: RouteOptions): boolean {
    const { destination, gateway, source, type } = parseRoute(options);
    const { family, bytes, prefixLength } = destination;
    const text = prefixLength === 0 ? 'default' : `${formatAddress(bytes)}/${prefixLength}`;
    const metric = options.metric ?? (family === 6 ? 1024 : 0); // IP6_RT_PRIO_USER, net/ipv6/route.c
    return this.routes(family, options.table ?? 254).some(
      route =>
        route.destination === text &&
        route.type === type &&
        route.metric === metric &&
        route.gateway === (gateway && formatAddress(gateway.bytes)) &&
        route.source === (source && formatAddress(source.bytes)) &&
        (options.link ?? route.link) === route.link &&
        (options.scope ?? route.scope) === route.scope &&
        (options.mtu ?? route.mtu) === route.mtu,
    );
  }

  /** Asks the kernel which way a packet would take; ENETUNREACH, EHOSTUNREACH, ... when there is none. */
  routeTo(address: string): Lookup {
    const operation = `look up the route to ${address}`;
    let found: ReturnType<typeof parseLookup>;
    this.#channel.request(operation, lookupMessage(parseAddress(address)), message => {
      found = parseLookup(message.payload);
    });
    const index = found?.index;
    const link = index === undefined ? undefined : this.#linkNames().get(index);
    if (found === undefined || index === undefined || link === undefined) {
      throw new NetlinkError('ENETUNREACH', `${operation}: no link leads there (${found?.type ?? 'no answer'})`);
    }
    const { type, source, gateway, mtu } = found;
    return {
      type,
      link,
      index,
      ...(source !== undefined && { source }),
      ...(gateway !== undefined && { gateway }),
      ...(mtu !== undefined && { mtu }),
    };
  }

  /** Closing twice is harmless; any other call after it is an EBADF. */
  close(): void {
    this.#channel.close();
  }

  #linkNames(): Map<number, string> {
    return new Map(this.links().map(link => [link.index, link.name]));
  }

  #indexOf(name: string, operation: string): number {
    const link = this.link(name);
    if (link === undefined) throw new NetlinkError('ENODEV', `${operation}: ENODEV (there is no link named "${name}")`);
    return link.index;
  }

  /** A request for which these refusals mean that there is nothing left to do. */
  #request(operation: string, message: MessageBuilder, ...fine: string[]): void {
    try {
      this.#channel.request(operation, message);
    } catch (error) {
      if (!fine.includes(codeOf(error) ?? '')) throw error;
    }
  }
}

/** Opens a namespace's file for one action. `operation` starts the message of an error. */
export function withNamespaceFile<T>(path: string, operation: string, action: (fd: number) => T): T {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (cause) {
    const code = codeOf(cause) ?? 'EINVAL';
    throw new NetlinkError(code, `${operation}: cannot open the network namespace ${path}: ${code}`, { cause });
  }
  try {
    return action(fd);
  } finally {
    closeSync(fd);
  }
}
