/**
 * The schemas of Kubernetes' objects, from the package kubernetes-models. Its validators pass over fields that they do not
 * know, and a field that is spelt wrong is exactly what an API server of the same mind would drop in silence. So the object
 * is handed over in a wrapping that notes what is looked at: what nobody asked for is a field that nobody knows.
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

// biome-ignore lint/suspicious/noExplicitAny: objects of any shape, which is what is to be found out
export type KubernetesObject = any;

interface Validator {
  (data: KubernetesObject): boolean;
  errors?: { instancePath: string; keyword: string; params: object }[] | null;
}

const SCHEMAS: Record<string, string> = {
  'apps/v1 DaemonSet': 'IoK8sApiAppsV1DaemonSet',
  'rbac.authorization.k8s.io/v1 ClusterRole': 'IoK8sApiRbacV1ClusterRole',
  'rbac.authorization.k8s.io/v1 ClusterRoleBinding': 'IoK8sApiRbacV1ClusterRoleBinding',
  'v1 ConfigMap': 'IoK8sApiCoreV1ConfigMap',
  'v1 Namespace': 'IoK8sApiCoreV1Namespace',
  'v1 ServiceAccount': 'IoK8sApiCoreV1ServiceAccount',
};

/** Not by the package's own classes: those copy the object first, and so look at everything. */
function validatorOf(name: string): Validator {
  const load = createRequire(import.meta.url);
  return load(join(dirname(load.resolve('kubernetes-models')), '_schemas', `${name}.js`)).validate;
}

/** What is wrong with it, in one line each; none where it is right. */
export function problemsOf(object: KubernetesObject): string[] {
  const { apiVersion, kind } = object;
  const name = SCHEMAS[`${apiVersion} ${kind}`];
  if (name === undefined) return [`no schema for ${apiVersion} ${kind}`];
  const validate = validatorOf(name);
  const unseen = new Set<string>();
  if (!validate(noting(object, '', unseen))) {
    return (validate.errors ?? []).map(
      ({ instancePath, keyword, params }) => `${kind}: ${instancePath} ${keyword} ${JSON.stringify(params)}`,
    );
  }
  return [...unseen].map(path => `${kind}: there is no field ${path}`);
}

/** Takes each field out of `unseen` when it is read, and only looks into those that were. */
function noting(value: KubernetesObject, path: string, unseen: Set<string>): KubernetesObject {
  if (typeof value !== 'object' || value === null) return value;
  const inner = new Map<string, KubernetesObject>();
  for (const key of Object.keys(value)) unseen.add(`${path}/${key}`);
  return new Proxy(value, {
    get(target, key) {
      if (typeof key !== 'string' || !Object.hasOwn(target, key)) return Reflect.get(target, key);
      unseen.delete(`${path}/${key}`);
      if (!inner.has(key)) inner.set(key, noting(target[key], `${path}/${key}`, unseen));
      return inner.get(key);
    },
  });
}
