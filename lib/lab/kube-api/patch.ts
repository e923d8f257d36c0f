/**
 * The three ways to change an object in part: JSON patch (RFC 6902), merge patch (RFC 7386), and Kubernetes' strategic
 * merge patch, which merges some lists by a key of their elements (the `patchMergeKey` tags of core/v1).
 */
import { isDeepStrictEqual } from 'node:util';
import { ApiError, type ApiObject, badRequest } from './objects.ts';

type Json = unknown;
type JsonObject = Record<string, Json>;

export const PATCH_TYPES = {
  json: 'application/json-patch+json',
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
} as const;

/** The patched object; the given one is not touched. */
export function applyPatch(object: ApiObject, contentType: string, patch: Json): ApiObject {
  const target = structuredClone(object);
  switch (contentType) {
    case PATCH_TYPES.json:
      if (!Array.isArray(patch)) throw badRequest('a JSON patch is an array of operations');
      return jsonPatch(target, patch) as ApiObject;
    case PATCH_TYPES.merge:
      if (!isObject(patch)) throw badRequest('a merge patch of an object is an object');
      return mergePatch(target, patch) as ApiObject;
    case PATCH_TYPES.strategic:
      if (!isObject(patch)) throw badRequest('a strategic merge patch is an object');
      return strategicMerge(target, patch, '') as ApiObject;
    default: {
      const known = Object.values(PATCH_TYPES).join(', ');
      const message = `the body of the request was in an unknown format - accepted media types include: ${known}`;
      throw new ApiError(415, 'UnsupportedMediaType', message);
    }
  }
}

const isObject = (value: Json): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export function mergePatch(target: Json, patch: Json): Json {
  if (!isObject(patch)) return patch;
  const result: JsonObject = isObject(target) ? target : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = mergePatch(result[key], value);
  }
  return result;
}

/** The lists of Node and Pod that are merged and not replaced, with the key of their elements (core/v1, types.go). */
const MERGE_KEYS: Readonly<Record<string, string>> = {
  'status.conditions': 'type',
  'status.addresses': 'type',
  'metadata.ownerReferences': 'uid',
};
/** Lists of plain values that are united. */
const UNITED = new Set(['spec.podCIDRs', 'metadata.finalizers']);

function strategicMerge(target: Json, patch: JsonObject, path: string): Json {
  if (patch['$patch'] === 'replace') {
    const { $patch: _directive, ...rest } = patch;
    return rest;
  }
  const result: JsonObject = isObject(target) ? target : {};
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith('$setElementOrder/') || key.startsWith('$deleteFromPrimitiveList/') || key === '$patch')
      continue;
    const here = path === '' ? key : `${path}.${key}`;
    if (value === null) delete result[key];
    else if (isObject(value)) result[key] = strategicMerge(result[key], value, here);
    else if (Array.isArray(value)) result[key] = mergeList(result[key], value, here);
    else result[key] = value;
  }
  return result;
}

function mergeList(target: Json, patch: Json[], path: string): Json[] {
  const before = Array.isArray(target) ? target : [];
  if (UNITED.has(path)) return [...before, ...patch.filter(item => !before.includes(item))];
  const mergeKey = MERGE_KEYS[path];
  if (mergeKey === undefined) return patch;
  const result = [...before];
  for (const item of patch) {
    if (!isObject(item) || item[mergeKey] === undefined) {
      throw badRequest(`map: ${JSON.stringify(item)} does not contain declared merge key: ${mergeKey}`);
    }
    const index = result.findIndex(other => isObject(other) && other[mergeKey] === item[mergeKey]);
    if (item['$patch'] === 'delete') {
      if (index >= 0) result.splice(index, 1);
    } else if (index < 0) result.push(strategicMerge({}, item, ''));
    else result[index] = strategicMerge(result[index], item, '');
  }
  return result;
}

function jsonPatch(target: Json, operations: Json[]): Json {
  const root = { '': target };
  for (const operation of operations) {
    if (!isObject(operation)) throw badRequest('an operation of a JSON patch is an object');
    const path = pointer(operation['path']);
    const from = (): Json => at(root, pointer(operation['from']));
    switch (operation['op']) {
      case 'add':
        put(root, path, operation['value'], true);
        break;
      case 'replace':
        at(root, path);
        put(root, path, operation['value'], false);
        break;
      case 'remove':
        cut(root, path);
        break;
      case 'move': {
        const value = from();
        cut(root, pointer(operation['from']));
        put(root, path, value, true);
        break;
      }
      case 'copy':
        put(root, path, structuredClone(from()), true);
        break;
      case 'test':
        if (isDeepStrictEqual(at(root, path), operation['value'])) break;
        throw unprocessable(`testing path ${operation['path']} failed`);
      default:
        throw badRequest(`unexpected kind of operation: ${JSON.stringify(operation['op'])}`);
    }
  }
  return root[''];
}

/** RFC 6901; the first part names the root. */
function pointer(text: Json): string[] {
  if (typeof text !== 'string' || (text !== '' && !text.startsWith('/'))) throw badRequest('a path begins with "/"');
  return text.split('/').map(part => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function at(root: Json, path: string[]): Json {
  let value = root;
  for (const part of path) {
    value = Array.isArray(value) ? value[indexIn(value, part, 0)] : isObject(value) ? value[part] : undefined;
    if (value === undefined) throw unprocessable(`path ${path.join('/')} does not exist`);
  }
  return value;
}

function put(root: Json, path: string[], value: Json, insert: boolean): void {
  const [parent, last] = [at(root, path.slice(0, -1)), path.at(-1)!];
  if (Array.isArray(parent)) parent.splice(indexIn(parent, last, insert ? 1 : 0), insert ? 0 : 1, value);
  else if (isObject(parent)) parent[last] = value;
  else throw unprocessable(`path ${path.join('/')} does not exist`);
}

function cut(root: Json, path: string[]): void {
  at(root, path);
  const [parent, last] = [at(root, path.slice(0, -1)), path.at(-1)!];
  if (Array.isArray(parent)) parent.splice(indexIn(parent, last, 0), 1);
  else if (isObject(parent)) delete parent[last];
}

function indexIn(list: Json[], part: string, beyond: 0 | 1): number {
  if (part === '-' && beyond === 1) return list.length;
  const index = /^(0|[1-9][0-9]*)$/.test(part) ? Number(part) : Number.NaN;
  if (index < list.length + beyond) return index;
  throw unprocessable(`there is no element ${part}`);
}

const unprocessable = (message: string): ApiError =>
  new ApiError(422, 'Invalid', `the server rejected our request due to an error in our request: ${message}`);
