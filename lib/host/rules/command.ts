/** Runs the programs that write rules: no shell, bounded in time, inside the namespace asked for; failures are one line. */
import { type ChildProcess, spawn } from 'node:child_process';
import { withNamespace } from '../../sys/sys.ts';
import { codeOf, TulleError } from '../../util/errors.ts';

/** nft and iptables-restore take milliseconds; the wait for the xtables lock (5 s, see iptables.ts) lies within. */
const LIMIT_MS = 15_000;
/** A node with kube-proxy in iptables mode has some MB of rules. */
const MOST_OUTPUT = 64 * 1024 * 1024;

export interface CommandOptions {
  /** path; none is the process's own */
  namespace?: string;
  /** for stdin */
  input?: string;
  /** for tests */
  limitMs?: number;
}

/**
 * Runs `file` (absolute) and gives its stdout.
 * @throws TulleError 'rules-tool': the program's name and the first line of its stderr
 */
export function runTool(file: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { namespace, input, limitMs = LIMIT_MS } = options;
  const name = file.slice(file.lastIndexOf('/') + 1);
  const fail = (what: string, cause?: unknown) => new TulleError('rules-tool', `${name}: ${what}`, { cause });
  const start = (): ChildProcess =>
    // C: the messages are for the log, and numbers must not depend on the operator's language.
    spawn(file, args, {
      env: { ...process.env, LC_ALL: 'C' },
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: limitMs,
      killSignal: 'SIGKILL',
    });
  return new Promise((resolve, reject) => {
    const child = namespace === undefined ? start() : withNamespace(namespace, start);
    const output: Buffer[] = [];
    let size = 0;
    let errors = '';
    child.stdout!.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MOST_OUTPUT) child.kill('SIGKILL');
      else output.push(chunk);
    });
    child.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
      if (errors.length < 4096) errors += chunk;
    });
    child.stdin!.on('error', () => {}); // it may end before it has read all; its exit code says why
    child.stdin!.end(input ?? '');
    child.on('error', error => reject(fail(`cannot be run (${codeOf(error) ?? String(error)})`, error)));
    child.on('close', (code, signal) => {
      if (code === 0) resolve(Buffer.concat(output).toString('utf8'));
      else if (signal === 'SIGKILL' && size > MOST_OUTPUT) reject(fail(`more than ${MOST_OUTPUT} bytes of rules`));
      else if (signal === 'SIGKILL') reject(fail(`no end after ${limitMs / 1000} s`));
      else reject(fail(firstLine(errors) || `ended with ${code ?? signal}`));
    });
  });
}

/** iptables-restore breaks after "iptables-restore v1.8.9 (nf_tables): ": the words are in the line below then. */
export function firstLine(errors: string): string {
  const lines = errors
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '' && !line.startsWith('#'));
  const [first = '', second = ''] = lines;
  return first.endsWith(':') && second !== '' ? `${first} ${second}` : first;
}
