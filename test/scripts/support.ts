/** What the tests of scripts/ share: a folder of programs that stand in for Debian's, and a script run with them. */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of package.json, whether this runs compiled (dist/test) or not. */
export const root: string = (function find(from: string): string {
  return existsSync(join(from, 'tsconfig.json')) ? from : find(dirname(from));
})(dirname(fileURLToPath(import.meta.url)));

/** A folder that is gone after the test. */
export function folder(t: { teardown(action: () => void): void }): string {
  const path = mkdtempSync(join(tmpdir(), `tulle-scripts-${process.pid}-`));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Shell scripts in `home`/bin, by their programs' names. $HOME_FOLDER is `home`; each call is a line of `home`/calls. */
export function pretend(home: string, programs: Readonly<Record<string, string>>): void {
  mkdirSync(join(home, 'bin'), { recursive: true });
  for (const [name, body] of Object.entries(programs)) {
    const path = join(home, 'bin', name);
    writeFileSync(path, `#!/bin/sh\nexport HOME_FOLDER=${home}\necho "${name} $*" >> ${home}/calls\n${body}\n`);
    chmodSync(path, 0o755);
  }
}

/** The calls of pretended programs so far. */
export function callsOf(home: string): string[] {
  const path = join(home, 'calls');
  return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : [];
}

/** Runs node with the pretended programs before the machine's own, and a cache folder in `home`. */
export function runNode(
  home: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): { status: number | null; stdout: string; stderr: string } {
  const env = { PATH: `${join(home, 'bin')}:/usr/bin:/bin`, XDG_CACHE_HOME: join(home, 'cache'), ...environment };
  return spawnSync(process.execPath, args, {
    cwd: home,
    env,
    encoding: 'utf8',
    timeout: 60_000,
    killSignal: 'SIGKILL',
  });
}
