/**
 * Putting the plugin where container runtimes look: the program first and the configuration after it, each by a rename,
 * so that a runtime never sees half a file nor a configuration whose program is missing. Removing goes the other way.
 */
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeFileAtomic } from '../lease/atomic-file.ts';
import { codeOf, messageOf, TulleError } from '../util/errors.ts';
import { ensureFolder } from '../util/folder.ts';

export const DEFAULT_BIN_DIRECTORY = '/opt/cni/bin';
export const DEFAULT_CONF_DIRECTORY = '/etc/cni/net.d';
const PROGRAM = 'tulle-cni';
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
  const text = conflistText(options);
  const old = readIfThere(conflist);
  if (old !== undefined && old !== text && options.force !== true) {
    throw refuse(`${conflist} is there and says something else; look at it, then remove it or use --force`);
  }
  const { content, kind } = programContent(options.programs ?? fileURLToPath(new URL('../../cmd/', import.meta.url)));
  const isNew = !existsSync(program);
  makeFolder(options.binDirectory);
  write(program, content, 0o755);
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

/** The static program, or where it was not built a script that starts its twin with this Node.js. */
function programContent(folder: string): { content: Buffer; kind: 'C' | 'TypeScript' } {
  const native = join(folder, PROGRAM);
  if (existsSync(native) && statSync(native).isFile()) return { content: readFileSync(native), kind: 'C' };
  const twin = join(folder, `${PROGRAM}.js`);
  if (!existsSync(twin)) throw refuse(`neither ${native} nor ${twin} is there: run "npm run build"`);
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
