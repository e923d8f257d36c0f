/**
 * What the tests of lib/sys share: namespaces of their own, an arena with typed views, and just enough rtnetlink to
 * bring a link up, so that these tests need nothing but lib/sys.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as sys from '../../lib/sys/sys.ts';

interface Teardown {
  teardown(action: () => void): void;
}

/** Why namespaces cannot be made here, or false: for tap's `skip`. */
export const noNamespaces: string | false = (() => {
  const path = join(tmpdir(), `tulle-sys-${process.pid}-probe`);
  try {
    sys.createNamespace(path);
    sys.removeNamespace(path);
    return false;
  } catch (error) {
    return `SKIPPED, needs root: ${error instanceof Error ? error.message : error}`;
  }
})();

/** A folder that is gone after the test. */
export function folder(t: Teardown): string {
  const path = mkdtempSync(join(tmpdir(), `tulle-sys-${process.pid}-`));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A namespace with lo up, gone after the test. */
export function namespace(t: Teardown): string {
  const home = mkdtempSync(join(tmpdir(), `tulle-sys-${process.pid}-`));
  const path = join(home, 'ns');
  sys.createNamespace(path);
  t.teardown(() => {
    sys.removeNamespace(path);
    rmSync(home, { recursive: true, force: true });
  });
  linkUp(path, 1);
  return path;
}

/** One request to rtnetlink in a namespace: returns the first answer's payload, throws when the kernel says no. */
export function request(path: string, type: number, flags: number, payload: Uint8Array): Uint8Array {
  const handle = sys.openNetlink({ protocol: 0, namespace: path });
  try {
    const message = new Uint8Array(16 + payload.length);
    const view = new DataView(message.buffer);
    view.setUint32(0, message.length, true);
    view.setUint16(4, type, true);
    view.setUint16(6, flags | 5, true); // NLM_F_REQUEST | NLM_F_ACK
    message.set(payload, 16);
    sys.netlinkSend(handle, message);
    const into = new Uint8Array(32768);
    const bytes = sys.netlinkReceive(handle, into, 5000);
    const answer = new DataView(into.buffer, 0, bytes);
    if (answer.getUint16(4, true) === 2 && answer.getInt32(16, true) !== 0)
      throw new sys.SysError(-answer.getInt32(16, true), 'rtnetlink');
    return into.slice(16, answer.getUint32(0, true));
  } finally {
    sys.close(handle);
  }
}

/** struct ifinfomsg, with a name attribute where there is one. */
function linkMessage(index: number, flags: number, name?: string): Uint8Array {
  const bytes = new Uint8Array(name === undefined ? 16 : 36);
  const view = new DataView(bytes.buffer);
  view.setInt32(4, index, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, flags, true);
  if (name === undefined) return bytes;
  view.setUint16(16, 4 + name.length + 1, true);
  view.setUint16(18, 3, true); // IFLA_IFNAME
  bytes.set(new TextEncoder().encode(name), 20);
  return bytes.subarray(0, 16 + ((4 + name.length + 1 + 3) & ~3));
}

export function linkUp(path: string, index: number): void {
  request(path, 16, 0, linkMessage(index, 1)); // RTM_NEWLINK, IFF_UP
}

export function linkIndex(path: string, name: string): number {
  const link = request(path, 18, 0, linkMessage(0, 0, name)); // RTM_GETLINK
  return new DataView(link.buffer, link.byteOffset).getInt32(4, true);
}

export function deleteLink(path: string, index: number): void {
  request(path, 17, 0, linkMessage(index, 0)); // RTM_DELLINK
}

/** Adds an IPv4 address with its prefix length to a link. */
export function addAddress(path: string, index: number, address: string, prefixLength: number): void {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  bytes.set([2, prefixLength]); // struct ifaddrmsg
  view.setUint32(4, index, true);
  for (const [offset, kind] of [
    [8, 2], // IFA_LOCAL
    [16, 1], // IFA_ADDRESS
  ] as const) {
    view.setUint16(offset, 8, true);
    view.setUint16(offset + 2, kind, true);
    bytes.set(address.split('.').map(Number), offset + 4);
  }
  request(path, 20, 0x600, bytes); // RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL
}

/** A registered arena, its bytes and its words. */
export function arena(bytes: number, shared = true): { id: number; bytes: Uint8Array; words: Int32Array } {
  const buffer = shared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes);
  const view = new Uint8Array(buffer);
  return { id: sys.registerArena(view), bytes: view, words: new Int32Array(buffer) };
}

/** Polls one handle until it is readable, for five seconds at most. Uses three words at `offset`. */
export function readable(handle: number, memory: { id: number; words: Int32Array }, offset: number): boolean {
  const deadline = sys.monotonicMs() + 5000;
  while (sys.monotonicMs() < deadline) {
    memory.words.set([handle, sys.POLLIN, 0], offset / 4);
    if (sys.poll(memory.id, offset, 1, 500) !== 0) return true;
  }
  return false;
}

/** The folder of package.json. */
export const root: string = (() => {
  let path = dirname(fileURLToPath(import.meta.url));
  while (
    !existsSync(join(path, 'package.json')) ||
    JSON.parse(readFileSync(join(path, 'package.json'), 'utf8')).name !== 'tulle'
  )
    path = dirname(path);
  return path;
})();

/** Small repeatable random numbers: mulberry32. Returns an integer in 0..limit-1. */
export function random(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return limit => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}

/** The path of a compiled fixture. */
export const fixture = (name: string): string => fileURLToPath(new URL(`./fixtures/${name}.js`, import.meta.url));

/** Runs a program to its end, 30 s at most; NODE_OPTIONS and the test runner's variables stay out of it. */
export function run(
  command: string,
  args: readonly string[],
  environment: Record<string, string> = {},
): { status: number | null; signal: string | null; stdout: string; stderr: string } {
  const env: NodeJS.ProcessEnv = { PATH: process.env['PATH'], ...environment };
  if (process.env['TULLE_ADDON'] && env['TULLE_ADDON'] === undefined) env['TULLE_ADDON'] = process.env['TULLE_ADDON'];
  const child = spawnSync(command, args, { env, encoding: 'utf8', timeout: 30_000, killSignal: 'SIGKILL' });
  return { status: child.status, signal: child.signal, stdout: child.stdout ?? '', stderr: child.stderr ?? '' };
}
