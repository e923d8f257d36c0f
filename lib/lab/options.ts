/**
 * Command-line options from a small table: `--nodes 3`, `--nodes=3`, `--once`. Everything it refuses, it refuses with
 * one line that names the option and where help is.
 */
import { TulleError } from '../util/errors.ts';

/** What one option accepts. `numbers` is an inclusive range, `words` a closed list, `text` anything, `flag` nothing. */
export type OptionKind =
  | { readonly flag: true }
  | { readonly text: string }
  | { readonly numbers: readonly [least: number, most: number] }
  | { readonly words: readonly string[] };

export type OptionTable = Readonly<Record<string, OptionKind>>;

export interface ParsedOptions {
  /** Flags and texts by name, without the dashes; absent when not given. */
  readonly flags: ReadonlySet<string>;
  readonly values: ReadonlyMap<string, string>;
  readonly numbers: ReadonlyMap<string, number>;
  /** Arguments that are not options, in order. */
  readonly positional: readonly string[];
  /** What follows `--`; undefined when there is none. */
  readonly rest: readonly string[] | undefined;
}

/** A mistake on the command line: code `usage`. */
export function usageError(message: string): TulleError {
  return new TulleError('usage', message);
}

/** Parses `args` by `table`; `help` is the command that explains them, for the error messages. */
export function parseOptions(args: readonly string[], table: OptionTable, help: string): ParsedOptions {
  const flags = new Set<string>();
  const values = new Map<string, string>();
  const numbers = new Map<string, number>();
  const positional: string[] = [];
  let rest: string[] | undefined;

  for (let i = 0; i < args.length; i++) {
    const arg = args[i];
    if (arg === '--') {
      rest = args.slice(i + 1);
      break;
    }
    if (!arg.startsWith('-') || arg === '-') {
      positional.push(arg);
      continue;
    }
    const equals = arg.indexOf('=');
    const name = (equals < 0 ? arg : arg.slice(0, equals)).replace(/^--?/, '');
    const kind = Object.hasOwn(table, name) ? table[name] : undefined;
    if (kind === undefined) throw usageError(`unknown option ${arg}: see "${help}"`);
    if ('flag' in kind) {
      if (equals >= 0) throw usageError(`--${name} takes no value: see "${help}"`);
      flags.add(name);
      continue;
    }
    const value = equals < 0 ? args[++i] : arg.slice(equals + 1);
    if (value === undefined || value === '') throw usageError(`--${name} needs a value: see "${help}"`);
    if ('numbers' in kind) numbers.set(name, checkNumber(name, value, kind.numbers));
    else if ('words' in kind && !kind.words.includes(value)) {
      throw usageError(`--${name} is one of ${kind.words.join(', ')}, not "${value}"`);
    }
    values.set(name, value);
  }
  return { flags, values, numbers, positional, rest };
}

function checkNumber(name: string, text: string, [least, most]: readonly [number, number]): number {
  const number = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (number >= least && number <= most) return number;
  throw usageError(`--${name} is a whole number from ${least} to ${most}, not "${text}"`);
}
