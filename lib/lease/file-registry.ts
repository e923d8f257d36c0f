// The file registry: a directory instead of a server, for the daemons of one machine. It mirrors etcd's keys, and a person
// can read it with ls and cat:
//
//   DIR/config               net-conf JSON, written by a person or by the lab
//   DIR/subnets/10.5.1.0-24  one lease: flannel's JSON and our "Lease" (file-entry.ts)
//   DIR/revision             the number of the last change: what etcd calls its revision
//   DIR/lock                 held with flock by whoever is changing something
//
// - Readers take no lock: every file is replaced by rename, so each is whole at any time.
// - Writers do everything under the lock: list, remove what expired, check, count the revision, write. A writer that is
//   killed at any instant leaves a readable registry: its lock goes with it, a temporary file is swept by the next writer,
//   and a revision that was counted but not used is only a gap.
// - A lease file that cannot be read keeps its subnet: nobody gets it until a person mends or removes the file.
// - Expiry is a time of the wall clock, the only one that processes share across a restart. Should somebody set the clock
//   forward by more than a TTL, all leases end at once; every daemon sees that within a second and makes its own again
//   (same subnet, new lease key) unless another node was faster, which then is reported as lost. Set back, leases of dead
//   nodes last longer by as much. Nodes' own deadlines are monotonic and do not move.
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf, messageOf } from '../util/errors.ts';
import { type Logger, silentLogger } from '../util/log.ts';
import { type Clock, systemClock } from './clock.ts';
import { createFileStore, flock, type Lock } from './file-store.ts';
import { snapshotOf, watchFiles } from './file-watch.ts';
import { type Lease, printSubnets, subnetKey, subnetsOf } from './lease.ts';
import { createOverlapIndex } from './overlap.ts';
import { type Registry, RegistryError } from './registry.ts';

export interface FileRegistryOptions {
  log?: Logger;
  clock?: Clock;
  lock?: Lock;
  /** How long a writer waits for the lock before 'unavailable'; 5000 ms unless told. */
  lockTimeoutMs?: number;
  /** How often a watch reads the directory when nothing tells it to; 1000 ms unless told. */
  pollMs?: number;
}

