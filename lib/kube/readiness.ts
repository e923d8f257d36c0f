// The node's condition NetworkUnavailable: false once this node carries packets. It is looked after for as long as we run,
// because a node that is made again, or a cloud controller, sets it back; and it is never worth the daemon's life.
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { NodeFacts } from './node.ts';
import type { OwnNode } from './own-node.ts';

export interface Readiness {
  /** The node carries packets: say so, and keep saying it. */
  begin(node: OwnNode): void;
  /** What the node says now. */
  look(facts: NodeFacts): void;
  /** After the signal: until nothing is under way. */
  ended(): Promise<void>;
}

export interface ReadinessOptions {
  /** False: somebody else sets the condition. */
  wanted: boolean;
  log: Logger;
  random: () => number;
  signal: AbortSignal;
}

const firstPauseMs = 1000;
const longestPauseMs = 60_000;

export function createReadiness({ wanted, log, random, signal }: ReadinessOptions): Readiness {
  let node: OwnNode | undefined;
  let working: Promise<void> | undefined;

  async function work(own: OwnNode): Promise<void> {
    for (let pauseMs = firstPauseMs; !signal.aborted; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
      try {
        await own.setNetworkAvailable();
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (pauseMs === firstPauseMs) {
          log.warn({ node: own.name, reason: messageOf(error) }, 'NetworkUnavailable=False cannot be set yet');
        }
        await sleep(pauseMs * (0.5 + random()), undefined, { signal }).catch(() => {});
      }
    }
  }

  function start(): void {
    if (!wanted || node === undefined || working !== undefined || signal.aborted) return;
    working = work(node).finally(() => {
      working = undefined;
    });
  }

  return {
    begin(own) {
      node = own;
      start();
    },
    look({ networkUnavailable }) {
      if (networkUnavailable?.status !== 'False') start();
    },
    async ended() {
      await working;
    },
  };
}
