/**
 * Runs another CNI plugin, for addresses: environment and stdin in, JSON and an exit code out (SPEC.md section 2 and 4;
 * libcni's pkg/invoke). The plugin is looked for in the folders of CNI_PATH, as libcni does.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { join } from 'node:path';
import { withNamespace } from '../sys/sys.ts';
import { messageOf } from '../util/errors.ts';
import { CNI_ERROR, type CniCommand, CniError, type CniResult, type CniVersion } from './plugin.ts';
import { excerpt, Fields, isObject, type JsonObject, strict } from './protocol/fields.ts';
import { readResult } from './protocol/result.ts';

export interface DelegateCall {
  command: CniCommand;
  /** The plugin's name. */
  type: string;
  containerId: string;
  ifname: string;
  netns: string;
  argsText: string;
  path: readonly string[];
  config: JsonObject;
  /** Where the plugin runs; absent: where we do. */
  namespace?: string;
  signal?: AbortSignal;
}

/** A plugin that hangs keeps its caller waiting; kubelet gives up after two to four minutes. */
const LIMIT_MS = 90_000;
/** A result is some hundred bytes. */
const MOST_OUTPUT = 4 << 20;

/** The result of an ADD. @throws CniError with the plugin's own code and words */
export async function addByDelegate(call: DelegateCall, version: CniVersion): Promise<CniResult> {
  const text = await runDelegate(call);
  return readResult(new Fields(parseObject(call, text), `the result of ${call.type}`, strict), version);
}

/** @throws CniError with the plugin's own code and words */
export async function runDelegate(call: DelegateCall): Promise<string> {
  const { type } = call;
  const program = findPlugin(type, call.path);
  let child: ChildProcess;
  try {
    const start = (): ChildProcess => spawn(program, [], { env: environmentOf(call), stdio: 'pipe' });
    child = call.namespace === undefined ? start() : withNamespace(call.namespace, start);
  } catch (error) {
    throw new CniError(CNI_ERROR.internal, `cannot run ${program}: ${messageOf(error)}`, { cause: error });
  }
  const { stdout, stderr, ending } = await converse(child, call);
  if (ending === 'exit code 0') return stdout;
  throw errorOf(type, stdout, stderr, ending);
}

/** libcni's FindInPath. @throws CniError */
export function findPlugin(type: string, path: readonly string[]): string {
  if (type === '' || type.includes('/') || type === '.' || type === '..') {
    throw new CniError(CNI_ERROR.config, `ipam.type: ${excerpt(type)}: it must be the name of a plugin`);
  }
  const found = path.map(folder => join(folder, type)).find(isProgram);
  if (found !== undefined) return found;
  throw new CniError(
    CNI_ERROR.config,
    `ipam.type: failed to find plugin ${excerpt(type)} in path [${path.join(' ')}] (CNI_PATH)`,
  );
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/**
 * Plugins check CNI_ARGS against the few keys that they know. A MAC, which is meant for us, must not make an address
 * plugin fail, so they are all told to pass over what they do not know.
 */
function delegateArgs(argsText: string): string {
  const pairs = argsText.split(';').filter(pair => pair !== '' && !/^IgnoreUnknown=/i.test(pair));
  return [...pairs, 'IgnoreUnknown=1'].join(';');
}

function environmentOf(call: DelegateCall): NodeJS.ProcessEnv {
  return {
    PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
    CNI_COMMAND: call.command,
    CNI_CONTAINERID: call.containerId,
    CNI_NETNS: call.netns,
    CNI_IFNAME: call.ifname,
    CNI_ARGS: delegateArgs(call.argsText),
    CNI_PATH: call.path.join(':'),
  };
}

async function converse(
  child: ChildProcess,
  call: DelegateCall,
): Promise<{ stdout: string; stderr: string; ending: string }> {
  const kill = (): void => void child.kill('SIGKILL');
  const timer = setTimeout(kill, LIMIT_MS);
  call.signal?.addEventListener('abort', kill);
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
      if (output[name].length > MOST_OUTPUT) kill();
    });
  }
  try {
    const ended = new Promise<string>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => resolve(signal === null ? `exit code ${code}` : signal));
    });
    child.stdin?.on('error', () => {}); // a plugin need not read what it has no use for
    child.stdin?.end(JSON.stringify(call.config));
    if (call.signal?.aborted) kill();
    const ending = await ended;
    return { ...output, ending };
  } catch (error) {
    throw new CniError(CNI_ERROR.internal, `cannot run ${call.type}: ${messageOf(error)}`, { cause: error });
  } finally {
    clearTimeout(timer);
    call.signal?.removeEventListener('abort', kill);
  }
}

function parseObject({ type }: DelegateCall, text: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // said below
  }
  if (isObject(value)) return value;
  throw new CniError(CNI_ERROR.decode, `${type} printed no JSON object: ${excerpt(text.slice(0, 200))}`);
}

function errorOf(type: string, stdout: string, stderr: string, ending: string): CniError {
  let value: unknown;
  try {
    value = JSON.parse(stdout);
  } catch {
    // not an error of CNI's
  }
  if (isObject(value) && typeof value['msg'] === 'string') {
    const code = typeof value['code'] === 'number' ? value['code'] : CNI_ERROR.internal;
    const details = typeof value['details'] === 'string' && value['details'] !== '' ? value['details'] : undefined;
    return new CniError(code, `${type}: ${value['msg']}`, details === undefined ? {} : { details });
  }
  const words = (stderr.trim() || stdout.trim()).split('\n').at(-1) ?? '';
  return new CniError(
    CNI_ERROR.internal,
    `${type} failed with ${ending}${words === '' ? '' : `: ${words.slice(0, 300)}`}`,
  );
}
