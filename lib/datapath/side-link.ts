/**
 * The main thread's side of the letters (mailbox.ts): errands for the worker, and its mail as objects. A few hundred a second
 * at most, so objects cost nothing here.
 */
import type { Subnet4 } from '../wire/cidr.ts';
import { type DropReason, dropName } from './counters.ts';
import {
  ERRAND_MESSAGE,
  ERRAND_PROBE,
  ERRAND_TRACE,
  LETTER_BODY,
  LETTER_BODY_BYTES,
  LETTER_KIND,
  LETTER_LENGTH,
  LETTER_NUMBER,
  LETTER_SEQUENCE,
  LETTER_STATUS,
  LETTER_STORED,
  LETTER_SUBNET,
  LETTER_TOKEN_HIGH,
  LETTER_TOKEN_LOW,
  Letters,
  letterId,
  letterTime,
  MAIL_ANSWER,
  MAIL_MESSAGE,
  MAIL_PROBE_REPLY,
  MAIL_RECEIPT,
  MAIL_TRACE_SENT,
  MAIL_TRACED,
  NOT_SENT_FENCED,
  setLetterId,
} from './mailbox.ts';
import { CONTROL_MAIL_TOLD, type Slab } from './slab.ts';

export interface ProbeErrand {
  sequence: number;
  tokenHigh: number;
  tokenLow: number;
  /** Of the whole datagram; 20 is the least. */
  length: number;
}

/** `subnet` is the address of the subnet of the peer that it is about, `at` the worker's monotonic clock in milliseconds. */
export type Mail =
  /** A probe or a message was sent: status 0; or it was not: an errno, or one of NOT_SENT_…. */
  | ({ kind: 'receipt'; subnet: number; sequence: number; status: number; length: number; at: number } & Token)
  | ({ kind: 'probe-reply'; subnet: number; key: number; sequence: number; at: number } & Token)
  /** The whole datagram. */
  | { kind: 'message'; subnet: number; key: number; datagram: Uint8Array; at: number }
  /** A packet that this peer traces came: it was delivered, or dropped for a reason. `head` is its beginning. */
  | {
      kind: 'traced';
      subnet: number;
      id: number;
      drop: DropReason | undefined;
      length: number;
      head: Uint8Array;
      at: number;
    }
  /** Our own: it left, or it was dropped. `head`: 12 bytes of tulle header (if the format has it), then the packet. */
  | { kind: 'trace-sent'; id: number; drop: DropReason | undefined; length: number; head: Uint8Array; at: number }
  /** Written to the TUN, and from the destination of the packet traced under this number or an ICMP error: look at it. */
  | { kind: 'answer'; id: number; packet: Uint8Array; length: number; at: number };

export interface Token {
  tokenHigh: number;
  tokenLow: number;
}

export class SideLink {
  readonly #slab: Slab;
  readonly #errands: Letters;
  readonly #mail: Letters;
  readonly #wake: () => void;

  constructor(slab: Slab, wake: () => void) {
    this.#slab = slab;
    this.#errands = new Letters(slab, 'errands');
    this.#mail = new Letters(slab, 'mail');
    this.#wake = wake;
  }

  /** Sends a probe to the peer that holds this subnet. False when the worker has enough to do: try again later. */
  probe(subnet: Subnet4, { sequence, tokenHigh, tokenLow, length }: ProbeErrand): boolean {
    return this.#errand(ERRAND_PROBE, subnet.address, undefined, length, word => {
      const { words } = this.#slab;
      words[word + LETTER_SEQUENCE] = sequence;
      words[word + LETTER_TOKEN_HIGH] = tokenHigh;
      words[word + LETTER_TOKEN_LOW] = tokenLow;
    });
  }

  /** Sends one part of a message; the worker writes the first 12 bytes of the datagram. */
  message(subnet: Subnet4, datagram: Uint8Array, part: number, parts: number): boolean {
    return this.#errand(ERRAND_MESSAGE, subnet.address, datagram, datagram.length, word => {
      this.#slab.words[word + LETTER_SEQUENCE] = part | (parts << 16);
    });
  }

  /** Takes an IP packet of `length` bytes, zeros behind what is given, as if the TUN had given it, marked with this number. */
  trace(packet: Uint8Array, length: number, id: number): boolean {
    return this.#errand(ERRAND_TRACE, 0, packet, length, word => setLetterId(this.#slab, word << 2, id));
  }

  /** What came since the last call, oldest first. Call it when the worker says so, and now and then for the receipts. */
  take(): Mail[] {
    Atomics.store(this.#slab.control, CONTROL_MAIL_TOLD, 0);
    const mails: Mail[] = [];
    for (let at = this.#mail.first(); at >= 0; at = this.#mail.first()) {
      const mail = this.#read(at);
      if (mail !== undefined) mails.push(mail);
      this.#mail.taken();
    }
    return mails;
  }

  #errand(
    kind: number,
    subnet: number,
    body: Uint8Array | undefined,
    length: number,
    fill: (word: number) => void,
  ): boolean {
    const { bytes, words } = this.#slab;
    const stored = body?.length ?? 0;
    if (stored > LETTER_BODY_BYTES) throw new RangeError(`a letter of ${stored} bytes`);
    const at = this.#errands.reserve();
    if (at < 0) return false;
    const word = at >> 2;
    words[word + LETTER_KIND] = kind;
    words[word + LETTER_SUBNET] = subnet;
    words[word + LETTER_STORED] = stored;
    words[word + LETTER_LENGTH] = length;
    if (body !== undefined) bytes.set(body, at + LETTER_BODY);
    fill(word);
    this.#errands.put();
    this.#wake();
    return true;
  }

  #read(at: number): Mail | undefined {
    const { words, bytes } = this.#slab;
    const word = at >> 2;
    const of = (field: number): number => words[word + field];
    const when = letterTime(this.#slab, at);
    const subnet = of(LETTER_SUBNET) >>> 0;
    const key = of(LETTER_NUMBER) >>> 0;
    const token = { tokenHigh: of(LETTER_TOKEN_HIGH) >>> 0, tokenLow: of(LETTER_TOKEN_LOW) >>> 0 };
    const length = of(LETTER_LENGTH);
    const body = (): Uint8Array => bytes.slice(at + LETTER_BODY, at + LETTER_BODY + of(LETTER_STORED));
    switch (of(LETTER_KIND)) {
      case MAIL_RECEIPT:
        return {
          kind: 'receipt',
          subnet,
          sequence: of(LETTER_SEQUENCE),
          status: of(LETTER_STATUS),
          length,
          at: when,
          ...token,
        };
      case MAIL_PROBE_REPLY:
        return { kind: 'probe-reply', subnet, key, sequence: of(LETTER_SEQUENCE), at: when, ...token };
      case MAIL_MESSAGE:
        return { kind: 'message', subnet, key, datagram: body(), at: when };
      case MAIL_TRACED: {
        const status = of(LETTER_STATUS);
        const drop = status < 0 ? undefined : dropName(status);
        return { kind: 'traced', subnet, id: letterId(this.#slab, at), drop, length, head: body(), at: when };
      }
      case MAIL_TRACE_SENT: {
        const status = of(LETTER_STATUS);
        const drop = status === NOT_SENT_FENCED ? 'egress-fenced' : status < 0 ? undefined : dropName(status);
        return { kind: 'trace-sent', id: letterId(this.#slab, at), drop, length, head: body(), at: when };
      }
      case MAIL_ANSWER:
        return { kind: 'answer', id: letterId(this.#slab, at), packet: body(), length, at: when };
      default:
        return undefined;
    }
  }
}
