/**
 * The daemon's log: pino on stderr, written synchronously so that the last line before an exit is never lost. For
 * people one line an event ("2026-08-01T10:00:00.000Z info  lease acquired subnet=10.5.1.0/24"), for machines pino's
 * JSON. Whatever is written, the secrets that the logger was given never leave it.
 */
import { destination, pino, stdTimeFunctions } from 'pino';
import { messageOf } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';

export interface LogOptions {
  format: 'text' | 'json';
  /** klog's: 0 info and worse, 1 debug too, 2 the stack of every error too. */
  verbosity: number;
  /** Texts that must not be seen, such as the etcd password. */
  secrets: readonly string[];
}

/** Where lines go; each holds its newline. */
export interface LineSink {
  write(line: string): void;
}

const REDACTED = '[redacted]';
/** Fields that are secret by their name, whoever logs them: flanneld logs its whole configuration, password included. */
const SECRET_FIELDS = ['password', 'etcdPassword', 'etcd-password', 'psk'];
/** Shorter texts are not looked for in lines: they would be found in innocent words. */
const SHORTEST_SECRET = 4;

export function createLogger(options: LogOptions, sink: LineSink = standardError()): Logger {
  const conceal = concealer(options.secrets);
  const format = options.format === 'json' ? (line: string) => line : formatLine;
  return pino(
    {
      level: options.verbosity > 0 ? 'debug' : 'info',
      base: options.format === 'json' ? { pid: process.pid } : null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: label => ({ level: label }) },
      serializers: {
        // A thrown thing is its message; only who asks for it sees the stack.
        error: (error: unknown) => (options.verbosity >= 2 && error instanceof Error ? error.stack : messageOf(error)),
      },
      redact: { paths: SECRET_FIELDS.flatMap(name => [`["${name}"]`, `*["${name}"]`]), censor: REDACTED },
    },
    { write: (line: string) => sink.write(conceal(format(line))) },
  );
}

/** File descriptor 2, synchronous; a reader that went away must not end the daemon. */
function standardError(): LineSink {
  const stream = destination({ dest: 2, sync: true });
  stream.on('error', () => {});
  return stream;
}

/** Replaces every secret, as it is and as JSON writes it. */
function concealer(secrets: readonly string[]): (line: string) => string {
  const texts = secrets
    .filter(text => text.length >= SHORTEST_SECRET)
    .flatMap(text => [text, JSON.stringify(text).slice(1, -1)]);
  return line => texts.reduce((result, text) => result.replaceAll(text, REDACTED), line);
}

/** One of pino's JSON lines → one line for a person. */
export function formatLine(json: string): string {
  const { time, level, msg, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const head = `${time} ${String(level).padEnd(5)} ${msg}`;
  return `${[head, ...Object.entries(fields).map(([name, value]) => `${name}=${formatValue(value)}`)].join(' ')}\n`;
}

function formatValue(value: unknown): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? 'undefined');
  // A stack, the one text of several lines, is readable only as it is.
  if (typeof value === 'string' && value.includes('\n    at ')) return value;
  return typeof value === 'string' && (text === '' || /[\s"=]/.test(text)) ? JSON.stringify(text) : text;
}
