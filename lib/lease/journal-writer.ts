// Writing the journal: the daemon's observer. It never throws and never delays the daemon: a record is one short append
// to a file (no fsync: a crash of the machine may cost the last lines, a SIGKILL costs none), and when the disk is full
// or read-only it says so once a minute and goes on.
//
// Bounded: a file that grew over its limit becomes FILE.1 and a new one begins with a checkpoint. The limit is 1 MB, or
// twice the checkpoint where a network is so large that this is more (10,000 leases: 2 MB), so both files together never
// exceed four checkpoints or 2 MB. A kill between the two renames of a rotation leaves FILE.1 alone, which is enough.
import {
  appendFileSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { codeOf, messageOf } from '../util/errors.ts';
import { type Logger, silentLogger } from '../util/log.ts';
import { writeFileAtomic } from './atomic-file.ts';
import type { LeaseRequest } from './choose.ts';
import { type Clock, systemClock } from './clock.ts';
import { type Change, changesBetween, changesOfPut, type Holding, holdingOf } from './history.ts';
import { type How, type JournalEntry, type JournalView, readJournal, viewOf } from './journal.ts';
import { type Lease, subnetKey } from './lease.ts';
import type { ManagerEvent } from './manager.ts';
import type { Events, Snapshot } from './registry.ts';

export interface JournalOptions {
  path: string;
  log?: Logger;
  clock?: Pick<Clock, 'nowMs' | 'monotonicMs'>;
  /** A file grows to this many bytes; 1 MB unless told. */
  fileBytes?: number;
}

export interface LeaseJournal {
  /** The daemon begins. `registry`: see JournalEntry. */
  start(request: Pick<LeaseRequest, 'nodeId' | 'attributes'>, registry: string): void;
  /** The lease that the manager acquired for this request. */
  acquired(lease: Lease, request: Pick<LeaseRequest, 'previousSubnet'>): void;
  /** Every message of the registry's watch. */
  observe(message: Snapshot | Events): void;
  /** Every event of the manager. */
  event(event: ManagerEvent): void;
  /** The lease was given back. */
  released(lease: Lease): void;
  stop(): void;
}

const renewalEveryMs = 3_600_000; // of renewals one an hour is told: they say only that nothing happened

export function openJournal(options: JournalOptions): LeaseJournal {
  const { path, log = silentLogger, clock = systemClock, fileBytes = 1 << 20 } = options;
  let view: JournalView | undefined; // read from the file at the first record
  let limit = fileBytes;
  let saidAt = Number.NEGATIVE_INFINITY;
  let renewalToldAt = Number.NEGATIVE_INFINITY;

  function guard(write: (view: JournalView) => void): void {
    try {
      view ??= open();
      write(view);
    } catch (error) {
      const now = clock.monotonicMs();
      if (now - saidAt < 60_000) return;
      saidAt = now;
      log.warn({ file: path, reason: messageOf(error) }, 'the lease journal cannot be written: its history has a hole');
    }
  }

  function open(): JournalView {
    mkdirSync(dirname(path), { recursive: true });
    sweep(path);
    const found = viewOf(readJournal(path));
    if (endsTorn(path)) appendFileSync(path, '\n');
    return found;
  }

  function append(now: JournalView, entries: readonly JournalEntry[]): void {
    if (entries.length === 0) return;
    const at = new Date(clock.nowMs()).toISOString();
    const text = entries.map(entry => `${JSON.stringify({ at, ...entry })}\n`).join('');
    const size = sizeOf(path);
    if ((size !== undefined && size + text.length <= limit) || now.registry === undefined) {
      appendFileSync(path, text, { mode: 0o644 });
      return;
    }
    if (size !== undefined) {
      appendFileSync(path, text);
      renameSync(path, `${path}.1`);
    }
    // The view has the new records already: they end the old file, or follow the checkpoint of the very first one.
    const line = `${JSON.stringify({ at, ...checkpointOf(now) })}\n`;
    limit = Math.max(fileBytes, 2 * line.length);
    writeFileAtomic(path, size === undefined ? line + text : line, 0o644);
  }

  function see(now: JournalView, changes: readonly Change[], revision: number): void {
    now.revision = Math.max(now.revision, revision);
    now.watching = true;
    append(
      now,
      changes.flatMap(({ kind, revision, holding, late }) =>
        holding === undefined ? [] : [{ kind, revision, lease: holding, ...(late && { late }) } as JournalEntry],
      ),
    );
  }

  return {
    start: ({ nodeId: node, attributes: { PublicIP: publicIp } }, registry) =>
      guard(now => {
        if (now.registry !== registry) {
          now.leases.clear();
          now.revision = -1;
          now.own = undefined;
        }
        now.registry = registry;
        now.own = { ...now.own, node, publicIp };
        append(now, [{ kind: 'start', node, publicIp, registry }]);
      }),

    acquired: (lease, request) =>
      guard(now => {
        const how = howChosen(lease, request);
        const holding = holdingOf(lease);
        if (now.own !== undefined) {
          now.own.acquired = { at: new Date(clock.nowMs()).toISOString(), how, lease: holding };
        }
        const key = subnetKey(lease);
        const before = now.leases.get(key);
        now.leases.set(key, holding);
        see(now, changesOfPut(before, holding), holding.modRevision);
        append(now, [{ kind: 'acquired', how, lease: holding }]);
      }),

    observe: message =>
      guard(now => {
        if (message.kind === 'snapshot') {
          const { leases, unreadable = [], revision } = message;
          see(now, changesBetween(now.leases, leases, unreadable, revision), revision);
        } else see(now, eventChanges(now.leases, message), message.revision);
      }),

    event: event =>
      guard(now => {
        const lease = holdingOf(event.lease);
        switch (event.kind) {
          case 'renewed': {
            if (clock.monotonicMs() - renewalToldAt < renewalEveryMs) return;
            renewalToldAt = clock.monotonicMs();
            return append(now, [{ kind: 'renewed', lease }]);
          }
          case 'fenced':
            renewalToldAt = Number.NEGATIVE_INFINITY; // the renewal that ends it is news
            return append(now, [{ kind: 'fenced', lease }]);
          case 'reacquired':
            return append(now, [{ kind: 'reacquired', lease, previousRevision: event.previous.createRevision }]);
          case 'lost':
            return append(now, [{ kind: 'lost', lease, reason: event.reason }]);
        }
      }),

    released: lease =>
      guard(now => {
        const holding = holdingOf(lease);
        append(now, [{ kind: 'released', lease: holding }]);
        // The watch has ended before, and will not tell it.
        const key = subnetKey(lease);
        if (!now.leases.delete(key)) return;
        see(
          now,
          [{ kind: 'removed', key, holding, revision: holding.modRevision + 1, late: true }],
          holding.modRevision,
        );
      }),
    // A start that failed before it had anything to tell leaves no file behind.
    stop: () => {
      if (view !== undefined) guard(now => append(now, [{ kind: 'stop' }]));
    },
  };
}

/** The order of choose.ts, read from what came out: a lease that was made has one revision, one that was kept two. */
export function howChosen(lease: Lease, { previousSubnet }: Pick<LeaseRequest, 'previousSubnet'>): How {
  if (lease.expiresAtMs === null) return 'reservation';
  if (lease.createRevision !== lease.modRevision) return 'own lease';
  const previous = previousSubnet?.subnet;
  const isPrevious =
    previous !== undefined &&
    previous.address === lease.subnet.address &&
    previous.prefixLength === lease.subnet.prefixLength;
  return isPrevious ? 'subnet.env' : 'free';
}

function checkpointOf({ registry = '', revision, leases, own }: JournalView): JournalEntry {
  return { kind: 'checkpoint', registry, revision, leases: [...leases.values()], ...(own !== undefined && { own }) };
}

/** What is new in events; renewals are not. */
function eventChanges(known: Map<string, Holding>, { events, revision }: Events): Change[] {
  return events.flatMap((event): Change[] => {
    const key = subnetKey(event.kind === 'put' ? event.lease : event);
    const before = known.get(key);
    if (event.kind === 'removed') {
      known.delete(key);
      return before === undefined ? [] : [{ kind: 'removed', key, holding: before, revision }];
    }
    const holding = holdingOf(event.lease);
    known.set(key, holding);
    return changesOfPut(before, holding);
  });
}

function sizeOf(path: string): number | undefined {
  try {
    return statSync(path).size;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Whether the last line was cut off by a crash: what is appended must not become a part of it. */
function endsTorn(path: string): boolean {
  const size = sizeOf(path);
  if (size === undefined || size === 0) return false;
  const file = openSync(path, 'r');
  try {
    const last = Buffer.alloc(1);
    readSync(file, last, 0, 1, size - 1);
    return last[0] !== 10;
  } finally {
    closeSync(file);
  }
}

/** Removes what a writer left that was killed in the middle of a rotation. */
function sweep(path: string): void {
  const folder = dirname(path);
  const prefix = `.${basename(path)}.`;
  for (const name of readdirSync(folder)) {
    if (name.startsWith(prefix) && name.endsWith('.tulle-tmp')) unlinkSync(join(folder, name));
  }
}
