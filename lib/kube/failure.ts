// What went wrong with a call to the API server: one line for a person, and one code for the lease rules.
import { RegistryError, type RegistryErrorCode } from '../lease/registry.ts';
import { codeOf, messageOf } from '../util/errors.ts';

/** A call's purpose in the words of RBAC, so that a refusal can name what is missing. */
export interface Purpose {
  verb: 'get' | 'list' | 'watch' | 'patch';
  /** "nodes", "nodes/status", "pods" */
  resource: string;
}

/** An answer that is no success. */
export class ApiFailure extends RegistryError {
  /** The HTTP status; 0 when there was no answer. */
  readonly status: number;
  /** Of a 429 or 503 that asks to be left alone for a while. */
  readonly retryAfterMs: number | undefined;

  constructor(
    code: RegistryErrorCode,
    message: string,
    more: { status?: number; retryAfterMs?: number | undefined; cause?: unknown } = {},
  ) {
    super(code, message, more.cause === undefined ? undefined : { cause: more.cause });
    this.status = more.status ?? 0;
    this.retryAfterMs = more.retryAfterMs;
  }
}

/** The longest Retry-After that is honoured: a server that says "in a week" is not believed. */
const longestRetryAfterMs = 60_000;

/** The error for an HTTP status and a body that may be a Status object. */
export function failureOf(
  server: string,
  { verb, resource }: Purpose,
  status: number,
  body: string,
  retryAfter?: string | undefined,
): ApiFailure {
  const said = statusMessage(body);
  const retryAfterMs = retryAfterOf(retryAfter);
  const place = `the API server at ${server}`;
  switch (status) {
    case 401:
      return new ApiFailure(
        'denied',
        `${place} does not know who we are (401 ${said}): the token or client certificate is wrong or has expired`,
        { status },
      );
    case 403: {
      const cure = `allow "${verb}" on "${resource}" in the ClusterRole of this service account`;
      return new ApiFailure('denied', `${place} refuses us (403): ${said}: ${cure}`, { status });
    }
    case 404:
      return new ApiFailure('missing', `${place} has no such thing (404): ${said}`, { status });
    case 409:
      return new ApiFailure('conflict', `${place}: ${said}`, { status });
    default: {
      const what = status === 429 ? 'is busy (429)' : status === 410 ? 'has forgotten it (410)' : `answers ${status}`;
      return new ApiFailure('unavailable', `${place} ${what}: ${said}`, { status, retryAfterMs });
    }
  }
}

/** The message of a Status object, or the beginning of whatever came instead, on one line. */
export function statusMessage(body: string): string {
  let text = body;
  try {
    const { message, reason } = JSON.parse(body) as { message?: unknown; reason?: unknown };
    text = typeof message === 'string' && message !== '' ? message : String(reason ?? '');
  } catch {
    // a proxy's page, perhaps
  }
  const line = text.replace(/\s+/g, ' ').trim().slice(0, 300);
  return line === '' ? 'no reason given' : line;
}

/** Seconds, or a date (RFC 9110 §10.2.3). */
function retryAfterOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const ms = /^[0-9]+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), longestRetryAfterMs);
}

const clock = (): string => `is the clock right? Here it is ${new Date().toISOString().slice(0, 19)}Z`;

// What Node.js and OpenSSL say, and what a person can do about it. The first match counts.
const plainReasons: readonly [RegExp, () => string][] = [
  [/CERT_NOT_YET_VALID|not yet valid/, () => `TLS: its certificate is not valid yet: ${clock()}`],
  [/CERT_HAS_EXPIRED|certificate has expired/, () => `TLS: its certificate has expired: ${clock()}`],
  [
    /ALERT_CERTIFICATE_EXPIRED|alert certificate expired/,
    () => `TLS: it says that our certificate expired: ${clock()}`,
  ],
  [
    /ALERT_BAD_CERTIFICATE|ALERT_UNKNOWN_CA|CERTIFICATE_REQUIRED/,
    () => 'TLS: it does not trust our client certificate',
  ],
  [/ALTNAME|does not match certificate/, () => 'TLS: its certificate is for another name or address'],
  [
    /SELF_SIGNED|UNABLE_TO_(GET|VERIFY)|self.signed|unable to (get|verify)/,
    () => 'TLS: its certificate is not signed by the CA that we were given',
  ],
  [
    /WRONG_VERSION|wrong version|packet length too long/,
    () => 'it does not speak TLS: is it http:// and not https://?',
  ],
  [/HPE_|Parse Error/, () => 'it does not speak HTTP: is it https:// and not http://?'],
  [/PEM|ASN1|asn1|KEY_VALUES_MISMATCH|key values mismatch/, () => 'a certificate or key that we were given is no PEM'],
  [/ECONNREFUSED/, () => 'connection refused'],
  [/ECONNRESET|EPIPE|socket hang up/, () => 'it closed the connection'],
  [/EHOSTUNREACH|ENETUNREACH/, () => 'no route to it'],
  [/ENOTFOUND|EAI_AGAIN/, () => 'its name cannot be resolved'],
  [/ETIMEDOUT|timed out|timeout/i, () => 'no answer in time'],
];

/** Whether the two sides do not trust each other's certificates, which another certificate or CA may mend. */
export const isTlsFailure = (error: unknown): boolean => plainReasonOf(error)?.startsWith('TLS: ') ?? false;

function plainReasonOf(error: unknown): string | undefined {
  const text = `${codeOf(error) ?? ''} ${messageOf(error)}`;
  return plainReasons.find(([pattern]) => pattern.test(text))?.[1]();
}

/** The error for a call that got no answer: connection, TLS, deadline, credentials that cannot be read. */
export function unreachable(server: string, error: unknown): RegistryError {
  if (error instanceof RegistryError) return error;
  const reason = plainReasonOf(error) ?? messageOf(error).replace(/\s+/g, ' ').trim();
  return new ApiFailure('unavailable', `the API server at ${server} does not answer: ${reason}`, { cause: error });
}
