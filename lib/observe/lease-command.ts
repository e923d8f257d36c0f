// `tulle lease ls | watch | log | at | why`: what each prints. Everything that touches the machine is handed in.
import {
  type Change,
  type Holding,
  holdingOf,
  keyOfHolding,
  matcherOf,
  mergeHistory,
  type Past,
  printKey,
  type RegistryHistory,
  sameHolding,
} from '../lease/history.ts';
import { type Decision, type JournalRecord, journalChanges, journalDecisions, viewOf } from '../lease/journal.ts';
import { printSubnets, subnetKey } from '../lease/lease.ts';
import type { Registry } from '../lease/registry.ts';
import { messageOf, TulleError } from '../util/errors.ts';
import {
  bySubnet,
  formatLeases,
  formatPast,
  formatTable,
  formatTime,
  type Identity,
  leaseRow,
  pastRow,
  whoCells,
} from './lease-rows.ts';
import { storyOf } from './lease-story.ts';

export interface LeaseCommand {
  registry: Registry;
  /** "etcd:/coreos.com/network" or "file:/var/lib/tulle/leases", as the journal names it. */
  registryName: string;
  /** Absent: the registry does not remember. */
  history?: RegistryHistory;
  journal: { path: string; records: readonly JournalRecord[] };
  me: Identity;
  nowMs: number;
  json: boolean;
  out(text: string): void;
  /** Ends `watch`. */
  signal: AbortSignal;
}

/** Runs a verb. Throws TulleError 'usage', 'compacted', 'future', 'no-history', or a RegistryError. */
export async function runLeaseCommand(words: readonly string[], command: LeaseCommand): Promise<void> {
  const [verb, subject, ...rest] = words;
  if (rest.length > 0) throw usage(`"${rest[0]}": one argument too many`);
  switch (verb) {
    case 'ls':
      if (subject !== undefined) throw usage('"tulle lease ls" takes no argument');
      return list(command);
    case 'watch':
      if (subject !== undefined) throw usage('"tulle lease watch" takes no argument');
      return watch(command);
    case 'log':
      return log(command, subject);
    case 'at':
      if (subject === undefined) throw usage('when? Give a revision, a time, or how long ago: "tulle lease at 10m"');
      return at(command, subject);
    case 'why':
      if (subject === undefined) throw usage('which one? Give a subnet or an address: "tulle lease why 10.5.1.0/24"');
      return why(command, subject);
    default:
      throw usage(`there is no "tulle lease ${verb}"`);
  }
}

function usage(message: string): TulleError {
  return new TulleError('usage', `${message}: see "tulle lease --help"`);
}

function printJson({ out }: LeaseCommand, value: unknown): void {
  out(`${JSON.stringify(value)}\n`);
}

async function list(command: LeaseCommand): Promise<void> {
  const { registry, me, nowMs, json, out } = command;
  const { leases, unreadable = [] } = await registry.list();
  const rows = leases.map(lease => leaseRow(lease, me, nowMs)).sort(bySubnet);
  if (json) return printJson(command, rows);
  out(formatLeases(rows));
  for (const subnets of unreadable) out(`${printSubnets(subnets)} is taken by an entry that cannot be read\n`);
}

async function watch(command: LeaseCommand): Promise<void> {
  const { registry, me, json, out, signal } = command;
  const known = new Map<string, Holding>();
  for await (const message of registry.watch(signal)) {
    if (message.kind === 'snapshot') {
      known.clear();
      for (const lease of message.leases) known.set(subnetKey(lease), holdingOf(lease));
      const leases = [...known.values()].map(holding => pastRow(holding, me)).sort(bySubnet);
      if (json) printJson(command, { kind: 'snapshot', revision: message.revision, leases });
      else out(`${formatPast(leases)}-- revision ${message.revision}, watching\n`);
      continue;
    }
    for (const event of message.events) {
      const key = subnetKey(event.kind === 'put' ? event.lease : event);
      const before = known.get(key);
      const at = new Date().toISOString();
      if (event.kind === 'removed') {
        known.delete(key);
        const { subnet, subnet6 } = subnetsOfKey(key);
        const parts = { subnet, ...(subnet6 !== undefined && { subnet6 }) };
        if (json) printJson(command, { kind: 'removed', at, revision: message.revision, ...parts });
        else
          out(
            `${formatTime(Date.parse(at))}  - ${(before === undefined ? [printKey(key)] : who(before)).join('  ')}\n`,
          );
      } else {
        const holding = holdingOf(event.lease);
        known.set(key, holding);
        const kind = before === undefined ? 'added' : sameHolding(before, holding) ? 'renewed' : 'changed';
        if (json) printJson(command, { kind, at, revision: holding.modRevision, lease: pastRow(holding, me) });
        else out(`${formatTime(Date.parse(at))}  ${SIGNS[kind]} ${who(holding).join('  ')}\n`);
      }
    }
  }
}

