/** `tulle status …` as a program: lib/observe/status-command.ts with this process' output and signals. */
import { runStatusCommand } from '../lib/observe/status-command.ts';

/** Runs `tulle status ARGS`. */
export async function status(args: readonly string[]): Promise<number> {
  const stopper = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stopper.abort());
  process.stdout.on('error', () => stopper.abort()); // "tulle status --watch | head": the reader has gone
  const code = await runStatusCommand(args, {
    out: text => void process.stdout.write(text),
    error: text => void process.stderr.write(text),
    signal: stopper.signal,
  });
  await new Promise<void>(done => process.stdout.write('', () => done())); // a pipe may still be filling
  return code;
}
