// flannel's registry in etcd (flannel, pkg/subnet/etcd/registry.go), so that tulled and flanneld can share a cluster:
//   <prefix>/config                   net-conf JSON
//   <prefix>/subnets/10.5.1.0-24      the lease of one subnet; dual stack "10.5.1.0-24&fd00:12:13::-64"
// The value is flannel's LeaseAttrs (attributes.ts), the TTL an etcd lease that the key hangs on (etcd-lease.ts); a key
// without one is a reservation.
//
// Every write is one transaction whose failure branch reads the key, so a repeat after a lost answer recognises its own
// first attempt. `list` is one range read: flannel's TimeToLive call for each key is left out, so the expiry of other
// nodes' leases is the latest time that it can be (now + the TTL of a day, flannel's) unless `exactExpiry` asks for them.
import { posix } from 'node:path';
import type { Lease, LeaseAttributes, LeaseSubnets } from '../lib/lease/lease.ts';
import { parseSubnetKey, printSubnets, subnetKey } from '../lib/lease/lease.ts';
import { createOverlapIndex, subnetProblem } from '../lib/lease/overlap.ts';
import type { LeaseEvent, NewLease, Registry, Snapshot } from '../lib/lease/registry.ts';
import { RegistryError } from '../lib/lease/registry.ts';
import type { Logger } from '../lib/util/log.ts';
import { decodeAttributes, encodeAttributes } from './attributes.ts';
import type { KeyValue, TxnResponse } from './client.ts';
import { createEtcdClient, type EtcdClientOptions, prefixRange } from './client.ts';
import { createEtcdLeases, type Held, noLease } from './etcd-lease.ts';
import { followLeases } from './follow.ts';
import type { KeyEvent } from './watch.ts';

export interface EtcdRegistryOptions extends EtcdClientOptions {
  /** flannel's is "/coreos.com/network". */
  prefix?: string;
  /** `list` asks etcd for the TTL of every lease, one call each: for commands that show them to people. */
  exactExpiry?: boolean;
  log: Logger;
}

export const defaultPrefix = '/coreos.com/network';
const flannelTtlMs = 24 * 3600 * 1000;
const ttlCallsAtOnce = 16;

/** Throws TulleError 'bad-config' for a malformed endpoint or an unreadable certificate; speaks to etcd at the first verb. */
export function openEtcdRegistry(options: EtcdRegistryOptions): Registry {
  const { log } = options;
  const client = createEtcdClient(options);
  const leases = createEtcdLeases(client);
  const prefix = options.prefix ?? defaultPrefix;
  const configKey = posix.join(prefix, 'config'); // as Go's path.Join
  const subnets = `${posix.join(prefix, 'subnets')}/`;
  const range = prefixRange(subnets);
  const closing = new AbortController();
  const complained = new Set<string>();
  const modRevisions = new Map<string, number>(); // key → the revision of our own last write

  const keyOf = (lease: LeaseSubnets): string => subnets + subnetKey(lease);

  function complain(key: string, problem: string): void {
    if (complained.has(key) || complained.size >= 1000) return; // a bound on memory: who writes 1000 bad keys knows by then
    complained.add(key);
    log.warn({ key, problem }, 'a key in etcd is not a lease that we can read: skipped');
  }

  function subnetsOf(key: string): LeaseSubnets | undefined {
    const found = parseSubnetKey(key.slice(subnets.length));
    if (found === undefined) complain(key, 'the key is not of the form 10.5.1.0-24');
    return found;
  }

  function leaseOf(kv: KeyValue, found: LeaseSubnets, expiresAtMs?: number): Lease | undefined {
    const attributes = decodeAttributes(kv.value.toString());
    if (attributes === undefined) {
      complain(kv.key.toString(), 'the value is not flannel\'s JSON {"PublicIP":…}');
      return undefined;
    }
    complained.delete(kv.key.toString()); // mended: complain anew if it breaks again
    const latest = leases.expiryOf(kv.lease) ?? Date.now() + flannelTtlMs;
    return {
      ...found,
      attributes,
      expiresAtMs: kv.lease === noLease ? null : (expiresAtMs ?? latest),
      createRevision: Number(kv.create_revision),
      modRevision: Number(kv.mod_revision),
    };
  }

  async function readAll(exact: boolean): Promise<{ snapshot: Snapshot; clusterId: string }> {
    const until = client.deadline();
    const { header, kvs } = await client.range(range, until);
    const expiries = exact ? await expiriesOf(kvs, until) : undefined;
    const snapshot: Snapshot = { kind: 'snapshot', leases: [], revision: Number(header.revision) };
    const unreadable: LeaseSubnets[] = [];
    for (const kv of kvs) {
      const found = subnetsOf(kv.key.toString());
      if (found === undefined) continue;
      const lease = leaseOf(kv, found, expiries?.get(kv.lease));
      if (lease === undefined) unreadable.push(found);
      else snapshot.leases.push(lease);
    }
    if (unreadable.length > 0) snapshot.unreadable = unreadable;
    return { snapshot, clusterId: header.cluster_id };
  }

  async function expiriesOf(kvs: KeyValue[], until: number): Promise<Map<string, number>> {
    const expiries = new Map<string, number>();
    const ids = [...new Set(kvs.map(kv => kv.lease))].filter(id => id !== noLease);
    const next = ids.values();
    const worker = async (): Promise<void> => {
      for (const id of next) {
        const { ttl } = await client.timeToLive(id, false, until);
        if (ttl > 0) expiries.set(id, Date.now() + ttl * 1000);
      }
    };
    await Promise.all(Array.from({ length: ttlCallsAtOnce }, worker));
    return expiries;
  }

  function eventOf({ kind, kv }: KeyEvent): LeaseEvent | undefined {
    const found = subnetsOf(kv.key.toString());
    if (found === undefined) return undefined;
    if (kind === 'delete') return { kind: 'removed', ...found };
    const lease = leaseOf(kv, found);
    return lease === undefined ? undefined : { kind: 'put', lease };
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
          failure: [{ request_range: request }],
        },
        until,
      );
      let revision = Number(response.header.revision);
      if (response.succeeded) {
        const neighbours = response.responses[1].response_range.kvs.map(kv => kv.key.toString());
        const clash = overlapOf(named, key, neighbours);
        if (clash !== undefined) {
          await removeKey(key, revision, until);
          throw taken(`it overlaps the lease ${clash}`);
        }
      } else {
        const kv = keyInFailure(response);
        const mine = response.repeated && kv !== undefined && kv.lease === held.id && kv.value.equals(value);
        if (!mine) throw taken('another node made it first');
        revision = Number(kv.mod_revision); // our first attempt, whose answer was lost
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
    const unchanged = ours && value.equals(Buffer.from(encodeAttributes(lease.attributes)));
    const response = await client.txn(
      {
        compare: [{ ...request, target: 'Mod', result: 'Equal', mod_revision: lease.modRevision }],
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
        await leases.dropIfEmpty(id, until);
        throw kv === undefined ? missing(lease) : conflict(lease);
      }
      modRevision = Number(kv.mod_revision);
    }
    const before = unchanged ? id : (leases.leaseOf(key) ?? current?.lease ?? noLease);
    leases.attach(key, id === noLease ? undefined : id);
    modRevisions.set(key, modRevision);
    if (before !== id) await leases.dropIfEmpty(before, until);
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
    if (!response.succeeded && keyInFailure(response) !== undefined) return false;
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

    watch: signal =>
      followLeases(client, {
        range,
        readAll: () => readAll(false),
        eventOf,
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