const SIGNS = { added: '+', changed: '~', renewed: '=' } as const;

const who = (holding: Holding): string[] => whoCells(holding);

function subnetsOfKey(key: string): { subnet: string; subnet6?: string } {
  const [subnet, subnet6] = key.split('&', 2).map(part => part.replace(/-(\d+)$/, '/$1'));
  return { subnet, ...(subnet6 !== undefined && { subnet6 }) };
}

/** What can be told about the past, and where it begins. */
async function told({
  history,
  journal,
  registryName,
}: LeaseCommand): Promise<{ past?: Past; changes: Change[]; decisions: Decision[]; horizon?: string }> {
  const past = await history?.past();
  const changes = mergeHistory(past, journalChanges(journal.records, registryName));
  const decisions = journalDecisions(journal.records, registryName);
  const horizon =
    past === undefined
      ? changes.length === 0
        ? `This registry keeps no history, and there is no journal of a tulled of it at ${journal.path}.`
        : `This registry keeps no history: this is what the journal ${journal.path} knows.`
      : past.since > 0
        ? `etcd has compacted what was before revision ${past.since}.`
        : undefined;
  return { ...(past && { past }), changes, decisions, ...(horizon !== undefined && { horizon }) };
}

async function log(command: LeaseCommand, subject: string | undefined): Promise<void> {
  const matches = subject === undefined ? (): boolean => true : requireMatcher(subject);
  const { changes, decisions, horizon } = await told(command);
  const last = new Map<string, Holding>();
  const lines = changes
    .filter(({ key }) => matches(key))
    .map(change => {
      const before = last.get(change.key);
      const holding = change.holding ?? before;
      if (change.kind === 'removed') last.delete(change.key);
      else if (holding !== undefined) last.set(change.key, holding);
      const kind =
        change.kind === 'removed'
          ? 'removed'
          : before === undefined
            ? 'added'
            : holding !== undefined && sameHolding(before, holding)
              ? 'renewed'
              : 'changed';
      return logLine(kind, change.revision, change.atMs, holding, change.key, change.late ? 'seen late' : undefined);
    });
  const own = decisions
    .filter(({ lease }) => matches(keyOfHolding(lease)))
    .map(decision =>
      logLine(
        `this node: ${decision.kind}`,
        decision.lease.modRevision,
        Date.parse(decision.at),
        decision.lease,
        '',
        noteOf(decision),
      ),
    );
  // A decision follows the write that it led to.
  const all = [...lines, ...own].map((line, index) => ({ line, index }));
  all.sort((a, b) => a.line.revision - b.line.revision || a.index - b.index);
  const sorted = all.map(({ line }) => line);
  if (command.json) return printJson(command, sorted);
  const head = ['REVISION', 'TIME', 'WHAT', 'SUBNET', 'PUBLIC IP', 'NODE', 'BACKEND', 'NOTE'];
  const rows = sorted.map(line => [
    `${line.revision}`,
    line.at === null ? '-' : formatTime(Date.parse(line.at)),
    line.kind,
    ...(line.publicIp === null
      ? [line.subnet, '-', '-', '-']
      : whoCells({ ...line, publicIp: line.publicIp, backend: line.backend ?? '-' })),
    line.note ?? '',
  ]);
  command.out(formatTable(head, rows));
  if (horizon !== undefined) command.out(`${horizon}\n`);
}

interface LogLine {
  revision: number;
  at: string | null;
  kind: string;
  subnet: string;
  subnet6?: string;
  publicIp: string | null;
  nodeId: string | null;
  backend: string | null;
  note?: string;
}

function logLine(
  kind: string,
  revision: number,
  atMs: number | undefined,
  holding: Holding | undefined,
  key: string,
  note: string | undefined,
): LogLine {
  return {
    revision,
    at: atMs === undefined ? null : new Date(atMs).toISOString(),
    kind,
    ...subnetsOfKey(holding === undefined ? key : keyOfHolding(holding)),
    publicIp: holding?.publicIp ?? null,
    nodeId: holding?.nodeId ?? null,
    backend: holding?.backend ?? null,
    ...(note !== undefined && { note }),
  };
}

function noteOf(decision: Decision): string | undefined {
  if (decision.kind === 'acquired') return decision.how;
  if (decision.kind === 'lost') return decision.reason;
  return decision.kind === 'reacquired' ? `lease key ${decision.previousRevision} before` : undefined;
}

