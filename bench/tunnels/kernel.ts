/** What the kernel does by itself: plain routing over the underlay, and its own overlay. */
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { createVxlan } from '../../lib/netlink/vxlan.ts';
import { peerOf, UNDERLAY_MTU } from '../stage.ts';
import type { Tunnel } from './tunnel.ts';

export const bareVeth: Tunnel = {
  name: 'veth',
  kind: 'kernel',
  about: 'no tunnel: pods are routed over the underlay, the most that there is',
  async up(stage) {
    for (const node of stage.nodes) {
      const { subnet, address } = peerOf(stage, node);
      withRtnetlink(node.namespaceFile, netlink =>
        netlink.addRoute({ destination: subnet, gateway: address, replace: true }),
      );
    }
  },
};

const HEADER_BYTES = 50; // Ethernet 14, IPv4 20, UDP 8, VXLAN 8
const VXLAN = { name: 'vxlan0', id: 1, port: 4789, mtu: UNDERLAY_MTU - HEADER_BYTES } as const;
const addressOf = (nodeName: string): string => `10.43.0.${nodeName.slice(-1)}`;

export const vxlan: Tunnel = {
  name: 'vxlan',
  kind: 'kernel',
  about: "the kernel's VXLAN device: what flannel's vxlan backend and most overlays use",
  async up(stage) {
    for (const node of stage.nodes) {
      const peer = peerOf(stage, node);
      createVxlan(node.namespaceFile, { ...VXLAN, local: node.address, remote: peer.address });
      withRtnetlink(node.namespaceFile, netlink => {
        netlink.addAddress(VXLAN.name, `${addressOf(node.name)}/24`);
        netlink.setLink(VXLAN.name, { up: true });
        netlink.addRoute({ destination: peer.subnet, gateway: addressOf(peer.name), replace: true });
      });
    }
  },
};
