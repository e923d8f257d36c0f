/** GET /peers on the control socket: each peer, and what probes told of it. */

import { printEndpoint } from '../datapath/peers.ts';
import { FORMAT_TULLE, NO_LIMIT } from '../datapath/slab.ts';
import { nodeIdOf } from '../lease/lease.ts';
import type { ControlRoutes } from '../observe/control.ts';
import { TulleError } from '../util/errors.ts';
import { formatCidr4 } from '../wire/cidr.ts';
import type { Observed } from './observed.ts';

/** One peer as the control socket tells of it. Times are milliseconds; null is "not known". */
export interface PeerEntry {
  subnet: string;
  /** null: the lease does not say. */
  node: string | null;
  endpoint: string;
  format: 'tulle' | 'bare';
  rttMs: number | null;
  lastRttMs: number | null;
  minRttMs: number | null;
  lossPct: number | null;
  lastHeardMs: number | null;
  pathMtu: number | null;
  /** The largest inner packet that is sent to it in one piece; null: whatever the device gives. */
  limit: number | null;
  /** null: it is not probed. */
  silent: boolean | null;
}

export function peersRoute(observed: Observed, routes: ControlRoutes): void {
  routes.add('GET', '/peers', () => ({ json: { peers: peerEntries(observed) } }));
}

/** @throws TulleError 'unavailable' before there is an overlay */
export function peerEntries({ overlay, probes, peers }: Observed): PeerEntry[] {
  if (overlay === undefined) throw new TulleError('unavailable', 'this node has no overlay yet');
  const leases = new Map((peers?.peers ?? []).map(lease => [lease.subnet.address, lease]));
  return overlay.peers().map(peer => {
    const lease = leases.get(peer.subnet.address);
    const health = probes?.of(peer.subnet);
    const limit = overlay.wayTo(peer.subnet)?.limit ?? NO_LIMIT;
    return {
      subnet: formatCidr4(peer.subnet),
      node: (lease && nodeIdOf(lease)) ?? null,
      endpoint: printEndpoint(peer),
      format: peer.format === FORMAT_TULLE ? 'tulle' : 'bare',
      rttMs: health?.rttMs ?? null,
      lastRttMs: health?.lastRttMs ?? null,
      minRttMs: health?.minRttMs ?? null,
      lossPct: health?.lossPct ?? null,
      lastHeardMs: health?.lastHeardMs ?? probes?.lastHeardMs(peer.subnet) ?? null,
      pathMtu: health?.pathMtu ?? null,
      limit: limit === NO_LIMIT ? null : limit,
      silent: health?.silent ?? null,
    };
  });
}
