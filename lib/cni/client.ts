/**
 * The client of the CNI socket as cmd/tulle-cni has it in C: the same questions, answers and files, at the cost of
 * Node's start. It needs no package and no addon. Where the two could differ, test/cmd/tulle-cni.test.ts runs both.
 */
import { closeSync, fsyncSync, lstatSync, mkdirSync, openSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isatty } from 'node:tty';
import { codeOf, messageOf } from '../util/errors.ts';
import { CNI_ERROR, CNI_VERSIONS, CniError } from './plugin.ts';
import { errorAnswer, printJson } from './protocol/answer.ts';
import { commandOf } from './protocol/environment.ts';
import { Fields, strict } from './protocol/fields.ts';
import {
  type AnswerFrame,
  decodeAnswer,
  encodeRequest,
  HEADER_BYTES,
  MAX_ANSWER,
  MAX_ENVIRONMENT,
  MAX_INPUT,
  UNTRUSTED,
} from './protocol/frame.ts';
import { checkContainerId, checkInterfaceName, checkNetworkName, checkVersion } from './protocol/names.ts';
import { pendingFolder, pendingName } from './protocol/pending-name.ts';
import { openFrame, printVersions, versionOf } from './protocol/request.ts';

export const DEFAULT_SOCKET = '/run/tulle/cni.sock';
/** sizeof(sun_path) of unix(7), without the closing zero. */
const LONGEST_SOCKET_PATH = 107;
const TIMEOUT_MS = 90_000;
const VERSION_MS = 1000;
const RETRY_MS = 2;

/** Nobody listens. */
class Absent extends Error {}

type Variables = Readonly<Record<string, string | undefined>>;

/** Reads stdin, writes the answer to stdout. @returns the exit code */
export async function runClient(variables: Variables): Promise<number> {
  if (!variables['CNI_COMMAND']) return about();
  let input: Buffer = Buffer.alloc(0);
  let answer: AnswerFrame;
  try {
    const environment = environmentOf(variables);
    if (commandOf(environment) === 'VERSION') {
      // What stdin says of cniVersion is taken if it comes at once.
      if (!isatty(0)) input = await readInput(performance.now() + VERSION_MS).catch(() => input);
      answer = { exitCode: 0, stdout: printJson(printVersions(input.toString())) };
    } else {
      const endsAt = performance.now() + (Number(variables['TULLE_CNI_TIMEOUT_MS']) || TIMEOUT_MS);
      input = await readInput(endsAt);
      answer = await ask(environment, input, endsAt);
    }
  } catch (error) {
    answer = errorAnswer(error, versionOf(input.toString()));
  }
  writeAll(1, Buffer.from(answer.stdout));
  return answer.exitCode;
}

function about(): number {
  const text = 'CNI plugin tulle-cni (TypeScript): plugs pods into the overlay of tulled\n';
  writeAll(2, Buffer.from(`${text}CNI protocol versions supported: ${CNI_VERSIONS.join(', ')}\n`));
  return 0;
}

/** CNI's variables, and what only this process can know: see lib/cni/protocol/frame.ts. */
function environmentOf(variables: Variables): Map<string, string> {
  const environment = new Map([['client.pid', String(process.pid)]]);
  const identify = (name: string, path: string): void => {
    const status = statSync(path, { throwIfNoEntry: false, bigint: true });
    if (status !== undefined) environment.set(name, `${status.dev}:${status.ino}`);
  };
  try {
    identify('client.netns', '/proc/self/ns/net');
    if (variables['CNI_NETNS']) identify('cni.netns', variables['CNI_NETNS']);
  } catch {
    // A path that leads nowhere is the daemon's to judge.
  }
  for (const [name, value] of Object.entries(variables)) {
    if (name.startsWith('CNI_') && value !== undefined) environment.set(name, value);
  }
  return environment;
}

/** All of stdin. Not by readSync: that would wait for as long as somebody holds the pipe open. */
function readInput(endsAt: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let count = 0;
    const finish = (end: () => void): void => {
      clearTimeout(timer);
      process.stdin.destroy();
      end();
    };
    const refuse = (why: string): void =>
      finish(() => reject(new CniError(CNI_ERROR.io, `error reading from stdin: ${why}`)));
    const timer = setTimeout(() => refuse('it did not end in time'), endsAt - performance.now());
    process.stdin.on('error', error => refuse(messageOf(error)));
    process.stdin.on('end', () => finish(() => resolve(Buffer.concat(chunks))));
    process.stdin.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      count += chunk.length;
      if (count > MAX_INPUT) refuse(`the configuration is larger than ${MAX_INPUT} bytes`);
    });
  });
}

async function ask(environment: Map<string, string>, input: Buffer, endsAt: number): Promise<AnswerFrame> {
  const { raw, command } = openFrame({ environment, input: input.toString() });
  const socket = socketPath(new Fields(raw, '', strict));
  const frame = encodeRequest(environment, input);
  if (frame.readUInt32BE(4) > MAX_ENVIRONMENT) {
    throw new CniError(CNI_ERROR.environment, `the CNI_ variables hold more than ${MAX_ENVIRONMENT} bytes`);
  }
  try {
    return await askDaemon(socket, frame, endsAt);
  } catch (error) {
    if (!(error instanceof Absent)) throw error;
  }
  const nobody = `tulled is not there: nothing listens on ${socket}; start tulled`;
  if (command === 'STATUS') throw new CniError(CNI_ERROR.unavailable, nobody);
  if (command !== 'DEL') throw new CniError(CNI_ERROR.tryLater, `${nobody}, or try again later`);
  return writeDown(environment, new Fields(raw, '', strict), socket, frame, endsAt);
}

