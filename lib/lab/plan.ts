/**
 * The plan of a lab: names and addresses from options, before anything exists. Pure.
 *
 *   switch   a namespace with the bridge "br0": the underlay, 10.88.0.0/24
 *   nodeK    a namespace with eth0 10.88.0.K on the switch, the TUN device, and the bridge cni0 of its pods
 *   podP     a namespace with eth0 on its node's cni0; pods are numbered through, node by node
 */
import { formatAddress4, parseAddress4 } from '../wire/ip4.ts';
import { usageError } from './options.ts';

export const REGISTRIES = ['file', 'etcd', 'kube'] as const;
export const TRANSPORTS = ['offload', 'batch', 'dgram'] as const;
export type LabRegistry = (typeof REGISTRIES)[number];
export type LabTransport = (typeof TRANSPORTS)[number];

export interface LabOptions {
  readonly name: string;
  readonly nodes: number;
  /** Pods on each node. */
  readonly pods: number;
  readonly registry: LabRegistry;
  readonly transport: LabTransport;
}

/** 10.88.0.1 to .253 are nodes, .254 is the switch. More nodes than this is more daemons than one machine carries. */
export const MOST_NODES = 50;
/** A /24 holds 253 pods beside the gateway; a hundred namespaces a node is plenty. */
export const MOST_PODS = 100;

export const UNDERLAY = { network: '10.88.0.0/24', prefixLength: 24, mtu: 1500, switchAddress: '10.88.0.254' } as const;
export const OVERLAY = { network: '10.42.0.0/16', subnetLength: 24, port: 8285 } as const;
/** The overlay's MTU over this underlay, by backend: tulle's header takes 12 bytes more than flannel's none. */
export const OVERLAY_MTU = { tulle: 1460, udp: 1472 } as const;
export const SWITCH_BRIDGE = 'br0';
export const POD_BRIDGE = 'cni0';
export const KUBE = { port: 6443 } as const;
export const ETCD = { clientPort: 2379, peerPort: 2380, prefix: '/coreos.com/network' } as const;

export interface NodePlan {
  readonly name: string;
  readonly address: string;
}

export interface PodPlan {
  readonly name: string;
  readonly node: string;
  /** Place on its node, from 0. */
  readonly index: number;
}

export interface LabPlan extends LabOptions {
  readonly nodePlans: readonly NodePlan[];
  readonly podPlans: readonly PodPlan[];
}

/** Names are used as directory names and in messages; short, so that paths stay short. */
export function checkLabName(name: string): string {
  if (/^[a-z0-9][a-z0-9-]{0,30}$/.test(name)) return name;
  throw usageError(`--name takes lower-case letters, digits and dashes (31 at most), not "${name}"`);
}

export function planLab(options: LabOptions): LabPlan {
  const nodePlans = Array.from({ length: options.nodes }, (_, i) => ({
    name: `node${i + 1}`,
    address: addressPlus(UNDERLAY.network.split('/')[0], i + 1),
  }));
  const podPlans = nodePlans.flatMap((node, n) =>
    Array.from({ length: options.pods }, (_, index) => ({
      name: `pod${n * options.pods + index + 1}`,
      node: node.name,
      index,
    })),
  );
  return { ...options, nodePlans, podPlans };
}

/** The net-conf that the registry starts with. */
export function networkConfig(): string {
  return JSON.stringify({ Network: OVERLAY.network, SubnetLen: OVERLAY.subnetLength, Backend: { Type: 'tulle' } });
}

/** A pod's address from its node's gateway (the first host address of the subnet): .1 is the gateway, pods follow. */
export function podAddress(gateway: string, index: number): string {
  return addressPlus(gateway, index + 1);
}

/** The pairs of nodes, each once, in order: (1,2), (1,3), …, (2,3), … */
export function pairsOf<T>(items: readonly T[]): [T, T][] {
  return items.flatMap((a, i) => items.slice(i + 1).map((b): [T, T] => [a, b]));
}

function addressPlus(address: string, offset: number): string {
  const base = parseAddress4(address);
  if (base === undefined) throw new RangeError(`not an IPv4 address: ${address}`);
  return formatAddress4(base + offset);
}
