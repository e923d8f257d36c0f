/**
 * What the microscope knows: plain data that a lab, a daemon or a capture file fills in, and that the page draws. Types
 * only, shared by the server and the browser. Times are milliseconds since 1970, rates are per second.
 */
import type { Change, Holding } from '../../lease/history.ts';

/** Where the page's data come from. */
export type SourceKind = 'lab' | 'node' | 'file' | 'example';

export interface NodeView {
  name: string;
  /** On the underlay, with the port that datagrams go to. */
  address: string;
  port: number;
  subnet: string;
  subnet6?: string;
  leaseKey: number;
  /** When the lease ends; null: never, or not known. */
  leaseEndsAtMs: number | null;
  healthy: boolean;
  /** One line: why it is not healthy, or the transport and what it is without. */
  note: string;
  device: { name: string; mtu: number };
  underlayMtu: number;
  transport: string;
  /** Of the links of this node that are known: "eth0", "tulle0", "cni0". */
  rates: Record<string, LinkRate>;
  /** Drops since the start, by reason; reasons that never happened are left out. */
  drops: Record<string, number>;
}

export interface LinkRate {
  receivedBytes: number;
  sentBytes: number;
  receivedPackets: number;
  sentPackets: number;
}

export interface PodView {
  name: string;
  node: string;
  address: string;
  mtu: number;
  rate?: LinkRate;
}

/** What one node knows of the way to another. */
export interface PeerView {
  node: string;
  /** The other node's name where it is known, else its endpoint. */
  peer: string;
  endpoint: string;
  subnet: string;
  format: string;
  rttMs: number | null;
  lossPct: number | null;
  pathMtu: number | null;
  silent: boolean;
}

export interface FaultView {
  id: string;
  /** "node1 → node2: 50 ms delay" */
  text: string;
}

/** One moment of the network: everything that changes by itself. */
export interface NetworkView {
  atMs: number;
  name: string;
  network: string;
  underlay: string;
  registry: string;
  nodes: NodeView[];
  pods: PodView[];
  peers: PeerView[];
  faults: FaultView[];
}

/** What the page may do here, told once. */
export interface Hello {
  kind: SourceKind;
  title: string;
  /** The request carried the token: buttons work. */
  mayAct: boolean;
  actions: ActionName[];
  faults: FaultKind[];
  transports: string[];
}

export type ActionName = 'send' | 'capture' | 'fault' | 'mend' | 'measure';

/** A fault that the lab can make, for its form. */
export interface FaultKind {
  kind: string;
  title: string;
  /** What happens to the packets, in a sentence. */
  about: string;
  /** The number that it takes, if any. */
  amount?: { label: string; unit: string; least: number; most: number; usual: number };
  /** It lies between two nodes; else it is the whole underlay's. */
  between: boolean;
}

/** The registry's past, as far as it is known. */
export interface LeaseHistory {
  registry: string;
  /** The oldest revision whose state is known, and that state. */
  since: number;
  base: Holding[];
  /** Oldest first. */
  changes: Change[];
  revision: number;
}

export interface DropEvent {
  atMs: number;
  node: string;
  reason: string;
  count: number;
  /** One line about the packet, where it is known. */
  packet?: string;
}

/** A throughput measurement: a line of points for each transport. */
export interface MeasureView {
  running: boolean;
  /** One line: what is being done now, or what went wrong. */
  note: string;
  from: string;
  to: string;
  runs: { transport: string; gbps: number | null; samples: { seconds: number; gbps: number }[] }[];
}

/** Where a packet was seen. */
export type Place = 'tun-read' | 'udp-send' | 'udp-receive' | 'tun-write';

/** One captured packet. `bytes` may be shorter than `length`. */
export interface PacketRecord {
  node: string;
  place: Place;
  /** Microseconds since 1970, or since the capture began. */
  atUs: number;
  /** From the first byte of an IP header: of the pod's packet on the TUN, of the outer packet on the underlay. */
  bytes: Uint8Array;
  length: number;
  /** Why it went no further. */
  drop?: string;
  /** What the capture said besides: lease, train. */
  comment?: string;
}

/** A record on its way to the browser. */
export interface SentRecord extends Omit<PacketRecord, 'bytes'> {
  base64: string;
}
