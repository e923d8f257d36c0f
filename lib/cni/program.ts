/** Where the plugin's programs are: the static one, and its twin that Node.js runs. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The compiled programs of this package, dist/cmd. */
export const PROGRAMS = fileURLToPath(new URL('../../cmd/', import.meta.url));
export const PROGRAM = 'tulle-cni';

/** The static program: compiled here, else the one that came with the package. */
export function nativeProgram(programs = PROGRAMS): string | undefined {
  const prebuilt = join(programs, '../../prebuilds', `linux-${process.arch}`, PROGRAM);
  return [join(programs, PROGRAM), prebuilt].find(isFile);
}

/** What Node.js runs in its place. */
export function twinProgram(programs = PROGRAMS): string | undefined {
  return [join(programs, `${PROGRAM}.js`)].find(isFile);
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}
