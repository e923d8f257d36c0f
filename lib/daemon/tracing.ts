/**
 * POST /trace on the control socket: sends one marked packet through this node's own data path, asks the far node what became
 * of it, waits for an answer, and tells the story; or explains it without sending. And the other side: what other nodes' traced
 * packets came to here.
 */
import { getRandomValues } from 'node:crypto';
import { overheadOf } from '../backend/backend.ts';
import type { DropReason } from '../datapath/counters.ts';
import type { Mail, Token } from '../datapath/side-link.ts';
import { FORMAT_TULLE, NO_LIMIT } from '../datapath/slab.ts';
import { leaseKeyOf, subnetsOf } from '../lease/lease.ts';
import type { ControlRoutes } from '../observe/control.ts';
import { VERB_TRACED } from '../observe/node-messages.ts';
import { explain, kernelStops } from '../observe/trace/explain.ts';
import { type Lookup, lookUp } from '../observe/trace/lookup.ts';
import {
  buildPacket,
  checkQuestion,
  readAnswer,
  type TraceAnswer,
  type TraceQuestion,
} from '../observe/trace/packet.ts';
import { parseNotice, parseReport, TracedLog } from '../observe/trace/report.ts';
import type { FarReport, PeerFact, TraceResult, TraceState } from '../observe/trace/state.ts';
import type { Story } from '../observe/trace/story.ts';
import { TulleError } from '../util/errors.ts';
import { isIp6 } from '../wire/either.ts';
import type { Observed } from './observed.ts';

/** For the worker: it may be in the middle of a long batch. */
const SENT_MS = 3_000;
/** For the far node's report, of which it is asked a few times. */
const REPORT_MS = 1_500;
const ASK_AGAIN_MS = 150;
/** For an answer of the pod. */
const ANSWER_MS = 1_000;
const MOST_AT_ONCE = 4;

type SentMail = Extract<Mail, { kind: 'trace-sent' }>;

interface Running {
  question: TraceQuestion;
  mark: number;
  sentAt: number;
  onSent(mail: SentMail): void;
  answers: (TraceAnswer & { afterMs: number })[];
  onAnswer(): void;
  /** The subnet of the peer that it goes to, and what that says unasked. */
  peer: number | undefined;
  refusal: { drop: DropReason; afterMs: number } | undefined;
  onRefusal(): void;
}

export class Tracing {
  readonly #observed: Observed;
  readonly #running = new Map<number, Running>();
  readonly #log = new TracedLog();

  constructor(observed: Observed) {
    this.#observed = observed;
  }