async function at(command: LeaseCommand, subject: string): Promise<void> {
  const { journal, registryName, history, me, nowMs, json, out } = command;
  const revisionAsked = /^\d+$/.test(subject) ? Number(subject) : undefined;
  const timeAsked = revisionAsked === undefined ? parseTime(subject, nowMs) : undefined;
  if (timeAsked !== undefined && timeAsked > nowMs)
    throw new TulleError('future', `${formatTime(timeAsked)} is still to come`);

  const records = ofRegistry(journal.records, registryName);
  const view = viewOf(records, (_, next) =>
    timeAsked !== undefined
      ? Date.parse(next.at) <= timeAsked
      : (next.kind !== 'put' && next.kind !== 'removed' && next.kind !== 'checkpoint') ||
        next.revision <= revisionAsked!,
  );
  const revision = revisionAsked ?? view.revision;
  let holdings: Holding[] | undefined;
  let forgotten: string | undefined;
  if (history !== undefined && revision > 0) {
    try {
      holdings = await history.at(revision);
    } catch (error) {
      if (!(error instanceof TulleError) || error.code !== 'compacted') throw error;
      forgotten = messageOf(error);
    }
  }
  const source = holdings === undefined ? 'journal' : 'registry';
  if (holdings === undefined) {
    if (view.revision < 0) throw noHistory(command, subject, timeAsked, forgotten);
    holdings = [...view.leases.values()];
  }
  const leases = holdings.map(holding => pastRow(holding, me)).sort(bySubnet);
  const asleep = timeAsked !== undefined && !view.watching;
  if (json) {
    const time = timeAsked === undefined ? null : new Date(timeAsked).toISOString();
    return printJson(command, { revision, at: time, source, watched: !asleep, leases });
  }
  out(formatPast(leases));
  out(
    `-- ${timeAsked === undefined ? '' : `${formatTime(timeAsked)}, `}revision ${revision}, from ${source === 'registry' ? 'etcd' : journal.path}\n`,
  );
  if (asleep) out("-- this node's tulled was not watching then: this is the last that it had seen\n");
}

/** Only the records of one registry; a daemon that was moved has others too. */
function ofRegistry(records: readonly JournalRecord[], registry: string): JournalRecord[] {
  let current: string | undefined;
  return records.filter(record => {
    if (record.kind === 'start' || record.kind === 'checkpoint') current = record.registry;
    return current === registry;
  });
}

function noHistory(
  { journal, history }: LeaseCommand,
  subject: string,
  timeMs: number | undefined,
  forgotten: string | undefined,
): TulleError {
  const first = journal.records[0];
  const reach =
    first === undefined
      ? `there is no journal at ${journal.path} (a running tulled writes it; -subnet-file or --state-dir says where)`
      : `the journal ${journal.path} begins at ${formatTime(Date.parse(first.at))}`;
  const why =
    forgotten ??
    (timeMs === undefined
      ? `this registry keeps no history of revision ${subject}`
      : history === undefined
        ? 'this registry keeps no history'
        : 'etcd does not know times, only revisions');
  return new TulleError('no-history', `${why}, and ${reach}`);
}

async function why(command: LeaseCommand, subject: string): Promise<void> {
  const matches = requireMatcher(subject);
  const { registry, me, json, out } = command;
  const { leases } = await registry.list();
  const { changes, decisions, horizon } = await told(command);
  const current = new Map(leases.map(lease => [subnetKey(lease), holdingOf(lease)]));
  const keys = new Set([...current.keys(), ...changes.map(({ key }) => key)].filter(matches));
  const stories = [...keys].map(key => {
    const holder = current.get(key);
    const own = changes.filter(change => change.key === key);
    const decided = decisions.filter(({ lease }) => keyOfHolding(lease) === key);
    const input = { key, current: holder, changes: own, decisions: decided, me };
    const sentences = storyOf({ ...input, ...(horizon !== undefined && { horizon }) });
    return { ...subnetsOfKey(key), holder: holder === undefined ? null : pastRow(holder, me), sentences };
  });
  // Of several (subnets of an earlier network, perhaps) the one that somebody holds comes first.
  stories.sort((a, b) => Number(b.holder !== null) - Number(a.holder !== null));
  if (stories.length === 0) {
    const sentences = [
      `Nobody holds ${subject}, and no record says that somebody ever did.`,
      ...(horizon === undefined ? [] : [horizon]),
    ];
    stories.push({ subnet: subject, holder: null, sentences });
  }
  if (json) return printJson(command, stories);
  out(`${stories.map(({ sentences }) => sentences.join('\n')).join('\n\n')}\n`);
}

function requireMatcher(text: string): (key: string) => boolean {
  const matcher = matcherOf(text);
  if (matcher === undefined) throw usage(`"${text}" is neither a subnet like 10.5.1.0/24 nor an address in one`);
  return matcher;
}

const UNITS: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A time as formatTime writes it or as ISO 8601 does, local time where it names no zone; or "10m": ten minutes ago. */
export function parseTime(text: string, nowMs: number): number {
  const ago = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text);
  if (ago !== null) return nowMs - Number(ago[1]) * UNITS[ago[2]];
  const time = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?$/.test(text)
    ? Date.parse(text.replace(' ', 'T'))
    : Number.NaN;
  if (Number.isNaN(time))
    throw usage(`"${text}" is no time: write 2026-08-01 12:00:00Z, or 10m for ten minutes ago, or a revision`);
  return time;
}
