// What this node's daemon saw and decided: JSON lines, the newest last, so that `tulle lease log | at | why` can answer
// after the registry has forgotten, or where it never remembers.
//
//   FILE.1   the file before; gone at the next rotation
//   FILE     begins with a checkpoint (all that was known then), so it can be understood alone
//
// One record is one line:
//   {"at":"2026-08-01T12:00:00.000Z","kind":"put","revision":7,"lease":{"subnet":"10.5.1.0/24",…}}
// A line that was torn by a crash is skipped, and so is a kind that we do not know.
import { readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { codeOf } from '../util/errors.ts';
import { type Change, type Holding, keyOfHolding, replay } from './history.ts';

/** How a node came to its subnet, in the order of choose.ts. */
export type How = 'own lease' | 'subnet.env' | 'reservation' | 'free';

export type JournalEntry =
  /** The daemon began. `registry`: "etcd:/coreos.com/network" or "file:/var/lib/tulle/leases". */
  | { kind: 'start'; node: string; publicIp: string; registry: string }
  /** The file began: all leases that were known, and of which registry. */
  | { kind: 'checkpoint'; registry: string; revision: number; leases: Holding[]; own?: OwnRecord }
  /** Seen in the registry. `late`: while nobody was watching, so time and a removal's revision are the latest possible. */
  | { kind: 'put' | 'removed'; revision: number; lease: Holding; late?: true }
  /** Decided. */
  | { kind: 'acquired'; how: How; lease: Holding }
  | { kind: 'renewed' | 'fenced' | 'released'; lease: Holding }
  | { kind: 'reacquired'; lease: Holding; previousRevision: number }
  | { kind: 'lost'; lease: Holding; reason: string }
  | { kind: 'stop' };

export type JournalRecord = { at: string } & JournalEntry;

/** Carried over a rotation: who we are and how our lease was chosen. */
export interface OwnRecord {
  node: string;
  publicIp: string;
  acquired?: { at: string; how: How; lease: Holding };
}

const kinds = new Set<string>([
  'start',
  'checkpoint',
  'put',
  'removed',
  'acquired',
  'renewed',
  'fenced',
  'released',
  'reacquired',
  'lost',
  'stop',
] satisfies JournalEntry['kind'][]);

/** Beside subnet.env, or in the state directory: "/run/flannel/subnet.env" → "/run/flannel/subnet.journal". */
export function journalPath(subnetFile: string, stateDirectory?: string): string {
  return join(stateDirectory ?? dirname(subnetFile), `${basename(subnetFile, '.env')}.journal`);
}

/** All records, oldest first; none when there is no journal. Throws Node's system error when it may not be read. */
export function readJournal(path: string): JournalRecord[] {
  return [`${path}.1`, path].flatMap(file => parseJournal(readOptional(file)));
}

/** The records of a journal's text. */
export function parseJournal(text: string): JournalRecord[] {
  return text.split('\n').flatMap(line => {
    const record = parseLine(line);
    return record === undefined ? [] : [record];
  });
}

function parseLine(line: string): JournalRecord | undefined {
  if (line === '') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { at, kind, lease, leases, revision } = value as Record<string, unknown>;
  if (typeof at !== 'string' || Number.isNaN(Date.parse(at)) || typeof kind !== 'string' || !kinds.has(kind)) {
    return undefined;
  }
  const isWell =
    kind === 'start' || kind === 'stop'
      ? true
      : kind === 'checkpoint'
        ? Array.isArray(leases) && leases.every(isHolding) && Number.isSafeInteger(revision)
        : isHolding(lease) && ((kind !== 'put' && kind !== 'removed') || Number.isSafeInteger(revision));
  return isWell ? (value as JournalRecord) : undefined;
}

function isHolding(value: unknown): value is Holding {
  if (typeof value !== 'object' || value === null) return false;
  const { subnet, publicIp, createRevision, modRevision } = value as Record<string, unknown>;
  return (
    typeof subnet === 'string' &&
    typeof publicIp === 'string' &&
    Number.isSafeInteger(createRevision) &&
    Number.isSafeInteger(modRevision)
  );
}

/** What a journal says about one registry's leases, replayed to the end. */
export interface JournalView {
  /** As far as it is known; of the registry that was followed last. */
  registry: string | undefined;
  leases: Map<string, Holding>;
  /** Of the last record that has one; -1 before the first. */
  revision: number;
  /** Time of the last record, milliseconds since 1970. */
  atMs: number | undefined;
  /** The daemon was watching then: what follows nothing else was so until the next record. */
  watching: boolean;
  own: OwnRecord | undefined;
}

/** Replays records, in order, as long as `until` holds. A daemon that begins on another registry begins anew. */
export function viewOf(
  records: Iterable<JournalRecord>,
  until: (view: JournalView, next: JournalRecord) => boolean = () => true,
): JournalView {
  const view: JournalView = {
    registry: undefined,
    leases: new Map(),
    revision: -1,
    atMs: undefined,
    watching: false,
    own: undefined,
  };
  for (const record of records) {
    if (!until(view, record)) break;
    step(view, record);
  }
  return view;
}

function step(view: JournalView, record: JournalRecord): void {
  view.atMs = Date.parse(record.at);
  switch (record.kind) {
    case 'start':
      if (view.registry !== undefined && view.registry !== record.registry) {
        view.leases.clear();
        view.revision = -1;
        view.own = undefined;
      }
      view.registry = record.registry;
      view.own = { ...view.own, node: record.node, publicIp: record.publicIp };
      view.watching = true; // it lists and follows within seconds
      break;
    case 'checkpoint':
      view.registry = record.registry;
      view.revision = record.revision;
      view.leases = new Map(record.leases.map(lease => [keyOfHolding(lease), lease]));
      if (record.own !== undefined) view.own = record.own;
      break;
    case 'put':
    case 'removed':
      view.watching = true;
      view.revision = Math.max(view.revision, record.revision);
      replay(view.leases, [changeOf(record)]);
      break;
    case 'acquired':
      if (view.own !== undefined) view.own.acquired = { at: record.at, how: record.how, lease: record.lease };
      break;
    case 'stop':
      view.watching = false;
      break;
    default:
      break;
  }
}

/** What was seen of one registry, oldest first. What a file's checkpoint knew and no record tells is told without a time. */
export function journalChanges(records: readonly JournalRecord[], registry: string): Change[] {
  let current: string | undefined;
  const told = new Map<string, number>(); // key → modRevision
  const changes: Change[] = [];
  for (const record of records) {
    if (record.kind === 'start' || record.kind === 'checkpoint') current = record.registry;
    if (current !== registry) continue;
    if (record.kind === 'checkpoint') {
      for (const holding of record.leases) {
        const key = keyOfHolding(holding);
        if (told.has(key)) continue;
        told.set(key, holding.modRevision);
        changes.push({ kind: 'put', key, holding, revision: holding.modRevision });
      }
    } else if (record.kind === 'put' || record.kind === 'removed') {
      const change = changeOf(record);
      told.set(change.key, change.revision);
      changes.push(change);
    }
  }
  return changes;
}

/** What this node decided about its leases in one registry, oldest first. */
export function journalDecisions(records: readonly JournalRecord[], registry: string): Decision[] {
  let current: string | undefined;
  const decisions: Decision[] = [];
  for (const record of records) {
    if (record.kind === 'start') current = record.registry;
    if (record.kind === 'checkpoint') {
      current = record.registry;
      const acquired = record.own?.acquired;
      const isNews = acquired !== undefined && !decisions.some(other => other.kind === 'acquired');
      if (isNews && current === registry) decisions.push({ kind: 'acquired', ...acquired });
    }
    if (current === registry && isDecision(record)) decisions.push(record);
  }
  return decisions;
}

export type Decision = Extract<
  JournalRecord,
  { kind: 'acquired' | 'renewed' | 'fenced' | 'released' | 'reacquired' | 'lost' }
>;

const isDecision = (record: JournalRecord): record is Decision =>
  !['start', 'stop', 'checkpoint', 'put', 'removed'].includes(record.kind);

function changeOf(record: Extract<JournalRecord, { kind: 'put' | 'removed' }>): Change {
  const { kind, revision, lease: holding, late } = record;
  const change: Change = { kind, key: keyOfHolding(holding), holding, revision, atMs: Date.parse(record.at) };
  return late ? { ...change, late } : change;
}

function readOptional(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return '';
    throw error;
  }
}
