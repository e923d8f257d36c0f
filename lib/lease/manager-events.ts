// What a manager tells: its state when it is asked, and what happened when it happens.
import type { Lease } from './lease.ts';

/** For status and metrics. */
export interface LeaseStatus {
  lease: Lease | undefined;
  fenced: boolean;
  /** Milliseconds until forwarding stops unless the lease is renewed; Infinity for a reservation. */
  deadlineInMs: number;
  /** Since the last acknowledged write of the lease was sent; undefined without a lease. */
  renewedForMs: number | undefined;
  /** The registry does not renew the lease at present: why, and for how long. */
  trouble: { reason: string; forMs: number } | undefined;
}

/** No renewal was acknowledged in time; or the registry says that our key is gone, or somebody else's. */
export type FenceReason = 'late' | 'gone';

export type ManagerEvent =
  | { kind: 'renewed'; lease: Lease }
  /** The deadline is over: stop forwarding. 'renewed' or 'reacquired' ends it. */
  | { kind: 'fenced'; lease: Lease; why: FenceReason }
  /** The key was gone and we made it again: the same subnet with a new lease key. */
  | { kind: 'reacquired'; lease: Lease; previous: Lease }
  /** Somebody else holds the subnet; `reason` is one line. */
  | { kind: 'lost'; lease: Lease; reason: string };
