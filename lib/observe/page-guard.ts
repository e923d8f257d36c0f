/**
 * Who may see the live page, and who may press its buttons. Pure: from a request's headers to a verdict.
 *
 * - Host must be an address or "localhost": a name that an attacker's DNS points here (rebinding) is refused.
 * - Origin, where a browser sends one, must be this very page's.
 * - On a loopback address looking needs no token, elsewhere it does. Changing anything needs it always, and so does seeing
 *   the pods' packets.
 * - The token comes as "Authorization: Bearer …" or, after one visit with "?token=…", in a cookie that no script can read
 *   and no other site can send.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';

export interface PageRequest {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
}

export type Verdict =
  /** It may be answered; `mayAct`: it carried the token. */
  | { kind: 'pass'; mayAct: boolean }
  /** The token was in the address: it is put into this cookie, and the browser sent to the address without it. */
  | { kind: 'welcome'; cookie: string }
  | { kind: 'refuse'; status: number; why: string };

export interface Guard {
  token: string;
  /** Of the address that is listened on. */
  isLoopback: boolean;
  port: number;
}

/** 32 letters and digits, 160 bits and more. */
export const newToken = (): string => randomBytes(24).toString('base64url');

export const isLoopback = (address: string): boolean =>
  address === '::1' || /^127\.\d+\.\d+\.\d+$/.test(address) || address === 'localhost';

export function judge({ method, path, query, headers }: PageRequest, guard: Guard): Verdict {
  const refuse = (status: number, why: string): Verdict => ({ kind: 'refuse', status, why });
  const { host, origin } = headers;
  if (host === undefined || !isKnownHost(host)) return refuse(403, 'ask for the page by its address, not by a name');
  if (origin !== undefined && origin !== `http://${host}`) return refuse(403, 'only this page itself may ask');
  const site = headers['sec-fetch-site'];
  const isVisit = method === 'GET' && path === '/';
  if (site !== undefined && site !== 'same-origin' && site !== 'none' && !isVisit)
    return refuse(403, 'only this page itself may ask');
  if (method !== 'GET' && method !== 'HEAD' && method !== 'POST') return refuse(405, 'there are GET and POST');

  const given = query.get('token');
  if (given !== null && isVisit) {
    if (!isSame(given, guard.token))
      return refuse(401, 'that is not the token: look for it where the page was started');
    return { kind: 'welcome', cookie: `${cookieName(guard)}=${guard.token}; Path=/; HttpOnly; SameSite=Strict` };
  }
  const mayAct = hasToken(headers, guard);
  if (mayAct) return { kind: 'pass', mayAct };
  if (method === 'POST') return refuse(401, 'this needs the token: open the address that was printed at the start');
  if (!guard.isLoopback)
    return refuse(401, 'this page needs its token: open the address that was printed at the start');
  return { kind: 'pass', mayAct };
}

/** Ports share their host's cookies, so each has its own name. */
const cookieName = ({ port }: Guard): string => `tulle-page-${port}`;

function hasToken(headers: IncomingHttpHeaders, guard: Guard): boolean {
  const bearer = /^Bearer ([\w-]+)$/.exec(headers.authorization ?? '')?.[1];
  if (bearer !== undefined) return isSame(bearer, guard.token);
  const name = `${cookieName(guard)}=`;
  const cookies = (headers.cookie ?? '').split(';').map(cookie => cookie.trim());
  return cookies.some(cookie => cookie.startsWith(name) && isSame(cookie.slice(name.length), guard.token));
}

/** In a time that tells nothing about where they differ. */
function isSame(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

/** "127.0.0.1:8286", "[::1]:8286", "localhost". */
function isKnownHost(host: string): boolean {
  const name = /^(\[[0-9a-f:.]+\]|[^:]+)(?::\d{1,5})?$/i.exec(host)?.[1];
  if (name === undefined) return false;
  return name === 'localhost' || isIP(name.replace(/^\[|\]$/g, '')) !== 0;
}
