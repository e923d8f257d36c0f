/**
 * The way to the page of a lab without root: the lab has a network of its own, where no browser of this machine gets to. So the
 * process outside listens, and hands each connection on to the Unix socket on which the one inside serves.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';

export interface Door {
  readonly port: number;
  close(): void;
}

/** Tells the process inside where it must serve, and what the address outside is. */
export const DOOR_SOCKET_VARIABLE = 'TULLE_LAB_PAGE_SOCKET';
export const DOOR_PORT_VARIABLE = 'TULLE_LAB_PAGE_PORT';

/** As many as the page's server serves; beyond it the oldest goes, as there. */
export const CONNECTIONS = 256;

/** `fallback`: a port that is taken may be another one. @throws TulleError 'bad-page' */
export async function openDoor(socketPath: string, port: number, fallback: boolean): Promise<Door> {
  const open = new Set<Socket>();
  /** Those of the browsers, the oldest first. */
  const browsers = new Set<Socket>();
  const server = createServer(outside => {
    const [oldest] = browsers.size >= CONNECTIONS ? browsers : [];
    oldest?.destroy();
    browsers.add(outside);
    outside.on('close', () => browsers.delete(outside));
    const inside = connect(socketPath);
    for (const socket of [outside, inside]) {
      open.add(socket);
      socket.on('error', () => {}); // a 'close' follows
      socket.on('close', () => {
        open.delete(socket);
        outside.destroy();
        inside.destroy();
      });
    }
    outside.pipe(inside);
    inside.pipe(outside);
  });
  const listen = (wanted: number): Promise<void> =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(wanted, '127.0.0.1', () => {
        server.off('error', reject);
        server.on('error', () => {}); // a connection's, never worth the lab's life
        resolve();
      });
    });
  try {
    await listen(port).catch(error => {
      if (!fallback || codeOf(error) !== 'EADDRINUSE') throw error;
      return listen(0);
    });
  } catch (error) {
    throw new TulleError('bad-page', `cannot serve the page on port ${port}: ${messageOf(error)}`, { cause: error });
  }
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}
