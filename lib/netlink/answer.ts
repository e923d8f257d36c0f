/** What belongs to an answer, when it is complete, and when it is a refusal. Opens no socket. */
import { constants } from 'node:os';
import { refusal } from './error.ts';
import {
  type Message,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_NOOP,
  NLMSG_OVERRUN,
  parseAcknowledgement,
  parseMessages,
} from './message.ts';

/**
 * Judges what one receive gave, for the request with this sequence number. Answers to earlier requests (one that timed
 * out, say) are skipped. Calls `visit` for every data message.
 */
export class AnswerReader {
  readonly #operation: string;
  readonly #sequence: number;
  readonly #dump: boolean;
  readonly #visit: (message: Message) => void;
  interrupted = false;

  /** @param dump whether NLMSG_DONE ends the answer; else an NLMSG_ERROR (acknowledgement) does */
  constructor(operation: string, sequence: number, dump: boolean, visit: (message: Message) => void) {
    this.#operation = operation;
    this.#sequence = sequence;
    this.#dump = dump;
    this.#visit = visit;
  }

  /** True when the answer is complete. Throws the kernel's refusal. */
  read(bytes: Uint8Array): boolean {
    for (const message of parseMessages(bytes)) {
      if (message.sequence !== this.#sequence) continue;
      if ((message.flags & NLM_F_DUMP_INTR) !== 0) this.interrupted = true;
      switch (message.type) {
        case NLMSG_NOOP:
          break;
        case NLMSG_OVERRUN:
          throw refusal(this.#operation, constants.errno.ENOBUFS);
        case NLMSG_ERROR:
        case NLMSG_DONE: {
          const { errno, text } = parseAcknowledgement(message);
          if (errno !== 0) throw refusal(this.#operation, errno, text);
          if ((message.type === NLMSG_DONE) === this.#dump) return true;
          break;
        }
        default:
          this.#visit(message);
      }
    }
    return false;
  }
}
