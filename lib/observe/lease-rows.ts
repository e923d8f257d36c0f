// Leases as people and programs read them: rows of a table, objects of a JSON array.
import { type Holding, holdingOf } from '../lease/history.ts';
import type { Lease } from '../lease/lease.ts';

/** One lease of `tulle lease at --json`, and of every event of `watch --json` and `log --json`. */
export interface PastRow {
  subnet: string;
  subnet6?: string;
  publicIp: string;
  nodeId: string | null;
  backend: string;
  /** The revision that wrote the value. */
  revision: number;
  mine: boolean;
}

/** One lease of `tulle lease ls --json`. */
export interface LeaseRow extends PastRow {
  /** Whole seconds; null: a reservation, which never expires. */
  expiresInSeconds: number | null;
}

/** By what this machine's own lease is recognised. */
export interface Identity {
  nodeId?: string;
  /** Addresses of this machine, those that it is published by included: a lease without a node id has no other sign. */
  addresses: ReadonlySet<string>;
}

export function isMine({ nodeId, publicIp }: Pick<Holding, 'nodeId' | 'publicIp'>, me: Identity): boolean {
  // As choose.ts has it: a machine that was cloned shares our node id, and is another one. 0.0.0.0: a reservation for a node id.
  const isHere = me.addresses.has(publicIp);
  return nodeId === null ? isHere : nodeId === me.nodeId && (isHere || publicIp === '0.0.0.0');
}

export function pastRow(holding: Holding, me: Identity): PastRow {
  const { subnet, subnet6, publicIp, nodeId, backend, modRevision } = holding;
  return {
    subnet,
    ...(subnet6 !== undefined && { subnet6 }),
    publicIp,
    nodeId,
    backend,
    revision: modRevision,
    mine: isMine(holding, me),
  };
}

export function leaseRow(lease: Lease, me: Identity, nowMs: number): LeaseRow {
  const { revision, mine, ...who } = pastRow(holdingOf(lease), me);
  const { expiresAtMs } = lease;
  const expiresInSeconds = expiresAtMs === null ? null : Math.max(0, Math.round((expiresAtMs - nowMs) / 1000));
  return { ...who, expiresInSeconds, revision, mine };
}

/** Sorts by address: 10.5.9.0 before 10.5.10.0. */
export function bySubnet(a: PastRow, b: PastRow): number {
  const numberOf = ({ subnet }: PastRow): number =>
    subnet.split(/[./]/).reduce((total, part) => total * 256 + Number(part), 0);
  return numberOf(a) - numberOf(b) || ((a.subnet6 ?? '') < (b.subnet6 ?? '') ? -1 : 1);
}

/** Columns as wide as their widest cell, two spaces between them, nothing at the end of a line. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map(row => row[column].length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd();
  return [head, ...rows].map(cells => `${line(cells)}\n`).join('');
}

/** "-" for what is not there. */
const cell = (text: string | null | undefined): string =>
  text === null || text === undefined || text === '' ? '-' : text;

export function formatLeases(rows: readonly LeaseRow[]): string {
  return formatTable(
    ['SUBNET', 'PUBLIC IP', 'NODE', 'BACKEND', 'EXPIRES', 'REVISION', ''],
    rows.map(row => [
      ...whoCells(row),
      formatExpiry(row.expiresInSeconds),
      `${row.revision}`,
      row.mine ? 'this node' : '',
    ]),
  );
}

export function formatPast(rows: readonly PastRow[]): string {
  return formatTable(
    ['SUBNET', 'PUBLIC IP', 'NODE', 'BACKEND', 'REVISION', ''],
    rows.map(row => [...whoCells(row), `${row.revision}`, row.mine ? 'this node' : '']),
  );
}

export function whoCells({ subnet, subnet6, publicIp, nodeId, backend }: Omit<PastRow, 'revision' | 'mine'>): string[] {
  const subnets = subnet6 === undefined ? subnet : subnet === '0.0.0.0/0' ? subnet6 : `${subnet} ${subnet6}`;
  return [subnets, cell(publicIp), cell(nodeId), backend];
}

/** "in 23h 59m", "in 12s", "now", "never". */
export function formatExpiry(seconds: number | null): string {
  if (seconds === null) return 'never';
  return seconds === 0 ? 'now' : `in ${formatSeconds(seconds)}`;
}

/** The two largest units: "2d 3h", "23h 59m", "59m 58s", "7s". */
export function formatSeconds(seconds: number): string {
  const units: [string, number][] = [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return '0s';
  const [name, size] = units[first];
  const next = units[first + 1];
  const rest = next === undefined ? 0 : Math.floor((seconds % size) / next[1]);
  return `${Math.floor(seconds / size)}${name}${rest === 0 ? '' : ` ${rest}${next[0]}`}`;
}

/** "2026-08-01 12:00:00Z": the one form in which times are told, and which `tulle lease at` takes back. */
export function formatTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')}Z`;
}
