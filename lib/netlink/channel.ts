/**
 * Request and answer over one netlink socket. Calls are synchronous: the kernel does the work of a request inside
 * send, so the answer is there when send returns and the wait is only a guard.
 */
import {
  close,
  errnoName,
  netlinkExchange,
  netlinkLinkIndex,
  netlinkReceive,
  netlinkSend,
  openNetlink,
} from '../sys/sys.ts';
import { AnswerReader } from './answer.ts';
import { NetlinkError, refusal } from './error.ts';
import {
  type Message,
  type MessageBuilder,
  NLMSG_DONE,
  NLMSG_ERROR,
  parseAcknowledgement,
  parseMessages,
} from './message.ts';

/** linux/netlink.h */
const NETLINK_ROUTE = 0;
/** The kernel builds dump parts of at most 32 KB (netlink_recvmsg, "skb_size"); twice that leaves room for one big message. */
const RECEIVE_BYTES = 64 * 1024;
const ANSWER_TIMEOUT_MS = 5000;
/** A table that changes while it is read marks the dump as inconsistent. On a busy node that may happen a few times in a row. */
const DUMP_ATTEMPTS = 20;

/** Of all channels of this thread: a call reads what it received before it returns. */
const buffer = new Uint8Array(RECEIVE_BYTES);

/** One of several requests that are sent in one piece. */
export interface Request {
  /** what is asked for, in words that start an error message */
  operation: string;
  /** built with NLM_F_ACK, or NLM_F_DUMP */
  builder: MessageBuilder;
  /** called with each data message; the payload is borrowed until it returns, and it must not use a channel */
  visit?: (message: Message) => void;
}

/** A request that the kernel refused. Often that is an answer as good as any, so it is no Error yet. */
export interface Refusal {
  /** the errno name */
  code: string;
  error(): NetlinkError;
}

export class Channel {
  readonly #handle: number;
  readonly #timeoutMs: number;
  #closed = false;
  #sequence = 0;
  /** An answer was left half read: there may be more of it. */
  #dirty = false;

