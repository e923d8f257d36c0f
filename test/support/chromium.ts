/**
 * A real Chromium for the tests of the page: the one that is installed, or Debian's headless shell, fetched and unpacked into
 * the cache. Where neither is to be had, the reason, in one line.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type Browser, chromium, type Page } from 'playwright-core';

interface Found {
  path?: string;
  environment?: Record<string, string>;
  reason?: string;
}

interface FetchOptions {
  package: string;
  program?: string;
  folder?: string;
  also?: string[];
  limitMs?: number;
  fetch?: boolean;
}

/** A hundred megabytes; a slow archive must not cost the whole suite's time. */
const FETCH_MS = 240_000;
const START_MS = 60_000;

function findRoot(from: string): string {
  return existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from));
}
export const root = findRoot(dirname(fileURLToPath(import.meta.url)));

/** The page as it was built. */
export const PAGE_FILE = pathToFileURL(join(root, 'dist/page/tulle.html')).href;

async function findChromium(): Promise<Found> {
  const scripts = pathToFileURL(join(root, 'scripts/fetch-debian.mjs')).href;
  const { fetchDebian } = (await import(scripts)) as { fetchDebian(options: FetchOptions): Found };
  const installed = fetchDebian({ package: 'chromium', fetch: false });
  if (installed.path !== undefined) return installed;
  const name = 'chromium-headless-shell';
  return fetchDebian({ package: name, program: name, also: ['chromium-common'], limitMs: FETCH_MS });
}

export async function openBrowser(): Promise<{ browser: Browser } | { reason: string }> {
  const { path, environment = {}, reason = 'there is no chromium' } = await findChromium();
  if (path === undefined) return { reason };
  try {
    const browser = await chromium.launch({
      executablePath: path,
      env: { ...process.env, ...environment } as Record<string, string>,
      // Root may not use the sandbox; /dev/shm is small in containers.
      args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
      timeout: START_MS,
    });
    return { browser };
  } catch (error) {
    const [first] = String(error instanceof Error ? error.message : error).split('\n');
    return { reason: `chromium does not start here: ${first}` };
  }
}

/** A page that remembers all that went wrong: errors, violations of the policy, requests to anywhere else. */
export async function openPage(browser: Browser): Promise<{ page: Page; complaints: string[] }> {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, reducedMotion: 'reduce' });
  page.setDefaultTimeout(START_MS);
  const complaints: string[] = [];
  page.on('console', message => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  page.on('pageerror', error => complaints.push(String(error.stack ?? error)));
  page.on('request', request => {
    const { protocol, hostname } = new URL(request.url());
    if (protocol !== 'file:' && protocol !== 'data:' && hostname !== '127.0.0.1') complaints.push(request.url());
  });
  return { page, complaints };
}
