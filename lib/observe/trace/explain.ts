/**
 * From what a node knows (and, if the packet was sent, from what that showed) to its story. One pure function for both, step
 * by step in the order of the data path: lib/datapath/egress.ts here, lib/datapath/ingress.ts there. Without a result each
 * step says what will happen; with one, what did.
 */
import { isForeign, largestTo, lookUp } from './lookup.ts';
import type { TraceQuestion } from './packet.ts';
import type { PeerFact, TraceResult, TraceState } from './state.ts';
import {
  answerStep,
  type FarForesight,
  farStep,
  fenceStep,
  kernelStep,
  lookupStep,
  outerStep,
  packetStep,
  peerStep,
  sendStep,
  ttlStep,
  widthStep,
} from './steps.ts';
import type { Step, StopReason, Story } from './story.ts';

const LOOKUP_REASONS = {
  'no-lease': 'egress-no-lease',
  own: 'egress-own-subnet',
  outside: 'egress-outside-network',
  'not-ipv4': 'egress-not-ipv4',
  'link-local': 'egress-link-local',
} as const;

/** Whether the packet comes out of the TUN at all; undefined when it does. */
export function kernelStops(question: TraceQuestion, state: TraceState): 'kernel-route' | 'kernel-mtu' | undefined {
  if (state.routeTo(question.destination)?.link !== state.device) return 'kernel-route';
  return question.size > state.mtu ? 'kernel-mtu' : undefined;
}

export function explain(question: TraceQuestion, state: TraceState, result?: TraceResult): Story {
  const steps: Step[] = [packetStep(question, state, result)];
  const story = (outcome: Story['outcome'], where?: Story['where'], reason?: StopReason): Story => ({
    question,
    sent: result !== undefined,
    outcome,
    ...(where !== undefined && { where }),
    ...(reason !== undefined && { reason }),
    steps,
  });
  const stop = (reason: StopReason): Story => story('stopped', 'here', reason);

  const kernel = kernelStops(question, state);
  steps.push(kernelStep(question, state, kernel));
  if (kernel !== undefined) return stop(kernel);

  // What really happened outweighs what we think.
  const drop = result === undefined ? undefined : { is: result.drop };
  const happens = (reason: StopReason, foreseen: boolean): boolean =>
    drop === undefined ? foreseen : drop.is === reason;

  const fenced = happens('egress-fenced', state.fenced);
  steps.push(fenceStep(state, fenced));
  if (fenced) return stop('egress-fenced');

  const lookup = lookUp(question, state);
  steps.push(lookupStep(question, state, lookup));
  if (lookup.kind !== 'peer') return stop(LOOKUP_REASONS[lookup.kind]);
  const { fact } = lookup;

  const ttl = happens('egress-ttl-exceeded', question.ttl <= 1);
  steps.push(ttlStep(question, state, ttl));
  if (ttl) return stop('egress-ttl-exceeded');

  steps.push(peerStep(state, fact));
  const largest = largestTo(state, fact);
  const tooBig = happens('egress-too-big', question.size > largest);
  steps.push(widthStep(question, state, fact, largest, tooBig));
  if (tooBig) return stop('egress-too-big');

  steps.push(outerStep(question, state, fact, result));
  const send = sendStep(state, fact, result);
  steps.push(send.step);
  if (send.reason !== undefined) return stop(send.reason);

  const far = farStep(state, fact, result, foresee(question, state, fact));
  steps.push(far.step);
  if (result !== undefined && (far.outcome !== 'stopped' || result.answers.length > 0)) {
    steps.push(answerStep(question, fact, result));
  }
  if (far.outcome === 'unknown' && result?.answers.some(answer => answer.reached)) return story('delivered');
  return story(far.outcome, far.where, far.reason);
}

/** What the far node will do, as far as it can be known here: it checks the inner source against our lease. */
function foresee({ source }: TraceQuestion, state: TraceState, { health }: PeerFact): FarForesight {
  if (state.format === 'bare') return { outcome: 'unknown' };
  if (health?.silent === true) return { outcome: 'stopped', where: 'underway', reason: 'lost' };
  return isForeign(source, state)
    ? { outcome: 'stopped', where: 'there', reason: 'ingress-spoofed-source' }
    : { outcome: 'delivered' };
}
