/** The program around the daemon: flags, signals, the one line of an error, the exit code. */
import { messageOf, TulleError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { version } from '../util/version.ts';
import { runDaemon } from './daemon.ts';
import { helpText } from './help.ts';
import { createLogger } from './logger.ts';
import { openNotifier } from './notify.ts';
import { type DaemonOptions, daemonOptions } from './options.ts';
import { type ParsedFlags, parseFlags } from './parse-flags.ts';
import type { DaemonParts } from './parts.ts';
import { runCniOnly } from './serve-cni.ts';

/** The process as `main` sees it. */
export interface ProcessFace {
  args: readonly string[];
  environment: Record<string, string | undefined>;
  out(text: string): void;
  error(text: string): void;
  /** Calls back at each signal that asks for a clean stop. */
  onSignal(action: (name: string) => void): void;
  /** Default: the logger that the options describe, on stderr. */
  logger?: (options: DaemonOptions['log']) => Logger;
}

export const EXIT_CLEAN = 0;
export const EXIT_BAD = 1;
/** The lease is lost: a supervisor's restart gets another one. */
export const EXIT_LEASE_LOST = 2;

/** Runs tulled; the result is the exit code. Never throws. */
export async function main(face: ProcessFace, parts: DaemonParts): Promise<number> {
  let options: DaemonOptions | undefined;
  try {
    const parsed = parseFlags(face.args, face.environment);
    if (parsed.values.help) return say(face, helpText());
    if (parsed.values.version) return say(face, `${version()}\n`);
    options = daemonOptions(parsed);
    await start(face, parts, options, parsed);
    return EXIT_CLEAN;
  } catch (error) {
    face.error(errorLine(error, options));
    return error instanceof TulleError && error.code === 'lease-lost' ? EXIT_LEASE_LOST : EXIT_BAD;
  }
}

async function start(
  face: ProcessFace,
  parts: DaemonParts,
  options: DaemonOptions,
  { warnings, given }: ParsedFlags,
): Promise<void> {
  const log = (face.logger ?? createLogger)(options.log);
  for (const warning of warnings) log.warn({}, warning);
  log.debug({ version: version(), given: [...given.values()] }, 'tulled starts');
  const stop = new AbortController();
  const notifier = openNotifier({ environment: face.environment, log });
  face.onSignal(name => {
    if (!stop.signal.aborted) log.info({ signal: name }, 'stopping');
    notifier.stopping(); // at once: undoing takes a while
    stop.abort();
  });
  try {
    await (options.cniOnly ? runCniOnly : runDaemon)(options, parts, log, stop.signal, notifier);
  } finally {
    notifier.close();
  }
}

function say(face: ProcessFace, text: string): number {
  face.out(text);
  return EXIT_CLEAN;
}

/** One line for an operator's error; with -v=2, and for an error that is our own mistake, the stack too. */
function errorLine(error: unknown, options: DaemonOptions | undefined): string {
  const isOurs = !(error instanceof TulleError);
  const text = isOurs ? `internal error, please report it: ${messageOf(error)}` : error.message;
  const line = `tulled: ${text.replace(/\s*\n\s*/g, ' ')}`;
  const stack = (options?.log.verbosity ?? 0) >= 2 && error instanceof Error ? `\n${error.stack}` : '';
  const secrets = options?.log.secrets ?? [];
  return `${secrets.reduce((result, secret) => result.replaceAll(secret, '[redacted]'), line + stack)}\n`;
}
