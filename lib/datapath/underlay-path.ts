/** What the kernel believes of the way to a peer: its route, and what routers on the way have said about it. */
import { openRtnetlink, type Rtnetlink } from '../netlink/netlink.ts';
import { get32 } from '../wire/bytes.ts';
import { formatAddress4 } from '../wire/ip4.ts';
import { formatAddress6 } from '../wire/ip6.ts';
import type { PathLookup } from './path-mtu.ts';
import type { Slab } from './slab.ts';

const AF_INET = 2;

/** The text of the address in a struct sockaddr_in or sockaddr_in6 at `offset`. */
export function addressText(slab: Slab, offset: number): string {
  const four = (slab.words[offset >> 2] & 0xffff) === AF_INET;
  return four ? formatAddress4(get32(slab.bytes, offset + 4)) : formatAddress6(slab.bytes, offset + 8);
}

/** Asks the kernel's routing table of this thread's namespace. It is asked when a datagram was refused, so it need not be fast. */
export function pathLookup(slab: Slab): PathLookup {
  let netlink: Rtnetlink | undefined;
  return addressOffset => {
    try {
      netlink ??= openRtnetlink();
      const { link, mtu } = netlink.routeTo(addressText(slab, addressOffset));
      const ofLink = netlink.link(link)?.mtu ?? 0;
      return mtu === undefined || mtu === 0 ? ofLink : Math.min(mtu, ofLink);
    } catch {
      return 0; // no route just now: the caller guesses
    }
  };
}
