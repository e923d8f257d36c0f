/**
 * Putting the plugin where container runtimes look: the program first and the configuration after it, each by a rename,
 * so that a runtime never sees half a file nor a configuration whose program is missing. Removing goes the other way.
 */
import { accessSync, constants, existsSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { removeOldTemporaryFiles, writeFileAtomic } from '../lease/atomic-file.ts';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';
import { ensureFolder } from '../util/folder.ts';
import { nativeProgram, PROGRAM, PROGRAMS, twinProgram } from './program.ts';

export const DEFAULT_BIN_DIRECTORY = '/opt/cni/bin';
export const DEFAULT_CONF_DIRECTORY = '/etc/cni/net.d';
/** Runtimes take the first file by name. */
const CONFLIST = '10-tulle.conflist';

export interface InstallOptions {
  binDirectory: string;
  confDirectory: string;
  /** Absent: the plugin's default. */
  socket?: string;
  /** The network's name. Default "tulle". */
  name?: string;
  /** Chain the reference `portmap` plugin, for host ports. */
  portmap?: boolean;
  /** A file with the configuration, instead of `socket`, `name` and `portmap`. */
  config?: string;
  /** Replace a configuration that somebody changed. */
  force?: boolean;
  /** Where the compiled programs are; default: of this package. */
  programs?: string;
}

export interface Installed {
  program: string;
  conflist: string;
  /** Which of the two programs it is. */
  kind: 'C' | 'TypeScript';
}

/** Idempotent. @throws TulleError 'install' */
export function install(options: InstallOptions): Installed {
  const program = join(resolve(options.binDirectory), PROGRAM);
  const conflist = join(resolve(options.confDirectory), CONFLIST);
  const text = options.config === undefined ? conflistText(options) : givenConflist(options.config);
  const old = readIfThere(conflist);
  if (old !== undefined && old !== text && options.force !== true) {
    throw refuse(`${conflist} is there and says something else; look at it, then remove it or use --force`);
  }
  const { content, kind } = programContent(options.programs ?? PROGRAMS);
  const isNew = !existsSync(program);
  makeFolder(options.binDirectory);
  removeRemains(options);
  writeProgram(program, content);
  try {
    makeFolder(options.confDirectory);
    if (old !== text) write(conflist, text, 0o644);
  } catch (error) {
    if (isNew) rmSync(program, { force: true });
    throw error;
  }
  return { program, conflist, kind };
}

/** Removes what `install` puts there; what is missing is as good. @returns what was removed @throws TulleError 'install' */
export function uninstall({ binDirectory, confDirectory, force }: InstallOptions): string[] {
  const program = join(resolve(binDirectory), PROGRAM);
  const conflist = join(resolve(confDirectory), CONFLIST);
  const text = readIfThere(conflist);
  if (text !== undefined && !text.includes(`"${PROGRAM}"`) && force !== true) {
    throw refuse(`${conflist} is not a configuration of ${PROGRAM}; remove it yourself or use --force`);
  }
  return [conflist, program].filter(path => {
    const wasThere = existsSync(path);
    try {
      rmSync(path, { force: true });
    } catch (error) {
      throw refuse(`${path}: ${messageOf(error)}`);
    }
    return wasThere;
  });
}

/** What a node needs; its subnet, MTU and pod network come from tulled. */
function conflistText({ name = 'tulle', socket, portmap }: InstallOptions): string {
  const own = { type: PROGRAM, ...(socket !== undefined && { socket: resolve(socket) }) };
  const plugins = portmap === true ? [own, { type: 'portmap', capabilities: { portMappings: true } }] : [own];
  return `${JSON.stringify({ cniVersion: '1.0.0', name, plugins }, null, 2)}\n`;
}

/** Every pod of the node depends on it: so it is looked at before it is put in place. */
function givenConflist(path: string): string {
  const text = readIfThere(path);
  if (text === undefined) throw refuse(`${path} does not exist`);
  let plugins: unknown;
  try {
    ({ plugins } = JSON.parse(text) ?? {});
  } catch (error) {
    throw refuse(`${path} is not JSON: ${messageOf(error)}`);
  }
  if (Array.isArray(plugins) && plugins.some(plugin => plugin?.type === PROGRAM)) return text;
  throw refuse(`${path} is not a configuration list with a plugin of type "${PROGRAM}"`);
}

/** Where the folder is read-only, a program that is there already will do. */
function writeProgram(program: string, content: Buffer): void {
  try {
    write(program, content, 0o755);
  } catch (error) {
    if (!isThere(program, content)) throw error;
  }
}

function isThere(program: string, content: Buffer): boolean {
  try {
    accessSync(program, constants.X_OK);
    return readFileSync(program).equals(content);
  } catch {
    return false;
  }
}

/** What an install that was killed left half written. */
function removeRemains({ binDirectory, confDirectory }: InstallOptions): void {
  for (const [folder, name] of [
    [binDirectory, PROGRAM],
    [confDirectory, CONFLIST],
  ]) {
    try {
      removeOldTemporaryFiles(resolve(folder), name);
    } catch {
      // Not there yet, or read-only: it is the writing that matters.
    }
  }
}

/** The static program, or where it was not built a script that starts its twin with this Node.js. */
function programContent(folder: string): { content: Buffer; kind: 'C' | 'TypeScript' } {
  const native = nativeProgram(folder);
  if (native !== undefined) return { content: readFileSync(native), kind: 'C' };
  const twin = twinProgram(folder);
  if (twin === undefined) throw refuse(`neither ${PROGRAM} nor ${PROGRAM}.js is in ${folder}: run "npm run build"`);
  const quote = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;
  return { content: Buffer.from(`#!/bin/sh\nexec ${quote(process.execPath)} ${quote(twin)}\n`), kind: 'TypeScript' };
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw refuse(`${path}: ${messageOf(error)}`);
  }
}

function makeFolder(path: string): void {
  try {
    ensureFolder(resolve(path));
  } catch (error) {
    throw refuse(`${path} cannot be made: ${messageOf(error)}`);
  }
}

function write(path: string, content: string | Buffer, mode: number): void {
  try {
    writeFileAtomic(path, content, mode);
  } catch (error) {
    throw refuse(`${path} cannot be written: ${messageOf(error)}`);
  }
}

const refuse = (message: string): TulleError => new TulleError('install', message);
