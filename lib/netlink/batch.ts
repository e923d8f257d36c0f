/**
 * Requests that are sent in one piece: one way into the kernel and back for all of them. The kernel does them in their
 * order and goes on after one that it refuses, so what is asked for later must do no harm then.
 */
import {
  type Address,
  type AddressOptions,
  addAddressMessage,
  listAddressesMessage,
  parseAddressMessage,
} from './address.ts';
import { type Family, parseCidr } from './address-text.ts';
import type { Channel, Refusal, Request } from './channel.ts';
import { getForwardingMessage, parseForwarding } from './forwarding.ts';
import {
  createVethMessage,
  getLinkMessage,
  type Link,
  type LinkChanges,
  parseLink,
  setLinkMessage,
  type VethProperties,
} from './link.ts';
import { addRouteMessage, parseRoute, type RouteOptions } from './route.ts';

/** What a request will have given when the batch has run; before that, and when it was refused, undefined. */
export interface Answer<T> {
  value: T | undefined;
}

export class Batch {
  readonly #channel: Channel;
  readonly #requests: Request[] = [];

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /**
   * The pair of `Rtnetlink.createVeth`, without `peerUp`.
   * @param peerNamespaceFd an open file of the peer's namespace, until the batch has run
   */
  createVeth(properties: VethProperties & { master?: number }, peerNamespaceFd: number): void {
    const { name, master } = properties;
    this.#add(`create veth ${name}`, createVethMessage(properties, peerNamespaceFd, master));
  }

  /** @param link name or index */
  setLink(link: string | number, changes: Omit<LinkChanges, 'master' | 'namespace' | 'newName'>): void {
    this.#add(`set link ${link}`, setLinkMessage(link, changes, undefined, undefined));
  }

  /** @param link name or index; one that is missing is a refusal, ENODEV */
  link(link: string | number): Answer<Link> {
    const answer: Answer<Link> = { value: undefined };
    this.#add(`look up link ${link}`, getLinkMessage(link), payload => {
      answer.value = parseLink(payload);
    });
    return answer;
  }

  /** One that is there already, even exactly this one, is a refusal, EEXIST. */
  addAddress(index: number, cidr: string, options: AddressOptions = {}): void {
    this.#add(`add address ${cidr}`, addAddressMessage(index, parseCidr(cidr), options));
  }

  addRoute(options: RouteOptions & { index: number }): void {
    const operation = `add route ${options.destination}`;
    this.#add(operation, addRouteMessage(parseRoute(options), options, options.index));
  }

  /** The last of a batch. Of a link that is gone: none. */
  addresses(index: number): Omit<Address, 'link'>[] {
    const found: Omit<Address, 'link'>[] = [];
    this.#add(`list addresses of link ${index}`, listAddressesMessage(index), payload => {
      const address = parseAddressMessage(payload);
      // A kernel without strict checking lists those of all links.
      if (address?.index === index) found.push(address);
    });
    return found;
  }

  /** Whether this namespace forwards packets of a family. */
  forwarding(family: Family): Answer<boolean> {
    const answer: Answer<boolean> = { value: undefined };
    this.#add(`ask for IPv${family} forwarding`, getForwardingMessage(family), payload => {
      answer.value = parseForwarding(payload);
    });
    return answer;
  }

  /** How many requests there are: the place of the next one. */
  get length(): number {
    return this.#requests.length;
  }

  /** What was refused, by the request's place. */
  run(): ReadonlyMap<number, Refusal> {
    return this.#requests.length === 0 ? new Map() : this.#channel.each(this.#requests);
  }

  #add(operation: string, builder: Request['builder'], visit?: (payload: Uint8Array) => void): void {
    this.#requests.push({ operation, builder, ...(visit !== undefined && { visit: ({ payload }) => visit(payload) }) });
  }
}

/**
 * Throws the refusal of the earliest request.
 * @param end of the places that count
 */
export function throwFirst(refused: ReadonlyMap<number, Refusal>, end: number = Number.POSITIVE_INFINITY): void {
  const place = Math.min(...refused.keys());
  if (place < end) throw refused.get(place)?.error();
}
