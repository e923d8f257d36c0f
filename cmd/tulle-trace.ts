/** `tulle trace …`: lib/observe/trace/command.ts with the process around it. */
import { runTraceCommand } from '../lib/observe/trace/command.ts';

export const trace = (args: readonly string[]): Promise<number> =>
  runTraceCommand(args, {
    out: text => void process.stdout.write(text),
    error: text => void process.stderr.write(text),
  });
