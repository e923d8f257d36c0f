// The files behind the file registry: reading the whole directory, and changing it one process at a time.
import { existsSync, mkdirSync, readdirSync, readFileSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { close, flockOpen } from '../sys/sys.ts';
import { codeOf, messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { sweepTemporaryFiles, syncFolder, writeFileAtomic } from './atomic-file.ts';
import type { Clock } from './clock.ts';
import { formatEntry, parseEntry } from './file-entry.ts';
import { type Lease, type LeaseSubnets, parseSubnetKey, subnetKey } from './lease.ts';
import { RegistryError } from './registry.ts';

/** Takes an exclusive lock without waiting; throws an error with code EWOULDBLOCK or EAGAIN while somebody holds it. */
export type Lock = (path: string) => () => void;

/** flock(2): the kernel releases it when the holder dies, so a kill at any instant blocks nobody. */
export const flock: Lock = path => {
  const handle = flockOpen(path);
  return () => close(handle);
};

/** What lies in the directory. Expired leases are absent from `leases`. */
export interface Contents {
  leases: Map<string, Lease>;
  /** Files with a lease's name whose text cannot be read as one. */
  unreadable: Map<string, LeaseSubnets>;
  /** Names of leases whose time is over: the next writer removes them. */
  expired: string[];
  /** At least the revision of everything else here. */
  revision: number;
}

export interface FileStore {
  /** Without the lock: every single file is whole, but they may be of different moments. */
  read(): Contents;
  /** One lease by its name, expired or not; undefined when there is none, 'unreadable' when it is corrupt. */
  readLease(key: string, subnets: LeaseSubnets): Lease | 'unreadable' | undefined;
  /** Runs `change` alone in the world, on what `read` gives, after removing what expired. */
  exclusive<T>(change: (contents: Contents) => T): Promise<T>;
  /** Inside `exclusive` only: the next revision, which is on the disk when this returns. */
  nextRevision(contents: Contents): number;
  writeLease(lease: Lease): void;
  removeLease(key: string): void;
}

export interface FileStoreOptions {
  directory: string;
  clock: Clock;
  log: Logger;
  lock: Lock;
  lockTimeoutMs: number;
}

export function createFileStore({ directory, clock, log, lock, lockTimeoutMs }: FileStoreOptions): FileStore {
  const subnetsFolder = join(directory, 'subnets');
  const revisionFile = join(directory, 'revision');
  const said = new Map<string, string>(); // what was reported about a file, until it is well again

  function report(path: string, why: string, message: string): void {
    if (said.get(path) === why) return;
    said.set(path, why);
    log.warn({ file: path, reason: why }, message);
  }

  function readRevision(): number {
    const text = readOptional(revisionFile);
    if (text === undefined) return 0;
    const revision = /^[0-9]{1,15}\n?$/.test(text) ? Number(text) : undefined;
    if (revision === undefined) report(revisionFile, 'it holds no number', 'the revision file is corrupt, counting on');
    return revision ?? 0;
  }

  function names(): string[] {
    if (!existsSync(directory)) throw missingDirectory(directory);
    try {
      return readdirSync(subnetsFolder).filter(name => !name.startsWith('.'));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  function readLease(key: string, subnets: LeaseSubnets): Lease | 'unreadable' | undefined {
    const path = join(subnetsFolder, key);
    try {
      const text = readOptional(path);
      const lease = text === undefined ? undefined : parseEntry(subnets, text);
      said.delete(path);
      return lease;
    } catch (error) {
      report(
        path,
        messageOf(error),
        'skipping a corrupt lease file: its subnet stays taken until it is mended or removed',
      );
      return 'unreadable';
    }
  }

  function read(): Contents {
    // First, so that nothing below is older than it says.
    const contents: Contents = { leases: new Map(), unreadable: new Map(), expired: [], revision: readRevision() };
    const now = clock.nowMs();
    for (const name of names()) {
      const subnets = parseSubnetKey(name);
      if (subnets === undefined) {
        report(join(subnetsFolder, name), 'its name is not a subnet', 'skipping a file among the leases');
        continue;
      }
      const lease = readLease(name, subnets);
      if (lease === 'unreadable') contents.unreadable.set(name, subnets);
      else if (lease !== undefined) {
        if (isExpired(lease, now)) contents.expired.push(name);
        else contents.leases.set(name, lease);
        contents.revision = Math.max(contents.revision, lease.modRevision);
      }
    }
    return contents;
  }

  async function takeLock(): Promise<() => void> {
    if (!existsSync(directory)) throw missingDirectory(directory);
    const path = join(directory, 'lock');
    const deadline = clock.monotonicMs() + lockTimeoutMs;
    for (;;) {
      try {
        return lock(path);
      } catch (error) {
        const code = codeOf(error);
        if (code !== 'EWOULDBLOCK' && code !== 'EAGAIN') throw error;
        if (clock.monotonicMs() >= deadline) {
          throw new RegistryError(
            'unavailable',
            `${path} is held by another process for more than ${lockTimeoutMs} ms`,
          );
        }
      }
      await clock.sleep(1 + Math.random() * 4);
    }
  }

  function nextRevision(contents: Contents): number {
    contents.revision += 1;
    writeFileAtomic(revisionFile, `${contents.revision}\n`);
    return contents.revision;
  }

  return {
    read,
    readLease,
    nextRevision,
    async exclusive(change) {
      const unlock = await takeLock();
      try {
        mkdirSync(subnetsFolder, { recursive: true });
        sweepTemporaryFiles(directory);
        sweepTemporaryFiles(subnetsFolder);
        const contents = read();
        if (contents.expired.length > 0) nextRevision(contents); // the removal of a lease is a revision, too
        for (const key of contents.expired) unlinkSync(join(subnetsFolder, key));
        return change(contents);
      } finally {
        unlock();
      }
    },
    writeLease(lease) {
      writeFileAtomic(join(subnetsFolder, subnetKey(lease)), formatEntry(lease));
    },
    removeLease(key) {
      unlinkSync(join(subnetsFolder, key));
      syncFolder(subnetsFolder);
    },
  };
}

export function isExpired(lease: Lease, nowMs: number): boolean {
  return lease.expiresAtMs !== null && lease.expiresAtMs <= nowMs;
}

function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function missingDirectory(directory: string): RegistryError {
  return new RegistryError(
    'no-config',
    `${directory} does not exist: make it and write the network configuration to ${join(directory, 'config')}, ` +
      'for example {"Network": "10.5.0.0/16"}',
  );
}
