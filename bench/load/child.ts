/** A program that works for a bounded time inside a pod and then says what it did. */
import { spawnIn } from '../../lib/lab/spawn.ts';
import { messageOf, TulleError } from '../../lib/util/errors.ts';

export interface Child {
  readonly pid: number | undefined;
  /** Its whole stdout, when it has ended well; an error when it ended badly, took too long, or was aborted. */
  readonly output: Promise<string>;
  /** Ends it at once; harmless when it has ended. */
  kill(): void;
}

export interface ChildOptions {
  readonly name: string;
  readonly limitMs: number;
  readonly signal: AbortSignal;
  readonly environment?: Readonly<Record<string, string>>;
  /** An end with another exit code than 0 is fine when something was printed (ping says "some were lost" like that). */
  readonly anyCode?: boolean;
}

/** Runs `command` in the network namespace. `output` must be awaited or have a handler. */
export function runIn(namespaceFile: string, command: readonly string[], options: ChildOptions): Child {
  const { name, limitMs, signal, environment = {}, anyCode = false } = options;
  const [first, ...rest] = command;
  const settings = Object.entries(environment).map(([key, value]) => `${key}=${value}`);
  const whole = settings.length === 0 ? command : ['/usr/bin/env', ...settings, first, ...rest];
  const child = spawnIn(namespaceFile, whole[0], whole.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  const kill = (): void => void child.kill('SIGKILL');
  const output = new Promise<string>((resolve, reject) => {
    let out = '';
    let complaint = '';
    let failure: TulleError | undefined;
    const stop = (why: string): void => {
      failure = new TulleError('load', `${name} ${why}`);
      kill();
    };
    const timer = setTimeout(() => stop(`did not end within ${Math.round(limitMs / 1000)} s`), limitMs);
    const onAbort = (): void => stop('was interrupted');
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(-300);
    });
    child.on('error', error => {
      failure ??= new TulleError('load', `${name} cannot be started: ${messageOf(error)}`);
    });
    child.on('close', code => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      if (failure !== undefined) reject(failure);
      else if (code === 0 || (anyCode && out !== '')) resolve(out);
      else reject(new TulleError('load', `${name} failed (${code}): ${complaint.trim() || out.trim().slice(-300)}`));
    });
  });
  output.catch(() => {}); // whoever awaits it hears of it; a killed one may have nobody
  return { pid: child.pid, output, kill };
}
