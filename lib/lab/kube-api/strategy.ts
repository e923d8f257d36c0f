/**
 * What a write may change (kubernetes, pkg/registry/core/node/strategy.go): the main resource leaves the status alone,
 * the status subresource leaves the spec alone, and a pod CIDR that was given stays for the life of the node.
 */
import { isDeepStrictEqual } from 'node:util';
import { type ApiObject, invalid, type Resource } from './objects.ts';

/** The object to store where a client wants `wanted` in place of `before`. */
export function admit(resource: Resource, before: ApiObject, wanted: ApiObject, subresource: string): ApiObject {
  const { name } = before.metadata;
  const next: ApiObject = { ...wanted, apiVersion: before.apiVersion, kind: before.kind };
  if (next.metadata?.name !== name) throw invalid(resource, name, 'metadata.name: Invalid value: field is immutable');
  if (next.metadata.uid !== before.metadata.uid) {
    throw invalid(resource, name, 'metadata.uid: Invalid value: field is immutable');
  }
  const kept = subresource === 'status' ? 'spec' : 'status';
  if (before[kept] === undefined) delete next[kept];
  else next[kept] = before[kept];
  checkAnnotations(resource, next);
  if (resource.kind === 'Node') checkPodCidrs(resource, before, next);
  return next;
}

function checkAnnotations(resource: Resource, { metadata }: ApiObject): void {
  for (const [key, value] of Object.entries(metadata.annotations ?? {})) {
    if (typeof value === 'string') continue;
    throw invalid(resource, metadata.name, `metadata.annotations: Invalid value: "${key}" is not a string`);
  }
}

/** The field and its list are one: whichever is written fills the other. */
export function fillPodCidrs(node: ApiObject): ApiObject {
  const spec = node.spec ?? {};
  const { podCIDR, podCIDRs } = spec;
  if (typeof podCIDR === 'string' && podCIDR !== '' && podCIDRs === undefined) spec['podCIDRs'] = [podCIDR];
  if (Array.isArray(podCIDRs) && podCIDRs.length > 0 && podCIDR === undefined) spec['podCIDR'] = podCIDRs[0];
  return { ...node, spec };
}

function checkPodCidrs(resource: Resource, before: ApiObject, next: ApiObject): void {
  const was = before.spec?.['podCIDRs'];
  if (!Array.isArray(was) || was.length === 0) {
    if (next.spec !== undefined) Object.assign(next, fillPodCidrs(next));
    return;
  }
  if (isDeepStrictEqual(was, next.spec?.['podCIDRs'])) return;
  const what = 'spec: Forbidden: node updates may not change podCIDR except from "" to valid';
  throw invalid(resource, before.metadata.name, what);
}
