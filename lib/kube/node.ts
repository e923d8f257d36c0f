// From a Node object, which anybody may have written, to what we need of it, and to the lease that it is.
//
// A node's subnet is its pod CIDR. The API server lets nobody change it while the node lives, so a subnet changes hands
// exactly when a Node object goes and another one comes: the lease key is made from the object's UID and its pod CIDRs,
// the same on every node that reads them.
import { createHash } from 'node:crypto';
import { type Lease, type LeaseAttributes, type LeaseSubnets, subnetKey } from '../lease/lease.ts';
import { messageOf } from '../util/errors.ts';
import { hasHostBits, hasHostBits6, parseCidr4, parseCidr6 } from '../wire/cidr.ts';
import { type AnnotationNames, attributesOf, ownAnnotations } from './annotations.ts';

export interface NodeFacts {
  name: string;
  uid: string;
  /** Wall clock, milliseconds since 1970: which of two nodes was first. */
  createdAtMs: number;
  /** metadata.resourceVersion as it came: opaque, but for versions.ts. */
  version: string;
  /** undefined: the cluster has not given it a pod CIDR yet, or one that makes no sense (`problem` says why). */
  subnets: LeaseSubnets | undefined;
  problem?: string;
  /** Only flannel's. */
  annotations: Record<string, string>;
  /** The status of the condition NetworkUnavailable and who set it. */
  networkUnavailable?: { status: string; reason: string };
}

/** Which address families the net-conf carries; a pod CIDR of another is left out. */
export interface Families {
  four: boolean;
  six: boolean;
}

/** undefined when it is no Node at all. */
export function readNode(object: unknown, names: AnnotationNames, families: Families): NodeFacts | undefined {
  const { metadata, spec, status } = fields(object);
  const { name, uid, resourceVersion, creationTimestamp, annotations } = fields(metadata);
  if (typeof name !== 'string' || typeof uid !== 'string' || typeof resourceVersion !== 'string') return undefined;
  const created = typeof creationTimestamp === 'string' ? Date.parse(creationTimestamp) : Number.NaN;
  const condition = conditionsOf(status).find(entry => entry['type'] === 'NetworkUnavailable');
  return {
    name,
    uid,
    createdAtMs: Number.isNaN(created) ? 0 : created,
    version: resourceVersion,
    ...subnetsOf(spec, families),
    annotations: ownAnnotations(fields(annotations), names),
    ...(condition && {
      networkUnavailable: { status: String(condition['status']), reason: String(condition['reason']) },
    }),
  };
}

const fields = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};

function conditionsOf(status: unknown): Record<string, unknown>[] {
  const { conditions } = fields(status);
  return Array.isArray(conditions) ? conditions.map(fields) : [];
}

function subnetsOf(spec: unknown, families: Families): Pick<NodeFacts, 'subnets' | 'problem'> {
  const { podCIDR, podCIDRs } = fields(spec);
  const texts = Array.isArray(podCIDRs) && podCIDRs.length > 0 ? podCIDRs : [podCIDR].filter(text => text);
  let subnet: LeaseSubnets['subnet'] | undefined;
  let subnet6: LeaseSubnets['subnet6'];
  for (const text of texts) {
    const four = parseCidr4(String(text));
    const six = four === undefined ? parseCidr6(String(text)) : undefined;
    const hostBits = (four && hasHostBits(four)) || (six && hasHostBits6(six));
    const twice = (four && subnet) || (six && subnet6);
    if ((four ?? six) === undefined || hostBits || twice) {
      const shown = JSON.stringify(texts).slice(0, 100);
      return { subnets: undefined, problem: `its pod CIDRs ${shown} are not one subnet of each family` };
    }
    subnet ??= four;
    subnet6 ??= six;
  }
  if (!families.four) subnet = undefined;
  if (!families.six) subnet6 = undefined;
  if (subnet === undefined && subnet6 === undefined) return { subnets: undefined };
  // As in flannel's etcd keys: no IPv4 subnet is 0.0.0.0/0.
  return { subnets: { subnet: subnet ?? { address: 0, prefixLength: 0 }, ...(subnet6 && { subnet6 }) } };
}

/** The 32 bits that tell one holder of a subnet from the next. */
export function tenureOf({ uid }: Pick<NodeFacts, 'uid'>, subnets: LeaseSubnets): number {
  const digest = createHash('sha256')
    .update(`${uid}\n${subnetKey(subnets)}`)
    .digest();
  return digest.readUInt32BE(0) || 1; // 0 would be no key
}

/** What the node announces: nothing yet, something, or something that cannot be read. */
export type Announced = { attributes: LeaseAttributes | undefined } | { unreadable: string };

export function announcedBy({ annotations }: Pick<NodeFacts, 'annotations'>, names: AnnotationNames): Announced {
  try {
    return { attributes: attributesOf(annotations, names) };
  } catch (error) {
    return { unreadable: `its backend data is not JSON: ${messageOf(error)}` };
  }
}

/** A lease of Kubernetes ends with its node and never by time. `modRevision` is of versions.ts. */
export function leaseOf(
  facts: NodeFacts & { subnets: LeaseSubnets },
  attributes: LeaseAttributes,
  modRevision: number,
): Lease {
  const { subnets } = facts;
  return { ...subnets, attributes, expiresAtMs: null, createRevision: tenureOf(facts, subnets), modRevision };
}
