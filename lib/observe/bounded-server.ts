/**
 * An HTTP server that its clients cannot hurt: requests have a deadline, connections a limit (beyond it the oldest goes,
 * first of all one that has not asked yet), and every answer closes its connection, so that none lingers.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

export interface BoundedServer {
  /** Not listening yet. */
  readonly server: Server;
  /** Ends everything at once. */
  close(): Promise<void>;
}

export interface BoundedServerOptions {
  /** Connections at the same time. Default 256: some MB when every one of them is stuck. */
  connections?: number;
  /** How long a client may take for its request. Default 5 s. */
  requestMs?: number;
}

export function boundedServer(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  { connections = 256, requestMs = 5000 }: BoundedServerOptions = {},
): BoundedServer {
  const open = new Set<Socket>();
  const silent = new Set<Socket>();
  const server = createServer(
    {
      connectionsCheckingInterval: Math.min(1000, requestMs),
      headersTimeout: requestMs,
      requestTimeout: requestMs,
      maxHeaderSize: 16_384,
    },
    (request, response) => {
      silent.delete(request.socket);
      response.shouldKeepAlive = false;
      answer(request, response);
    },
  );
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    silent.add(socket);
    socket.on('close', () => {
      open.delete(socket);
      silent.delete(socket);
    });
    if (open.size <= connections) return;
    const [oldest] = silent.size > 1 ? silent : open;
    oldest.destroy();
  });
  // Garbage is answered in one line, if the client still listens.
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
    else socket.destroy();
  });
  // After the start an error here is a connection's, and never worth the daemon's life.
  server.on('error', () => {});
  return {
    server,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve());
        for (const socket of open) socket.destroy();
      }),
  };
}
