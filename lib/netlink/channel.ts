/**
 * Request and answer over one netlink socket. Calls are synchronous: the kernel does the work of a request inside
 * send, so the answer is there when send returns and the wait is only a guard.
 */
import { close, netlinkReceive, netlinkSend, openNetlink } from '../sys/sys.ts';
import { AnswerReader } from './answer.ts';
import { NetlinkError } from './error.ts';
import type { Message, MessageBuilder } from './message.ts';

/** linux/netlink.h */
const NETLINK_ROUTE = 0;
/** The kernel builds dump parts of at most 32 KB (netlink_recvmsg, "skb_size"); twice that leaves room for one big message. */
const RECEIVE_BYTES = 64 * 1024;
const ANSWER_TIMEOUT_MS = 5000;
/** A table that changes while it is read marks the dump as inconsistent. On a busy node that may happen a few times in a row. */
const DUMP_ATTEMPTS = 20;

export class Channel {
  readonly #buffer = new Uint8Array(RECEIVE_BYTES);
  readonly #handle: number;
  readonly #timeoutMs: number;
  #closed = false;
  #sequence = 0;
  /** An answer was left half read: there may be more of it. */
  #dirty = false;

  /** @param namespace path of a network namespace's file; none is the calling thread's own */
  constructor(namespace?: string, timeoutMs: number = ANSWER_TIMEOUT_MS) {
    const options = { protocol: NETLINK_ROUTE };
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

  #exchange(operation: string, builder: MessageBuilder, dump: boolean, visit: (message: Message) => void): boolean {
    if (this.#closed) throw new NetlinkError('EBADF', `${operation}: the netlink socket was closed`);
    const deadline = performance.now() + this.#timeoutMs;
    if (this.#dirty) this.#drain(deadline);
    this.#sequence = (this.#sequence + 1) >>> 0;
    const reader = new AnswerReader(operation, this.#sequence, dump, visit);
    this.#dirty = true;
    netlinkSend(this.#handle, builder.finish(this.#sequence));
    for (;;) {
      const left = Math.max(0, Math.ceil(deadline - performance.now()));
      const count = netlinkReceive(this.#handle, this.#buffer, left);
      if (count > 0 && reader.read(this.#buffer.subarray(0, count))) {
        this.#dirty = false;
        return reader.interrupted;
      }
      if (left === 0) {
        throw new NetlinkError('ETIMEDOUT', `${operation}: no answer from the kernel in ${this.#timeoutMs / 1000} s`);
      }
    }
  }

  /**
   * Reads what is left of an earlier answer and forgets it. The kernel makes the next part of a dump when one is taken,
   * and refuses a second dump (EBUSY) until the first has been read to its end.
   */
  #drain(deadline: number): void {
    while (netlinkReceive(this.#handle, this.#buffer, 0) > 0) {
      if (performance.now() > deadline) return;
    }
    this.#dirty = false;
  }

  /** Closing twice is harmless. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    close(this.#handle);
  }
}
