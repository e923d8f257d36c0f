/**
 * The daemon's side of the CNI socket. One request and one answer a connection (lib/cni/protocol/frame.ts). A client has
 * a few seconds for its request and may send no more than a request can hold; a client that goes away before its answer
 * has its ADD undone.
 */
import { createServer, type Socket } from 'node:net';
import { claimSocket, listenAt, type SocketUse } from '../host/unix-socket.ts';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { converse } from './connection.ts';
import { type Dispatcher, dispatch, type OnCallDone } from './dispatch.ts';
import { PendingDels } from './pending.ts';
import type { CniPlugin } from './plugin.ts';
import { Schedule } from './schedule.ts';

export interface CniServerOptions {
  /** Absolute path of the socket. */
  socket: string;
  plugin: CniPlugin;
  log: Logger;
  /** Called after each call. */
  onDone?: OnCallDone;
  /** Called when the socket is ours alone, before the plugin starts. */
  prepare?: () => Promise<void>;
  /** How long a client may take for its request. Default 5 s. */
  requestMs?: number;
  /** How long the end waits for calls in progress. Default 3 s. */
  closeMs?: number;
  /** How long until a written DEL that failed is tried again. Default 30 s. */
  retryMs?: number;
  /** Calls that run at the same time. Default 32. */
  running?: number;
}

export interface CniServer {
  readonly socket: string;
  /** Calls at this moment. */
  load(): { running: number; waiting: number };
  /** Ends after the calls in progress, or `closeMs`; new ones find nobody. */
  close(): Promise<void>;
}

const SOCKET: SocketUse = { code: 'cni-socket', what: 'CNI', flag: '--cni-socket' };
const REQUEST_MS = 5000;
const CLOSE_MS = 3000;
/** More at once only wait for each other: the work is the kernel's, behind its one rtnetlink lock. */
const MAX_RUNNING = 32;
const MAX_WAITING = 1024;
/** Each holds a request of up to 1.3 MB. */
const MAX_CONNECTIONS = MAX_WAITING + MAX_RUNNING + 64;
/** A written DEL that hangs must not keep a node's pods from starting for ever. */
const DRAIN_MS = 20_000;

/** Listens, does what was written down, then serves. @throws TulleError 'cni-socket' or 'cni-socket-taken' */
export async function startCniServer(options: CniServerOptions): Promise<CniServer> {
  const { socket: path, plugin, log } = options;
  const giveBack = claimSocket(path, SOCKET);
  const dispatcher: Dispatcher = {
    plugin,
    schedule: new Schedule({ running: options.running ?? MAX_RUNNING, waiting: MAX_WAITING }),
    log,
    forget: request => pending.forget(request),
    ...(options.onDone !== undefined && { onDone: options.onDone }),
  };
  const ending = new AbortController();
  const pending = new PendingDels({
    socket: path,
    perform: (frame, isWanted) => dispatch(dispatcher, frame, ending.signal, isWanted),
    log,
    ...(options.retryMs !== undefined && { retryMs: options.retryMs }),
  });
  let open = (): void => {};
  const opened = new Promise<void>(resolve => {
    open = resolve;
  });

  const idle = new Set<Socket>();
  const calls = new Set<Promise<void>>();
  const server = createServer(connection => {
    idle.add(connection);
    const call = converse(connection, options.requestMs ?? REQUEST_MS, async (frame, signal) => {
      idle.delete(connection);
      await opened;
      return dispatch(dispatcher, frame, signal);
    })
      .catch(error => log.debug({ error: messageOf(error) }, 'a cni client was refused'))
      .finally(() => {
        idle.delete(connection);
        calls.delete(call);
      });
    calls.add(call);
  });
  server.maxConnections = MAX_CONNECTIONS;
  try {
    await listenAt(server, path, SOCKET);
  } catch (error) {
    giveBack();
    throw error;
  }
  server.on('error', error => log.error({ error }, 'the cni socket failed'));
  try {
    await options.prepare?.();
    await plugin.start?.();
  } catch (error) {
    server.close();
    for (const connection of idle) connection.destroy();
    giveBack();
    throw error;
  }
  await within(DRAIN_MS, pending.drain());
  open();
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    pending.close();
    const closed = new Promise<void>(resolve => server.close(() => resolve()));
    for (const connection of idle) connection.destroy();
    await within(options.closeMs ?? CLOSE_MS, Promise.all(calls));
    ending.abort();
    plugin.close?.();
    giveBack();
    await within(options.closeMs ?? CLOSE_MS, closed);
  };
  return {
    socket: path,
    load: () => ({ running: dispatcher.schedule.running, waiting: dispatcher.schedule.waiting }),
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

/** Resolves with `work`, or after `limitMs`; the work itself goes on. */
async function within(limitMs: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<void>(resolve => {
    timer = setTimeout(resolve, limitMs);
  });
  await Promise.race([work, limit]);
  clearTimeout(timer);
}
