/**
 * The command line and the environment → values, by the rules of Go's `flag` package that flanneld's users know: one
 * dash or two, `-flag=value` or `-flag value`, a boolean only with `=`, `--` ends the flags, the last one wins. Unlike
 * flanneld we refuse what is left over: there `-ip-masq false -iface eth0` silently drops everything after "-ip-masq".
 */
import { TulleError } from '../util/errors.ts';
import { environmentName, type FlagName, type FlagSpec, type FlagValues, flags } from './flags.ts';

/** Where the values came from; a flag that is missing in `given` has its default. */
export interface ParsedFlags {
  values: FlagValues;
  /** How each given flag was written: "-iface" or "FLANNELD_IFACE". */
  given: Map<FlagName, string>;
  /** Lines for the log: what was set but means nothing to us. */
  warnings: string[];
}

type Flag = FlagSpec & { name: FlagName };
type Value = string | number | boolean | string[];

const byName = new Map<string, Flag>(flags.map(flag => [flag.name, flag]));

export function parseFlags(args: readonly string[], environment: Record<string, string | undefined>): ParsedFlags {
  const values = new Map<FlagName, Value>();
  const given = new Map<FlagName, string>();
  const set = (flag: Flag, text: string, source: string) => {
    const value = readValue(flag, text, source);
    const before = values.get(flag.name);
    values.set(flag.name, Array.isArray(before) && Array.isArray(value) ? [...before, ...value] : value);
    given.set(flag.name, source);
  };

  readArguments(args, set);
  for (const flag of flags) {
    const variable = environmentName(flag);
    const text = environment[variable];
    // As flanneld: an empty variable is no variable, and the command line wins.
    if (text !== undefined && text !== '' && !given.has(flag.name)) set(flag, text, variable);
  }
  for (const flag of flags) {
    if (values.has(flag.name)) continue;
    values.set(flag.name, Array.isArray(flag.default) ? [...flag.default] : (flag.default as Value));
  }
  return { values: Object.fromEntries(values) as unknown as FlagValues, given, warnings: strangers(environment) };
}

function readArguments(args: readonly string[], set: (flag: Flag, text: string, source: string) => void): void {
  for (let index = 0; index < args.length; index++) {
    const arg = args[index]!;
    const match = /^--?([^-=][^=]*)(?:=([\s\S]*))?$/.exec(arg);
    if (match === null) {
      if (arg === '--') index++;
      if (index >= args.length) return;
      throw unexpected(args, index);
    }
    const flag = match[1] === 'h' ? byName.get('help')! : byName.get(match[1]!);
    if (flag === undefined) throw unknownFlag(match[1]!);
    const source = `-${flag.name}`;
    if (match[2] !== undefined) set(flag, match[2], source);
    else if (flag.kind === 'boolean') set(flag, 'true', source);
    else if (index + 1 < args.length) set(flag, args[++index]!, source);
    else throw bad(`${source}: a value is missing, for example ${flag.example}`);
  }
}

/** One value, checked; an unsupported flag is refused here unless it only repeats its default. */
function readValue(flag: Flag, text: string, source: string): Value {
  const value = parsers[flag.kind](flag, text, source);
  if (flag.unsupported === undefined || value === flag.default || flag.sameAsDefault?.includes(text)) return value;
  throw new TulleError('unsupported', `${source}: ${flag.unsupported}`);
}

const parsers: Record<FlagSpec['kind'], (flag: Flag, text: string, source: string) => Value> = {
  string(flag, text, source) {
    if (flag.choices === undefined || flag.choices.includes(text)) return text;
    throw bad(`${source}: "${text}" is not one of ${flag.choices.join(', ')}`);
  },
  repeatable: (_flag, text) => [text],
  boolean(flag, text, source) {
    // Go's strconv.ParseBool.
    if (/^(1|t|T|true|TRUE|True)$/.test(text)) return true;
    if (/^(0|f|F|false|FALSE|False)$/.test(text)) return false;
    throw bad(`${source}: "${text}" is neither true nor false; write ${source}${flag.default ? '=false' : ''}`);
  },
  integer(flag, text, source) {
    const [lowest, highest] = flag.range ?? [0, Number.MAX_SAFE_INTEGER];
    // A leading zero means octal to Go and nothing good to a person: refused.
    const value = /^-?(0|[1-9]\d*)$/.test(text) ? Number(text) : Number.NaN;
    if (value >= lowest && value <= highest) return value;
    throw bad(`${source}: "${text}" is not a whole number from ${lowest} to ${highest}`);
  },
  duration(flag, text, source) {
    const value = text === '0' ? 0 : parseDuration(text);
    if (value !== undefined && (value > 0 || flag.zero === true)) return value;
    throw bad(`${source}: "${text}" is not a duration, for example ${flag.example}`);
  },
};

const UNIT_MS: Record<string, number> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 };

/** Go's durations as far as they make sense here: "24h", "1h30m", "2.5s", "500ms" → milliseconds. */
export function parseDuration(text: string): number | undefined {
  if (!/^(\d+(\.\d+)?(h|ms|m|s))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, number, , unit] of text.matchAll(/(\d+(\.\d+)?)(h|ms|m|s)/g)) total += Number(number) * UNIT_MS[unit!]!;
  return Number.isSafeInteger(Math.round(total)) ? Math.round(total) : undefined;
}

/** Variables with our prefixes that name no flag: a typing error that would otherwise go unseen. */
function strangers(environment: Record<string, string | undefined>): string[] {
  const known = new Set(flags.map(environmentName));
  return Object.keys(environment)
    .filter(name => /^(FLANNELD|TULLED)_/.test(name) && !known.has(name) && environment[name] !== '')
    .sort()
    .map(name => {
      const near = nearest(name, [...known]);
      return `the environment variable ${name} belongs to no flag${near === undefined ? '' : `; did you mean ${near}?`}`;
    });
}

function bad(message: string): TulleError {
  return new TulleError('bad-flag', message);
}

function unknownFlag(name: string): TulleError {
  const near = nearest(name, [...byName.keys()]);
  const hint = near === undefined ? '"tulled --help" lists them all' : `did you mean -${near}?`;
  return bad(`-${name}: there is no such flag; ${hint}`);
}

function unexpected(args: readonly string[], index: number): TulleError {
  const before = /^--?([^=]+)(=?)/.exec(args[index - 1] ?? '');
  const flag = before === null ? undefined : byName.get(before[1]!);
  // What follows a secret's flag is perhaps the secret.
  if (flag?.secret) return bad(`-${flag.name}: unexpected argument after it; write -${flag.name}=TEXT`);
  const text = args[index]!;
  if (flag?.kind === 'boolean' && before![2] === '') {
    return bad(`"${text}": unexpected argument; a boolean takes its value with "=", as in -${flag.name}=${text}`);
  }
  return bad(`"${text}": unexpected argument; flags begin with "-", and "tulled --help" lists them all`);
}

/** The closest of `names` within a third of the name's length in edits, for "did you mean". */
export function nearest(name: string, names: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(name.length / 3)) + 1;
  for (const candidate of names) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Levenshtein's distance: insertions, deletions and replacements. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length]!;
}
