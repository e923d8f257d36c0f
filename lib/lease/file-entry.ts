// One lease as a file: flannel's lease JSON and, under the one key "Lease", what a store without TTLs and revisions needs:
//
//   { "PublicIP": "10.88.0.1", "PublicIPv6": null,
//     "Lease": { "ExpiresAt": "2026-08-01T12:00:00.000Z", "CreateRevision": 3, "ModRevision": 7 } }
//
// A file without "Lease" is a reservation that a person wrote: it never expires and nobody has taken it yet.
import { TulleError } from '../util/errors.ts';
import type { Lease, LeaseAttributes, LeaseSubnets } from './lease.ts';

/** The text of a lease's file. */
export function formatEntry(lease: Lease): string {
  const { Lease: _, ...attributes } = lease.attributes;
  const ExpiresAt = lease.expiresAtMs === null ? null : new Date(lease.expiresAtMs).toISOString();
  const own = { ExpiresAt, CreateRevision: lease.createRevision, ModRevision: lease.modRevision };
  return `${JSON.stringify({ ...attributes, Lease: own }, null, 2)}\n`;
}

/** The lease that a file holds; throws TulleError 'corrupt', whose message says what is wrong with the text. */
export function parseEntry(subnets: LeaseSubnets, text: string): Lease {
  const { Lease: own, ...attributes } = objectOf(text);
  if (typeof attributes['PublicIP'] !== 'string') throw corrupt('PublicIP is missing');
  const { PublicIP, PublicIPv6 = null, ...rest } = attributes;
  if (PublicIPv6 !== null && typeof PublicIPv6 !== 'string') throw corrupt('PublicIPv6 is neither a text nor null');
  return { ...subnets, attributes: { PublicIP, PublicIPv6, ...rest } as LeaseAttributes, ...parseOwn(own) };
}

function parseOwn(own: unknown): Pick<Lease, 'expiresAtMs' | 'createRevision' | 'modRevision'> {
  if (own === undefined) return { expiresAtMs: null, createRevision: 0, modRevision: 0 };
  if (typeof own !== 'object' || own === null) throw corrupt('Lease is not an object');
  const { ExpiresAt, CreateRevision, ModRevision } = own as Record<string, unknown>;
  const expiresAtMs = typeof ExpiresAt === 'string' ? Date.parse(ExpiresAt) : ExpiresAt;
  if (expiresAtMs !== null && (typeof expiresAtMs !== 'number' || Number.isNaN(expiresAtMs))) {
    throw corrupt('Lease.ExpiresAt is neither a time nor null');
  }
  if (!isRevision(CreateRevision)) throw corrupt('Lease.CreateRevision is not a number');
  if (!isRevision(ModRevision)) throw corrupt('Lease.ModRevision is not a number');
  return { expiresAtMs, createRevision: CreateRevision, modRevision: ModRevision };
}

function objectOf(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw corrupt(text === '' ? 'it is empty' : 'it is not JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw corrupt('it is not a JSON object');
  return value as Record<string, unknown>;
}

const isRevision = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

const corrupt = (message: string): TulleError => new TulleError('corrupt', message);
