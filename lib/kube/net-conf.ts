// The net-conf of a cluster: flannel's file, and what the node's pod CIDR says about it.
//
// Kubernetes cuts the network into subnets, not we: SubnetLen, SubnetMin and SubnetMax of the file mean nothing, as in
// flannel. What the rest of tulle is to know of them follows from the pod CIDR: its length, and that every subnet may be used.
import { readFileSync, statSync } from 'node:fs';
import { fieldOf, type NetworkConfig, parseNetworkConfig } from '../lease/config.ts';
import { type LeaseSubnets, printSubnets } from '../lease/lease.ts';
import { RegistryError } from '../lease/registry.ts';
import { codeOf, messageOf } from '../util/errors.ts';
import { contains4, contains6, formatCidr4, formatCidr6 } from '../wire/cidr.ts';
import type { Families } from './node.ts';

export interface NetConf {
  text: string;
  /** When the file was written, milliseconds since 1970. */
  revision: number;
  families: Families;
}

/** Throws RegistryError 'no-config', 'denied', 'corrupt'. */
export function readNetConf(path: string): NetConf {
  let text: string;
  let revision: number;
  try {
    text = readFileSync(path, 'utf8');
    revision = Math.floor(statSync(path).mtimeMs);
  } catch (error) {
    const advice = 'mount the ConfigMap there, or name another file with -net-config-path';
    const code = codeOf(error) === 'ENOENT' ? 'no-config' : 'denied';
    throw new RegistryError(code, `${path} cannot be read (${messageOf(error)}): ${advice}`, { cause: error });
  }
  const json = objectOf(text);
  const is = (name: string, otherwise: boolean): boolean => (fieldOf(json ?? {}, name) ?? otherwise) === true;
  return { text, revision, families: { four: is('EnableIPv4', true), six: is('EnableIPv6', false) } };
}

/** undefined: not JSON, or no object; whoever parses it will say so. */
function objectOf(text: string): Record<string, unknown> | undefined {
  try {
    const json = JSON.parse(text) as unknown;
    return typeof json === 'object' && json !== null && !Array.isArray(json) ? { ...json } : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The net-conf with the subnet lengths of the cluster. Throws RegistryError 'corrupt' when the node's pod CIDRs are not what
 * the net-conf describes.
 */
export function netConfFor({ text, families }: NetConf, path: string, node: string, subnets: LeaseSubnets): string {
  const json = objectOf(text);
  if (json === undefined) return text;
  for (const key of Object.keys(json)) if (/^(ipv6)?subnet(len|min|max)$/i.test(key)) delete json[key];
  const { subnet, subnet6 } = subnets;
  const wrong = (what: string): RegistryError => new RegistryError('corrupt', `the node ${node} ${what}`);
  if (families.four && subnet.prefixLength === 0) {
    throw wrong(`has no IPv4 pod CIDR: set EnableIPv4 to false in ${path}, or give the cluster an IPv4 --cluster-cidr`);
  }
  if (families.six && subnet6 === undefined) {
    throw wrong(`has no IPv6 pod CIDR: set EnableIPv6 to false in ${path}, or give the cluster an IPv6 --cluster-cidr`);
  }
  let config: NetworkConfig;
  try {
    // Any length that fits will do to read Network and IPv6Network.
    config = parseNetworkConfig(JSON.stringify(json));
  } catch {
    return text;
  }
  const { network, network6 } = config;
  const outside = (range: string, key: string): RegistryError => {
    const cure = `make ${key} in ${path} and the controller-manager's --cluster-cidr the same`;
    return wrong(`has the pod CIDR ${printSubnets(subnets)}, which is not in ${key} ${range}: ${cure}`);
  };
  if (families.four) {
    const inside = contains4(network, subnet.address) && subnet.prefixLength >= network.prefixLength;
    if (!inside) throw outside(formatCidr4(network), 'Network');
    Object.assign(json, { SubnetLen: subnet.prefixLength, SubnetMin: formatCidr4(network).split('/')[0] });
  }
  if (families.six && network6 !== undefined && subnet6 !== undefined) {
    const inside = contains6(network6, subnet6.address) && subnet6.prefixLength >= network6.prefixLength;
    if (!inside) throw outside(formatCidr6(network6), 'IPv6Network');
    Object.assign(json, { IPv6SubnetLen: subnet6.prefixLength, IPv6SubnetMin: formatCidr6(network6).split('/')[0] });
  }
  return JSON.stringify(json);
}
