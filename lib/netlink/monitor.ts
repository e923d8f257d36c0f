/**
 * The kernel's own news about links, addresses and routes. The socket has a limited buffer: when news come faster than
 * they are read, the kernel throws them away and says so (ENOBUFS); the watcher then gets 'resync' and must read the
 * state again. To miss nothing, start watching first and read the state after that.
 */
import { close, netlinkReceive, openNetlink, pollReadable } from '../sys/sys.ts';
import { type Address, parseAddressMessage, RTM_DELADDR, RTM_NEWADDR } from './address.ts';
import { IFINFOMSG_BYTES, IFLA_MTU, type Link, parseLink, RTM_DELLINK, RTM_NEWLINK } from './link.ts';
import { type Message, parseAttributes, parseMessages } from './message.ts';
import { parseRouteMessage, type Route, RTM_DELROUTE, RTM_NEWROUTE } from './route.ts';

/** linux/rtnetlink.h */
const RTMGRP_LINK = 0x1;
const RTMGRP_IPV4_IFADDR = 0x10;
const RTMGRP_IPV4_ROUTE = 0x40;
const RTMGRP_IPV6_IFADDR = 0x100;
const RTMGRP_IPV6_ROUTE = 0x400;
/** linux/socket.h. A bridge tells of its ports in link messages of its own family, which also end when only the port does. */
const AF_UNSPEC = 0;

const RECEIVE_BYTES = 64 * 1024;
/** Receives per turn of the event loop; the poll is level-triggered, so the rest comes in the next turn. */
const RECEIVES_PER_TURN = 64;

export type LinkEvent =
  /** new, or something about it changed */
  { kind: 'link'; link: Link } | { kind: 'link-removed'; link: Link } | { kind: 'resync' };

/** Addresses and routes name their link by its index: its name may be gone with it. */
export type NetworkEvent =
  | LinkEvent
  | { kind: 'address' | 'address-removed'; address: Omit<Address, 'link'> }
  | { kind: 'route' | 'route-removed'; route: Omit<Route, 'link'> };

export interface WatchOptions {
  /** path; none is the calling thread's own */
  namespace?: string;
  links?: boolean;
  addresses?: boolean;
  routes?: boolean;
}

/** Calls `onEvent` on this thread's event loop until the returned function is called, which may be twice. */
export function watchNetwork(options: WatchOptions, onEvent: (event: NetworkEvent) => void): () => void {
  const groups =
    (options.links ? RTMGRP_LINK : 0) |
    (options.addresses ? RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR : 0) |
    (options.routes ? RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE : 0);
  const { namespace } = options;
  const handle = openNetlink({ protocol: 0, groups, ...(namespace !== undefined && { namespace }) });
  const buffer = new Uint8Array(RECEIVE_BYTES);
  let stopped = false;

  const drain = (): void => {
    for (let turn = 0; turn < RECEIVES_PER_TURN && !stopped; turn++) {
      const events = receive();
      if (events.length === 0) return;
      for (const event of events) if (!stopped) onEvent(event);
    }
  };
  const receive = (): NetworkEvent[] => {
    try {
      for (;;) {
        const count = netlinkReceive(handle, buffer, 0);
        if (count === 0) return [];
        const events = parseMessages(buffer.subarray(0, count)).flatMap(eventsOf);
        if (events.length > 0) return events;
      }
    } catch {
      // ENOBUFS, or news that cannot be read: either way some are missing. After ENOBUFS the kernel throws everything
      // away until the queue is empty (af_netlink.c, NETLINK_S_CONGESTED); what is read before that is soon out of date.
      discard(handle, buffer);
      return [{ kind: 'resync' }];
    }
  };

  let stopPolling: () => void;
  try {
    stopPolling = pollReadable(handle, drain);
  } catch (error) {
    close(handle);
    throw error;
  }
  return () => {
    if (stopped) return;
    stopped = true;
    stopPolling();
    close(handle);
  };
}

/** Empties the queue. It cannot grow meanwhile by more than it holds; an error ends it, too. */
function discard(handle: number, buffer: Uint8Array): void {
  try {
    while (netlinkReceive(handle, buffer, 0) > 0);
  } catch {
    // The poll will come back to it.
  }
}

/** Links only. */
export function watchLinks(namespace: string | undefined, onEvent: (event: LinkEvent) => void): () => void {
  return watchNetwork({ links: true, ...(namespace !== undefined && { namespace }) }, event => {
    if (event.kind === 'link' || event.kind === 'link-removed' || event.kind === 'resync') onEvent(event);
  });
}

/** What one message of the kernel's tells; nothing for what is not about links, addresses and routes. */
export function eventsOf({ type, payload }: Message): NetworkEvent[] {
  switch (type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      if (payload[0] !== AF_UNSPEC) return [];
      // A wireless driver tells of a finished scan with the link's name and an attribute of its own, no more
      // (net/wireless/wext-core.c, rtnetlink_ifinfo_prep): nothing that we know of has changed.
      if (type === RTM_NEWLINK && !parseAttributes(payload, IFINFOMSG_BYTES).has(IFLA_MTU)) return [];
      return [{ kind: type === RTM_NEWLINK ? 'link' : 'link-removed', link: parseLink(payload) }];
    case RTM_NEWADDR:
    case RTM_DELADDR: {
      const address = parseAddressMessage(payload);
      return address === undefined ? [] : [{ kind: type === RTM_NEWADDR ? 'address' : 'address-removed', address }];
    }
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const route = parseRouteMessage(payload);
      return route === undefined ? [] : [{ kind: type === RTM_NEWROUTE ? 'route' : 'route-removed', route }];
    }
    default:
      return [];
  }
}
