/**
 * A lease is taken from its node behind its back: an operator deletes the key or writes another's name on it, or the whole
 * registry is restored from a backup. For a moment two nodes may forward then, and no rule could forbid it; but a node that
 * hears of it must stop within seconds, whatever time is left of its lease.
 */
import { subnetKey } from '../../lib/lease/lease.ts';
import { attributesOf, type SimNode } from './sim-node.ts';
import type { SimStore } from './sim-registry.ts';
import type { Timeline } from './timeline.ts';

export interface RobberWorld {
  timeline: Timeline;
  store: SimStore;
  nodes: readonly SimNode[];
  ttlSeconds: number;
  /** No more faults from here on. */
  isOver(): boolean;
  isReachable(): boolean;
  trace(text: string): void;
  violated(what: string): void;
}

/** A batch of the watch, and three calls of 5 s each: the news, and the vain attempt to get the key back. */
const knowsAfterMs = 20_000;

export class Robber {
  readonly #world: RobberWorld;

  constructor(world: RobberWorld) {
    this.#world = world;
  }

  /** Somebody deletes the key of a node that is well. Who does that to one that is cut off must stop it first. */
  drop(node: SimNode): void {
    if (!this.#isWell(node)) return;
    const key = subnetKey(node.forwarding!.lease);
    this.#world.trace(`${key} is deleted`);
    this.#world.store.drop(key);
    this.#rob([node]);
  }

  overwrite(node: SimNode): void {
    if (!this.#isWell(node)) return;
    const { lease } = node.forwarding!;
    this.#world.trace(`${subnetKey(lease)} is given to another`);
    this.#world.store.overwrite(lease, attributesOf('10.99.0.1', 'another'), this.#world.ttlSeconds);
    this.#rob([node]);
  }

  /** What is there now is there again some time later. */
  rollBack(afterMs: number): void {
    const { store, timeline, nodes, ttlSeconds, isOver, trace } = this.#world;
    const restore = store.backup(ttlSeconds);
    timeline.after(afterMs, () => {
      if (isOver()) return;
      restore();
      trace('the registry is restored from a backup');
      this.#rob(nodes.filter(node => node.forwarding !== undefined && !node.isBacked));
    });
  }

  #isWell(node: SimNode): boolean {
    const { timeline, isReachable } = this.#world;
    const isThere = node.link === 'up' && isReachable() && node.suspendedUntil <= timeline.now;
    return isThere && node.forwards && node.isBacked;
  }

  #rob(nodes: SimNode[]): void {
    const { timeline, isReachable, violated } = this.#world;
    const { now } = timeline;
    for (const node of nodes) {
      node.robbedAt = now;
      node.troubledAt = now;
      const couldHear = (node.link === 'up' || node.link === 'slow') && isReachable() && node.suspendedUntil <= now;
      if (!couldHear) continue;
      timeline.after(knowsAfterMs, () => {
        if (node.robbedAt !== now || node.disturbedAt >= now || !node.forwards || node.isBacked) return;
        violated(`${node.name} goes on with ${subnetKey(node.forwarding!.lease)}, which is not its own any more`);
      });
    }
  }
}
