/** `tulle capture …`: the rest is lib/observe/capture/command.ts. */
import { runCaptureCommand } from '../lib/observe/capture/command.ts';

/** Runs `tulle capture ARGS`. */
export async function capture(args: readonly string[]): Promise<number> {
  const stopper = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (stopper.signal.aborted) process.exit(1); // twice: at once
      stopper.abort();
    });
  }
  const code = await runCaptureCommand(args, {
    stdout: process.stdout,
    error: text => void process.stderr.write(text),
    signal: stopper.signal,
  });
  if (!process.stdout.destroyed) await new Promise<void>(done => process.stdout.write('', () => done()));
  return code;
}