function socketPath(fields: Fields): string {
  const path = fields.filled('socket') ?? DEFAULT_SOCKET;
  if (Buffer.byteLength(path) > LONGEST_SOCKET_PATH) {
    throw new CniError(CNI_ERROR.config, `socket: a path has at most ${LONGEST_SOCKET_PATH} bytes`);
  }
  if (path.startsWith('/') && !path.includes('\0')) return path;
  throw new CniError(CNI_ERROR.config, `socket: "${path}" is not an absolute path`);
}

async function askDaemon(socket: string, frame: Buffer, endsAt: number): Promise<AnswerFrame> {
  checkOwner(socket);
  for (;;) {
    try {
      return await converse(socket, frame, endsAt);
    } catch (error) {
      // The queue of the listening socket is full: so many ask at once.
      if (codeOf(error) !== 'EAGAIN') throw error;
      if (performance.now() > endsAt) throw tryLater(socket, messageOf(error));
      await delay(RETRY_MS);
    }
  }
}

const tryLater = (socket: string, why: string): CniError =>
  new CniError(CNI_ERROR.tryLater, `${socket}: ${why}; try again later`);

/** @throws Node's error EAGAIN when nobody could be asked yet */
function converse(socket: string, frame: Buffer, endsAt: number): Promise<AnswerFrame> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let count = 0;
    const connection = connect(socket, () => connection.write(frame));
    const finish = (end: () => void): void => {
      clearTimeout(timer);
      connection.destroy();
      end();
    };
    const later = (why: string): void => finish(() => reject(tryLater(socket, why)));
    const timer = setTimeout(() => later('tulled did not answer in time'), endsAt - performance.now());
    connection.on('data', chunk => {
      chunks.push(chunk);
      count += chunk.length;
      if (count > MAX_ANSWER + HEADER_BYTES) later('tulled does not stop talking');
    });
    connection.on('end', () => {
      const answer = decodeAnswer(Buffer.concat(chunks));
      if (answer === undefined) later('tulled ended the connection without an answer');
      else finish(() => resolve(answer));
    });
    connection.on('error', error => {
      const code = codeOf(error) ?? '';
      if (['ENOENT', 'ECONNREFUSED', 'ENOTDIR'].includes(code)) finish(() => reject(new Absent()));
      else if (code === 'EAGAIN') finish(() => reject(error));
      else if (['EACCES', 'EPERM'].includes(code)) finish(() => reject(untrusted(socket, NOT_ALLOWED)));
      else if (code === 'EPIPE' || code === 'ECONNRESET') later('tulled ended the connection without an answer');
      else later(messageOf(error));
    });
  });
}

const NOT_ALLOWED = 'permission denied: only root and the user of tulled may ask it';

/** Node cannot ask the kernel who listens (SO_PEERCRED), so it is who made the socket that counts. */
function checkOwner(socket: string): void {
  const status = lstatSync(socket, { throwIfNoEntry: false });
  if (status === undefined || status.uid === 0 || status.uid === process.geteuid?.()) return;
  throw untrusted(socket, 'who listens there is neither root nor this user; remove that socket');
}

function untrusted(socket: string, why: string): CniError {
  return new CniError(UNTRUSTED, `${socket}: ${why}`);
}

/** A DEL for later; see cmd/tulle-cni/pending.c, and lib/cni/pending.ts for who does it. */
async function writeDown(
  environment: ReadonlyMap<string, string>,
  fields: Fields,
  socket: string,
  frame: Buffer,
  endsAt: number,
): Promise<AnswerFrame> {
  const [id, ifname] = [environment.get('CNI_CONTAINERID') ?? '', environment.get('CNI_IFNAME') ?? ''];
  const network = fields.value('name');
  checkNetworkName(network);
  checkContainerId(id);
  checkInterfaceName(ifname);
  checkVersion(fields.value('cniVersion'));
  const file = join(pendingFolder(socket), pendingName(network, id, ifname));
  try {
    makeFolder(socket);
    writeFile(file, frame);
  } catch (error) {
    throw new CniError(
      CNI_ERROR.io,
      `tulled is not there, and ${file} cannot be written: ${messageOf(error)}; start tulled`,
    );
  }
  // A daemon that started meanwhile may have looked into the folder before our file was there.
  try {
    const answer = await askDaemon(socket, frame, endsAt);
    if (answer.exitCode === 0) rmSync(file, { force: true });
    return answer;
  } catch (error) {
    if (error instanceof Absent) return { exitCode: 0, stdout: '' };
    throw error;
  }
}

function makeFolder(socket: string): void {
  const folder = pendingFolder(socket);
  for (const [path, mode] of [
    [dirname(socket), 0o755],
    [folder, 0o700],
  ] as const) {
    try {
      mkdirSync(path, { mode });
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
    }
  }
  const { uid, mode } = lstatSync(folder);
  const isOurs = lstatSync(folder).isDirectory() && (uid === 0 || uid === process.geteuid?.()) && (mode & 0o077) === 0;
  if (!isOurs) throw new Error('the folder must be of mode 0700 and of this user');
}

function writeFile(path: string, bytes: Buffer): void {
  const temporary = join(dirname(path), `.${process.pid}.tmp`);
  rmSync(temporary, { force: true });
  try {
    const file = openSync(temporary, 'wx', 0o600);
    try {
      writeAll(file, bytes);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

function writeAll(file: number, bytes: Buffer): void {
  for (let rest = bytes; rest.length > 0; ) rest = rest.subarray(writeSync(file, rest));
}
