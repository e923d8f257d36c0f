/** Every tunnel that the bench knows, in the order of the table. */
import { nebula, wireguardGo } from './encrypted.ts';
import { floor } from './floor.ts';
import { bareVeth, vxlan } from './kernel.ts';
import { fastd, openvpn, quicktun, tinc } from './plain.ts';
import { tulleTunnels } from './tulle.ts';
import type { Tunnel } from './tunnel.ts';

/** The one that ratios are made with. */
export const BASELINE = 'vxlan';

export const TUNNELS: readonly Tunnel[] = [
  bareVeth,
  vxlan,
  floor,
  ...tulleTunnels,
  fastd,
  quicktun,
  tinc,
  openvpn,
  wireguardGo,
  nebula,
];

/** What `--quick` measures: what the targets need. */
export const QUICK_TUNNELS: readonly string[] = ['veth', 'vxlan', 'tulle', 'tulle-udp', 'fastd', 'quicktun'];
/** On the NIC-like underlay, the same for `--quick`. */
export const QUICK_NIC_TUNNELS: readonly string[] = ['veth', 'vxlan', 'tulle'];
