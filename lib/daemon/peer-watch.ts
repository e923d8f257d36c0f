/** From the registry's watch to the overlay: reconcile is pure, this is its hand. */
import type { Clock } from '../lease/clock.ts';
import { type Lease, nodeIdOf, printSubnets } from '../lease/lease.ts';
import {
  emptyView,
  type Own,
  type PeerChange,
  type PeerView,
  type Reconciled,
  reconcile,
  withOwn,
} from '../lease/reconcile.ts';
import type { Events, Registry, Snapshot } from '../lease/registry.ts';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';

export interface PeerWatchOptions {
  registry: Pick<Registry, 'watch'>;
  nodeId: string;
  own: Lease;
  /** Brings the changes into the route table. */
  apply(changes: PeerChange[]): void;
  /** Sees every message before it is applied. */
  observe(message: Snapshot | Events): void;
  log: Logger;
  clock: Clock;
}

/** The pause before a watch that ended by itself, which it must not, is begun again. */
const RESTART_PAUSE_MS = 5000;

export class PeerWatch {
  readonly #options: PeerWatchOptions;
  #view: PeerView;

  constructor(options: PeerWatchOptions) {
    this.#options = options;
    this.#view = emptyView(this.#ownOf(options.own));
  }

  /** Those that packets may go to now. */
  get peers(): Lease[] {
    return [...this.#view.peers.values()];
  }

  /** Our own lease is another one now: what was ours may be a peer and the reverse. */
  setOwn(lease: Lease): void {
    this.#take(withOwn(this.#view, this.#ownOf(lease)));
  }

  #ownOf(lease: Lease): Own {
    return { nodeId: this.#options.nodeId, publicIp: lease.attributes.PublicIP, lease };
  }

  /** Follows the registry until the signal is aborted; `onFirst` is called once the first snapshot is in the route table. */
  async run(signal: AbortSignal, onFirst: () => void): Promise<void> {
    const { registry, observe, log, clock } = this.#options;
    let first = true;
    while (!signal.aborted) {
      try {
        for await (const message of registry.watch(signal)) {
          observe(message);
          this.#take(reconcile(this.#view, message));
          if (first) onFirst();
          first = false;
        }
      } catch (error) {
        if (!signal.aborted) log.error({ error: messageOf(error) }, 'the watch of the registry failed');
      }
      await clock.sleep(RESTART_PAUSE_MS, signal);
    }
  }

  #take({ view, changes, problems }: Reconciled): void {
    const { apply, log } = this.#options;
    // When it throws the view stays behind, and the next snapshot gives the same changes again.
    if (changes.length > 0) apply(changes);
    this.#view = view;
    for (const { key, why } of problems) log.warn({ lease: key, why }, 'lease skipped');
    for (const { kind, lease } of changes) {
      const fields = { subnet: printSubnets(lease), endpoint: lease.attributes.PublicIP, node: nodeIdOf(lease) };
      log.info(fields, PEER_MESSAGES[kind]);
    }
  }
}

const PEER_MESSAGES = { add: 'peer added', update: 'peer changed', remove: 'peer removed' } as const;
