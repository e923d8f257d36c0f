// tulled as a child process: spawned where the caller is (inside `withNamespace` it is born there), and watched.
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const program = fileURLToPath(new URL('../../cmd/tulled.js', import.meta.url));

/** Node 20 parses these certificates at each start, which costs three times the start itself. */
export const { NODE_EXTRA_CA_CERTS: _, ...environment } = process.env;

export interface Tulled {
  child: ChildProcess;
  stderr(): string;
  /** Resolves when stderr matches; rejects with all of it when the process ends first, or after 20 s, or `ms`. */
  saw(pattern: RegExp, ms?: number): Promise<void>;
  /** How it ended. */
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Sends the signal; how it ended and after how many milliseconds. */
  end(signal: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null; ms: number }>;
}

const DEADLINE_MS = 20_000;

export function spawnTulled(args: string[], more: Record<string, string> = {}): Tulled {
  // The default socket is one for the whole machine.
  const env = { TULLED_CONTROL_SOCKET: 'none', ...environment, ...more };
  const child = spawn(process.execPath, [program, ...args], { env, stdio: ['ignore', 'inherit', 'pipe'] });
  let text = '';
  let heard = (): void => {};
  child.stderr?.setEncoding('utf8').on('data', chunk => {
    text += chunk;
    heard();
  });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>(resolve => {
    child.on('close', (code, signal) => {
      resolve({ code, signal });
      heard();
    });
  });
  return {
    child,
    ended,
    stderr: () => text,
    saw: (pattern, ms = DEADLINE_MS) =>
      new Promise((resolve, reject) => {
        const fail = (why: string) => reject(new Error(`${why} before ${pattern}; it said:\n${text}`));
        const deadline = setTimeout(() => fail(`${ms / 1000} s passed`), ms);
        heard = () => {
          const over = child.exitCode !== null || child.signalCode !== null;
          if (!pattern.test(text) && !over) return;
          clearTimeout(deadline);
          heard = () => {};
          if (pattern.test(text)) resolve();
          else fail('it ended');
        };
        heard();
      }),
    async end(signal) {
      const begin = performance.now();
      child.kill(signal);
      return { ...(await ended), ms: performance.now() - begin };
    },
  };
}
