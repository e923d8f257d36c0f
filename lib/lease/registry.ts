// The verbs that every registry has: file, etcd, later kubernetes. Policy (who may take what, when to renew, when to
// stop) is in manager.ts and is the same for all of them.
import { TulleError } from '../util/errors.ts';
import type { Lease, LeaseAttributes, LeaseSubnets, Subnet4, Subnet6 } from './lease.ts';

/**
 * The closed set of what can go wrong at a registry:
 * - taken: `create` found a live lease (or an unreadable one) on the subnet or on a part of it;
 * - conflict: `update` or `remove` found a value newer than the lease that it was given;
 * - missing: `update` found no such lease (it expired or somebody removed it);
 * - no-config: the registry holds no network configuration;
 * - unavailable: no answer in time, or an answer that makes no sense; try again later;
 * - denied: the registry refuses us (credentials, permissions);
 * - corrupt: the registry answers, but what it holds cannot be read.
 */
export type RegistryErrorCode = 'taken' | 'conflict' | 'missing' | 'no-config' | 'unavailable' | 'denied' | 'corrupt';

/** What every verb of a registry rejects with; the message is one line for a person. */
export class RegistryError extends TulleError {
  declare readonly code: RegistryErrorCode;

  constructor(code: RegistryErrorCode, message: string, options?: { cause?: unknown }) {
    super(code, message, options);
    this.name = 'RegistryError';
  }
}

/** The code of a registry's error, or undefined for anything else that was thrown. */
export function registryCodeOf(error: unknown): RegistryErrorCode | undefined {
  return error instanceof RegistryError ? error.code : undefined;
}

/** The full list of live leases at one revision. */
export interface Snapshot {
  kind: 'snapshot';
  leases: Lease[];
  revision: number;
  /**
   * Keys that exist but whose value cannot be read. Their subnets are taken (never handed out), and a peer that we know
   * under such a key stays as it was: somebody's malformed value must not remove a peer that is well.
   */
  unreadable?: LeaseSubnets[];
  /**
   * What this node has, in a registry that gives out the subnets itself; it is among the leases, too. Its node may take this
   * one and no other. Absent in such a registry: this node has none at present.
   */
  assigned?: Lease;
}

/** What changed since the message before. */
export interface Events {
  kind: 'events';
  events: LeaseEvent[];
  revision: number;
}

export type LeaseEvent = { kind: 'put'; lease: Lease } | { kind: 'removed'; subnet: Subnet4; subnet6?: Subnet6 };

/** The leases that a message tells of: all of a snapshot, those that were written of events. */
export function putsOf(message: Snapshot | Events): Lease[] {
  if (message.kind === 'snapshot') return message.leases;
  return message.events.flatMap(event => (event.kind === 'put' ? [event.lease] : []));
}

/** A lease that is about to be made. */
export type NewLease = LeaseSubnets & { attributes: LeaseAttributes };

/** One line, or undefined: all is well (again). */
export type WatchTrouble = (reason: string | undefined) => void;

/** Every verb rejects with a RegistryError and nothing else. */
export interface Registry {
  readonly kind: 'file' | 'etcd' | 'kubernetes';
  /** The net-conf JSON as it is written in the registry ('no-config' when absent); see config.ts for its meaning. */
  config(): Promise<{ text: string; revision: number }>;
  list(): Promise<Snapshot>;
  /** Makes a lease that nobody holds; 'taken' otherwise. */
  create(lease: NewLease, ttlSeconds: number): Promise<Lease>;
  /**
   * Compare-and-swap on `lease.modRevision` ('conflict', 'missing'): writes the attributes and starts the TTL again.
   * ttlSeconds null: a lease without a TTL stays without one, or loses the one it has.
   */
  update(lease: Lease, attributes: LeaseAttributes, ttlSeconds: number | null): Promise<Lease>;
  /** Compare-and-swap ('conflict'); removing what is missing succeeds. */
  remove(lease: Lease): Promise<void>;
  /**
   * First a snapshot, then events or, whenever the registry cannot tell what happened, another snapshot: never a gap.
   * Reconnects by itself and never throws; ends when the signal is aborted. `onTrouble` is told why it is interrupted, and
   * undefined when it goes on.
   */
  watch(signal: AbortSignal, onTrouble?: WatchTrouble): AsyncIterable<Snapshot | Events>;
  close(): Promise<void>;
  /** In a registry that knows the nodes and gives out their subnets: what it knew of this one when `config` last answered. */
  thisNode?(): { name: string; subnets: LeaseSubnets };
  /** This node carries packets now: where that is the registry's business, it says so to the cluster and keeps saying it. */
  announceReady?(): void;
}
