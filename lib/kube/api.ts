// Calls to the API server with deadlines: one answer (`request`), or lines for as long as they come (`lines`).
//
// client-node's own calls have no deadline and its watch has no idle timer, knows no bookmarks, and hides the status of an
// answer; so it only says who we are (credentials.ts). Connections are kept: a watch has one, the calls share another.
import { type ClientRequest, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { codeOf } from '../util/errors.ts';
import type { Credentials } from './credentials.ts';
import { ApiFailure, failureOf, isTlsFailure, type Purpose, unreachable } from './failure.ts';

export interface ApiOptions {
  credentials: Credentials;
  /** How long a call may take, repeats included. */
  deadlineMs?: number;
  /** 0 <= random() < 1, for jitter. */
  random?: () => number;
}

export interface Call {
  purpose: Purpose;
  /** Below the server's: "/api/v1/nodes". */
  path: string;
  query?: Record<string, string>;
  /** Of a patch. */
  body?: { type: string; json: unknown };
  signal?: AbortSignal;
}

export interface Api {
  readonly server: string;
  /** The body of a success. Throws ApiFailure: 'denied', 'missing' (404), 'conflict' (409), 'unavailable'. */
  request(call: Call): Promise<unknown>;
  /**
   * First '' as soon as the server has said yes, then the body line by line; ends when the server ends it. Throws ApiFailure, also
   * after `idleMs` without a byte.
   */
  lines(call: Call, idleMs: number): AsyncGenerator<string>;
  /** Milliseconds that the last call took, and when the server last answered anything (performance.now()). */
  readonly health: { latencyMs: number | undefined; answeredAt: number | undefined };
  close(): void;
}

/** Of a page of 500 nodes with 50 images each: about 15 MB. More than this is no answer of an API server. */
const longestBody = 128 * 1024 * 1024;
/** One node with everything: etcd takes no object of more than 1.5 MB. */
const longestLine = 8 * 1024 * 1024;
const defaultDeadlineMs = 15_000;

export function createApi({ credentials, deadlineMs = defaultDeadlineMs, random = Math.random }: ApiOptions): Api {
  const secure = credentials.server.startsWith('https:');
  const agent = secure
    ? new Agent({ keepAlive: true, maxSockets: 4 })
    : new HttpAgent({ keepAlive: true, maxSockets: 4 });
  const closed = new AbortController();
  const health: Api['health'] = { latencyMs: undefined, answeredAt: undefined };

  /** Sends it once and waits for the head of the answer. */
  async function send(call: Call, until: number, own: boolean): Promise<IncomingMessage> {
    const { body, query, path } = call;
    const url = new URL(`${credentials.server}${path}`);
    for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value);
    const method = body === undefined ? 'GET' : 'PATCH';
    const payload = body === undefined ? undefined : JSON.stringify(body.json);
    const { headers, ...given } = await credentials.options();
    const startedAt = performance.now();
    return new Promise((resolve, reject) => {
      const options = {
        ...given,
        method,
        headers: {
          ...headers,
          accept: 'application/json',
          'user-agent': 'tulled',
          ...(payload !== undefined && { 'content-type': body!.type, 'content-length': Buffer.byteLength(payload) }),
        },
        // A stream has a connection of its own, which ends with it.
        agent: given.agent ?? (own ? undefined : agent),
        signal: AbortSignal.any([closed.signal, ...(call.signal ? [call.signal] : [])]),
      };
      const request: ClientRequest = secure ? httpsRequest(url, options) : httpRequest(url, options);
      const timer = setTimeout(() => request.destroy(new Error('timed out')), Math.max(0, until - performance.now()));
      request.on('socket', socket => socket.setKeepAlive(true, 15_000));
      request.on('response', response => {
        clearTimeout(timer);
        health.answeredAt = performance.now();
        health.latencyMs = health.answeredAt - startedAt;
        resolve(response);
      });
      request.on('error', error => {
        clearTimeout(timer);
        // The server closed a kept connection just as we used it: nothing was done.
        reject(request.reusedSocket && codeOf(error) === 'ECONNRESET' ? new Stale() : error);
      });
      request.end(payload);
    });
  }

  /** The head of a success. Repeats what a rotated token, a busy server or a stale connection may mend in time. */
  async function open(call: Call, own: boolean): Promise<IncomingMessage> {
    const until = performance.now() + deadlineMs;
    let anew = false;
    const readAnew = (): boolean => {
      if (anew) return false;
      anew = true;
      credentials.forget();
      return true;
    };
    for (;;) {
      let response: IncomingMessage;
      try {
        response = await send(call, until, own);
      } catch (error) {
        if (error instanceof Stale) continue;
        // The CA or the client certificate in a kubeconfig may have been replaced since it was read.
        if (isTlsFailure(error) && readAnew()) continue;
        throw unreachable(credentials.server, error);
      }
      const { statusCode: status = 0 } = response;
      if (status >= 200 && status < 300) return response;
      const text = await textOf(response, until).catch(() => '');
      const failure = failureOf(credentials.server, call.purpose, status, text, response.headers['retry-after']);
      if (status === 401 && readAnew()) continue; // the token may have been rotated since it was read
      const { retryAfterMs } = failure;
      if (retryAfterMs === undefined || performance.now() + retryAfterMs >= until || own) throw failure;
      await sleep(retryAfterMs * (1 + random() / 4), undefined, signalOf(call));
    }
  }

  const signalOf = ({ signal }: Call): { signal?: AbortSignal } => (signal === undefined ? {} : { signal });

  /** The whole body; `until` is the end of waiting for it. */
  async function textOf(response: IncomingMessage, until: number): Promise<string> {
    const timer = setTimeout(
      () => response.destroy(new Error('timed out in the middle of an answer')),
      Math.max(0, until - performance.now()),
    );
    try {
      const chunks: Buffer[] = [];
      let bytes = 0;
      for await (const chunk of response as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (bytes > longestBody) throw new Error(`an answer of more than ${longestBody} bytes`);
        chunks.push(chunk);
      }
      return Buffer.concat(chunks).toString();
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    server: credentials.server,
    health,
    async request(call) {
      const response = await open(call, false);
      try {
        return JSON.parse(await textOf(response, performance.now() + deadlineMs)) as unknown;
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw unreachable(credentials.server, error);
        throw new ApiFailure('unavailable', `the API server at ${credentials.server} answers what is not JSON`);
      }
    },
    async *lines(call, idleMs) {
      const response = await open(call, true);
      let timer: NodeJS.Timeout | undefined;
      const alive = (): void => {
        clearTimeout(timer);
        timer = setTimeout(() => response.destroy(new Error(`nothing came for ${idleMs / 1000} s: timed out`)), idleMs);
      };
      try {
        yield '';
        alive();
        const decoder = new TextDecoder();
        let rest = '';
        for await (const chunk of response as AsyncIterable<Buffer>) {
          health.answeredAt = performance.now();
          clearTimeout(timer); // while somebody works on what came, nobody waits
          rest += decoder.decode(chunk, { stream: true });
          const parts = rest.split('\n');
          rest = parts.pop()!;
          if (rest.length > longestLine) throw new Error(`a line of more than ${longestLine} bytes`);
          for (const line of parts) if (line.trim() !== '') yield line;
          alive();
        }
      } catch (error) {
        throw unreachable(credentials.server, error);
      } finally {
        clearTimeout(timer);
        response.destroy();
      }
    },
    close() {
      closed.abort();
      agent.destroy();
    },
  };
}

/** A kept connection that had ended. */
class Stale extends Error {}