/** Opens the registry in `directory`; nothing is touched until the first verb. */
export function openFileRegistry(directory: string, options: FileRegistryOptions = {}): Registry {
  const { log = silentLogger, clock = systemClock, lock = flock, lockTimeoutMs = 5000, pollMs = 1000 } = options;
  const store = createFileStore({ directory, clock, log, lock, lockTimeoutMs });
  const closed = new AbortController();
  const expiryOf = (ttlSeconds: number): number => clock.nowMs() + ttlSeconds * 1000;

  /** The lease as it is now, if it may be changed by who knows it as `lease`. */
  function current(leases: Map<string, Lease>, unreadable: Map<string, unknown>, lease: Lease): Lease | undefined {
    const key = subnetKey(lease);
    if (unreadable.has(key)) {
      throw new RegistryError(
        'corrupt',
        `${join(directory, 'subnets', key)} cannot be read as a lease: mend or remove it`,
      );
    }
    const found = leases.get(key);
    if (found !== undefined && found.modRevision !== lease.modRevision) {
      const revisions = `revision ${found.modRevision}, not ${lease.modRevision}`;
      throw new RegistryError(
        'conflict',
        `the lease ${printSubnets(lease)} was changed by somebody else: ${revisions}`,
      );
    }
    return found;
  }

  return {
    kind: 'file',

    config: () =>
      guard(directory, () => {
        const path = join(directory, 'config');
        let text: string;
        try {
          text = readFileSync(path, 'utf8');
        } catch (error) {
          if (codeOf(error) !== 'ENOENT') throw error;
          throw new RegistryError(
            'no-config',
            `${path} does not exist: write {"Network": "10.5.0.0/16"} or the like to it`,
          );
        }
        try {
          JSON.parse(text);
        } catch (error) {
          throw new RegistryError('corrupt', `${path} is not JSON (${messageOf(error)}): mend it`, { cause: error });
        }
        return { text, revision: Math.floor(statSync(path).mtimeMs) };
      }),

    list: () => guard(directory, () => snapshotOf(store.read())),

    create: (wanted, ttlSeconds) =>
      guard(directory, () =>
        store.exclusive(contents => {
          const index = createOverlapIndex<string>();
          for (const [key, lease] of contents.leases) index.add(lease, `by ${lease.attributes.PublicIP} with ${key}`);
          for (const [key, subnets] of contents.unreadable) index.add(subnets, `by the unreadable file ${key}`);
          const clash = index.find(wanted);
          if (clash !== undefined) {
            throw new RegistryError('taken', `the subnet ${printSubnets(wanted)} is taken ${clash.value}`);
          }
          const revision = store.nextRevision(contents);
          const lease: Lease = {
            ...subnetsOf(wanted),
            attributes: structuredClone(wanted.attributes),
            expiresAtMs: expiryOf(ttlSeconds),
            createRevision: revision,
            modRevision: revision,
          };
          store.writeLease(lease);
          return lease;
        }),
      ),

    update: (lease, attributes, ttlSeconds) =>
      guard(directory, () =>
        store.exclusive(contents => {
          const found = current(contents.leases, contents.unreadable, lease);
          if (found === undefined) {
            throw new RegistryError('missing', `the lease ${printSubnets(lease)} does not exist or has expired`);
          }
          const revision = store.nextRevision(contents);
          const updated: Lease = {
            ...subnetsOf(found),
            attributes: structuredClone(attributes),
            expiresAtMs: ttlSeconds === null ? null : expiryOf(ttlSeconds),
            createRevision: found.createRevision === 0 ? revision : found.createRevision, // 0: a person wrote the file
            modRevision: revision,
          };
          store.writeLease(updated);
          return updated;
        }),
      ),

    remove: lease =>
      guard(directory, () =>
        store.exclusive(contents => {
          if (current(contents.leases, contents.unreadable, lease) === undefined) return;
          store.nextRevision(contents);
          store.removeLease(subnetKey(lease));
        }),
      ),

    watch(signal, onTrouble) {
      let saidAt = Number.NEGATIVE_INFINITY;
      return watchFiles(
        {
          store,
          folder: join(directory, 'subnets'),
          clock,
          pollMs,
          onError(error) {
            onTrouble?.(messageOf(registryErrorOf(directory, error)));
            if (clock.monotonicMs() - saidAt < 60_000) return;
            saidAt = clock.monotonicMs();
            log.warn({ reason: messageOf(registryErrorOf(directory, error)) }, 'the lease directory cannot be read');
          },
          onSuccess() {
            onTrouble?.(undefined);
            saidAt = Number.NEGATIVE_INFINITY;
          },
        },
        AbortSignal.any([signal, closed.signal]),
      );
    },

    async close() {
      closed.abort();
    },
  };
}

/** Runs a verb; whatever it throws comes out as a RegistryError. */
async function guard<T>(directory: string, verb: () => T | Promise<T>): Promise<T> {
  try {
    return await verb();
  } catch (error) {
    throw registryErrorOf(directory, error);
  }
}

function registryErrorOf(directory: string, error: unknown): RegistryError {
  if (error instanceof RegistryError) return error;
  const text = `the lease directory ${directory}: ${messageOf(error)}`;
  const denied = ['EACCES', 'EPERM', 'EROFS'].includes(codeOf(error) ?? '');
  if (codeOf(error) === 'ENOTDIR')
    return new RegistryError('corrupt', `${text}: it must be a directory`, { cause: error });
  if (denied) return new RegistryError('denied', `${text}: run as a user who may write there`, { cause: error });
  return new RegistryError('unavailable', text, { cause: error });
}
