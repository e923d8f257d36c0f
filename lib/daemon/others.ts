/**
 * Another daemon for this node's subnet, where the cluster gives it: flannel, that was to be replaced. It is looked for before
 * the lease is taken, and when it shows itself later: it writes this node's annotations when it starts, and its device and its
 * routes come a moment after that. A node that carries packets is not ended for it; the next start is refused.
 */
import { DELETE_FLANNEL, type OverlayRange } from '../host/other-overlay.ts';
import { sameSubnets } from '../lease/lease.ts';
import { type Events, putsOf, type Snapshot } from '../lease/registry.ts';
import { messageOf } from '../util/errors.ts';
import type { DaemonNetwork } from './network.ts';
import type { Run } from './run.ts';

/** flanneld writes the annotations first, then gives its device an address, then adds routes. */
const LOOK_AFTER_MS = 10_000;

/** @throws TulleError 'other-overlay' */
export function refuseOthers({ parts, registry, log }: Run, network: DaemonNetwork): void {
  if (registry.thisNode === undefined) return;
  for (const odd of parts.refuseOtherOverlay(rangesOf(registry, network))) {
    log.warn({ ...odd }, "an address of a subnet that is not this node's any more: pods behind it must be made again");
  }
}

/** What looks at each message of the watch. Two lines for each time that the other daemon shows itself. */
export function noticeOthers(
  { parts, registry, manager, overlay, log }: Run,
  network: DaemonNetwork,
  signal: AbortSignal,
): (message: Snapshot | Events) => void {
  if (registry.thisNode === undefined) return () => {};
  let looking = false;

  async function look(backend: string): Promise<void> {
    looking = true;
    const does = `is it flannel? ${DELETE_FLANNEL}`;
    log.error({ backend }, `another daemon writes this node's annotations, and they are written back: ${does}`);
    await parts.clock.sleep(LOOK_AFTER_MS, signal);
    looking = false;
    if (signal.aborted) return;
    try {
      parts.refuseOtherOverlay(rangesOf(registry, network), overlay?.device);
    } catch (error) {
      log.error({ reason: messageOf(error) }, 'two overlays carry packets of this node');
    }
  }

  return message => {
    const own = manager.lease;
    if (own === undefined || looking) return;
    const ours = own.attributes.BackendType ?? 'udp';
    // An older one is what we found and replaced.
    const other = putsOf(message).find(
      lease =>
        sameSubnets(lease, own) &&
        lease.modRevision > own.modRevision &&
        (lease.attributes.BackendType ?? 'udp') !== ours,
    );
    if (other !== undefined) void look(other.attributes.BackendType ?? 'udp');
  };
}

/** None where the registry does not know the nodes. */
function rangesOf(registry: Run['registry'], { config: { network, network6 } }: DaemonNetwork): OverlayRange[] {
  const node = registry.thisNode?.();
  if (node === undefined) return [];
  const { subnet, subnet6 } = node.subnets;
  return [{ network, own: subnet }, ...(network6 && subnet6 ? [{ network: network6, own: subnet6 }] : [])];
}
