/** How many short connections a second go from pod to pod. */
import { createInterface } from 'node:readline';
import type { End } from '../../lib/lab/measure.ts';
import { spawnIn } from '../../lib/lab/spawn.ts';
import { TulleError } from '../../lib/util/errors.ts';
import { programOfBench } from '../programs.ts';
import { runIn } from './child.ts';

/** Enough to hide one round trip behind the others; the generator is the limit over a bare veth. */
const PARALLEL = 8;
const GRACE_MS = 5000;

export async function connectionsPerSecond(from: End, to: End, seconds: number, signal: AbortSignal): Promise<number> {
  const program = programOfBench('load/connect-child.js');
  const server = spawnIn(to.namespaceFile, process.execPath, [program, 'serve', to.address], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  server.on('error', () => {});
  try {
    const timer = setTimeout(() => server.kill('SIGKILL'), seconds * 1000 + 2 * GRACE_MS);
    server.once('close', () => clearTimeout(timer));
    const port = await firstLine(createInterface({ input: server.stdout! }));
    const words = ['connect', to.address, String(port), String(seconds), String(PARALLEL)];
    const client = runIn(from.namespaceFile, [process.execPath, program, ...words], {
      name: 'the connection generator',
      limitMs: seconds * 1000 + GRACE_MS,
      signal,
    });
    const result = JSON.parse(await client.output) as { connections: number; failures: number; seconds: number };
    return result.connections / result.seconds;
  } finally {
    server.kill('SIGKILL');
  }
}

async function firstLine(lines: AsyncIterable<string>): Promise<number> {
  for await (const line of lines) return (JSON.parse(line) as { port: number }).port;
  throw new TulleError('load', 'the connection server does not start');
}
