/**
 * Makes the plan real: namespaces, links, addresses. Each namespace is in the record before it exists; the links are in
 * namespaces only and go with them, so the record of namespaces is all that has to be undone.
 */

import { setSysctl } from '../host/sysctl.ts';
import { makeNamespace } from '../netlink/namespace.ts';
import { withRtnetlink } from '../netlink/netlink.ts';
import { codeOf } from '../util/errors.ts';
import { type LabPlan, type NodePlan, POD_BRIDGE, type PodPlan, podAddress, SWITCH_BRIDGE, UNDERLAY } from './plan.ts';
import { type LabRecord, type LabState, namespaceFile, updateState } from './state.ts';

export const SWITCH = 'switch';
/** Locally administered; the rest is 10.88.0.254. */
const SWITCH_MAC = '02:00:0a:58:00:fe';

/** The switch and the nodes, joined. */
export function buildUnderlay(state: LabState, plan: LabPlan): void {
  const hub = newNamespace(state, SWITCH, 'switch');
  withRtnetlink(hub, netlink => {
    // With an address of its own: a bridge would take the least of its ports', and change it when a fault swaps one.
    netlink.createBridge({ name: SWITCH_BRIDGE, mtu: UNDERLAY.mtu, mac: SWITCH_MAC, up: true });
    netlink.addAddress(SWITCH_BRIDGE, `${UNDERLAY.switchAddress}/${UNDERLAY.prefixLength}`);
  });
  for (const node of plan.nodePlans) buildNode(state, hub, node);
}

function buildNode(state: LabState, hub: string, node: NodePlan): void {
  const namespace = newNamespace(state, node.name, 'node');
  setSysctl(namespace, 'net.ipv4.ip_forward', '1');
  withRtnetlink(hub, netlink => {
    netlink.createVeth({
      name: node.name,
      peerName: 'eth0',
      peerNamespace: namespace,
      mtu: UNDERLAY.mtu,
      master: SWITCH_BRIDGE,
      up: true,
    });
  });
  withRtnetlink(namespace, netlink => {
    netlink.addAddress('eth0', `${node.address}/${UNDERLAY.prefixLength}`);
    netlink.setLink('eth0', { up: true });
    // As on a real node; and a router without a default route answers what it cannot place with silence.
    netlink.addRoute({ destination: 'default', gateway: UNDERLAY.switchAddress });
  });
}

/** What a node's subnet.env says, which is all that its pods need. */
export interface PodNetwork {
  /** First host address of the node's subnet: the bridge's. */
  readonly gateway: string;
  readonly prefixLength: number;
  readonly mtu: number;
}

/** The bridge of one node and the pods on it. Returns their addresses, in the order of the pods. */
export function buildPods(state: LabState, node: NodePlan, pods: readonly PodPlan[], network: PodNetwork): string[] {
  const nodeNamespace = namespaceFile(state, node.name);
  withRtnetlink(nodeNamespace, netlink => {
    netlink.createBridge({ name: POD_BRIDGE, mtu: network.mtu, up: true });
    netlink.addAddress(POD_BRIDGE, `${network.gateway}/${network.prefixLength}`);
  });
  return pods.map(pod => {
    const namespace = newNamespace(state, pod.name, 'pod');
    const address = podAddress(network.gateway, pod.index);
    withRtnetlink(nodeNamespace, netlink => {
      netlink.createVeth({
        name: pod.name,
        peerName: 'eth0',
        peerNamespace: namespace,
        mtu: network.mtu,
        master: POD_BRIDGE,
        up: true,
      });
    });
    withRtnetlink(namespace, netlink => {
      netlink.addAddress('eth0', `${address}/${network.prefixLength}`);
      netlink.setLink('eth0', { up: true });
      netlink.addRoute({ destination: 'default', gateway: network.gateway });
    });
    return address;
  });
}

/** Recorded before it exists, with IPv6 off. */
export function newNamespace(state: LabState, name: string, kind: LabRecord['namespaces'][number]['kind']): string {
  updateState(state, record => void record.namespaces.push({ name, kind }));
  const path = namespaceFile(state, name);
  makeNamespace(path);
  // The lab is IPv4 for now, and IPv6's neighbour discovery would be noise in every capture.
  for (const scope of ['all', 'default'])
    ignoreMissing(() => setSysctl(path, `net.ipv6.conf.${scope}.disable_ipv6`, '1'));
  return path;
}

/** A kernel without IPv6 has no such key. */
function ignoreMissing(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}
