/**
 * What a running daemon answers: routes that the rooms add and take away, over HTTP/1.1. The control socket serves them
 * (lib/observe/control-server.ts), and so may a page.
 *
 * An answer is JSON, text, or a stream of chunks. A handler that throws a TulleError is answered with its code and its
 * line: {"code":"…","error":"…"}.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { messageOf, TulleError } from '../util/errors.ts';

export interface ControlRequest {
  method: string;
  path: string;
  query: URLSearchParams;
  /** At most 64 KB. */
  body: string;
  /** Aborted when the client goes away. */
  signal: AbortSignal;
}

/** Resolves when the client takes more; rejects when it has gone away or takes nothing for too long. */
export type ControlWrite = (chunk: Uint8Array) => Promise<void>;

export type ControlAnswer =
  | { status?: number; json: unknown }
  | { status?: number; text: string; type?: string }
  | { stream: (write: ControlWrite, signal: AbortSignal) => Promise<void>; type: string };

export type ControlHandler = (request: ControlRequest) => ControlAnswer | Promise<ControlAnswer>;

export type ControlMethod = 'GET' | 'POST';

export const LONGEST_BODY = 65_536;
/** A client that takes nothing for this long is cut off. */
const STALL_MS = 10_000;
/** The statuses of codes that are the client's fault or pass by; every other TulleError is a 409, a state in the way. */
const STATUSES: Readonly<Record<string, number>> = {
  'bad-request': 400,
  'too-large': 413,
  forbidden: 403,
  'no-route': 404,
  'not-found': 404,
  'bad-method': 405,
  busy: 503,
  unavailable: 503,
  timeout: 504,
};

export class ControlRoutes {
  readonly #handlers = new Map<string, ControlHandler>();
  readonly #stallMs: number;

  constructor({ stallMs = STALL_MS }: { stallMs?: number } = {}) {
    this.#stallMs = stallMs;
  }

  /** A handler for one path, which must have none yet. @returns how to take it away */
  add(method: ControlMethod, path: string, handler: ControlHandler): () => void {
    const key = `${method} ${path}`;
    if (this.#handlers.has(key)) throw new Error(`${key} has a handler already`);
    this.#handlers.set(key, handler);
    return () => {
      if (this.#handlers.get(key) === handler) this.#handlers.delete(key);
    };
  }

  /** "GET /status" and the like, in order. */
  list(): string[] {
    return [...this.#handlers.keys()].sort();
  }

  /** Whether there is a handler, for servers that have other things to serve too. */
  has(method: string, path: string): boolean {
    return this.#find(method, path) !== undefined;
  }

  /** Answers a request of an HTTP server. Never rejects. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.on('close', () => gone.abort());
    response.on('error', () => {}); // a 'close' follows
    try {
      const answer = await this.#answer(request, gone.signal);
      if (gone.signal.aborted) return;
      if ('stream' in answer) await this.#stream(response, answer, gone.signal);
      else this.#send(request, response, answer);
    } catch (error) {
      if (gone.signal.aborted || response.headersSent) response.destroy();
      else this.#send(request, response, errorAnswer(error));
    }
  }

  #find(method: string, path: string): ControlHandler | undefined {
    return this.#handlers.get(`${method === 'HEAD' ? 'GET' : method} ${path}`);
  }

  async #answer(request: IncomingMessage, signal: AbortSignal): Promise<ControlAnswer> {
    const url = urlOf(request.url ?? '/');
    const method = request.method ?? 'GET';
    const handler = this.#find(method, url.pathname);
    if (handler === undefined) {
      request.resume();
      const others = (['GET', 'POST'] as const).filter(other => this.#find(other, url.pathname) !== undefined);
      if (others.length > 0) throw new TulleError('bad-method', `${url.pathname} takes ${others.join(' and ')}`);
      throw new TulleError('no-route', `nothing answers ${method} ${url.pathname.slice(0, 100)}`);
    }
    const body = await readBody(request);
    return handler({ method, path: url.pathname, query: url.searchParams, body, signal });
  }

  #send(request: IncomingMessage, response: ServerResponse, answer: Exclude<ControlAnswer, { stream: unknown }>): void {
    const isJson = 'json' in answer;
    const text = isJson ? `${JSON.stringify(answer.json)}\n` : answer.text;
    const type = isJson ? 'application/json' : (answer.type ?? 'text/plain; charset=utf-8');
    response.writeHead(answer.status ?? 200, {
      'content-type': type,
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    const stalled = setTimeout(() => response.destroy(), this.#stallMs);
    response.on('close', () => clearTimeout(stalled));
    response.end(request.method === 'HEAD' ? undefined : text);
  }

  async #stream(
    response: ServerResponse,
    { stream, type }: Extract<ControlAnswer, { stream: unknown }>,
    signal: AbortSignal,
  ): Promise<void> {
    response.writeHead(200, {
      'content-type': type,
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    response.flushHeaders();
    const write: ControlWrite = chunk =>
      new Promise((resolve, reject) => {
        const leave = (): void => finish(() => reject(new TulleError('gone', 'the client went away')));
        if (signal.aborted) return leave();
        if (response.write(chunk)) return resolve();
        const stalled = setTimeout(() => response.destroy(), this.#stallMs);
        const onDrain = (): void => finish(resolve);
        const finish = (end: () => void): void => {
          clearTimeout(stalled);
          response.off('drain', onDrain);
          signal.removeEventListener('abort', leave);
          end();
        };
        response.on('drain', onDrain);
        signal.addEventListener('abort', leave);
      });
    await stream(write, signal);
    if (signal.aborted) return;
    const stalled = setTimeout(() => response.destroy(), this.#stallMs);
    response.on('close', () => clearTimeout(stalled));
    response.end();
  }
}

function urlOf(text: string): URL {
  try {
    return new URL(text, 'http://tulled');
  } catch {
    throw new TulleError('bad-request', 'that is not a path');
  }
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > LONGEST_BODY) throw new TulleError('too-large', `a request has at most ${LONGEST_BODY} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function errorAnswer(error: unknown): { status: number; json: { code: string; error: string } } {
  if (!(error instanceof TulleError)) {
    return { status: 500, json: { code: 'internal', error: `internal error, please report it: ${messageOf(error)}` } };
  }
  const status = STATUSES[error.code] ?? (error.code.startsWith('bad-') ? 400 : 409);
  return { status, json: { code: error.code, error: error.message } };
}
