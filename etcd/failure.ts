// What went wrong with a call to etcd, in our words: three kinds decide what happens next, and one line tells a person.
import { RegistryError } from '../lib/lease/registry.ts';
import { messageOf } from '../lib/util/errors.ts';

/**
 * - away: this endpoint did not answer, or answered that it cannot serve now; another endpoint or another moment may do;
 * - token: our authentication token is no longer good: get another and repeat;
 * - denied: who we are or what we ask is refused;
 * - refused: etcd works and says no; repeating the same changes nothing.
 */
export type FailureKind = 'away' | 'token' | 'denied' | 'refused';

/** Our own end of waiting, beside etcd3's. */
export class DeadlineError extends Error {}

// The gRPC status that etcd3's messages begin with, as "14 UNAVAILABLE: …" (grpc-js, callErrorFromStatus).
const statusPattern = /^(?:\w*Error: )?([0-9]{1,2}) [A-Z_]+: /;
const awayStatus = new Set([1, 2, 4, 10, 13, 14]); // CANCELLED UNKNOWN DEADLINE_EXCEEDED ABORTED INTERNAL UNAVAILABLE
const deniedStatus = new Set([7, 16]); // PERMISSION_DENIED UNAUTHENTICATED

/** Judges by gRPC status and etcd's own texts (etcd, api/v3rpc/rpctypes/error.go); etcd3's classes carry no more than that. */
export function failureKindOf(error: unknown): FailureKind {
  if (error instanceof DeadlineError) return 'away';
  const text = messageOf(error);
  if (/invalid auth token|revision of auth store is old/.test(text)) return 'token';
  if (/authentication failed|permission denied|user name (is empty|not found)/.test(text)) return 'denied';
  const status = Number(statusPattern.exec(text)?.[1] ?? Number.NaN);
  if (deniedStatus.has(status)) return 'denied';
  if (awayStatus.has(status)) return 'away';
  if (Number.isNaN(status) && !text.includes('etcdserver:')) return 'away'; // a closed client, a broken stream
  return 'refused';
}

// What gRPC and OpenSSL say, and what a person can do about it. The first match counts.
const plainReasons: readonly [RegExp, string][] = [
  [/ECONNREFUSED/, 'connection refused'],
  [/EHOSTUNREACH|ENETUNREACH/, 'no route to it'],
  [/ENOTFOUND|Name resolution failed/, 'its name cannot be resolved'],
  [/wrong version number|packet length too long/, 'TLS: it does not speak TLS: is it http:// and not https://?'],
  [/alert bad certificate|certificate required|alert unknown ca/, 'TLS: it wants a client certificate that it trusts'],
  [/certificate has expired/, 'TLS: its certificate has expired'],
  [/altnames|Hostname\/IP does not match/, 'TLS: its certificate is for another name or address'],
  [/self.signed certificate|unable to (get|verify)/, 'TLS: its certificate is not signed by a CA that we trust'],
  [/Protocol error|Parse Error|Failed to parse/, 'it does not speak gRPC: is it an etcd, and not https://?'],
  [/database space exceeded/, 'its database is full: compact and defragment it, then "etcdctl alarm disarm"'],
  [/deadline/i, 'no answer in time'],
];

/** etcd's reason without gRPC's decoration, on one line. */
export function reasonOf(error: unknown): string {
  if (error instanceof DeadlineError) return 'no answer in time';
  const text = messageOf(error).replace(statusPattern, '').replace(/\s+/g, ' ').trim();
  const plain = plainReasons.find(([pattern]) => pattern.test(text));
  if (plain !== undefined) return plain[1];
  const inner = /Last error: (.*?)(?: \([^()]*Z\))?\.? Resolution note:/.exec(text)?.[1] ?? text;
  return inner.replace(/^(Error: )?(etcdserver: )?/, '') || 'no reason given';
}

/** The error of a verb. Nothing of the original is attached: its stack is noise, and its text is already in the line. */
export function registryErrorOf(error: unknown, endpoints: string): RegistryError {
  if (error instanceof RegistryError) return error;
  const reason = reasonOf(error);
  switch (failureKindOf(error)) {
    case 'away':
      return new RegistryError('unavailable', `etcd at ${endpoints} does not answer: ${reason}`);
    case 'token':
    case 'denied':
      return new RegistryError(
        'denied',
        `etcd at ${endpoints} refuses us: ${reason}: check the etcd user and password`,
      );
    case 'refused':
      return new RegistryError('unavailable', `etcd at ${endpoints} answers: ${reason}`);
  }
}
