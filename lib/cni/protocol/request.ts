/**
 * From a frame to a validated request, in the order of libcni's skel: environment, JSON, names, version, configuration,
 * namespace. DEL is read leniently after the names: it follows an ADD that was refused for the same configuration, and a
 * DEL that fails keeps a pod from ending.
 */
import {
  type Attachment,
  CNI_ERROR,
  CNI_VERSIONS,
  type CniCommand,
  CniError,
  type CniRequest,
  type CniVersion,
} from '../plugin.ts';
import { parseConfig } from './config.ts';
import { commandOf, type Environment, parseArgs, parseArgsLeniently, parsePath } from './environment.ts';
import { Fields, isObject, type JsonObject, lenient, strict } from './fields.ts';
import type { RequestFrame } from './frame.ts';
import { checkContainerId, checkInterfaceName, checkNetworkName, checkVersion, isAtLeast, isVersion } from './names.ts';
import { namespaceFor, namespaceForDel } from './namespace.ts';
import { readResult } from './result.ts';

/** A frame so far as it can be understood: enough to answer in the caller's version whatever is wrong with the rest. */
export interface Opened {
  command: CniCommand | 'VERSION';
  environment: Environment;
  raw: JsonObject;
}

/** What the caller speaks, for errors: its own version if it is one, the newest if it is not. */
export function versionOf(input: string): CniVersion {
  const value = isObjectText(input)?.value('cniVersion');
  if (value === undefined || value === '') return CNI_VERSIONS[0];
  return isVersion(value) ? value : newest();
}

export const newest = (): CniVersion => CNI_VERSIONS[CNI_VERSIONS.length - 1];

function isObjectText(input: string): Fields | undefined {
  try {
    const raw: unknown = JSON.parse(input);
    return isObject(raw) ? new Fields(raw, '', lenient) : undefined;
  } catch {
    return undefined;
  }
}

/** The output of VERSION: the version that was asked with, as it was written, or the newest. */
export function printVersions(input: string): JsonObject {
  const asked = isObjectText(input)?.filled('cniVersion');
  return { cniVersion: asked ?? newest(), supportedVersions: CNI_VERSIONS };
}

/** @throws CniError 4 or 6 */
export function openFrame({ environment, input }: RequestFrame): Opened {
  const command = commandOf(environment);
  if (command === 'VERSION') return { command, environment, raw: {} };
  let raw: unknown;
  try {
    raw = JSON.parse(input);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CniError(CNI_ERROR.decode, `error unmarshall network config: it is not JSON`, { details: reason });
  }
  if (!isObject(raw)) throw new CniError(CNI_ERROR.decode, 'error unmarshall network config: it is not a JSON object');
  return { command, environment, raw };
}

/** The oldest versions that know a command. */
const SINCE: Partial<Record<CniCommand, CniVersion>> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' };

/** @throws CniError with what is wrong, by the name of the variable or key and its value */
export function readRequest(opened: Opened & { command: CniCommand }, signal: AbortSignal): CniRequest {
  const { command, environment, raw } = opened;
  const isDel = command === 'DEL';
  const onProblem = isDel ? lenient : strict;
  const fields = new Fields(raw, '', onProblem);
  checkNetworkName(fields.value('name'));
  const { containerId, ifname } = target(command, environment);
  const version = checkVersion(fields.value('cniVersion'));
  const since = SINCE[command];
  if (since !== undefined && !isAtLeast(version, since)) {
    throw new CniError(
      CNI_ERROR.version,
      `config version does not allow ${command}: cniVersion "${version}", it needs "${since}" or newer`,
    );
  }
  const argsText = environment.get('CNI_ARGS') ?? '';
  const hasTarget = containerId !== '';
  const args = hasTarget && !isDel ? parseArgs(argsText) : parseArgsLeniently(argsText);
  const request: CniRequest = {
    command,
    containerId,
    ifname,
    netns: '',
    args,
    argsText,
    path: parsePath(environment.get('CNI_PATH') ?? ''),
    config: parseConfig(raw, args, onProblem),
    raw,
    signal,
  };
  const previous = fields.object('prevResult');
  if (previous !== undefined) request.prevResult = readResult(previous, version);
  if (command === 'CHECK' && previous === undefined) {
    throw new CniError(CNI_ERROR.config, 'prevResult: CHECK needs the result of the last ADD, and it is missing');
  }
  if (command === 'GC') {
    const valid = attachments(fields);
    if (valid !== undefined) request.validAttachments = valid;
  }
  if (hasTarget) request.netns = isDel ? namespaceForDel(environment) : namespaceFor(environment);
  return request;
}

/** GC and STATUS are about a network; what their environment says of a container is passed over. */
function target(command: CniCommand, environment: Environment): { containerId: string; ifname: string } {
  if (command === 'GC' || command === 'STATUS') return { containerId: '', ifname: '' };
  const containerId = environment.get('CNI_CONTAINERID') ?? '';
  const ifname = environment.get('CNI_IFNAME') ?? '';
  checkContainerId(containerId);
  checkInterfaceName(ifname);
  return { containerId, ifname };
}

/**
 * The specification's key, and the one that libcni sends beside it with the same content. Anything but a clean list is
 * refused: whatever is missing in it loses its address.
 */
function attachments(fields: Fields): Attachment[] | undefined {
  const key = ['cni.dev/valid-attachments', 'cni.dev/attachments'].find(name => fields.value(name) !== undefined);
  if (key === undefined) return undefined;
  return fields.objects(key).flatMap(inner => {
    const [containerId, ifname] = [inner.filled('containerID'), inner.filled('ifname')];
    if (containerId === undefined) return inner.refuse('containerID', inner.raw, 'it is missing') ?? [];
    if (ifname === undefined) return inner.refuse('ifname', inner.raw, 'it is missing') ?? [];
    return [{ containerId, ifname }];
  });
}
