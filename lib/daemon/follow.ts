/** The overlay follows the registry: renewals of our lease, the peers, and what both do to the data path. */
import type { Overlay } from '../backend/overlay.ts';
import { type Lease, printSubnets } from '../lease/lease.ts';
import type { ManagerEvent } from '../lease/manager.ts';
import { TulleError } from '../util/errors.ts';
import { overlaps4 } from '../wire/cidr.ts';
import type { DaemonNetwork } from './network.ts';
import { noticeOthers } from './others.ts';
import { PeerWatch } from './peer-watch.ts';
import { orStopped, Stopped } from './retry.ts';
import { type Run, setWaiting } from './run.ts';

/**
 * Starts the renewals and the watch; resolves once the first snapshot is in the route table. `lost` only ever rejects,
 * with 'lease-lost'.
 */
export async function follow(
  run: Run,
  network: DaemonNetwork,
  nodeId: string,
  own: Lease,
  overlay: Overlay,
): Promise<{ lost: Promise<never> }> {
  const { options, parts, log, stop, undo, registry, manager, journal } = run;
  const { config } = network;
  const running = new AbortController();
  const signal = AbortSignal.any([stop, running.signal]);
  const noticeOther = noticeOthers(run, network, signal);
  const peers = new PeerWatch({
    registry,
    nodeId,
    own,
    // While a net-conf changes there are leases of the old network, too.
    apply: changes => {
      overlay.apply(changes.filter(({ lease }) => overlaps4(config.network, lease.subnet)));
      run.onPeers?.();
    },
    observe: message => {
      noticeOther(message);
      manager.observe(message);
      journal.observe(message);
    },
    log,
    clock: parts.clock,
  });
  run.observed.peers = peers;
  const unsubscribe = manager.subscribe(event => {
    journal.event(event);
    try {
      onLeaseEvent(run, event, peers, overlay);
    } catch (error) {
      log.error({ event: event.kind, error }, 'a change of the lease could not be applied');
    }
  });

  let reason = 'the lease was lost';
  const renewing = manager.run(signal, { marginSeconds: options.renewMarginSeconds });
  let onFirst = (): void => {};
  const first = new Promise<void>(resolve => {
    onFirst = resolve;
  });
  const watching = peers.run(signal, onFirst);
  undo.push('renewals and watch', async () => {
    running.abort();
    await Promise.all([renewing, watching]);
    unsubscribe();
  });
  manager.subscribe(event => {
    if (event.kind === 'lost') reason = event.reason;
  });

  const lost = renewing.then(outcome => {
    if (outcome === 'stopped') throw new Stopped();
    run.giveBack = false; // it is somebody else's now
    throw new TulleError('lease-lost', `the lease is lost: ${reason}; start again to get another one`);
  });
  lost.catch(() => {}); // it may be lost while nobody waits for it yet
  await orStopped(Promise.race([first, lost]), stop);
  return { lost };
}

function onLeaseEvent(run: Run, event: ManagerEvent, peers: PeerWatch, overlay: Overlay): void {
  const { log, options } = run;
  const subnet = printSubnets(event.lease);
  switch (event.kind) {
    case 'renewed':
      log.debug({ subnet }, 'lease renewed');
      break;
    case 'reacquired':
      overlay.setLease(event.lease);
      peers.setOwn(event.lease);
      log.warn({ subnet }, 'the lease was gone and has been made again');
      break;
    case 'fenced':
      // The worker stopped forwarding by itself at the deadline; this is only for people.
      run.fenced = true;
      setWaiting(run, 'the lease to be renewed');
      if (event.why === 'late') {
        const { leaseTtlSeconds: ttlSeconds } = options;
        log.error({ subnet, ttlSeconds }, 'the lease was not renewed in time: forwarding stops');
      } else log.error({ subnet }, 'the registry says that the lease is not ours any more: forwarding stops');
      return;
    case 'lost':
      return; // the deadline is over at once
  }
  if (!run.fenced) return;
  run.fenced = false;
  if (run.started) setWaiting(run, undefined);
  log.info({ subnet }, 'the lease is renewed: forwarding goes on');
}
