/**
 * Questions and answers between daemons, on the data port (lib/wire/node-message.ts). A question is asked up to three times
 * with the same token and answered each time; nothing is kept of it. An answer is believed when it comes from the peer
 * that was asked, with the 64 random bits of the question. Bodies are JSON, and whatever comes is hostile until the
 * caller has checked it. A notice tells a peer what it could not ask for; its reader knows what its token is about.
 *
 * An answer that is too long is cut in one defined way: its longest list is halved until it fits, and `cut: true` is added.
 */
import type { Mail, Token } from '../datapath/side-link.ts';
import type { Clock } from '../lease/clock.ts';
import { TulleError } from '../util/errors.ts';
import { formatCidr4, type Subnet4 } from '../wire/cidr.ts';
import {
  emitMessagePart,
  MESSAGE_BODY_BYTES,
  MESSAGE_DATAGRAM_BYTES,
  MESSAGE_HEADER_BYTES,
  MESSAGE_PARTS,
  parseMessagePart,
  TYPE_ANSWER,
  TYPE_NOTICE,
  TYPE_QUESTION,
} from '../wire/node-message.ts';

/** What a node is asked. The numbers are on the wire. */
export const VERB_SUMMARY = 1;
export const VERB_TRACED = 2;

export interface MessageOptions {
  /** Sends one part to the peer with this subnet; false when that cannot be done now. */
  send(subnet: Subnet4, datagram: Uint8Array, part: number, parts: number): boolean;
  /** The longest datagram that crosses to it. */
  longest(subnet: Subnet4): number;
  clock: Clock;
  /** 32 random bits. */
  random(): number;
}

/** Answers a question; what it throws is told as an error. */
export type Answerer = (question: unknown, from: Subnet4) => unknown;

/** Hears a notice; it must know the token, and whose notice it believes. */
export type Listener = (token: Token, body: unknown, from: number) => void;

/** How often a question is asked. */
const ATTEMPTS = 3;
/** Questions of all peers together that are answered in a second. */
const ANSWERS_A_SECOND = 200;
/** Messages of several parts that are being put together, and how long one may take. */
const MOST_PARTIAL = 64;
const PARTIAL_MS = 2_000;
const LONGEST_ERROR = 200;

interface Waiting {
  subnet: number;
  verb: number;
  resolve(body: unknown): void;
}

interface Partial {
  slices: (Uint8Array | undefined)[];
  length: number;
  since: number;
}

export class NodeMessages {
  readonly #options: MessageOptions;
  readonly #answerers = new Map<number, Answerer>();
  readonly #listeners = new Map<number, Listener>();
  readonly #waiting = new Map<string, Waiting>();
  readonly #partial = new Map<string, Partial>();
  #second = 0;
  #answered = 0;

  constructor(options: MessageOptions) {
    this.#options = options;
  }

  /** Says who answers a verb. */
  answer(verb: number, answerer: Answerer): void {
    this.#answerers.set(verb, answerer);
  }

  /** Says who hears the notices of a verb. */
  listen(verb: number, listener: Listener): void {
    this.#listeners.set(verb, listener);
  }

  /** Tells the peer with this subnet something, once. */
  notify(subnet: Subnet4, verb: number, token: Token, body: object): void {
    this.#send(subnet, { ...token, verb, type: TYPE_NOTICE }, body);
  }

