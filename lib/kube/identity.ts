// Which node we are on. flannel's rule: NODE_NAME, else the node that our pod was put on.
import { RegistryError } from '../lease/registry.ts';
import { TulleError } from '../util/errors.ts';
import type { Api } from './api.ts';

export type NodeSource = { name: string } | { pod: { namespace: string; name: string } };

/** Throws TulleError 'bad-option' when the environment says neither. */
export function nodeSourceOf(environment: Record<string, string | undefined>): NodeSource {
  const { NODE_NAME, POD_NAME, POD_NAMESPACE } = environment;
  if (NODE_NAME) return { name: NODE_NAME };
  if (POD_NAME && POD_NAMESPACE) return { pod: { namespace: POD_NAMESPACE, name: POD_NAME } };
  throw new TulleError(
    'bad-option',
    'which node is this? Set NODE_NAME, or POD_NAME and POD_NAMESPACE, in the environment (fieldRef in a manifest)',
  );
}

/** Throws RegistryError 'unavailable' and 'denied'; 'missing' when there is no such pod. */
export async function findNodeName(api: Api, source: NodeSource): Promise<string> {
  if ('name' in source) return source.name;
  const { namespace, name } = source.pod;
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(name)}`;
  const pod = (await api.request({ purpose: { verb: 'get', resource: 'pods' }, path })) as {
    spec?: { nodeName?: unknown };
  } | null;
  const node = pod?.spec?.nodeName;
  if (typeof node === 'string' && node !== '') return node;
  throw new RegistryError('unavailable', `the pod ${namespace}/${name} has no spec.nodeName yet`);
}
