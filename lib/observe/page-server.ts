/**
 * The server of the live page: one HTML file, one stream of news, a few things that may be done.
 *
 *   GET  /                the page; with ?token=… once, to get the cookie
 *   GET  /api/hello       what this is, and whether the buttons work
 *   GET  /api/events      Server-Sent Events: network, history, drops, measure, capture, packets
 *   POST /api/act/NAME    does something; a JSON body of at most 16 KB, a JSON answer
 *
 * What it shows comes from a PageSource, a lab or a daemon. It works only while somebody looks.
 */
import { readFileSync, rmSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';
import { boundedServer } from './bounded-server.ts';
import type { ActionName, Hello } from './microscope/model.ts';
import { type Guard, isLoopback, judge, newToken } from './page-guard.ts';
import { type Message, PageStreams, type StreamLimits } from './page-stream.ts';

export interface PageSource {
  hello(): Omit<Hello, 'mayAct'>;
  /** Begins to publish; the result ends it. Called when the first browser comes, ended when the last one goes. */
  start(publish: (message: Message) => void): () => void;
  /** @throws TulleError, one line for the person at the page */
  act(action: ActionName, body: unknown): Promise<{ note?: string }>;
}

export interface PageServer {
  /** With the token, so that the buttons work: for the person who started it. */
  readonly url: string;
  readonly port: number;
  readonly token: string;
  /** Browsers that look. */
  readonly viewers: number;
  close(): Promise<void>;
}

export interface PageOptions extends StreamLimits {
  /** An IP address. Default 127.0.0.1 */
  address?: string;
  /** 0: any free one. Default 8286 */
  port?: number;
  /** A Unix socket instead of both: what listens on an address elsewhere hands its connections on to it. */
  socketPath?: string;
  source: PageSource;
  /** Default: a new one. */
  token?: string;
  /** The page's file; for tests. */
  file?: string;
}

export const PAGE_PORT = 8286;
const LONGEST_BODY = 16_384;
const CONNECTIONS = 256;

/** @throws TulleError 'no-page', 'address-in-use' and the like, one line each */
export async function startPageServer(options: PageOptions): Promise<PageServer> {
  const { address = '127.0.0.1', port = PAGE_PORT, socketPath, source } = options;
  const html = readPage(options.file ?? fileURLToPath(new URL('../../page/tulle.html', import.meta.url)));
  const guard: Guard = { token: options.token ?? newToken(), isLoopback: isLoopback(address), port };
  let stop: (() => void) | undefined;
  const streams = new PageStreams(count => {
    if (count > 0) stop ??= source.start(message => streams.publish(message));
    else {
      stop?.();
      stop = undefined;
    }
  }, options);

  const { server, close } = boundedServer((request, response) => void answer(request, response), {
    connections: CONNECTIONS,
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => reject(listenError(error, address, port)));
    // A socket that a killed process left would be in the way.
    if (socketPath !== undefined) {
      rmSync(socketPath, { force: true });
      server.listen(socketPath, resolve);
    } else server.listen(port, address, resolve);
  });
  if (socketPath === undefined) guard.port = (server.address() as AddressInfo).port;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {}); // a client that went away
    try {
      await route(request, response);
    } catch (error) {
      if (response.headersSent) response.destroy();
      else
        sendJson(response, error instanceof TulleError ? 409 : 500, { error: messageOf(error), code: codeOf(error) });
    }
  }

  async function route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = URL.canParse(request.url ?? '', 'http://page') ? new URL(request.url ?? '', 'http://page') : undefined;
    if (url === undefined) return sendText(response, 400, 'that is not a path');
    const { method = 'GET', headers } = request;
    const verdict = judge({ method, path: url.pathname, query: url.searchParams, headers }, guard);
    if (verdict.kind === 'refuse') {
      request.resume();
      if (url.pathname.startsWith('/api/')) return sendJson(response, verdict.status, { error: verdict.why });
      return sendText(response, verdict.status, verdict.why);
    }
    if (verdict.kind === 'welcome') {
      response.writeHead(303, { ...HEADERS, location: '/', 'set-cookie': verdict.cookie, 'content-length': 0 });
      response.end();
      return;
    }
    const key = `${method === 'HEAD' ? 'GET' : method} ${url.pathname}`;
    if (key === 'GET /') {
      const length = Buffer.byteLength(html.text);
      const type = 'text/html; charset=utf-8';
      const policy = { 'content-security-policy': html.policy };
      response.writeHead(200, { ...HEADERS, ...policy, 'content-type': type, 'content-length': length });
      response.end(method === 'HEAD' ? undefined : html.text);
    } else if (key === 'GET /api/hello') {
      sendJson(response, 200, { ...source.hello(), mayAct: verdict.mayAct } satisfies Hello);
    } else if (key === 'GET /api/events' && method === 'GET') {
      response.writeHead(200, { ...HEADERS, 'content-type': 'text/event-stream; charset=utf-8' });
      response.flushHeaders();
      streams.add(response, verdict.mayAct);
    } else if (method === 'POST' && url.pathname.startsWith('/api/act/')) {
      const name = url.pathname.slice('/api/act/'.length) as ActionName;
      if (!source.hello().actions.includes(name))
        return sendJson(response, 404, { error: `nothing here does "${name}"` });
      sendJson(response, 200, await source.act(name, await readBody(request)));
    } else {
      request.resume();
      sendText(response, 404, 'there is nothing here: the page is at /');
    }
  }

  return {
    get url() {
      const host = address.includes(':') ? `[${address}]` : address;
      return `http://${host}:${guard.port}/?token=${guard.token}`;
    },
    get port() {
      return guard.port;
    },
    token: guard.token,
    get viewers() {
      return streams.size;
    },
    close: async () => {
      streams.close();
      stop?.();
      stop = undefined;
      await close();
      if (socketPath !== undefined) rmSync(socketPath, { force: true });
    },
  };
}

