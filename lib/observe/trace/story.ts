/** The story of a traced packet: what each place on its way did with it, in the order in which it comes there. Plain data. */
import type { DropReason } from '../../datapath/counters.ts';
import type { TraceQuestion } from './packet.ts';

/** 'pass' it goes on, 'stop' it ended here, 'open' nobody can tell. */
export type Verdict = 'pass' | 'stop' | 'open';

/** Why it stopped: a drop reason of the data path, or one of what lies around it. */
export type StopReason = DropReason | OtherReason;

export const OTHER_REASONS = {
  'kernel-route': "the node's kernel sends it another way: it never enters the overlay",
  'kernel-mtu':
    "it is longer than the device's MTU: the node's kernel answers with ICMP and the packet never enters the overlay",
  lost: 'it left this node and the far node does not know it',
} as const;
export type OtherReason = keyof typeof OTHER_REASONS;

export interface Step {
  /** Which place this is. */
  name: 'packet' | 'kernel' | 'fence' | 'lookup' | 'ttl' | 'peer' | 'width' | 'outer' | 'send' | 'far' | 'answer';
  /** The node where it happens. */
  node: string;
  verdict: Verdict;
  /** One sentence. */
  title: string;
  lines: string[];
  /** The same for programs. */
  facts: Record<string, unknown>;
}

export interface Story {
  question: TraceQuestion;
  /** False: computed from what this node knows (--explain), or it had no way to be sent. */
  sent: boolean;
  /** 'delivered': the far data path wrote it to its TUN. 'unknown': it left, and nobody can tell. */
  outcome: 'delivered' | 'stopped' | 'unknown';
  /** Where it stopped, and why. */
  where?: 'here' | 'underway' | 'there';
  reason?: StopReason;
  steps: Step[];
}
