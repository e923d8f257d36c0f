/**
 * A small API server for labs and tests: nodes and pods with the semantics that a node daemon depends on. Versions under
 * one counter, lists in pages, watches from a version with bookmarks, 410 after a compaction, conflicts, the three kinds of
 * patches, field selectors, tokens and permissions, TLS. What it is not: an API server. It keeps everything in memory,
 * admits nearly everything, and knows no other resource.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import {
  ApiError,
  type ApiObject,
  badRequest,
  expired,
  forbidden,
  RESOURCES,
  type Resource,
  unauthorized,
} from './objects.ts';
import { applyPatch } from './patch.ts';
import { ObjectStore } from './store.ts';
import { admit, fillPodCidrs } from './strategy.ts';
import { type OpenWatch, serveWatch } from './watch.ts';

/** What a request asks for, as an authorizer sees it. */
export interface Ask {
  verb: 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete';
  /** "nodes" or "nodes/status". */
  resource: string;
  namespace: string;
  name: string;
  query: URLSearchParams;
}

export interface KubeApiOptions {
  host?: string;
  /** 0: any free one. */
  port?: number;
  tls?: { cert: string; key: string; ca?: string };
  /** Token → user name. Absent: nobody is asked who he is. */
  tokens?: Map<string, string>;
  /** Absent: everybody may do everything. */
  authorize?: (user: string, ask: Ask) => boolean;
  bookmarkMs?: number;
  chunkBytes?: number;
  /** Sees every request first: an error is the answer, 'drop' closes the connection, 'hang' never answers. */
  intercept?: (ask: Ask) => ApiError | 'drop' | 'hang' | undefined;
}

export interface KubeApi {
  readonly url: string;
  readonly port: number;
  readonly store: ObjectStore;
  /** May be changed while it runs. */
  readonly options: KubeApiOptions;
  /** Open watches, the oldest first. */
  readonly watches: ReadonlySet<OpenWatch>;
  /** What was asked, the oldest first. */
  readonly asked: Ask[];
  /** Ends all connections, in the middle of whatever they do. */
  dropConnections(): void;
  close(): Promise<void>;
}

/** More than a patch of a node ever is. */
const LONGEST_BODY = 4 * 1024 * 1024;
const DEFAULT_TIMEOUT_S = 1800;
/** A test looks at the last thousand; a lab runs for days. */
const ASKED_KEPT = 10_000;

