// What a Node says about its part of the overlay: flannel's annotations, by flannel's names (pkg/subnet/kube).
import type { LeaseAttributes } from '../lease/lease.ts';
import { TulleError } from '../util/errors.ts';
import { parseAddress6 } from '../wire/address6.ts';
import { parseAddress4 } from '../wire/ip4.ts';

export const defaultAnnotationPrefix = 'flannel.alpha.coreos.com';

export interface AnnotationNames {
  /** "true" on a node whose daemon keeps these annotations. */
  managed: string;
  backendType: string;
  backendData: string;
  backendV6Data: string;
  publicIp: string;
  publicIpv6: string;
  /** Written by operators: what the daemon is to write as public-ip, whatever it found itself. */
  publicIpOverwrite: string;
  publicIpv6Overwrite: string;
  nodePublicIp: string;
  nodePublicIpv6: string;
}

/**
 * The names under a prefix. A prefix may hold one "/" and gets what it lacks at its end: "a.b" → "a.b/public-ip",
 * "a.b/c" → "a.b/c-public-ip". Throws TulleError 'bad-option'.
 */
export function annotationNames(prefix: string): AnnotationNames {
  const withSlash = prefix.includes('/') ? prefix : `${prefix}/`;
  const full = /[/-]$/.test(withSlash) ? withSlash : `${withSlash}-`;
  if (!/^(?:[a-z0-9_-]+\.)+[a-z0-9_-]+\/(?:[a-z0-9_-]+-)?$/.test(full)) {
    throw new TulleError('bad-option', `"${prefix}" is no prefix of annotations: write for example example.org/tulle`);
  }
  return {
    managed: `${full}kube-subnet-manager`,
    backendType: `${full}backend-type`,
    backendData: `${full}backend-data`,
    backendV6Data: `${full}backend-v6-data`,
    publicIp: `${full}public-ip`,
    publicIpv6: `${full}public-ipv6`,
    publicIpOverwrite: `${full}public-ip-overwrite`,
    publicIpv6Overwrite: `${full}public-ipv6-overwrite`,
    nodePublicIp: `${full}node-public-ip`,
    nodePublicIpv6: `${full}node-public-ipv6`,
  };
}

/** Of all annotations of a node only those that concern us: the others may be large, and they are none of our business. */
export function ownAnnotations(all: Record<string, unknown>, names: AnnotationNames): Record<string, string> {
  const own: Record<string, string> = {};
  for (const name of Object.values(names)) {
    const value = all[name];
    if (typeof value === 'string') own[name] = value;
  }
  return own;
}

/**
 * The attributes that a node announces; undefined when it announces none (no daemon ever ran there). Throws SyntaxError when
 * its backend data is not JSON.
 */
export function attributesOf(annotations: Record<string, string>, names: AnnotationNames): LeaseAttributes | undefined {
  if (annotations[names.managed] !== 'true') return undefined;
  const data = jsonOf(annotations[names.backendData]);
  const v6Data = jsonOf(annotations[names.backendV6Data]);
  const type = annotations[names.backendType];
  return {
    PublicIP: annotations[names.publicIp] ?? '0.0.0.0',
    PublicIPv6: annotations[names.publicIpv6] ?? null,
    ...(type !== undefined && type !== '' && { BackendType: type }),
    ...(data !== undefined && { BackendData: data }),
    ...(v6Data !== undefined && { BackendV6Data: v6Data }),
  };
}

/** flannel writes "null" where a backend has nothing to say. */
function jsonOf(text: string | undefined): unknown {
  if (text === undefined || text === '') return undefined;
  return (JSON.parse(text) as unknown) ?? undefined;
}

/**
 * The annotations that say these attributes; null removes one that an earlier daemon left. The operator's word about the
 * addresses counts more than ours: `existing` is what the node has now.
 */
export function annotationsFor(
  attributes: LeaseAttributes,
  existing: Record<string, string>,
  names: AnnotationNames,
): Record<string, string | null> {
  const { address, address6 } = addressesOf(attributes, existing, names);
  const json = (value: unknown): string => JSON.stringify(value ?? null);
  return {
    [names.managed]: 'true',
    [names.backendType]: attributes.BackendType ?? 'udp',
    [names.backendData]: json(attributes.BackendData),
    [names.backendV6Data]: attributes.BackendV6Data === undefined ? null : json(attributes.BackendV6Data),
    [names.publicIp]: address,
    [names.publicIpv6]: address6,
  };
}

function addressesOf(
  { PublicIP, PublicIPv6 }: LeaseAttributes,
  existing: Record<string, string>,
  names: AnnotationNames,
): { address: string; address6: string | null } {
  const usable4 = (name: string): string | undefined =>
    parseAddress4(existing[name] ?? '') === undefined ? undefined : existing[name];
  const usable6 = (name: string): string | undefined =>
    parseAddress6(existing[name] ?? '') === undefined ? undefined : existing[name];
  const address = usable4(names.publicIpOverwrite) ?? usable4(names.nodePublicIp) ?? PublicIP;
  // Where the network does not speak IPv6 nothing is said of it, whatever an operator wrote.
  const address6 = PublicIPv6 && (usable6(names.publicIpv6Overwrite) ?? usable6(names.nodePublicIpv6) ?? PublicIPv6);
  return { address, address6 };
}

/** Overwrites that are no addresses, for one warning. */
export function badOverwrites(existing: Record<string, string>, names: AnnotationNames): string[] {
  const wrong = (name: string, parse: (text: string) => unknown): string[] =>
    existing[name] === undefined || existing[name] === '' || parse(existing[name]) !== undefined
      ? []
      : [`${name}=${JSON.stringify(existing[name])}`];
  return [
    ...wrong(names.publicIpOverwrite, parseAddress4),
    ...wrong(names.nodePublicIp, parseAddress4),
    ...wrong(names.publicIpv6Overwrite, parseAddress6),
    ...wrong(names.nodePublicIpv6, parseAddress6),
  ];
}
