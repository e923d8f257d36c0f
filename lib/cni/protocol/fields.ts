/**
 * Reading JSON objects as Go's encoding/json does, because all other CNI plugins are written in Go: a key matches
 * without regard to case (containerd 1.6 sends `HostPort`), of several that match the last one counts, null is the same
 * as nothing, unknown keys are passed over, and a value of another type than expected is an error.
 */
import { CNI_ERROR, CniError } from '../plugin.ts';

export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What to do about a wrong value: throw, or (in DEL, which must not fail for it) go on as if it were absent. */
export type OnProblem = (problem: CniError) => void;

export const strict: OnProblem = problem => {
  throw problem;
};

export const lenient: OnProblem = () => {};

/** An object and its place in the document, which errors name: `ipam.ranges[0][0].subnet`. */
export class Fields {
  readonly raw: JsonObject;
  readonly path: string;
  readonly #onProblem: OnProblem;

  constructor(raw: JsonObject, path: string, onProblem: OnProblem) {
    this.raw = raw;
    this.path = path;
    this.#onProblem = onProblem;
  }

  /** Another object, with what is done about problems here. */
  sibling(raw: JsonObject, path: string): Fields {
    return new Fields(raw, path, this.#onProblem);
  }

  /** The value as sent, undefined where there is none or null. */
  value(key: string): unknown {
    const direct = this.raw[key];
    const wanted = key.toLowerCase();
    let found: unknown;
    for (const name in this.raw) {
      // The common case first: most names differ in length.
      if (name.length !== key.length || (name !== key && name.toLowerCase() !== wanted)) continue;
      const value = name === key ? direct : this.raw[name];
      if (value !== null) found = value;
    }
    return found;
  }

  text(key: string): string | undefined {
    const value = this.value(key);
    if (value === undefined || typeof value === 'string') return value;
    return this.#mistyped(key, value, 'a string');
  }

  /** As `text`, but '' is undefined too: Go's omitted strings. */
  filled(key: string): string | undefined {
    return this.text(key) || undefined;
  }

  flag(key: string): boolean | undefined {
    const value = this.value(key);
    if (value === undefined || typeof value === 'boolean') return value;
    return this.#mistyped(key, value, 'true or false');
  }

  integer(key: string, lowest: number, highest: number): number | undefined {
    const value = this.value(key);
    if (value === undefined) return undefined;
    if (typeof value !== 'number' || !Number.isInteger(value)) return this.#mistyped(key, value, 'a whole number');
    if (value >= lowest && value <= highest) return value;
    return this.refuse(key, value, `it must be between ${lowest} and ${highest}`);
  }

  /** Empty where there is none. */
  list(key: string): readonly unknown[] {
    const value = this.value(key);
    if (value === undefined) return [];
    return Array.isArray(value) ? value : (this.#mistyped(key, value, 'a list') ?? []);
  }

  texts(key: string): string[] {
    return this.list(key).flatMap((value, i) =>
      typeof value === 'string' ? [value] : (this.#mistyped(`${key}[${i}]`, value, 'a string') ?? []),
    );
  }

  object(key: string): Fields | undefined {
    const value = this.value(key);
    return value === undefined ? undefined : this.#inner(key, value);
  }

  /** A list of objects. */
  objects(key: string): Fields[] {
    return this.list(key).flatMap((value, i) => this.#inner(`${key}[${i}]`, value) ?? []);
  }

  /** A list of lists of objects. */
  objectLists(key: string): Fields[][] {
    return this.list(key).flatMap((inner, i) => {
      if (!Array.isArray(inner)) return this.#mistyped(`${key}[${i}]`, inner, 'a list') ?? [];
      return [inner.flatMap((value, j) => this.#inner(`${key}[${i}][${j}]`, value) ?? [])];
    });
  }

  /** A string that `valid` knows; '' is as good as none. */
  checked(key: string, valid: (text: string) => boolean, what: string, code?: number): string | undefined {
    const text = this.filled(key);
    return text === undefined || valid(text) ? text : this.refuse(key, text, `it is not ${what}`, code);
  }

  /** Reports a value that cannot be used, by the name of the key and the value. */
  refuse(key: string, value: unknown, why: string, code: number = CNI_ERROR.config): undefined {
    this.#onProblem(new CniError(code, `${this.place(key)}: ${excerpt(value)}: ${why}`));
  }

  place(key: string): string {
    return this.path === '' ? key : `${this.path}.${key}`;
  }

  #inner(key: string, value: unknown): Fields | undefined {
    if (!isObject(value)) return this.#mistyped(key, value, 'an object');
    return new Fields(value, this.place(key), this.#onProblem);
  }

  #mistyped(key: string, value: unknown, wanted: string): undefined {
    return this.refuse(key, value, `it must be ${wanted}`, CNI_ERROR.decode);
  }
}

/** A value as JSON, short enough for one line. */
export function excerpt(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 120 ? text : `${text.slice(0, 117)}...`;
}
