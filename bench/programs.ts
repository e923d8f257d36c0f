/** Programs of this machine or of Debian packages, by scripts/fetch-debian.mjs: fetched on demand, nothing is installed. */
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { packageRoot } from '../lib/lab/spawn.ts';

export interface Found {
  readonly path: string;
  /** What it needs to find libraries that were fetched with it. */
  readonly environment: Readonly<Record<string, string>>;
}

interface Wanted {
  package: string;
  program: string;
  limitMs: number;
  fetch: boolean;
}

type Fetch = (wanted: Wanted) => Found | { path?: undefined; reason: string };

/** Finds or fetches; a text is the reason why it is not to be had. */
export async function findProgram(
  wanted: { readonly package: string; readonly program: string },
  options: { limitMs: number; fetch: boolean },
): Promise<Found | string> {
  const script = pathToFileURL(join(packageRoot(), 'scripts/fetch-debian.mjs')).href;
  const { fetchDebian } = (await import(script)) as { fetchDebian: Fetch };
  const found = fetchDebian({ ...wanted, ...options });
  return found.path === undefined ? found.reason : found;
}

/** A compiled program of the bench by its path in bench/. */
export const programOfBench = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
