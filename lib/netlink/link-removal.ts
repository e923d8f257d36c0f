/**
 * Deletes a link without waiting for the kernel's housekeeping. A deletion has two parts (net/core/dev.c,
 * unregister_netdevice_many and netdev_run_todo): under the rtnetlink lock the link is taken out of its namespace, with
 * its peer, addresses and routes, in a millisecond or two; then the sender waits, without the lock, until every processor
 * has let go of the memory (rcu_barrier), some 20 ms. A thread of its own sends the message and waits; here we only look
 * until the link is gone.
 */
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { close, netlinkReceive, netlinkSendAside, openNetlink } from '../sys/sys.ts';
import { codeOf } from '../util/errors.ts';
import { AnswerReader } from './answer.ts';
import { NetlinkError } from './error.ts';
import { deleteLinkMessage, isLinkName } from './link.ts';
import type { Rtnetlink } from './netlink.ts';

/** linux/netlink.h */
const NETLINK_ROUTE = 0;
/** A busy node's rtnetlink lock can be taken for a second. */
const LIMIT_MS = 10_000;

/**
 * Resolves when nobody can find the link any more; a missing one is none. Rejects with the kernel's refusal.
 * @param netlink in the link's namespace
 * @param namespace the same namespace's path; none is this process's own
 */
export async function removeLink(netlink: Rtnetlink, namespace: string | undefined, name: string): Promise<void> {
  if (!isLinkName(name) || netlink.link(name) === undefined) return;
  const operation = `delete link ${name}`;
  const options = { protocol: NETLINK_ROUTE };
  const handle = openNetlink(namespace === undefined ? options : { ...options, namespace });
  try {
    netlinkSendAside(handle, deleteLinkMessage(name).finish(1));
    const deadline = performance.now() + LIMIT_MS;
    for (let turn = 0; !hasAnswer(handle, operation) && netlink.link(name) !== undefined; turn++) {
      if (performance.now() > deadline) {
        throw new NetlinkError('ETIMEDOUT', `${operation}: it is still there after ${LIMIT_MS / 1000} s`);
      }
      if (turn < 3) await nextTurn();
      else await delay(1);
    }
  } finally {
    close(handle); // the sender still holds it, and lets go when the kernel lets it
  }
}

/** True when the kernel has acknowledged; throws when it has refused. */
function hasAnswer(handle: number, operation: string): boolean {
  const buffer = new Uint8Array(4096);
  const count = netlinkReceive(handle, buffer, 0);
  if (count === 0) return false;
  try {
    return new AnswerReader(operation, 1, false, () => {}).read(buffer.subarray(0, count));
  } catch (error) {
    if (codeOf(error) === 'ENODEV') return true;
    throw error;
  }
}
