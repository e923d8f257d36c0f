// Debian's apt-get, for what the scripts find missing. Node's own modules only.
//
// One apt at a time: on a machine's first boot apt-daily holds the locks for a minute or two, and another apt-get fails at
// once. Its own wait (DPkg::Lock::Timeout) is for dpkg's lock and not for that of the package lists; so we ask it again.
import { spawnSync } from 'node:child_process';

const say = text => process.stderr.write(`tulle: ${text}\n`);
const LOCK_MS = 120_000;
const AGAIN_MS = 1000;
/** apt-get's own words, in English: its exit code is the same for everything. */
const LOCKED = /Could not get lock/;

/**
 * Runs apt-get, in `cwd`, when it is its turn. `{ ok, stderr }`. It waits for its turn until `waitUntil`, and is stopped when
 * it has not ended by `endsAt`, where there is one (both by performance.now()). `stdout` is as in spawn's `stdio`.
 */
export function aptGet(args, { cwd, waitUntil = performance.now() + LOCK_MS, endsAt, stdout = 'ignore' } = {}) {
  for (let said = false; ; said = true) {
    const { status, stderr, error } = spawnSync('apt-get', ['-qq', ...args], {
      cwd,
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
      stdio: ['ignore', stdout, 'pipe'],
      encoding: 'utf8',
      ...(endsAt !== undefined && { timeout: Math.max(1, Math.ceil(endsAt - performance.now())) }),
    });
    if (status === 0) return { ok: true, stderr };
    const left = waitUntil - performance.now();
    if (!LOCKED.test(stderr ?? '') || left <= 0) return { ok: false, stderr: stderr || `${error?.message ?? ''}\n` };
    if (!said) say('another program has the lock of apt-get: waiting for its end');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Math.min(AGAIN_MS, left));
  }
}

/** Installs packages, for root. Where that fails, one line after apt-get's own says so: who needs them says what that means. */
export function installPackages(names) {
  const options = { waitUntil: performance.now() + LOCK_MS, stdout: process.stderr };
  const install = () => aptGet(['-y', '--no-install-recommends', 'install', ...names], options);
  if (install().ok) return;
  const update = aptGet(['update'], options);
  const second = install();
  if (second.ok) return;
  process.stderr.write(`${update.stderr}${second.stderr}`);
  say(`apt-get could not install ${names.join(' and ')}: is the package archive within reach?`);
}
