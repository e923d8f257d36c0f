/**
 * The health endpoint, as flanneld's: /healthz is 200 while the process lives, /readyz is 503 until the node is ready; and
 * /metrics, which is one of the daemon's routes (lib/daemon/observe-metrics.ts).
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { boundedServer } from '../observe/bounded-server.ts';
import type { ControlRoutes } from '../observe/control.ts';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';

export interface Health {
  /** The port that is listened on, of use when 0 was asked for. */
  readonly port: number;
  /** Ready, or not yet and what we are waiting for. */
  setReady(ready: true): void;
  setReady(ready: false, waitingFor: string): void;
  close(): Promise<void>;
}

/** More than any number of probes and scrapers; the oldest goes. */
const CONNECTIONS = 64;

/** @throws TulleError 'bad-healthz', one line. */
export async function startHealth(address: string, port: number, routes?: ControlRoutes): Promise<Health> {
  let waitingFor: string | undefined = 'the daemon to start';
  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    const path = (request.url ?? '').split('?', 1)[0];
    // Of the routes only this one is for everybody who reaches the port.
    if (path === '/metrics' && routes?.has(request.method ?? '', path)) {
      void routes.handle(request, response);
      return;
    }
    const [status, text] = answerOf(request.method, path, waitingFor);
    request.resume();
    response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' });
    response.end(request.method === 'HEAD' ? undefined : `${text}\n`);
  };
  const { server, close } = boundedServer(serve, { connections: CONNECTIONS });
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => reject(listenError(error, address, port)));
    server.listen(port, address, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    setReady(ready: boolean, what?: string) {
      waitingFor = ready ? undefined : (what ?? 'the daemon');
    },
    close,
  };
}

function answerOf(method: string | undefined, path: string, waitingFor: string | undefined): [number, string] {
  if (method !== 'GET' && method !== 'HEAD') return [405, 'only GET and HEAD'];
  if (path === '/healthz') return [200, 'tulled is running'];
  if (path !== '/readyz') return [404, 'there are /healthz, /readyz and /metrics'];
  return waitingFor === undefined ? [200, 'tulled is ready'] : [503, `not ready: waiting for ${waitingFor}`];
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
