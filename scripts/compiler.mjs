// A C compiler, for the scripts that build.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** As words of a command; $CC may hold arguments ("ccache gcc"). Undefined where there is none. */
export function findCompiler() {
  const wishes = [...(process.env.CC ? [process.env.CC] : []), 'cc', 'gcc', 'clang'].map(wish =>
    wish.trim().split(/\s+/),
  );
  return wishes.find(
    ([command, ...words]) => spawnSync(command, [...words, '--version'], { stdio: 'ignore' }).status === 0,
  );
}

/** A warning stops a developer; it must not stop a user whose compiler is newer than ours. */
export const warnings = ['-Wall', '-Wextra', ...(existsSync(join(root, '.git')) ? ['-Werror'] : [])];
