/** The health endpoint, as flanneld's: /healthz is 200 while the process lives, /readyz is 503 until the node is ready. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';

export interface Health {
  /** The port that is listened on, of use when 0 was asked for. */
  readonly port: number;
  /** Ready, or not yet and what we are waiting for. */
  setReady(ready: true): void;
  setReady(ready: false, waitingFor: string): void;
  close(): Promise<void>;
}

/** @throws TulleError 'address-in-use' and the like, one line. */
export async function startHealth(address: string, port: number): Promise<Health> {
  let waitingFor: string | undefined = 'the daemon to start';
  const server = createServer({ connectionsCheckingInterval: 1000, requestTimeout: 5000 }, (request, response) => {
    const answer = (status: number, text: string) => {
      response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' });
      response.end(request.method === 'HEAD' ? undefined : `${text}\n`);
    };
    request.resume();
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, 'only GET and HEAD');
    const path = (request.url ?? '').split('?', 1)[0];
    if (path === '/healthz') return answer(200, 'tulled is running');
    if (path !== '/readyz') return answer(404, 'there are /healthz and /readyz');
    return waitingFor === undefined
      ? answer(200, 'tulled is ready')
      : answer(503, `not ready: waiting for ${waitingFor}`);
  });
  server.maxConnections = 64;
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => reject(listenError(error, address, port)));
    server.listen(port, address, resolve);
  });
  // After the start an error here is a connection's, and never worth the daemon's life.
  server.on('error', () => {});
  return {
    port: (server.address() as AddressInfo).port,
    setReady(ready: boolean, what?: string) {
      waitingFor = ready ? undefined : (what ?? 'the daemon');
    },
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listenError(error: unknown, address: string, port: number): TulleError {
  const reasons: Record<string, string> = {
    EADDRINUSE: 'something else listens there; choose another -healthz-port',
    EADDRNOTAVAIL: 'no interface has that address; choose another -healthz-ip',
    EACCES: 'no permission; choose a -healthz-port above 1023',
  };
  const reason = reasons[codeOf(error) ?? ''] ?? messageOf(error);
  return new TulleError('bad-healthz', `cannot serve health on ${address} port ${port}: ${reason}`, { cause: error });
}
