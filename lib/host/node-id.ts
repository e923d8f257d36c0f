/**
 * The name that a node keeps for itself: the same after a restart, another on another machine. It lets two nodes with
 * one public address (flannel's only identity) be told apart.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf, TulleError } from '../util/errors.ts';

export interface NodeIdOptions {
  /** used as it is, when the operator chose one: 1 to 64 of letters, digits, ".", "_" and "-" */
  given?: string;
  /** where a made-up one is kept when the machine has none */
  stateDirectory: string;
  /** default /etc/machine-id */
  machineIdFile?: string;
}

const FILE = 'node-id';
const GIVEN = /^[A-Za-z0-9._-]{1,64}$/;
const MADE = /^[0-9a-f]{32}$/;

/**
 * machine-id(5) asks that the number itself is not shown on the network and that programs derive their own by a keyed
 * hash of it.
 */
const derive = (machineId: string): string =>
  createHmac('sha256', 'tulle node').update(machineId).digest('hex').slice(0, 32);

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined; // unreadable is as good as missing: there is a fallback
  }
};

/** What was given, else derived from the machine's id, else a random one that is kept in the state directory. */
export function nodeId(options: NodeIdOptions): string {
  const { given, stateDirectory, machineIdFile = '/etc/machine-id' } = options;
  if (given !== undefined) {
    if (GIVEN.test(given)) return given;
    throw new TulleError('bad-node-id', `node id "${given}": use 1 to 64 letters, digits, ".", "_" and "-"`);
  }
  // One that was made up stays, even if the machine gets an id later.
  const kept = read(join(stateDirectory, FILE));
  if (kept !== undefined && MADE.test(kept)) return kept;
  const machineId = read(machineIdFile); // may also be empty or "uninitialized" in an image before its first boot
  if (machineId !== undefined && MADE.test(machineId)) return derive(machineId);
  return keep(stateDirectory);
}

/** Writes a whole file and links it to its name, so of two daemons that start at once both get the winner's. */
function keep(stateDirectory: string): string {
  const path = join(stateDirectory, FILE);
  const made = randomBytes(16).toString('hex');
  const temporary = `${path}.${process.pid}.${made}`;
  try {
    mkdirSync(stateDirectory, { recursive: true });
    writeFileSync(temporary, `${made}\n`, { mode: 0o644 });
    try {
      linkSync(temporary, path);
      return made;
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
      const winner = read(path);
      if (winner !== undefined && MADE.test(winner)) return winner;
      throw new TulleError('bad-node-id', `${path} does not hold a node id: remove it`);
    } finally {
      unlinkSync(temporary);
    }
  } catch (cause) {
    if (cause instanceof TulleError) throw cause;
    const code = codeOf(cause) ?? 'EIO';
    throw new TulleError(
      code,
      `cannot keep a node id in ${stateDirectory}: ${code}; name a directory that can be written`,
      {
        cause,
      },
    );
  }
}
