/**
 * Deletes links without waiting for the kernel's housekeeping, and many at the price of one.
 *
 * A deletion has two parts (net/core/dev.c, unregister_netdevice_many and netdev_run_todo): under the rtnetlink lock the
 * link is taken out of its namespace, with its peer, addresses and routes, in a millisecond or two; then the sender waits,
 * without the lock, until every processor has let go of the memory (rcu_barrier), some 20 ms. A thread of its own sends
 * the message and waits; here we only look until the link is gone.
 *
 * Of the first part most is waiting, too (synchronize_net), and links that are deleted by one message wait together. So
 * what is asked for while another deletion is under way goes into one group (IFLA_GROUP), and the group is deleted.
 */
import { randomInt } from 'node:crypto';
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { close, netlinkReceive, netlinkSendAside, openNetlink } from '../sys/sys.ts';
import { codeOf } from '../util/errors.ts';
import { NetlinkError, refusal } from './error.ts';
import { deleteGroupMessage, deleteLinkMessage, isLinkName, setGroupMessage } from './link.ts';
import { NLMSG_ERROR, parseAcknowledgement, parseMessages } from './message.ts';
import type { Rtnetlink } from './netlink.ts';

/** linux/netlink.h */
const NETLINK_ROUTE = 0;
/** A busy node's rtnetlink lock can be taken for a second. */
const LIMIT_MS = 10_000;
/** The thread begins within tens of microseconds; a timer would come a millisecond later. */
const EAGER_TURNS = 30;
/** Names of one message: the kernel's lock is not held for more than some ten milliseconds. */
const MOST_NAMES = 64;
/** Of 2^31 groups, one that nobody uses: 0 is every link's, and people count from 1. */
const FIRST_GROUP = 2 ** 30;

interface Wish {
  name: string;
  resolve(): void;
  reject(error: unknown): void;
}

/** By its index: the message may be on its way still when the link is gone of itself and another has its name. */
interface Target {
  name: string;
  index: number;
}

const namesOf = (targets: readonly Target[]): string => targets.map(({ name }) => name).join(', ');

export class LinkRemover {
  readonly #netlink: Rtnetlink;
  readonly #namespace: string | undefined;
  readonly #acknowledgements = new Uint8Array(8192);
  #handle: number | undefined;
  #sequence = 0;
  #wishes: Wish[] = [];
  #busy = false;
  #closed = false;

  /**
   * @param netlink in the links' namespace
   * @param namespace the same namespace's path; none is this process's own
   */
  constructor(netlink: Rtnetlink, namespace: string | undefined) {
    this.#netlink = netlink;
    this.#namespace = namespace;
  }

  /** Resolves when nobody can find the link any more; a missing one is none. Rejects with the kernel's refusal. */
  remove(name: string): Promise<void> {
    if (!isLinkName(name)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#wishes.push({ name, resolve, reject });
      if (!this.#busy) void this.#work();
    });
  }

  /** What was asked for and is not done yet rejects. Closing twice is harmless. */
  close(): void {
    this.#closed = true;
    if (this.#handle !== undefined) close(this.#handle); // a sender still holds it, and lets go when the kernel lets it
    this.#handle = undefined;
  }

  /** Never rejects. */
  async #work(): Promise<void> {
    this.#busy = true;
    // Whoever asks within this turn of the event loop comes along.
    for (await undefined; this.#wishes.length > 0; ) {
      const wishes = this.#wishes.splice(0, MOST_NAMES);
      try {
        await this.#removeAll(wishes);
      } catch (error) {
        for (const wish of wishes) wish.reject(error);
      }
    }
    this.#busy = false;
  }

  async #removeAll(wishes: readonly Wish[]): Promise<void> {
    const targets = this.#present([...new Set(wishes.map(wish => wish.name))].map(name => ({ name })));
    const left = targets.length < 2 ? targets : await this.#removeGroup(targets);
    const failures = new Map<string, unknown>();
    for (const target of left) {
      await this.#send([deleteLinkMessage(target.index)], [target]).catch(error => failures.set(target.name, error));
    }
    for (const { name, resolve, reject } of wishes) {
      if (failures.has(name)) reject(failures.get(name));
      else resolve();
    }
  }

  /** Returns the links that are still there: one that cannot be deleted spoils it for all. */
  async #removeGroup(targets: readonly Target[]): Promise<Target[]> {
    const group = FIRST_GROUP + randomInt(FIRST_GROUP);
    const messages = [...targets.map(({ index }) => setGroupMessage(index, group)), deleteGroupMessage(group)];
    try {
      await this.#send(messages, targets);
      return [];
    } catch {
      return this.#present(targets);
    }
  }

  /** Resolves when none of these links is there. Rejects with what the kernel said about the last message. */
  async #send(messages: readonly ReturnType<typeof deleteLinkMessage>[], targets: readonly Target[]): Promise<void> {
    const operation = `delete link ${namesOf(targets)}`;
    if (this.#closed) throw new NetlinkError('EBADF', `${operation}: the netlink socket was closed`);
    const namespace = this.#namespace;
    this.#handle ??= openNetlink({ protocol: NETLINK_ROUTE, ...(namespace !== undefined && { namespace }) });
    const handle = this.#handle;
    const parts = messages.map(message => {
      this.#sequence = (this.#sequence + 1) >>> 0;
      return message.finish(this.#sequence);
    });
    netlinkSendAside(handle, parts.length === 1 ? parts[0] : Buffer.concat(parts));
    const deadline = performance.now() + LIMIT_MS;
    let waiting = targets;
    for (let turn = 0; ; turn++) {
      this.#throwRefusal(handle, this.#sequence, operation);
      // They go together, or one after the other.
      if (this.#present(waiting.slice(0, 1)).length === 0) waiting = this.#present(waiting);
      if (waiting.length === 0) return;
      if (performance.now() > deadline) {
        const text = `delete link ${namesOf(waiting)}: still there after ${LIMIT_MS / 1000} s`;
        throw new NetlinkError('ETIMEDOUT', text);
      }
      if (turn < EAGER_TURNS) await nextTurn();
      else await delay(1);
    }
  }

  /** Those that are there, with their indexes: one of the same name and another index is another link. */
  #present(links: readonly { name: string; index?: number }[]): Target[] {
    return links.flatMap(({ name, index }) => {
      const now = this.#netlink.linkIndex(name);
      return now === undefined || (index !== undefined && index !== now) ? [] : [{ name, index: now }];
    });
  }

  /** Reads all acknowledgements that are there; those of earlier messages came late and count no more. */
  #throwRefusal(handle: number, sequence: number, operation: string): void {
    for (;;) {
      const count = netlinkReceive(handle, this.#acknowledgements, 0);
      if (count === 0) return;
      for (const message of parseMessages(this.#acknowledgements.subarray(0, count))) {
        if (message.type !== NLMSG_ERROR || message.sequence !== sequence) continue;
        const { errno, text } = parseAcknowledgement(message);
        const error = errno === 0 ? undefined : refusal(operation, errno, text);
        if (error !== undefined && codeOf(error) !== 'ENODEV') throw error;
      }
    }
  }
}
