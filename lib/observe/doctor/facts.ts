/** What is known of a machine: plain data, gathered by gather.ts, judged by diagnose.ts. */

/** How an attempt went; `code` is the errno's name. */
export type Trial = { ok: true } | { ok: false; code: string; message: string };

export interface MachineFacts {
  nodeVersion: string;
  isRoot: boolean;
  /** What could not be tried in a namespace of its own is undefined. */
  namespace: Trial;
  tun: Trial | undefined;
  /** Of the TUN device. */
  offloads: { checksum: boolean; tso: boolean; uso: boolean } | undefined;
  udpGro: Trial | undefined;
  udpTrain: Trial | undefined;
  veth: Trial | undefined;
  bridge: Trial | undefined;
  /** Whether frames between ports of a bridge pass the packet filter; undefined: br_netfilter is not loaded. */
  bridgeNetfilter: boolean | undefined;
  /** Whether the kernel and a tool work together. */
  nftables: boolean;
  iptables: boolean;
  /** Why no user namespace can be made by users; undefined: it can. */
  userNamespacesOff: string | undefined;
  ipForward: boolean | undefined;
  /** The effective rp_filter of the underlay's link: 0 off, 1 strict, 2 loose. */
  rpFilter: number | undefined;
  /** The link that tulled would use, or why there is none. */
  underlay: { name: string; mtu: number; up: boolean; address: string } | { error: string };
  dataPort: number;
  /** Who has the data port, other than our own tulled. */
  portHolders: readonly PortHolder[];
  clock: { nowMs: number; jumpMs: number; synchronised: boolean | undefined };
  /** Links that other overlays leave. */
  foreignLinks: readonly { name: string; of: string }[];
  /** Routes into the pod network that are none of tulle's: "10.5.0.0/24 dev flannel.1". */
  conflicts: readonly string[];
}

export interface PortHolder {
  address: string;
  port: number;
  /** Undefined: it cannot be seen without permission, or belongs to another namespace. */
  pid: number | undefined;
  name: string | undefined;
}
