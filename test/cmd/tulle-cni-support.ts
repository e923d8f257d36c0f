// Running tulle-cni: the static program, its twin in TypeScript, and the program under AddressSanitizer.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { createNamespace, removeNamespace } from '../../lib/sys/sys.ts';

function findRoot(from: string): string {
  return existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from));
}
export const root = findRoot(dirname(fileURLToPath(import.meta.url)));

export interface Client {
  name: string;
  command: string[];
  environment?: Record<string, string>;
}

/** The program leaves its memory to the end of the process. */
const SANITIZER = { ASAN_OPTIONS: 'detect_leaks=0', UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1' };

const asanFolder = join(root, 'build', `linux-${process.arch}-asan`);

/** Builds the programs under AddressSanitizer; undefined where gcc has no libasan. */
export function buildSanitized(): string | undefined {
  const library = spawnSync('gcc', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).stdout?.trim() ?? '';
  if (!library.startsWith('/') || !existsSync(library)) return undefined;
  const { status, stderr } = spawnSync(process.execPath, [join(root, 'scripts/build-cni.mjs'), '--sanitize'], {
    encoding: 'utf8',
    env: { ...process.env, CC: 'gcc', TULLE_WERROR: '1' },
  });
  if (status !== 0) throw new Error(stderr);
  return asanFolder;
}

/** The program that is installed: in C, or where that cannot be built its twin. */
export function client(): Client {
  return plainClients()[0];
}

/** All programs that there are here. */
export function clients(): Client[] {
  const list = plainClients();
  const sanitized = buildSanitized();
  if (sanitized !== undefined) {
    const command = [join(sanitized, 'tulle-cni')];
    list.push({ name: 'C under AddressSanitizer', command, environment: SANITIZER });
  }
  return list;
}

function plainClients(): Client[] {
  const list: Client[] = [
    {
      name: 'TypeScript',
      command: [process.execPath, fileURLToPath(new URL('../../cmd/tulle-cni.js', import.meta.url))],
    },
  ];
  const program = join(root, 'dist/cmd/tulle-cni');
  if (!existsSync(program)) spawnSync(process.execPath, [join(root, 'scripts/build-cni.mjs'), '--compile']);
  if (existsSync(program)) list.unshift({ name: 'C', command: [program] });
  return list;
}

export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
  /** stdout, when it is one JSON object. */
  json: Record<string, unknown>;
}

/** Without our own environment: a runtime decides about all of it. */
export function invoke(
  client: Client,
  environment: Record<string, string>,
  input: string | Uint8Array,
  { holdsOpen = false }: { holdsOpen?: boolean } = {},
): Promise<Outcome> {
  const [command, ...args] = client.command;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env: { ...client.environment, ...environment },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const [out, errors]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on('data', chunk => out.push(chunk));
    child.stderr.on('data', chunk => errors.push(chunk));
    child.stdin.on('error', () => {}); // it may not want to read all
    child.on('error', reject);
    child.on('close', code => {
      const stdout = Buffer.concat(out).toString();
      const json = stdout === '' ? {} : JSON.parse(stdout);
      resolve({ code, stdout, stderr: Buffer.concat(errors).toString(), json });
    });
    child.on('exit', () => child.stdin.destroy());
    if (holdsOpen) child.stdin.write(input);
    else child.stdin.end(input);
  });
}

/** A short folder for sockets, and a pod's namespace in it. All of it is gone when the test ends. */
export function makePlace(t: Test): { folder: string; socket: string; namespace: string } {
  const folder = mkdtempSync('/tmp/tulle-test-cni-');
  const namespace = join(folder, 'pod');
  createNamespace(namespace);
  t.teardown(() => {
    removeNamespace(namespace);
    rmSync(folder, { recursive: true, force: true });
  });
  return { folder, socket: join(folder, 'cni.sock'), namespace };
}
