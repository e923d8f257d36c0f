/**
 * The generator as a program of its own, because a socket belongs to the namespace of the process that opened it:
 *   traffic-child.js send HOST seconds N | bytes N SEED     prints {"port"} when it listens, then what it sent
 *   traffic-child.js receive HOST PORT [hash]               prints what it received
 * Every line of stdout is one JSON object; {"error"} and exit code 1 on failure.
 */
import { messageOf } from '../util/errors.ts';
import { receiveTraffic, sendTraffic } from './traffic.ts';

/** Nothing in the lab runs for ever because its other half went away. */
const WATCHDOG_MS = 120_000;
const CONNECT_MS = 8000;

const print = (value: object): void => void process.stdout.write(`${JSON.stringify(value)}\n`);
const fail = (error: unknown): never => {
  print({ error: messageOf(error) });
  process.exit(1);
};

setTimeout(() => fail('the other end never came'), WATCHDOG_MS).unref();
try {
  const [mode, host, ...rest] = process.argv.slice(2);
  if (mode === 'send') {
    const load =
      rest[0] === 'seconds' ? { seconds: Number(rest[1]) } : { bytes: Number(rest[1]), seed: Number(rest[2]) };
    print(await sendTraffic(host, load, port => print({ port })));
  } else {
    print(await receiveTraffic(host, Number(rest[0]), { hash: rest[1] === 'hash', connectMs: CONNECT_MS }));
  }
} catch (error) {
  fail(error);
}
