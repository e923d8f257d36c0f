// flannel's registry in etcd (flannel, pkg/subnet/etcd/registry.go), so that tulled and flanneld can share a cluster:
//   <prefix>/config                   net-conf JSON
//   <prefix>/subnets/10.5.1.0-24      the lease of one subnet; dual stack "10.5.1.0-24&fd00:12:13::-64"
// The value is flannel's LeaseAttrs (attributes.ts), the TTL an etcd lease that the key hangs on (etcd-lease.ts); a key
// without one is a reservation.
//
// Every write is one transaction whose failure branch reads the key, so a repeat after a lost answer recognises its own
// first attempt. `list` is one range read: flannel's TimeToLive call for each key is left out, so the expiry of other
// nodes' leases is the latest time that it can be (now + the TTL of a day, flannel's) unless `exactExpiry` asks for them.
import type { Lease, LeaseAttributes, LeaseSubnets } from '../lib/lease/lease.ts';
import { printSubnets } from '../lib/lease/lease.ts';
import { createOverlapIndex, subnetProblem } from '../lib/lease/overlap.ts';
import type { NewLease, Registry, Snapshot } from '../lib/lease/registry.ts';
import { RegistryError } from '../lib/lease/registry.ts';
import type { Logger } from '../lib/util/log.ts';
import { encodeAttributes } from './attributes.ts';
import type { KeyValue, TxnResponse } from './client.ts';
import { createEtcdClient, type EtcdClientOptions } from './client.ts';
import { createEtcdLeases, type Held, noLease } from './etcd-lease.ts';
import { followLeases } from './follow.ts';
import { createLeaseReader, defaultPrefix } from './lease-reader.ts';

export interface EtcdRegistryOptions extends EtcdClientOptions {
  /** flannel's is "/coreos.com/network". */
  prefix?: string;
  /** `list` asks etcd for the TTL of every lease, one call each: for commands that show them to people. */
  exactExpiry?: boolean;
  log: Logger;
}

const flannelTtlMs = 24 * 3600 * 1000;
const ttlCallsAtOnce = 16;

