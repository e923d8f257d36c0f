// A TCP proxy that keeps every byte back for a while, in both directions: a network with latency, without tc and without
// a namespace. It can also stop carrying (a cable that is cut: nothing arrives, nothing is closed).
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface DelayProxy {
  port: number;
  /** One way, milliseconds: a round trip takes twice that. */
  delayMs: number;
  /** Nothing passes while this is true; connections stay open. */
  cut: boolean;
  close(): Promise<void>;
}

export async function startDelayProxy(target: { host: string; port: number }, delayMs: number): Promise<DelayProxy> {
  const sockets = new Set<Socket>();

  /** Each piece leaves `delayMs` after it came, in order. */
  function carry(from: Socket, to: Socket): void {
    from.on('data', bytes => {
      setTimeout(() => {
        if (!proxy.cut && !to.destroyed) to.write(bytes);
      }, proxy.delayMs);
    });
    from.on('close', () => setTimeout(() => proxy.cut || to.destroy(), proxy.delayMs));
  }

  const server: Server = createServer({ noDelay: true }, client => {
    const upstream = connect({ ...target, noDelay: true });
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => {}));
    carry(client, upstream);
    carry(upstream, client);
  });
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  const proxy: DelayProxy = {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    delayMs,
    cut: false,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise(done => server.close(done));
    },
  };
  return proxy;
}