  /**
   * @param namespace path of a network namespace's file; none is the calling thread's own
   * @param protocol of linux/netlink.h
   */
  constructor(namespace?: string, timeoutMs: number = ANSWER_TIMEOUT_MS, protocol: number = NETLINK_ROUTE) {
    const options = { protocol };
    this.#handle = openNetlink(namespace === undefined ? options : { ...options, namespace });
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Sends a request that was built with NLM_F_ACK and waits for the acknowledgement.
   * @param operation what is asked for, in words that start an error message: "create veth a"
   * @param visit is called with each data message; the payload is borrowed until it returns
   */
  request(operation: string, builder: MessageBuilder, visit: (message: Message) => void = () => {}): void {
    this.#exchange(operation, builder, false, visit);
  }

  /** Sends a dump request. Repeats it when the kernel says that the answer is inconsistent. */
  dump<T>(operation: string, builder: MessageBuilder, parse: (message: Message) => T | undefined): T[] {
    for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
      const found: T[] = [];
      const interrupted = this.#exchange(operation, builder, true, message => {
        const item = parse(message);
        if (item !== undefined) found.push(item);
      });
      if (!interrupted) return found;
    }
    throw new NetlinkError(
      'EAGAIN',
      `${operation}: the table changed during each of ${DUMP_ATTEMPTS} readings: try again`,
    );
  }

  /**
   * Sends requests in one piece; at most the last is a dump, and of one link only. The kernel does one after the other,
   * whatever became of those before. Returns what was refused, by the request's place.
   *
   * A dump of one link is in one part, which the kernel makes in one go. NLM_F_DUMP_INTR tells of a change between two
   * parts, or between the last one and the end's message: here it would be a false alarm, so nobody looks at it.
   */
  each(requests: readonly Request[]): ReadonlyMap<number, Refusal> {
    const operation = requests[0].operation;
    if (this.#closed) throw new NetlinkError('EBADF', `${operation}: the netlink socket was closed`);
    const deadline = performance.now() + this.#timeoutMs;
    if (this.#dirty) this.#drain(deadline);
    const first = this.#sequence + 1;
    const parts = requests.map(({ builder }) => {
      this.#sequence = (this.#sequence + 1) >>> 0;
      return builder.finish(this.#sequence);
    });
    const refused = new Map<number, Refusal>();
    let open = requests.length;
    this.#dirty = true;
    let count = netlinkExchange(this.#handle, parts.length === 1 ? parts[0] : Buffer.concat(parts), buffer);
    for (;;) {
      for (const message of parseMessages(buffer.subarray(0, count))) {
        const place = (message.sequence - first) >>> 0;
        if (place >= requests.length) continue;
        const request = requests[place];
        if (message.type !== NLMSG_ERROR && message.type !== NLMSG_DONE) {
          request.visit?.(message);
          continue;
        }
        const { errno, text } = parseAcknowledgement(message);
        if (errno !== 0) {
          refused.set(place, { code: errnoName(errno), error: () => refusal(request.operation, errno, text) });
        }
        open--;
      }
      if (open === 0) break;
      const left = Math.max(0, Math.ceil(deadline - performance.now()));
      count = netlinkReceive(this.#handle, buffer, left);
      if (count === 0 && left === 0) {
        throw new NetlinkError('ETIMEDOUT', `${operation}: no answer from the kernel in ${this.#timeoutMs / 1000} s`);
      }
    }
    this.#dirty = false;
    return refused;
  }

  /**
   * Sends messages that belong together in one piece, each built with NLM_F_ACK, and waits until each is acknowledged.
   * `begin` and `end` enclose them (NFNL_MSG_BATCH_BEGIN and _END) and get no acknowledgement. Throws the first refusal;
   * the kernel has then done none of it.
   */
  batch(operation: string, begin: MessageBuilder, messages: readonly MessageBuilder[], end: MessageBuilder): void {
    if (this.#closed) throw new NetlinkError('EBADF', `${operation}: the netlink socket was closed`);
    const deadline = performance.now() + this.#timeoutMs;
    if (this.#dirty) this.#drain(deadline);
    const parts = [begin, ...messages, end].map(builder => {
      this.#sequence = (this.#sequence + 1) >>> 0;
      return { sequence: this.#sequence, bytes: builder.finish(this.#sequence) };
    });
    const open = new Set(parts.slice(1, -1).map(part => part.sequence));
    this.#dirty = true;
    netlinkSend(this.#handle, Buffer.concat(parts.map(part => part.bytes)));
    while (open.size > 0) {
      const left = Math.max(0, Math.ceil(deadline - performance.now()));
      const count = netlinkReceive(this.#handle, buffer, left);
      if (count === 0 && left === 0) {
        throw new NetlinkError('ETIMEDOUT', `${operation}: no answer from the kernel in ${this.#timeoutMs / 1000} s`);
      }
      for (const message of parseMessages(buffer.subarray(0, count))) {
        if (message.type !== NLMSG_ERROR || !parts.some(part => part.sequence === message.sequence)) continue;
        const { errno, text } = parseAcknowledgement(message);
        if (errno !== 0) throw refusal(operation, errno, text);
        open.delete(message.sequence);
      }
    }
    this.#dirty = false;
  }

  #exchange(operation: string, builder: MessageBuilder, dump: boolean, visit: (message: Message) => void): boolean {
    if (this.#closed) throw new NetlinkError('EBADF', `${operation}: the netlink socket was closed`);
    const deadline = performance.now() + this.#timeoutMs;
    if (this.#dirty) this.#drain(deadline);
    this.#sequence = (this.#sequence + 1) >>> 0;
    const reader = new AnswerReader(operation, this.#sequence, dump, visit);
    this.#dirty = true;
    let count = netlinkExchange(this.#handle, builder.finish(this.#sequence), buffer);
    for (;;) {
      if (count > 0 && reader.read(buffer.subarray(0, count))) {
        this.#dirty = false;
        return reader.interrupted;
      }
      const left = Math.max(0, Math.ceil(deadline - performance.now()));
      count = netlinkReceive(this.#handle, buffer, left);
      if (count === 0 && left === 0) {
        throw new NetlinkError('ETIMEDOUT', `${operation}: no answer from the kernel in ${this.#timeoutMs / 1000} s`);
      }
    }
  }

  /**
   * Reads what is left of an earlier answer and forgets it. The kernel makes the next part of a dump when one is taken,
   * and refuses a second dump (EBUSY) until the first has been read to its end.
   */
  #drain(deadline: number): void {
    while (netlinkReceive(this.#handle, buffer, 0) > 0) {
      if (performance.now() > deadline) return;
    }
    this.#dirty = false;
  }

  /** 0: there is none. Without waiting for the kernel's lock; see netlinkLinkIndex. */
  linkIndex(name: string): number {
    if (this.#closed) throw new NetlinkError('EBADF', `look up link ${name}: the netlink socket was closed`);
    return netlinkLinkIndex(this.#handle, name);
  }

  /** Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    close(this.#handle);
  }
}
