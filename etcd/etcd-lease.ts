// The etcd lease (a TTL object of etcd's, not our lease of a subnet) that this process hangs its keys on.
//
// One per TTL and registry object, shared by its keys and kept alive by renewals. flannel grants another one at every
// start and every renewal and leaves the old one behind; here an etcd lease that lost its last key is revoked, and when
// etcd does not answer just then it is remembered and revoked later. Rejected: to adopt the etcd lease that an earlier
// process left. A process that was thought dead could keep it, and so our key, alive.
import { randomBytes } from 'node:crypto';
import type { EtcdClient } from './client.ts';

/** etcd's id of "no lease": a key that never expires. */
export const noLease = '0';

export interface Held {
  id: string;
  /** Wall clock, milliseconds: when the keys end unless renewed. Counted from before the call that etcd acknowledged. */
  expiresAtMs: number;
}

export interface EtcdLeases {
  /** Our etcd lease with this TTL, just granted or kept alive. */
  hold(ttlSeconds: number, until: number): Promise<Held>;
  /** Tells which etcd lease a key of ours hangs on, undefined when the key is no longer ours. */
  attach(key: string, id: string | undefined): void;
  /** The etcd lease of a key that we wrote, or undefined. */
  leaseOf(key: string): string | undefined;
  /** Revokes the etcd lease if no key hangs on it. Never throws: what fails now is tried again by `sweep`. */
  dropIfEmpty(id: string, until: number): Promise<void>;
  /** Revokes what earlier attempts could not. */
  sweep(until: number): Promise<void>;
  /** When an etcd lease that we held ends, or undefined. */
  expiryOf(id: string): number | undefined;
}

export function createEtcdLeases(client: EtcdClient): EtcdLeases {
  const ours = new Map<number, string>(); // TTL → the etcd lease that we keep alive
  const keys = new Map<string, string>(); // key → the etcd lease that we hung it on
  const expiry = new Map<string, number>();
  const doomed = new Set<string>(); // to be revoked when empty

  async function keepAlive(id: string, until: number): Promise<Held | undefined> {
    const now = Date.now();
    const ttl = await client.keepAlive(id, until);
    if (ttl === 0) {
      forget(id);
      return undefined;
    }
    expiry.set(id, now + ttl * 1000);
    return { id, expiresAtMs: now + ttl * 1000 };
  }

  async function grant(ttlSeconds: number, until: number): Promise<Held> {
    const id = randomLeaseId();
    const now = Date.now();
    doomed.add(id); // until a key hangs on it
    const ttl = await client.grant(id, ttlSeconds, until);
    ours.set(ttlSeconds, id);
    expiry.set(id, now + ttl * 1000);
    return { id, expiresAtMs: now + ttl * 1000 };
  }

  function forget(id: string): void {
    for (const [ttl, other] of ours) if (other === id) ours.delete(ttl);
    for (const [key, other] of keys) if (other === id) keys.delete(key);
    expiry.delete(id);
    doomed.delete(id);
  }

  async function dropIfEmpty(id: string, until: number): Promise<void> {
    if (id === noLease || [...keys.values()].includes(id)) return;
    doomed.add(id);
    try {
      const found = await client.timeToLive(id, true, until);
      if (found.ttl > 0 && found.keys.length > 0)
        doomed.delete(id); // somebody else's keys: not ours to end
      else {
        if (found.ttl > 0) await client.revoke(id, until);
        forget(id);
      }
    } catch {
      // etcd is away: `sweep` comes back to it, and without us it ends by its TTL
    }
  }

  return {
    async hold(ttlSeconds, until) {
      const id = ours.get(ttlSeconds);
      const held = id === undefined ? undefined : await keepAlive(id, until);
      return held ?? grant(ttlSeconds, until);
    },
    attach(key, id) {
      if (id === undefined) {
        keys.delete(key);
        return;
      }
      keys.set(key, id);
      doomed.delete(id);
    },
    leaseOf: key => keys.get(key),
    dropIfEmpty,
    async sweep(until) {
      for (const id of [...doomed]) if (performance.now() < until) await dropIfEmpty(id, until);
    },
    expiryOf: id => expiry.get(id),
  };
}

/** Of etcd's 63 bits, as decimal text: they do not fit a JavaScript number. Never 0, which means "choose one for me". */
function randomLeaseId(): string {
  const id = randomBytes(8).readBigUInt64BE() >> 1n;
  return (id === 0n ? 1n : id).toString();
}