  /**
   * Asks the peer with this subnet.
   * @throws TulleError: 'no-answer' after the time, 'refused' with what the peer says
   */
  async ask(
    subnet: Subnet4,
    verb: number,
    question: unknown,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<unknown> {
    const { clock, random } = this.#options;
    const token = { tokenHigh: random(), tokenLow: random() };
    const key = keyOf(subnet.address, TYPE_ANSWER, token.tokenHigh, token.tokenLow);
    const over = new AbortController();
    const limit = signal === undefined ? over.signal : AbortSignal.any([over.signal, signal]);
    let body: { value: unknown } | undefined;
    this.#waiting.set(key, {
      subnet: subnet.address,
      verb,
      resolve: value => {
        body = { value };
        over.abort();
      },
    });
    try {
      for (let attempt = 0; attempt < ATTEMPTS && !limit.aborted; attempt++) {
        this.#send(subnet, { ...token, verb, type: TYPE_QUESTION }, question);
        await clock.sleep(timeoutMs / ATTEMPTS, limit);
      }
    } finally {
      this.#waiting.delete(key);
    }
    if (body === undefined) {
      throw new TulleError('no-answer', `${formatCidr4(subnet)} did not answer within ${timeoutMs / 1_000} s`);
    }
    const { ok, error } = envelopeOf(body.value);
    if (error !== undefined) throw new TulleError('refused', error);
    return ok;
  }

  /** A letter of the worker; true when it was a message. */
  take(mail: Mail): boolean {
    if (mail.kind !== 'message') return false;
    const { subnet, datagram } = mail;
    const part = parseMessagePart(datagram, 0, datagram.length);
    if (part === undefined) return true;
    const { verb, type, tokenHigh, tokenLow } = part;
    if (type === TYPE_NOTICE) {
      const body = part.parts === 1 ? parseBody(part.slice) : undefined;
      if (body !== undefined) this.#listeners.get(verb)?.({ tokenHigh, tokenLow }, body.value, subnet);
      return true;
    }
    const key = keyOf(subnet, type, tokenHigh, tokenLow);
    const waiting = type === TYPE_ANSWER ? this.#waiting.get(key) : undefined;
    // Before anything is kept: an answer that nobody waits for, a question that nobody answers.
    if (type === TYPE_ANSWER ? waiting?.verb !== verb : !this.#answerers.has(verb)) return true;
    const text = this.#whole(key, part);
    if (text === undefined) return true;
    const body = parseBody(text);
    if (body === undefined) return true;
    if (waiting !== undefined) waiting.resolve(body.value);
    else this.#answer({ address: subnet, prefixLength: 32 }, part, body.value);
    return true;
  }

  #answer(
    from: Subnet4,
    { verb, tokenHigh, tokenLow }: { verb: number; tokenHigh: number; tokenLow: number },
    question: unknown,
  ): void {
    const answerer = this.#answerers.get(verb);
    if (answerer === undefined || !this.#mayAnswer()) return;
    let answer: object;
    try {
      answer = { ok: answerer(question, from) ?? null };
    } catch (error) {
      answer = { error: (error instanceof TulleError ? error.message : 'internal error').slice(0, LONGEST_ERROR) };
    }
    this.#send(from, { verb, type: TYPE_ANSWER, tokenHigh, tokenLow }, answer);
  }

  #mayAnswer(): boolean {
    const second = Math.floor(this.#options.clock.monotonicMs() / 1_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#answered = 0;
    }
    return this.#answered++ < ANSWERS_A_SECOND;
  }

  /** The body's bytes, once all parts are there. */
  #whole(
    key: string,
    part: { part: number; parts: number; length: number; slice: Uint8Array },
  ): Uint8Array | undefined {
    if (part.parts === 1) return part.slice;
    const now = this.#options.clock.monotonicMs();
    for (const [old, { since }] of this.#partial) if (now - since > PARTIAL_MS) this.#partial.delete(old);
    let partial = this.#partial.get(key);
    if (partial === undefined || partial.slices.length !== part.parts || partial.length !== part.length) {
      if (partial === undefined && this.#partial.size >= MOST_PARTIAL) return undefined;
      partial = { slices: Array.from({ length: part.parts }), length: part.length, since: now };
      this.#partial.set(key, partial);
    }
    partial.slices[part.part] = part.slice;
    if (partial.slices.includes(undefined)) return undefined;
    this.#partial.delete(key);
    const whole = Buffer.concat(partial.slices as Uint8Array[]);
    return whole.length === part.length ? whole : undefined;
  }

  #send(
    subnet: Subnet4,
    message: { verb: number; type: number; tokenHigh: number; tokenLow: number },
    body: unknown,
  ): void {
    const slice = Math.min(MESSAGE_DATAGRAM_BYTES, this.#options.longest(subnet)) - MESSAGE_HEADER_BYTES;
    const bytes = Buffer.from(cutToFit(body, Math.min(MESSAGE_BODY_BYTES, slice * MESSAGE_PARTS)));
    const parts = Math.max(1, Math.ceil(bytes.length / slice));
    for (let part = 0; part < parts; part++) {
      const datagram = new Uint8Array(MESSAGE_HEADER_BYTES + Math.min(slice, bytes.length - part * slice));
      const piece = bytes.subarray(part * slice, (part + 1) * slice);
      emitMessagePart(datagram, 0, { ...message, length: bytes.length, slice: piece });
      if (!this.#options.send(subnet, datagram, part, parts)) return; // it is asked again
    }
  }
}

const keyOf = (subnet: number, type: number, high: number, low: number): string => `${subnet} ${type} ${high} ${low}`;

function parseBody(bytes: Uint8Array): { value: unknown } | undefined {
  try {
    return { value: JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) };
  } catch {
    return undefined;
  }
}

function envelopeOf(body: unknown): { ok?: unknown; error?: string } {
  if (typeof body !== 'object' || body === null) return { error: 'it answers in another language' };
  const { ok, error } = body as { ok?: unknown; error?: unknown };
  if (typeof error === 'string') return { error: plain(error).slice(0, LONGEST_ERROR) };
  return { ok };
}

/** Text from another node without what a terminal would obey. */
export function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, '?');
}

/** JSON of at most so many bytes. */
export function cutToFit(value: unknown, most: number): string {
  const whole = JSON.stringify(value);
  if (Buffer.byteLength(whole) <= most) return whole;
  const copy = JSON.parse(whole) as unknown;
  for (let list = longestList(copy); list !== undefined; list = longestList(copy)) {
    list.length = Math.floor(list.length / 2);
    const text = JSON.stringify(marked(copy));
    if (Buffer.byteLength(text) <= most) return text;
  }
  return JSON.stringify({ error: 'the answer is too long' });
}

/** Says inside the answer that it was cut. */
function marked(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const { ok } = value as { ok?: unknown };
  if (typeof ok === 'object' && ok !== null && !Array.isArray(ok)) return { ...value, ok: { ...ok, cut: true } };
  return { ...value, cut: true };
}

/** The list with most entries, anywhere inside; undefined when all are empty. */
function longestList(value: unknown): unknown[] | undefined {
  let best: unknown[] | undefined;
  const visit = (inner: unknown): void => {
    if (typeof inner !== 'object' || inner === null) return;
    if (Array.isArray(inner) && inner.length > (best?.length ?? 0)) best = inner;
    for (const child of Object.values(inner)) visit(child);
  };
  visit(value);
  return best;
}
