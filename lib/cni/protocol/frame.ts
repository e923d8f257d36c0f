/**
 * The frames between tulle-cni and tulled, one request and one answer a connection. Numbers are big-endian.
 *
 *   request   "TCN1" | u32 bytes of environment | u32 bytes of configuration | environment | configuration
 *   answer    "TCN1" | u32 exit code            | u32 bytes of stdout        | stdout
 *
 * The environment is "NAME=value\0" for each variable that begins with CNI_, and for what only the client knows:
 * client.pid, client.netns and cni.netns (device:inode of its own namespace and of the one at CNI_NETNS).
 * A request is also what is written down for a DEL while there is no daemon.
 */
const MAGIC = 0x54434e31; // "TCN1"
export const HEADER_BYTES = 12;
/** As cmd/tulle-cni/client.h. */
export const MAX_ENVIRONMENT = 1 << 18;
export const MAX_INPUT = 1 << 20;
export const MAX_ANSWER = 1 << 22;
export const MAX_REQUEST = HEADER_BYTES + MAX_ENVIRONMENT + MAX_INPUT;

/** An error of our own, as cmd/tulle-cni/client.h has it: who is at the other end is neither root nor this user. */
export const UNTRUSTED = 100;

export interface RequestFrame {
  environment: Map<string, string>;
  /** What the runtime wrote to stdin. */
  input: string;
}

export interface AnswerFrame {
  exitCode: number;
  stdout: string;
}

/** How many bytes the request that begins here has; undefined while the header is not whole; -1 for what is none. */
export function requestBytes(bytes: Buffer): number | undefined {
  if (bytes.length >= 4 && bytes.readUInt32BE(0) !== MAGIC) return -1;
  if (bytes.length < HEADER_BYTES) return undefined;
  const [environment, input] = [bytes.readUInt32BE(4), bytes.readUInt32BE(8)];
  if (environment > MAX_ENVIRONMENT || input > MAX_INPUT) return -1;
  return HEADER_BYTES + environment + input;
}

/** Of exactly as many bytes as `requestBytes` says. */
export function decodeRequest(bytes: Buffer): RequestFrame | undefined {
  if (requestBytes(bytes) !== bytes.length) return undefined;
  const inputAt = HEADER_BYTES + bytes.readUInt32BE(4);
  const environment = new Map<string, string>();
  for (const entry of bytes.toString('utf8', HEADER_BYTES, inputAt).split('\0')) {
    const equals = entry.indexOf('=');
    if (equals > 0) environment.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  return { environment, input: bytes.toString('utf8', inputAt) };
}

export function encodeRequest(environment: ReadonlyMap<string, string>, input: Uint8Array): Buffer {
  const text = Buffer.from([...environment].map(([name, value]) => `${name}=${value}\0`).join(''));
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(MAGIC, 0);
  header.writeUInt32BE(text.length, 4);
  header.writeUInt32BE(input.length, 8);
  return Buffer.concat([header, text, input]);
}

export function encodeAnswer({ exitCode, stdout }: AnswerFrame): Buffer {
  const length = Buffer.byteLength(stdout);
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + length);
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt32BE(exitCode, 4);
  bytes.writeUInt32BE(length, 8);
  bytes.write(stdout, HEADER_BYTES);
  return bytes;
}

/** Undefined for anything but one whole answer. */
export function decodeAnswer(bytes: Buffer): AnswerFrame | undefined {
  if (bytes.length < HEADER_BYTES || bytes.readUInt32BE(0) !== MAGIC) return undefined;
  if (bytes.readUInt32BE(8) !== bytes.length - HEADER_BYTES) return undefined;
  return { exitCode: bytes.readUInt32BE(4), stdout: bytes.toString('utf8', HEADER_BYTES) };
}
