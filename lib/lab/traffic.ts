/**
 * The lab's own traffic generator: one TCP stream, as fast as Node.js moves it (about 20 Gb/s over a plain veth, so that
 * it does not bound what it measures).
 *
 * The sender listens and the receiver connects, because only a connecting socket can be given one buffer to read into
 * for ever (`onread`); with a stream's own buffers the receiver spends its time on memory.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { TulleError } from '../util/errors.ts';

/** Measured over a veth: larger buffers leave the cache and get slower. */
const RECEIVE_BYTES = 256 * 1024;
const SEND_BYTES = 512 * 1024;
/** TCP's slow start and the JIT's: not part of the figure. */
const SKIP_MS = 300;
const SAMPLE_MS = 10;

/** What is sent: all there is for some seconds, or exactly so many bytes of the data that `seed` gives. */
export type Load = { readonly seconds: number } | { readonly bytes: number; readonly seed: number };

export interface Sent {
  readonly bytes: number;
  readonly sha256?: string;
}

export interface Received extends Sent {
  /** Over the middle of the run; over all of it when it was short. */
  readonly gbps: number;
  readonly ms: number;
}

/** Listens on `host`, tells the port, sends the load to the first that connects. */
export async function sendTraffic(host: string, load: Load, listening: (port: number) => void): Promise<Sent> {
  const server = createServer({ noDelay: true });
  server.listen(0, host, 1);
  await once(server, 'listening');
  listening(portOf(server));
  const [socket] = (await once(server, 'connection')) as [Socket];
  server.close();
  socket.resume();
  const sent = 'seconds' in load ? sendForTime(socket, load.seconds * 1000) : sendSeeded(socket, load.bytes, load.seed);
  return Promise.race([sent, failureOf(socket)]);
}

function portOf(server: Server): number {
  const address = server.address();
  if (typeof address !== 'object' || address === null)
    throw new TulleError('traffic', 'the traffic server has no port');
  return address.port;
}

async function failureOf(socket: Socket): Promise<never> {
  const [error] = (await once(socket, 'error')) as [Error];
  throw error;
}

/** Two writes of the same buffer are always on their way, so that the socket never runs dry. */
async function sendForTime(socket: Socket, ms: number): Promise<Sent> {
  const buffer = Buffer.alloc(SEND_BYTES, 'tulle');
  const end = performance.now() + ms;
  let bytes = 0;
  const pump = async (): Promise<void> => {
    while (performance.now() < end) {
      await new Promise<void>((resolve, reject) => {
        socket.write(buffer, error => (error ? reject(error) : resolve()));
      });
      bytes += buffer.length;
    }
  };
  await Promise.all([pump(), pump()]);
  await finish(socket);
  return { bytes };
}

async function sendSeeded(socket: Socket, total: number, seed: number): Promise<Sent> {
  const hash = createHash('sha256');
  const fill = seededFiller(seed);
  for (let sent = 0; sent < total; ) {
    const chunk = Buffer.allocUnsafeSlow(Math.min(SEND_BYTES, total - sent));
    fill(chunk);
    hash.update(chunk);
    await new Promise<void>((resolve, reject) => {
      socket.write(chunk, error => (error ? reject(error) : resolve()));
    });
    sent += chunk.length;
  }
  await finish(socket);
  return { bytes: total, sha256: hash.digest('hex') };
}

async function finish(socket: Socket): Promise<void> {
  if (socket.destroyed) return;
  const closed = once(socket, 'close');
  socket.end();
  await closed;
}

/** Marsaglia's xorshift32: 32 bits a step, never zero. The same seed gives the same bytes however they are cut. */
export function seededFiller(seed: number): (into: Uint8Array) => void {
  let state = seed >>> 0 || 1;
  let at = 0;
  return into => {
    for (let i = 0; i < into.length; i++, at++) {
      if ((at & 3) === 0) {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
      }
      into[i] = (state >>> ((at & 3) << 3)) & 0xff;
    }
  };
}

/** Connects, reads to the end, and says how fast it came. */
export async function receiveTraffic(
  host: string,
  port: number,
  options: { hash: boolean; connectMs: number },
): Promise<Received> {
  const buffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
  const hash = options.hash ? createHash('sha256') : undefined;
  const samples: Sample[] = [];
  let bytes = 0;
  let next = 0;
  const onread = {
    buffer,
    callback: (count: number): boolean => {
      bytes += count;
      hash?.update(buffer.subarray(0, count));
      const now = performance.now();
      if (now >= next) {
        samples.push({ ms: now, bytes });
        next = now + SAMPLE_MS;
      }
      return true;
    },
  };
  const socket = connect({ host, port, noDelay: true, onread });
  socket.setTimeout(options.connectMs, () =>
    socket.destroy(new TulleError('traffic', `no TCP data from ${host} port ${port} for ${options.connectMs} ms`)),
  );
  await once(socket, 'connect');
  const start = performance.now();
  await once(socket, 'end');
  const ms = performance.now() - start;
  samples.push({ ms: start + ms, bytes });
  return { bytes, ms, gbps: middleRate(samples, start), ...(hash === undefined ? {} : { sha256: hash.digest('hex') }) };
}

interface Sample {
  readonly ms: number;
  readonly bytes: number;
}

/** Gb/s between the first sample after the start-up time and the last; over everything when that is less than half. */
export function middleRate(samples: readonly Sample[], start: number): number {
  const last = samples[samples.length - 1];
  if (last === undefined) return 0;
  const from = samples.find(sample => sample.ms >= start + SKIP_MS);
  const whole = last.ms - start;
  const part = from === undefined ? 0 : last.ms - from.ms;
  if (from === undefined || part < whole / 2) return rate(last.bytes, whole);
  return rate(last.bytes - from.bytes, part);
}

const rate = (bytes: number, ms: number): number => (ms > 0 ? (bytes * 8) / ms / 1e6 : 0);
