// What the watch tells of our own key. A message may be older than what our own writes were answered, and it may be of
// another history: a registry that was restored from a backup, or emptied, counts from an earlier revision.
import { isOwn, type LeaseRequest } from './choose.ts';
import { type Lease, type LeaseSubnets, sameSubnets } from './lease.ts';
import type { Events, Snapshot } from './registry.ts';

/**
 * - gone: nobody holds our key;
 * - foreign: somebody else does;
 * - doubt: the message says nothing against us, but what was true before it need not be true any more;
 * - undefined: no news.
 */
export type Sighting = 'gone' | 'foreign' | 'doubt' | undefined;

export interface Sightings {
  take(message: Snapshot | Events, lease: Lease, request: LeaseRequest, nowMs: number): Sighting;
  /** Whether a write of our key newer than `modRevision` was seen. Once for each: a registry that contradicts itself must not keep us busy. */
  newerThan(modRevision: number): boolean;
  /** The registry itself answered that our key is gone. */
  denied(nowMs: number): void;
  /** Whether it is known that our key is gone or foreign, and no write of ours has been acknowledged since. */
  readonly isDenied: boolean;
  /** A write of ours was acknowledged; `sentMs` is when it was sent. */
  acknowledged(lease: Lease, sentMs: number): void;
}

export function createSightings(): Sightings {
  /** The revision of the last message. */
  let told: number | undefined;
  /** The newest write of our key. */
  let written = 0;
  let denial: { revision: number; atMs: number } | undefined;

  return {
    take(message, lease, request, nowMs) {
      const { revision } = message;
      const before = told;
      told = revision;
      const isOtherHistory = before !== undefined && revision < before;
      if (isOtherHistory) written = 0;
      else if (revision < lease.modRevision) {
        // It was under way while we wrote. A list that a watch made on its way need not have been.
        return message.kind === 'snapshot' && before !== undefined ? 'doubt' : undefined;
      }

      const { own, isGone } = ownIn(message, lease);
      written = Math.max(written, own?.modRevision ?? 0);
      const isForeign = own !== undefined && !isOwn(own, request);
      if (isGone || isForeign) {
        denial = { revision, atMs: nowMs };
        return isGone ? 'gone' : 'foreign';
      }
      if (own !== undefined) denial = undefined;
      return isOtherHistory ? 'doubt' : undefined;
    },

    newerThan(modRevision) {
      const isNewer = written > modRevision;
      if (isNewer) written = 0;
      return isNewer;
    },

    denied(nowMs) {
      denial = { revision: Number.POSITIVE_INFINITY, atMs: nowMs };
    },

    get isDenied() {
      return denial !== undefined;
    },

    acknowledged(lease, sentMs) {
      // An answer that was under way when we were told is no proof, unless it is of a later write.
      if (denial !== undefined && (sentMs >= denial.atMs || lease.modRevision > denial.revision)) denial = undefined;
    },
  };
}

/** What a message says last about the key of `lease`. A value that nobody can read says that somebody holds it. */
function ownIn(message: Snapshot | Events, lease: LeaseSubnets): { own: Lease | undefined; isGone: boolean } {
  if (message.kind === 'snapshot') {
    const own = message.leases.find(other => sameSubnets(other, lease));
    const isUnreadable = message.unreadable?.some(subnets => sameSubnets(subnets, lease)) ?? false;
    return { own, isGone: own === undefined && !isUnreadable };
  }
  const last = message.events.findLast(event => sameSubnets(event.kind === 'put' ? event.lease : event, lease));
  return { own: last?.kind === 'put' ? last.lease : undefined, isGone: last?.kind === 'removed' };
}
