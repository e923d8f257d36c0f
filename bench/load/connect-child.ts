/**
 * Connections as a program, because a socket belongs to the namespace of the process that opened it:
 *   connect-child.js serve HOST                          prints {"port"}; each connection is asked, answers and closes
 *   connect-child.js connect HOST PORT SECONDS PARALLEL  prints {"connections", "failures", "seconds"}
 */
import { connect, createServer } from 'node:net';

/** Nothing runs for ever because its other half went away. */
const WATCHDOG_MS = 60_000;
const ANSWER_MS = 1000;

const print = (value: object): void => void process.stdout.write(`${JSON.stringify(value)}\n`);
setTimeout(() => process.exit(1), WATCHDOG_MS).unref();

function serve(host: string): void {
  const server = createServer({ noDelay: true }, socket => {
    socket.on('error', () => socket.destroy());
    socket.once('data', () => socket.end('.'));
  });
  server.listen(0, host, 1024, () => {
    const address = server.address();
    print({ port: typeof address === 'object' ? address?.port : undefined });
  });
}

/** One connection: open, ask, read the answer to its end, close. True when all of it went well. */
function once(host: string, port: number): Promise<boolean> {
  return new Promise(resolve => {
    let answered = false;
    const socket = connect({ host, port, noDelay: true }, () => socket.write('?'));
    socket.setTimeout(ANSWER_MS, () => socket.destroy());
    socket.on('data', () => {
      answered = true;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answered));
  });
}

async function load(host: string, port: number, seconds: number, parallel: number): Promise<void> {
  const start = performance.now();
  const end = start + seconds * 1000;
  let connections = 0;
  let failures = 0;
  const work = async (): Promise<void> => {
    while (performance.now() < end) {
      if (await once(host, port)) connections++;
      else failures++;
    }
  };
  await Promise.all(Array.from({ length: parallel }, work));
  print({ connections, failures, seconds: (performance.now() - start) / 1000 });
  process.exit(0);
}

const [mode, host, port, seconds, parallel] = process.argv.slice(2);
if (mode === 'serve') serve(host);
else await load(host, Number(port), Number(seconds), Number(parallel));
