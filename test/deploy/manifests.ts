/** The manifests of deploy/, read. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { flags } from '../../lib/daemon/flags.ts';
import { root } from '../sys/support.ts';
import type { KubernetesObject } from './schema.ts';

export const hasKubectl = spawnSync('kubectl', ['version', '--client'], { stdio: 'ignore' }).status === 0;
export const OVERLAYS = ['example', 'privileged', 'flannel-plugin'];

/** @throws Error for a mistake in the YAML, which includes a key that stands twice */
export function readObjects(text: string): KubernetesObject[] {
  return parseAllDocuments(text, { strict: true, uniqueKeys: true }).map(document => {
    const [problem] = [...document.errors, ...document.warnings];
    if (problem !== undefined) throw problem;
    return document.toJS();
  });
}

export const manifest = (): KubernetesObject[] => readObjects(readFileSync(join(root, 'deploy/tulle.yml'), 'utf8'));

/** What `kubectl kustomize` makes of a folder below deploy/kustomize of a clone; it asks no server. */
export function kustomize(folder: string, clone = root): KubernetesObject[] {
  const { status, stdout, stderr } = spawnSync('kubectl', ['kustomize', join(clone, 'deploy/kustomize', folder)], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  if (status !== 0) throw new Error(stderr);
  return readObjects(stdout);
}

export const ofKind = (objects: KubernetesObject[], kind: string): KubernetesObject =>
  objects.find(object => object.kind === kind);

export const podOf = (objects: KubernetesObject[]): KubernetesObject => ofKind(objects, 'DaemonSet').spec.template.spec;

/** The daemon's container. */
export const tulledOf = (objects: KubernetesObject[]): KubernetesObject => podOf(objects).containers[0];

export const argumentsOf = (objects: KubernetesObject[]): string[] => tulledOf(objects).args;

const ofKubernetes = new Set<string>(flags.filter(flag => flag.group === 'kubernetes').map(flag => flag.name));

/** Without those that need a cluster. */
export const withoutCluster = (args: string[]): string[] =>
  args.filter(arg => !ofKubernetes.has(arg.replace(/^--?/, '').split('=')[0]));
