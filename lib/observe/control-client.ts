/** Asking a running daemon through its control socket. */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';
import type { ControlMethod } from './control.ts';

/** Where tulled serves control unless --control-socket says another place. */
export const DEFAULT_CONTROL_SOCKET = '/run/tulle/tulled.sock';

export interface ControlQuestion {
  /** Default GET, with a body POST. */
  method?: ControlMethod;
  /** With its query: "/peers?node=node2". */
  path: string;
  /** Sent as JSON; a string as it is. */
  body?: unknown;
  /** Until the whole answer is there. Default 10 s. */
  timeoutMs?: number;
}

const TIMEOUT_MS = 10_000;
/** A cluster's status is some KB a node. */
const LONGEST_ANSWER = 64 * 1024 * 1024;

/**
 * The daemon's answer: the value of its JSON, or the text of another type.
 * @throws TulleError: the daemon's own, 'no-daemon', 'no-permission', 'timeout' or 'bad-answer'
 */
export async function askControl(socketPath: string, question: ControlQuestion): Promise<unknown> {
  const { path, timeoutMs = TIMEOUT_MS } = question;
  const limit = AbortSignal.timeout(timeoutMs);
  try {
    const answer = await open(socketPath, question, limit);
    const text = await textOf(answer);
    if (answer.statusCode !== 200) throw errorOf(text, path);
    if (!(answer.headers['content-type'] ?? '').startsWith('application/json')) return text;
    return parse(text, path);
  } catch (error) {
    if (!limit.aborted || error instanceof TulleError) throw error;
    throw new TulleError('timeout', `tulled at ${socketPath} did not answer ${path} within ${timeoutMs / 1000} s`);
  }
}

/**
 * The chunks of a stream; aborting `signal` ends it, without an error.
 * @throws TulleError as askControl
 */
export async function openControlStream(
  socketPath: string,
  path: string,
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> {
  const answer = await open(socketPath, { path }, signal);
  if (answer.statusCode !== 200) throw errorOf(await textOf(answer), path);
  return chunks(answer, signal);
}

async function* chunks(answer: IncomingMessage, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    yield* answer as AsyncIterable<Buffer>;
  } catch (error) {
    if (!signal.aborted) throw new TulleError('gone', `tulled ended the stream: ${messageOf(error)}`, { cause: error });
  } finally {
    answer.destroy();
  }
}

function open(socketPath: string, question: ControlQuestion, signal: AbortSignal): Promise<IncomingMessage> {
  const { body, path } = question;
  const method = question.method ?? (body === undefined ? 'GET' : 'POST');
  const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const headers = { host: 'tulled', ...(text !== undefined && { 'content-length': Buffer.byteLength(text) }) };
    const request = httpRequest({ socketPath, path, method, headers, agent: false, signal }, resolve);
    request.on('error', error => reject(connectError(error, socketPath)));
    request.end(text);
  });
}

async function textOf(answer: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of answer as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > LONGEST_ANSWER) throw new TulleError('bad-answer', 'the answer of tulled is too long');
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function parse(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new TulleError('bad-answer', `the answer to ${path} is no JSON: is that the socket of tulled?`);
  }
}

function errorOf(text: string, path: string): TulleError {
  const { code, error } = (parse(text, path) ?? {}) as { code?: unknown; error?: unknown };
  if (code === 'no-route')
    return new TulleError('no-route', `this tulled does not answer ${path}: is it an older one?`);
  if (typeof code === 'string' && typeof error === 'string') return new TulleError(code, error);
  return new TulleError('bad-answer', `tulled refuses ${path} and does not say why`);
}

function connectError(error: unknown, path: string): unknown {
  const where = `give its --control-socket with --socket`;
  const reasons: Record<string, [code: string, text: string]> = {
    ENOENT: ['no-daemon', `no tulled runs here: there is no ${path}; start it, or ${where}`],
    ECONNREFUSED: ['no-daemon', `no tulled runs here: nobody listens at ${path}; start it, or ${where}`],
    EACCES: ['no-permission', `no permission to open ${path}: ask as the user that tulled runs as, mostly root`],
    ENOTSOCK: ['no-daemon', `${path} is no socket; ${where}`],
    ENOTDIR: ['no-daemon', `there is no ${path}; ${where}`],
  };
  const found = reasons[codeOf(error) ?? ''];
  if (found !== undefined) return new TulleError(...found, { cause: error });
  if (codeOf(error) === undefined || codeOf(error) === 'ABORT_ERR') return error;
  return new TulleError('no-answer', `tulled at ${path} hung up: ${messageOf(error)}`, { cause: error });
}
