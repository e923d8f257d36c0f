/** The control socket: the routes of a daemon on a Unix socket that only its user can open. */
import { claimSocket, listenAt, type SocketUse } from '../host/unix-socket.ts';
import type { Logger } from '../util/log.ts';
import { boundedServer } from './bounded-server.ts';
import type { ControlRoutes } from './control.ts';

export interface ControlServer {
  /** Cuts off whoever is connected; calling it again changes nothing. */
  close(): Promise<void>;
}

const USE: SocketUse = { code: 'control-socket', what: 'control', flag: '--control-socket' };

/** @throws TulleError 'control-socket', or 'control-socket-taken' where another daemon lives */
export async function serveControl(path: string, routes: ControlRoutes, log: Logger): Promise<ControlServer> {
  const giveBack = claimSocket(path, USE);
  const { server, close } = boundedServer((request, response) => void routes.handle(request, response));
  try {
    await listenAt(server, path, USE);
  } catch (error) {
    giveBack();
    throw error;
  }
  server.on('error', error => log.error({ error }, 'the control socket failed'));
  let closing: Promise<void> | undefined;
  return {
    close: () => {
      closing ??= close().then(giveBack);
      return closing;
    },
  };
}
