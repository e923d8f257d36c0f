/** The flags of the Kubernetes registry → its options. */
import { resolve } from 'node:path';
import { annotationNames } from '../kube/annotations.ts';
import { messageOf, type TulleError } from '../util/errors.ts';
import { type FlagName, flagTable } from './flags.ts';
import type { ParsedFlags } from './parse-flags.ts';

export interface KubeRegistryOptions {
  kind: 'kubernetes';
  /** Absent, like the URL: as a pod is told. */
  kubeconfigFile?: string;
  apiUrl?: string;
  annotationPrefix: string;
  netConfigPath: string;
  setNetworkUnavailable: boolean;
}

/** Makes the error for a flag. */
export type Complain = (parsed: ParsedFlags, name: FlagName, message: string) => TulleError;

export function wantsKube({ values }: ParsedFlags): boolean {
  return values['kube-subnet-mgr'] || values.registry === 'kube';
}

export function kubeOptions(parsed: ParsedFlags, bad: Complain): KubeRegistryOptions {
  const { given, values } = parsed;
  if (given.has('registry') && values.registry !== 'kube') {
    throw bad(parsed, 'kube-subnet-mgr', `--registry=${values.registry} says something else; leave one of them out`);
  }
  for (const name of given.keys()) {
    if (name.startsWith('etcd-')) throw bad(parsed, name, 'it has no meaning with Kubernetes; leave one of them out');
  }
  if (values['node-id'] !== '') {
    throw bad(parsed, 'node-id', 'Kubernetes knows a node by its name: set NODE_NAME in the environment instead');
  }
  if (values['release-on-exit']) {
    throw bad(parsed, 'release-on-exit', 'Kubernetes gives out the subnets, nobody gives one back; leave it out');
  }
  try {
    annotationNames(values['kube-annotation-prefix']);
  } catch (error) {
    throw bad(parsed, 'kube-annotation-prefix', messageOf(error));
  }
  const { 'kubeconfig-file': file, 'kube-api-url': url } = values;
  return {
    kind: 'kubernetes',
    ...(file !== '' && { kubeconfigFile: resolve(file) }),
    ...(url !== '' && { apiUrl: url }),
    annotationPrefix: values['kube-annotation-prefix'],
    netConfigPath: resolve(values['net-config-path']),
    setNetworkUnavailable: values['set-node-network-unavailable'],
  };
}

const kubeFlags = [
  'kube-api-url',
  'kube-annotation-prefix',
  'kubeconfig-file',
  'net-config-path',
  'set-node-network-unavailable',
] as const satisfies FlagName[];

/** What only Kubernetes understands is refused elsewhere, unless it says what is so anyway. */
export function refuseKubeFlags(parsed: ParsedFlags, bad: Complain): void {
  for (const name of kubeFlags) {
    if (!parsed.given.has(name) || parsed.values[name] === flagTable[name].default) continue;
    throw bad(parsed, name, 'it belongs to the Kubernetes registry: give -kube-subnet-mgr too, or leave it out');
  }
}