/** Throws TulleError 'bad-config' for a malformed endpoint or an unreadable certificate; speaks to etcd at the first verb. */
export function openEtcdRegistry(options: EtcdRegistryOptions): Registry {
  const { log } = options;
  const client = createEtcdClient(options);
  const leases = createEtcdLeases(client);
  const reader = createLeaseReader(options.prefix ?? defaultPrefix, log);
  const { configKey, range, keyOf, subnetsOf } = reader;
  const closing = new AbortController();
  const modRevisions = new Map<string, number>(); // key → the revision of our own last write

  /** For keys of others the latest time that it can be: their TTL is flannel's day, and nobody asks etcd. */
  const expiryOf = (kv: KeyValue): number => leases.expiryOf(kv.lease) ?? Date.now() + flannelTtlMs;

  async function readAll(exact: boolean): Promise<{ snapshot: Snapshot; clusterId: string }> {
    const { header, kvs } = await client.range(range, client.deadline());
    const expiries = exact ? await expiriesOf(kvs) : undefined;
    const snapshot = reader.snapshotOf(kvs, Number(header.revision), kv => expiries?.get(kv.lease) ?? expiryOf(kv));
    return { snapshot, clusterId: header.cluster_id };
  }

  /** One call for each etcd lease, each with a deadline of its own: ten thousand of them take seconds. */
  async function expiriesOf(kvs: KeyValue[]): Promise<Map<string, number>> {
    const expiries = new Map<string, number>();
    const ids = [...new Set(kvs.map(kv => kv.lease))].filter(id => id !== noLease);
    const next = ids.values();
    const worker = async (): Promise<void> => {
      for (const id of next) {
        const { ttl } = await client.timeToLive(id, false, client.deadline());
        expiries.set(id, Date.now() + Math.max(0, ttl) * 1000); // -1: it ended since the list
      }
    };
    await Promise.all(Array.from({ length: ttlCallsAtOnce }, worker));
    return expiries;
  }

  // Writes of one registry object follow each other: they share an etcd lease.
  let last: Promise<unknown> = Promise.resolve();
  function inTurn<T>(write: (until: number) => Promise<T>): Promise<T> {
    const turn = last.then(() => write(client.deadline()));
    last = turn.catch(() => {});
    return turn;
  }

  const keyInFailure = (response: TxnResponse): KeyValue | undefined => response.responses[0].response_range.kvs[0];

  async function create(lease: NewLease, ttlSeconds: number, until: number): Promise<Lease> {
    const { subnet, subnet6, attributes } = lease;
    const named: LeaseSubnets = subnet6 === undefined ? { subnet } : { subnet, subnet6 };
    const key = keyOf(named);
    const taken = (by: string): RegistryError => new RegistryError('taken', `${printSubnets(named)} is taken: ${by}`);
    const held = await leases.hold(ttlSeconds, until);
    try {
      const value = Buffer.from(encodeAttributes(attributes));
      const request = { key: Buffer.from(key) };
      const response = await client.txn(
        {
          compare: [{ ...request, target: 'Version', result: 'Equal', version: 0 }],
          success: [
            { request_put: { ...request, value, lease: held.id } },
            { request_range: { ...range, keys_only: true } },
          ],
          failure: [{ request_range: request }, { request_range: { ...range, keys_only: true } }],
        },
        until,
      );
      let revision = Number(response.header.revision);
      if (!response.succeeded) {
        const kv = keyInFailure(response);
        const mine = response.repeated && kv !== undefined && kv.lease === held.id && kv.value.equals(value);
        if (!mine) throw taken('another node made it first');
        revision = Number(kv.mod_revision); // our first attempt, whose answer was lost
      }
      const neighbours = response.responses[1].response_range.kvs.map(kv => kv.key.toString());
      const clash = overlapOf(named, key, neighbours);
      if (clash !== undefined) {
        await removeKey(key, revision, until);
        throw taken(`it overlaps the lease ${clash}`);
      }
      leases.attach(key, held.id);
      modRevisions.set(key, revision);
      return { ...named, attributes, expiresAtMs: held.expiresAtMs, createRevision: revision, modRevision: revision };
    } catch (error) {
      const dropped = leases.dropIfEmpty(held.id, client.deadline());
      if (!(error instanceof RegistryError && error.code === 'unavailable')) await dropped; // etcd answers: be tidy before returning
      throw error;
    }
  }

  /** The name of a lease among these keys that overlaps `named`, other than its own. */
  function overlapOf(named: LeaseSubnets, key: string, neighbours: string[]): string | undefined {
    const index = createOverlapIndex<string>();
    for (const other of neighbours) {
      const found = other === key ? undefined : subnetsOf(other);
      if (found !== undefined && subnetProblem(found) === undefined) index.add(found, printSubnets(found));
    }
    return index.find(named)?.value;
  }

  async function update(
    lease: Lease,
    attributes: LeaseAttributes,
    ttlSeconds: number | null,
    until: number,
  ): Promise<Lease> {
    const key = keyOf(lease);
    const request = { key: Buffer.from(key) };
    const value = Buffer.from(encodeAttributes(attributes));
    const current = await ensureCurrent(lease, key, until);
    const held: Held | undefined = ttlSeconds === null ? undefined : await leases.hold(ttlSeconds, until);
    const id = held?.id ?? noLease;

    // A renewal that changes nothing writes nothing: the keep-alive renewed, the comparison proves that the key is ours.
    // The first update of a process always writes, so that a second process with the same identity meets a 'conflict'.
    const ours = modRevisions.get(key) === lease.modRevision && leases.leaseOf(key) === id;
    const before = Buffer.from(encodeAttributes(lease.attributes));
    const unchanged = ours && value.equals(before);
    const sameRevision = { ...request, target: 'Mod', result: 'Equal', mod_revision: lease.modRevision } as const;
    const sameValue = { ...request, target: 'Value', result: 'Equal', value: before } as const;
    const response = await client.txn(
      {
        // An etcd that was emptied counts anew and comes to the same numbers: of what we wrote we know the bytes, too.
        compare: modRevisions.get(key) === lease.modRevision ? [sameRevision, sameValue] : [sameRevision],
        success: unchanged
          ? [{ request_range: request }]
          : [{ request_put: { ...request, value, lease: id, prev_kv: true } }],
        failure: [{ request_range: request }],
      },
      until,
    );
    let modRevision = unchanged ? lease.modRevision : Number(response.header.revision);
    if (!response.succeeded) {
      const kv = keyInFailure(response);
      // Our first attempt, whose answer was lost, left our value on our etcd lease.
      const mine = response.repeated && !unchanged && kv !== undefined && kv.lease === id && kv.value.equals(value);
      if (!mine) {
        leases.attach(key, undefined); // whoever wrote it hung it on an etcd lease of his own
        await leases.dropIfEmpty(id, until);
        throw kv === undefined ? missing(lease) : conflict(lease);
      }
      modRevision = Number(kv.mod_revision);
    }
    const left = unchanged ? id : (leases.leaseOf(key) ?? current?.lease ?? noLease);
    leases.attach(key, id === noLease ? undefined : id);
    modRevisions.set(key, modRevision);
    if (left !== id) await leases.dropIfEmpty(left, until);
    await leases.sweep(until);
    return { ...lease, attributes, expiresAtMs: held?.expiresAtMs ?? null, modRevision };
  }

  /** Before we touch the etcd lease of a key that this process has not written: is it still the lease that the caller means? */
  async function ensureCurrent(lease: Lease, key: string, until: number): Promise<KeyValue | undefined> {
    if (modRevisions.get(key) === lease.modRevision) return undefined;
    const { kvs } = await client.range({ key: Buffer.from(key) }, until);
    if (kvs.length === 0) throw missing(lease);
    if (Number(kvs[0].mod_revision) !== lease.modRevision) throw conflict(lease);
    return kvs[0];
  }

  /** Deletes a key at a revision; false when it has moved on. Removing what is missing succeeds. */
  async function removeKey(key: string, modRevision: number, until: number): Promise<boolean> {
    const request = { key: Buffer.from(key) };
    const response = await client.txn(
      {
        compare: [{ ...request, target: 'Mod', result: 'Equal', mod_revision: modRevision }],
        success: [{ request_delete_range: { ...request, prev_kv: true } }],
        failure: [{ request_range: request }],
      },
      until,
    );
    if (!response.succeeded && keyInFailure(response) !== undefined) {
      const left = leases.leaseOf(key);
      leases.attach(key, undefined);
      if (left !== undefined) await leases.dropIfEmpty(left, until);
      return false;
    }
    const before = response.succeeded
      ? response.responses[0].response_delete_range.prev_kvs[0]?.lease
      : leases.leaseOf(key);
    leases.attach(key, undefined);
    modRevisions.delete(key);
    if (before !== undefined) await leases.dropIfEmpty(before, until);
    return true;
  }

  return {
    kind: 'etcd',

    async config() {
      const { kvs } = await client.range({ key: Buffer.from(configKey) }, client.deadline());
      if (kvs.length === 0) {
        const hint = `write one, as: etcdctl put ${configKey} '{"Network":"10.5.0.0/16"}'`;
        throw new RegistryError('no-config', `etcd holds no network configuration at ${configKey}: ${hint}`);
      }
      return { text: kvs[0].value.toString(), revision: Number(kvs[0].mod_revision) };
    },

    list: async () => (await readAll(options.exactExpiry ?? false)).snapshot,
    create: (lease, ttlSeconds) => inTurn(until => create(lease, ttlSeconds, until)),
    update: (lease, attributes, ttl) => inTurn(until => update(lease, attributes, ttl, until)),
    remove: lease =>
      inTurn(async until => {
        if (!(await removeKey(keyOf(lease), lease.modRevision, until))) throw conflict(lease);
      }),

    watch: (signal, onTrouble) =>
      followLeases(client, {
        ...(onTrouble !== undefined && { onTrouble }),
        range,
        readAll: () => readAll(false),
        eventOf: event => reader.eventOf(event, expiryOf),
        log,
        signal: AbortSignal.any([signal, closing.signal]),
      }),

    async close() {
      if (closing.signal.aborted) return;
      closing.abort();
      await last;
      await leases.sweep(performance.now() + 1000);
      client.close();
    },
  };
}

function missing(lease: Lease): RegistryError {
  return new RegistryError('missing', `the lease of ${printSubnets(lease)} is gone: it expired or somebody removed it`);
}

function conflict(lease: Lease): RegistryError {
  return new RegistryError('conflict', `the lease of ${printSubnets(lease)} was changed by somebody else`);
}
