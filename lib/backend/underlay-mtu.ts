/**
 * The underlay's MTU, followed: the link that has our underlay address can get another MTU at any time, and the overlay's
 * follows from it. The kernel's own news say when.
 */
import { watchNetwork } from '../netlink/monitor.ts';
import { openRtnetlink, type Rtnetlink } from '../netlink/netlink.ts';
import { formatAddress6 } from '../wire/address6.ts';
import { parseAddress6 } from '../wire/ip6.ts';

/** How long to wait after news that could not be followed up, because the kernel's tables changed while they were read. */
const LOOK_AGAIN_MS = 1_000;

/** One answer of the kernel's routing table. */
export interface KernelRoute {
  link: string;
  /** The address is this machine's own. */
  isLocal: boolean;
  /** What it believes to fit there in one piece: the link's, or what routers said. */
  mtu: number;
  gateway?: string;
  source?: string;
}

export interface UnderlayMtu {
  /** Sets the MTU of another link of the same namespace. */
  setLinkMtu(name: string, mtu: number): void;
  /** Which way the kernel would send to an address, of either network; undefined when it knows none. */
  routeTo(address: string): KernelRoute | undefined;
  stop(): void;
}

/**
 * Calls `onMtu` on this thread's event loop whenever the link that has `address` gets another MTU, or another link with
 * another MTU gets the address. In the namespace of the calling thread, wherever that is later.
 */
export function watchUnderlayMtu(address: string, onMtu: (mtu: number) => void): UnderlayMtu {
  const netlink = openRtnetlink();
  const wanted = canonical(address);
  let index: number | undefined;
  let mtu: number | undefined;
  const look = (): void => {
    const owner = netlink.addresses().find(known => canonical(known.address) === wanted);
    const link = owner === undefined ? undefined : netlink.links().find(known => known.index === owner.index);
    if (link === undefined) return; // it is gone for now; what comes back will be in the news
    index = link.index;
    changed(link.mtu);
  };
  let again: NodeJS.Timeout | undefined;
  /** As `look`, where nobody hears of an error. */
  const lookUntilSeen = (): void => {
    clearTimeout(again);
    try {
      look();
    } catch {
      again = setTimeout(lookUntilSeen, LOOK_AGAIN_MS);
    }
  };
  const changed = (next: number): void => {
    const before = mtu;
    mtu = next;
    if (before !== undefined && before !== next) onMtu(next);
  };
  let stopWatching = (): void => {};
  try {
    stopWatching = watchNetwork({ links: true, addresses: true }, event => {
      if (event.kind === 'link' && event.link.index === index) changed(event.link.mtu);
      else if (event.kind === 'resync') lookUntilSeen();
      else if (event.kind === 'address' && canonical(event.address.address) === wanted) lookUntilSeen();
    });
    look();
  } catch (error) {
    stopWatching();
    netlink.close();
    throw error;
  }
  return {
    routeTo: to => kernelRoute(netlink, to),
    setLinkMtu: (name, value) => netlink.setLink(name, { mtu: value }),
    stop() {
      clearTimeout(again);
      stopWatching();
      netlink.close();
    },
  };
}

function kernelRoute(netlink: Rtnetlink, to: string): KernelRoute | undefined {
  try {
    const { type, link, gateway, source, mtu = 0 } = netlink.routeTo(to);
    if (type !== 'unicast' && type !== 'local') return undefined;
    const ofLink = netlink.link(link)?.mtu ?? 0;
    return {
      link,
      isLocal: type === 'local',
      mtu: mtu === 0 ? ofLink : Math.min(mtu, ofLink),
      ...(gateway !== undefined && { gateway }),
      ...(source !== undefined && { source }),
    };
  } catch {
    return undefined;
  }
}

/** One spelling for each address. */
function canonical(address: string): string {
  const bytes = parseAddress6(address);
  return bytes === undefined ? address : formatAddress6(bytes);
}