  /** A letter of the worker; true when it was about a traced packet. */
  take(mail: Mail): boolean {
    if (mail.kind === 'traced') {
      if (mail.drop === 'ingress-stale-key') {
        this.#observed.messages?.notify({ address: mail.subnet, prefixLength: 32 }, VERB_TRACED, tokenOf(mail.id), {
          drop: mail.drop,
        });
        return true;
      }
      const six = isIp6(mail.head, 0);
      this.#log.add(mail.subnet, {
        id: mail.id,
        drop: mail.drop,
        length: mail.length,
        ttl: mail.head[six ? 7 : 8] ?? 0,
      });
      return true;
    }
    if (mail.kind === 'trace-sent') {
      this.#running.get(mail.id)?.onSent(mail);
      return true;
    }
    if (mail.kind !== 'answer') return false;
    const running = this.#running.get(mail.id);
    if (running === undefined) return true;
    const answer = readAnswer(mail.packet, mail.length, running.question, running.mark);
    if (answer === undefined) return true;
    running.answers.push({ ...answer, afterMs: Math.max(0, mail.at - running.sentAt) });
    running.onAnswer();
    return true;
  }

  /** A node says that it refused a packet of ours. Only the one that we sent it to can know its number, and is believed. */
  refused({ tokenHigh, tokenLow }: Token, body: unknown, from: number): void {
    const running = this.#running.get(tokenHigh * 2 ** 32 + tokenLow);
    const drop = parseNotice(body);
    if (running === undefined || running.peer !== from || drop === undefined) return;
    const afterMs = Math.max(0, this.#observed.parts.clock.monotonicMs() - running.sentAt);
    running.refusal ??= { drop, afterMs };
    running.onRefusal();
  }

  /** What another node is told about a packet that it traces. */
  report(subnet: number, question: unknown): object {
    const { overlay, nodeId } = this.#observed;
    const to =
      typeof question === 'object' && question !== null && 'destination' in question ? question.destination : '';
    const route = typeof to === 'string' && to.length < 64 ? overlay?.routeTo(to) : undefined;
    const link = route?.isLocal === true ? 'itself' : route?.link;
    return this.#log.answer(subnet, question, { node: nodeId ?? '', device: overlay?.device ?? '', link });
  }

  /** @throws TulleError 'unavailable', 'bad-trace', 'busy' */
  async trace(
    question: TraceQuestion,
    { explainOnly = false, signal }: { explainOnly?: boolean; signal?: AbortSignal },
  ): Promise<Story> {
    const state = this.#state();
    if (explainOnly || kernelStops(question, state) !== undefined) return explain(question, state);
    if (this.#running.size >= MOST_AT_ONCE)
      throw new TulleError('busy', 'other traces are under way: try again in a moment');
    const result = await this.#send(question, state, signal);
    // As it is now: what the kernel refused has been learnt.
    return explain(question, this.#state(), result);
  }

  async #send(question: TraceQuestion, state: TraceState, signal: AbortSignal | undefined): Promise<TraceResult> {
    const { overlay, parts } = this.#observed;
    const { bytes, mark } = buildPacket(question, random32);
    const id = (random32() & 0xffff) * 2 ** 32 + random32();
    const over = new AbortController();
    const limit = signal === undefined ? over.signal : AbortSignal.any([over.signal, signal]);
    let sent: SentMail | undefined;
    const onSent = new AbortController();
    const onAnswer = new AbortController();
    const onRefusal = new AbortController();
    const lookup = lookUp(question, state);
    const running: Running = {
      question,
      mark,
      sentAt: 0,
      onSent: mail => {
        sent = mail;
        running.sentAt = mail.at;
        onSent.abort();
      },
      answers: [],
      onAnswer: () => onAnswer.abort(),
      peer: lookup.kind === 'peer' ? lookup.fact.peer.subnet.address : undefined,
      refusal: undefined,
      onRefusal: () => onRefusal.abort(),
    };
    this.#running.set(id, running);
    try {
      if (!(overlay?.side.trace(bytes.subarray(0, HEAD_BYTES), bytes.length, id) ?? false)) {
        throw new TulleError('busy', 'the data path is busy or not there: try again in a moment');
      }
      await parts.clock.sleep(SENT_MS, AbortSignal.any([limit, onSent.signal]));
      if (sent === undefined) throw new TulleError('timeout', 'the data path did not say what became of the packet');
      const left = sent.drop === undefined;
      const asking = AbortSignal.any([limit, onRefusal.signal]);
      const told: FarReport = left
        ? await this.#askFar(id, question, lookup, running.sentAt, asking)
        : { kind: 'not-asked' };
      // One that was asked knows better: it has seen the packet.
      const far: FarReport =
        running.refusal === undefined || told.kind === 'seen' ? told : { kind: 'refused', ...running.refusal };
      // Whoever dropped it is not going to answer; an ICMP error of our own is there already.
      const mayAnswer = left && (far.kind === 'not-asked' || (far.kind === 'seen' && far.drop === undefined));
      if (mayAnswer && running.answers.length === 0) {
        await parts.clock.sleep(ANSWER_MS, AbortSignal.any([limit, onAnswer.signal]));
      }
      return { drop: sent.drop, head: sent.head, id, far, answers: running.answers };
    } finally {
      this.#running.delete(id);
      over.abort();
    }
  }

  async #askFar(
    id: number,
    question: TraceQuestion,
    lookup: Lookup,
    sentAt: number,
    signal: AbortSignal,
  ): Promise<FarReport> {
    const { messages, parts } = this.#observed;
    if (lookup.kind !== 'peer' || lookup.fact.peer.format !== FORMAT_TULLE || messages === undefined) {
      return { kind: 'not-asked' };
    }
    const end = parts.clock.monotonicMs() + REPORT_MS;
    let answered = false;
    while (parts.clock.monotonicMs() < end && !signal.aborted) {
      const left = Math.max(1, end - parts.clock.monotonicMs());
      const { destination } = question;
      const value = await messages
        .ask(lookup.fact.peer.subnet, VERB_TRACED, { id, destination }, left, signal)
        .catch(() => undefined);
      const report = parseReport(value);
      if (report?.seen === true) {
        return { ...report, kind: 'seen', afterMs: Math.max(0, parts.clock.monotonicMs() - sentAt) };
      }
      answered ||= report !== undefined;
      if (answered) await parts.clock.sleep(ASK_AGAIN_MS, signal);
    }
    return { kind: answered ? 'not-seen' : 'no-answer' };
  }

  /** @throws TulleError 'unavailable' before there is an overlay */
  #state(): TraceState {
    const { overlay, network, manager, probes, peers, nodeId, options } = this.#observed;
    const lease = manager?.lease;
    if (overlay === undefined || network === undefined || lease === undefined || manager === undefined) {
      throw new TulleError('unavailable', 'this node has no overlay yet');
    }
    const { config, backend } = network;
    const leases = new Map((peers?.peers ?? []).map(one => [one.subnet.address, one]));
    const { network6, subnetLength6 } = config;
    return {
      node: nodeId ?? '?',
      network: {
        network: config.network,
        subnetLength: config.subnetLength,
        ...(network6 !== undefined && subnetLength6 !== undefined && { network6, subnetLength6 }),
      },
      own: subnetsOf(lease),
      key: leaseKeyOf(lease),
      address: overlay.address,
      port: overlay.port,
      format: backend.type === 'tulle' ? 'tulle' : 'bare',
      underlay: backend.underlay ?? 4,
      transport: options.transport,
      device: overlay.device,
      mtu: overlay.mtu,
      overhead: overheadOf(backend),
      fenced: manager.fenced,
      peers: overlay.peers().map(
        (peer): PeerFact => ({
          peer,
          lease: leases.get(peer.subnet.address),
          health: probes?.of(peer.subnet),
          limit: overlay.wayTo(peer.subnet)?.limit ?? NO_LIMIT,
        }),
      ),
      routeTo: address => overlay.routeTo(address),
    };
  }
}

/** What fits a letter; the rest of a traced packet is zeros. */
const HEAD_BYTES = 1_280;

/** The number of a traced packet where a notice has its token. */
const tokenOf = (id: number): Token => ({ tokenHigh: Math.floor(id / 2 ** 32), tokenLow: id >>> 0 });
const random32 = (): number => getRandomValues(new Uint32Array(1))[0];

export function traceRoute(observed: Observed, routes: ControlRoutes): void {
  routes.add('POST', '/trace', async ({ body, signal }) => {
    const { tracing } = observed;
    if (tracing === undefined) throw new TulleError('unavailable', 'this node has no overlay yet');
    let asked: unknown;
    try {
      asked = JSON.parse(body);
    } catch {
      throw new TulleError('bad-request', 'the question is no JSON');
    }
    const question = checkQuestion(asked);
    const explainOnly = (asked as { explain?: unknown }).explain === true;
    return { json: await tracing.trace(question, { explainOnly, signal }) };
  });
}