export async function startKubeApi(options: KubeApiOptions = {}): Promise<KubeApi> {
  const store = new ObjectStore();
  const watches = new Set<OpenWatch>();
  const asked: Ask[] = [];
  const handler = (request: IncomingMessage, response: ServerResponse): void => {
    handle(request, response).catch(error => answerError(response, error));
  };

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://api');
    if (url.pathname === '/version') return answer(response, 200, { major: '1', minor: '31', gitVersion: 'v1.31.0' });
    if (['/readyz', '/livez', '/healthz'].includes(url.pathname)) return void response.end('ok');
    const { resource, ask, subresource } = askOf(request.method ?? 'GET', url);
    asked.push(ask);
    if (asked.length > ASKED_KEPT) asked.shift();
    const fault = options.intercept?.(ask);
    if (fault === 'drop') return void request.socket.destroy();
    if (fault === 'hang') return;
    const user = userOf(request, options.tokens);
    if (fault !== undefined) throw fault;
    if (options.authorize?.(user, ask) === false) {
      throw forbidden(user, ask.verb, ask.resource, ask.name, ask.namespace);
    }
    const body = ['POST', 'PUT', 'PATCH'].includes(request.method ?? '') ? await bodyOf(request) : undefined;
    const { namespace, name } = ask;
    switch (ask.verb) {
      case 'watch':
        return watch(response, resource, ask);
      case 'list':
        return answer(response, 200, listOf(resource, ask));
      case 'get':
        return answer(response, 200, store.get(resource, namespace, name));
      case 'create':
        return answer(response, 201, create(resource, namespace, body));
      case 'delete':
        return answer(response, 200, store.remove(resource, namespace, name));
      case 'update':
      case 'patch': {
        const before = store.get(resource, namespace, name);
        const type = (request.headers['content-type'] ?? '').split(';')[0];
        const wanted = ask.verb === 'patch' ? applyPatch(before, type, body) : objectOf(body);
        return answer(response, 200, store.update(resource, admit(resource, before, wanted, subresource)));
      }
    }
  }

  function create(resource: Resource, namespace: string, body: unknown): ApiObject {
    const object = objectOf(body);
    if (namespace !== '') object.metadata.namespace = namespace;
    return store.create(resource, resource.kind === 'Node' ? fillPodCidrs(object) : object);
  }

  function listOf(resource: Resource, { namespace, query }: Ask): object {
    const token = query.get('continue') ?? '';
    const limit = Number(query.get('limit') ?? 0);
    const start = token === '' ? {} : readContinue(token);
    const page = store.list(resource, namespace, { ...start, limit });
    const matches = selector(query);
    const metadata = {
      resourceVersion: String(page.revision),
      ...(page.next !== undefined && {
        continue: Buffer.from(JSON.stringify({ revision: page.revision, after: page.next })).toString('base64url'),
        remainingItemCount: page.remaining,
      }),
    };
    return { kind: `${resource.kind}List`, apiVersion: 'v1', metadata, items: page.items.filter(matches) };
  }

  function watch(response: ServerResponse, resource: Resource, { namespace, query }: Ask): void {
    const version = query.get('resourceVersion') ?? '';
    if (!/^[0-9]*$/.test(version)) throw badRequest(`invalid resource version "${version}"`);
    const open = serveWatch(store, response, {
      resource,
      namespace,
      from: version === '' || version === '0' ? undefined : Number(version),
      matches: selector(query),
      bookmarks: query.get('allowWatchBookmarks') === 'true',
      bookmarkMs: options.bookmarkMs ?? 60_000,
      timeoutMs: Number(query.get('timeoutSeconds') ?? DEFAULT_TIMEOUT_S) * 1000,
      chunkBytes: options.chunkBytes ?? 0,
    });
    watches.add(open);
    response.on('close', () => watches.delete(open));
  }

  const server: Server = options.tls === undefined ? createServer(handler) : createTlsServer(options.tls, handler);
  server.requestTimeout = 0;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 0, options.host ?? '127.0.0.1', resolve);
  });
  const { port, address } = server.address() as AddressInfo;
  return {
    url: `${options.tls === undefined ? 'http' : 'https'}://${address}:${port}`,
    port,
    store,
    options,
    watches,
    asked,
    dropConnections: () => server.closeAllConnections(),
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** /api/v1/nodes[/NAME[/status]] and /api/v1/namespaces/NS/pods[/NAME[/status]], /api/v1/pods */
function askOf(method: string, url: URL): { resource: Resource; ask: Ask; subresource: string } {
  const match =
    /^\/api\/v1(?:\/namespaces\/([^/]+))?\/(nodes|pods)(?:\/([^/]+))?(?:\/(status))?$/.exec(url.pathname) ?? [];
  const [, namespace = '', plural, name = '', subresource = ''] = match.map(part => part && decodeURIComponent(part));
  if (plural === undefined) throw new ApiError(404, 'NotFound', 'the server could not find the requested resource');
  const watching = ['true', '1'].includes(url.searchParams.get('watch') ?? '');
  const verbs: Record<string, Ask['verb']> = {
    GET: name !== '' ? 'get' : watching ? 'watch' : 'list',
    POST: 'create',
    PUT: 'update',
    PATCH: 'patch',
    DELETE: 'delete',
  };
  const verb = verbs[method];
  if (verb === undefined) throw new ApiError(405, 'MethodNotAllowed', `${method} is not supported`);
  const full = subresource === '' ? plural : `${plural}/${subresource}`;
  return {
    resource: RESOURCES[plural],
    ask: { verb, resource: full, namespace, name, query: url.searchParams },
    subresource,
  };
}

function userOf(request: IncomingMessage, tokens: Map<string, string> | undefined): string {
  if (tokens === undefined) return 'system:anonymous';
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
  const user = tokens.get(token);
  if (user === undefined) throw unauthorized();
  return user;
}

function readContinue(token: string): { revision: number; after: string } {
  try {
    const { revision, after } = JSON.parse(Buffer.from(token, 'base64url').toString());
    if (Number.isInteger(revision) && typeof after === 'string') return { revision, after };
  } catch {
    // said below
  }
  throw expired('continue key is not valid');
}

/** metadata.name=X, metadata.name!=X and spec.FIELD=X, joined by commas. */
function selector(query: URLSearchParams): (object: ApiObject) => boolean {
  const terms = (query.get('fieldSelector') ?? '').split(',').filter(term => term !== '');
  const tests = terms.map(term => {
    const [, section, field, operator, value] = /^(metadata|spec)\.([a-zA-Z]+)(!?==?)(.*)$/.exec(term) ?? [];
    if (field === undefined) throw badRequest(`field label not supported: ${term}`);
    return (object: ApiObject): boolean => {
      const found = (object[section] as Record<string, unknown> | undefined)?.[field] ?? '';
      return (String(found) === value) !== operator.startsWith('!');
    };
  });
  return object => tests.every(test => test(object));
}

function objectOf(body: unknown): ApiObject {
  const object = body as ApiObject | undefined;
  if (typeof object?.metadata?.name === 'string' && object.metadata.name !== '') return object;
  throw badRequest('the object has no metadata.name');
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > LONGEST_BODY) throw new ApiError(413, 'RequestEntityTooLarge', 'the request is too large');
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch (error) {
    throw badRequest(`the body is not JSON: ${String(error)}`);
  }
}

function answer(response: ServerResponse, code: number, body: object, headers: Record<string, string> = {}): void {
  if (response.headersSent) return void response.destroy();
  response.writeHead(code, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

function answerError(response: ServerResponse, error: unknown): void {
  const known = error instanceof ApiError ? error : new ApiError(500, 'InternalError', String(error));
  answer(response, known.code, known.status, known.headers);
}