const HEADERS = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
} as const;

/** The page, and its own policy with what only a header can say. */
function readPage(file: string): { text: string; policy: string } {
  try {
    const text = readFileSync(file, 'utf8');
    const policy = /http-equiv="Content-Security-Policy" content="([^"]+)"/.exec(text)?.[1] ?? "default-src 'none'";
    return { text, policy: `${policy}; frame-ancestors 'none'` };
  } catch (error) {
    throw new TulleError('no-page', `${file} is missing: run "npm run build" (${messageOf(error)})`, { cause: error });
  }
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  // A form of another site can send text, but not JSON without asking first.
  if (!(request.headers['content-type'] ?? '').startsWith('application/json'))
    throw new TulleError('bad-request', 'the body must be application/json');
  let text = '';
  for await (const chunk of request.setEncoding('utf8') as AsyncIterable<string>) {
    text += chunk;
    if (text.length > LONGEST_BODY) throw new TulleError('bad-request', `a body has at most ${LONGEST_BODY} bytes`);
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new TulleError('bad-request', 'the body is no JSON');
  }
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const text = `${JSON.stringify(value)}\n`;
  const length = Buffer.byteLength(text);
  response.writeHead(status, { ...HEADERS, 'content-type': 'application/json', 'content-length': length });
  response.end(text);
}

function sendText(response: ServerResponse, status: number, text: string): void {
  const length = Buffer.byteLength(text) + 1;
  response.writeHead(status, { ...HEADERS, 'content-type': 'text/plain; charset=utf-8', 'content-length': length });
  response.end(`${text}\n`);
}

function listenError(error: unknown, address: string, port: number): TulleError {
  const reasons: Record<string, string> = {
    EADDRINUSE: 'something else listens there; choose another port',
    EADDRNOTAVAIL: 'no interface has that address; choose another one',
    EACCES: 'no permission; choose a port above 1023',
  };
  const reason = reasons[codeOf(error) ?? ''] ?? messageOf(error);
  return new TulleError('bad-page', `cannot serve the page on ${address} port ${port}: ${reason}`, { cause: error });
}
