/** What a node knows when a packet is to be explained, and what is learnt by sending it. Plain data, gathered by lib/daemon/tracing.ts. */
import type { DropReason } from '../../datapath/counters.ts';
import type { Network, Own, Peer } from '../../datapath/peers.ts';
import type { Lease } from '../../lease/lease.ts';
import type { PeerHealth } from '../peer-probes.ts';
import type { TraceAnswer } from './packet.ts';

/** One answer of the kernel's routing table. */
export interface RouteFact {
  link: string;
  isLocal: boolean;
  mtu: number;
  gateway?: string;
  source?: string;
}

export interface TraceState {
  node: string;
  network: Network;
  own: Own;
  /** Our lease key, and the address and port that we send from. */
  key: number;
  address: string;
  port: number;
  format: 'tulle' | 'bare';
  underlay: 4 | 6;
  transport: string;
  device: string;
  mtu: number;
  /** Bytes around an inner packet: outer IP, UDP, tulle. */
  overhead: number;
  fenced: boolean;
  peers: readonly PeerFact[];
  /** Of this node's kernel: for the inner destination, and for a peer's endpoint. */
  routeTo(address: string): RouteFact | undefined;
}

export interface PeerFact {
  peer: Peer;
  lease: Lease | undefined;
  health: PeerHealth | undefined;
  /** The largest inner packet that the data path sends in one piece; 65,535: no limit of its own. */
  limit: number;
}

/** What the sending showed. Absent: the packet was not sent. */
export interface TraceResult {
  /** What our data path did; undefined: it left. */
  drop: DropReason | undefined;
  /** The beginning of the datagram. */
  head: Uint8Array;
  /** The number that it carried. */
  id: number;
  far: FarReport;
  answers: readonly (TraceAnswer & { afterMs: number })[];
}

/** What the far node says of the packet. */
export type FarReport =
  | {
      kind: 'seen';
      node: string;
      drop: DropReason | undefined;
      length: number;
      ttl: number;
      device: string;
      link: string | undefined;
      afterMs: number;
    }
  /** It said unasked that it does not take our packets. */
  | { kind: 'refused'; drop: DropReason; afterMs: number }
  /** It answers, and the packet never came. */
  | { kind: 'not-seen' }
  /** It does not answer. */
  | { kind: 'no-answer' }
  /** It cannot be asked: flannel's format; or the packet did not leave. */
  | { kind: 'not-asked' };
