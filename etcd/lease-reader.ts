// From etcd's keys and values to leases: where flannel keeps them, what they mean, and what is said, once, about a key
// that cannot be read. The registry (now) and the history (then) read with the same eyes.
import { posix } from 'node:path';
import { type Lease, type LeaseSubnets, parseSubnetKey, subnetKey } from '../lib/lease/lease.ts';
import type { LeaseEvent, Snapshot } from '../lib/lease/registry.ts';
import type { Logger } from '../lib/util/log.ts';
import { decodeAttributes } from './attributes.ts';
import { type KeyValue, prefixRange } from './client.ts';
import { noLease } from './etcd-lease.ts';
import type { KeyEvent } from './watch.ts';

/** flannel's -etcd-prefix. */
export const defaultPrefix = '/coreos.com/network';

/** Malformed keys that are remembered as reported: who writes a thousand of them knows by then. */
const mostComplaints = 1000;

export interface LeaseReader {
  /** The key of the net-conf. */
  readonly configKey: string;
  /** All keys of leases. */
  readonly range: { key: Buffer; range_end: Buffer };
  keyOf(lease: LeaseSubnets): string;
  /** The subnets that a key names, or undefined; said once. */
  subnetsOf(key: string): LeaseSubnets | undefined;
  /** undefined: the value cannot be read; said once. `expiresAtMs` counts only where the key hangs on an etcd lease. */
  leaseOf(kv: KeyValue, subnets: LeaseSubnets, expiresAtMs: number): Lease | undefined;
  snapshotOf(kvs: readonly KeyValue[], revision: number, expiryOf: (kv: KeyValue) => number): Snapshot;
  /** undefined: it cannot be read, and whoever is known under that key stays as he was. */
  eventOf(event: KeyEvent, expiryOf: (kv: KeyValue) => number): LeaseEvent | undefined;
}

export function createLeaseReader(prefix: string, log: Logger): LeaseReader {
  const subnets = `${posix.join(prefix, 'subnets')}/`; // as Go's path.Join
  const complained = new Set<string>();

  function complain(key: string, problem: string): void {
    if (complained.has(key) || complained.size >= mostComplaints) return;
    complained.add(key);
    log.warn({ key, problem }, 'a key in etcd is not a lease that we can read: skipped');
  }

  const reader: LeaseReader = {
    configKey: posix.join(prefix, 'config'),
    range: prefixRange(subnets),
    keyOf: lease => subnets + subnetKey(lease),

    subnetsOf(key) {
      const found = parseSubnetKey(key.slice(subnets.length));
      if (found === undefined) complain(key, 'the key is not of the form 10.5.1.0-24');
      return found;
    },

    leaseOf(kv, found, expiresAtMs) {
      const attributes = decodeAttributes(kv.value.toString());
      if (attributes === undefined) {
        complain(kv.key.toString(), 'the value is not flannel\'s JSON {"PublicIP":…}');
        return undefined;
      }
      complained.delete(kv.key.toString()); // mended: complain anew if it breaks again
      return {
        ...found,
        attributes,
        expiresAtMs: kv.lease === noLease ? null : expiresAtMs,
        createRevision: Number(kv.create_revision),
        modRevision: Number(kv.mod_revision),
      };
    },

    snapshotOf(kvs, revision, expiryOf) {
      const snapshot: Snapshot = { kind: 'snapshot', leases: [], revision };
      const unreadable: LeaseSubnets[] = [];
      for (const kv of kvs) {
        const found = reader.subnetsOf(kv.key.toString());
        if (found === undefined) continue;
        const lease = reader.leaseOf(kv, found, expiryOf(kv));
        if (lease === undefined) unreadable.push(found);
        else snapshot.leases.push(lease);
      }
      if (unreadable.length > 0) snapshot.unreadable = unreadable;
      return snapshot;
    },

    eventOf({ kind, kv }, expiryOf) {
      const found = reader.subnetsOf(kv.key.toString());
      if (found === undefined) return undefined;
      if (kind === 'delete') return { kind: 'removed', ...found };
      const lease = reader.leaseOf(kv, found, expiryOf(kv));
      return lease === undefined ? undefined : { kind: 'put', lease };
    },
  };
  return reader;
}
