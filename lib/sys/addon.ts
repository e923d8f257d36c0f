/**
 * Finds and loads the C addon. Importing this never fails: without an addon, the first call does, with one clear line;
 * so `tulle --help` and all that needs no kernel work everywhere.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf, TulleError } from '../util/errors.ts';
import { SysError } from './errors.ts';
import type { Native } from './native.ts';

/** The number in sys.h: a binary of other sources must not be called with these arguments. */
const VERSION = 2;

/** The nearest folder above that holds tulle's package.json: this file may run from dist/, .build/x/ or lib/. */
function packageRoot(): string | undefined {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const manifest = join(folder, 'package.json');
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'tulle') return folder;
    const parent = dirname(folder);
    if (parent === folder) return undefined;
    folder = parent;
  }
}

/** What was compiled here goes before what came with the package: it is compiled only where the other does not load. */
function find(): string | undefined {
  if (process.env['TULLE_ADDON']) return process.env['TULLE_ADDON'];
  const root = packageRoot();
  if (root === undefined) return undefined;
  const places = ['build', 'prebuilds'].map(place => join(root, place, `linux-${process.arch}`, 'tulle.node'));
  return places.find(existsSync);
}

const path = find();

function load(): Native | TulleError {
  const cure = 'run "npm rebuild tulle" (in a clone: "npm run build")';
  if (path === undefined) return new TulleError('ENOADDON', `the C addon is missing: ${cure}`);
  try {
    const native = createRequire(import.meta.url)(path) as Native;
    if (native.version() === VERSION) return native;
    return new TulleError('ENOADDON', `the C addon ${path} belongs to another version of tulle: ${cure}`);
  } catch (error) {
    return new TulleError(
      'ENOADDON',
      `the C addon ${path} does not load (${messageOf(error).split('\n')[0]}): ${cure}`,
    );
  }
}

/** Stands in for a missing addon: every function says so. */
function absent(error: TulleError): Native {
  const refuse = (): never => {
    throw error;
  };
  return new Proxy({}, { get: () => refuse }) as Native;
}

const loaded = load();

/** The addon's exports, raw: numbers below 0 are -errno. */
export const native: Native = loaded instanceof TulleError ? absent(loaded) : loaded;

/** The file that the addon was loaded from. */
export function addonPath(): string {
  if (loaded instanceof TulleError) throw loaded;
  return path as string;
}

/** Passes a result through; a negative one becomes a SysError that names the step that failed. */
export function check(value: number, options: { subject?: string; hint?: string; code?: string } = {}): number {
  if (value >= 0) return value;
  throw new SysError(-value, native.errorStep(), options);
}
