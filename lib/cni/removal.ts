/**
 * Takes an attachment down by its record, whatever is left of it: DEL, GC, the undo of a failed ADD and the start after a
 * crash all come here. Every part is tried, whatever became of the others; the record is struck out only when all is
 * gone, so that what could not be removed is tried again.
 */
import type { LinkRemover } from '../netlink/link-removal.ts';
import { type Link, type Rtnetlink, withRtnetlink } from '../netlink/netlink.ts';
import { codeOf, messageOf } from '../util/errors.ts';
import { runDelegate } from './delegate.ts';
import type { HostRules, RuleKey } from './host-rules.ts';
import { aliasOf, hostLinkName } from './names.ts';
import { CNI_ERROR, CniError } from './plugin.ts';
import type { AttachmentRecord, AttachmentStore } from './store.ts';

export interface Remover {
  netlink: Rtnetlink;
  links: LinkRemover;
  rules: HostRules;
  /** The host's namespace, for plugins that are run; absent: this process's own. */
  namespace: string | undefined;
}

/** @throws CniError with everything that could not be removed */
export async function removeAttachment(
  { links, rules, namespace }: Remover,
  store: AttachmentStore,
  record: AttachmentRecord,
): Promise<void> {
  const { containerId, ifname, hostLink, delegated } = record;
  const key = { network: store.network, containerId, ifname };
  const problems = new Problems();
  await problems.collect(() => links.remove(hostLink));
  if (record.rules) await problems.collect(() => rules.detach(key));
  if (delegated !== undefined) {
    const { type, path, argsText, config } = delegated;
    const call = { command: 'DEL' as const, type, path, argsText, config: { ...config }, containerId, ifname };
    const netns = stillThere(record) ? record.netns : '';
    await problems.collect(() => runDelegate({ ...call, netns, ...(namespace !== undefined && { namespace }) }));
  }
  problems.throwAny(`${containerId} ${ifname}`);
  // Not what the same names stand for by now.
  if (store.get(record) === record) store.end(record);
}

/** The namespace's file leads to one that has the interface: then another plugin may want to look inside. */
function stillThere({ netns, ifname }: AttachmentRecord): boolean {
  try {
    return withRtnetlink(netns, netlink => netlink.link(ifname)) !== undefined;
  } catch {
    return false;
  }
}

/**
 * Deletes an interface that no record tells of, if it is there and could be ours.
 * @param netns '' where there is nothing to look into, or nothing in it is this attachment's
 */
export function removeUnrecorded(netlink: Rtnetlink, key: RuleKey, netns: string): void {
  netlink.deleteLink(hostLinkName(key));
  if (netns === '') return;
  try {
    withRtnetlink(netns, inside => {
      const link = inside.link(key.ifname);
      if (link?.kind === 'veth' && !isOfAnother(netlink, link, key)) inside.deleteLink(key.ifname);
    });
  } catch (error) {
    // A namespace that is gone, or is none any more, has no interface.
    if (!['ENOENT', 'EINVAL', 'ENOTDIR', 'ENXIO', 'ESRCH'].includes(codeOf(error) ?? '')) throw error;
  }
}

/** Its far end, if that is in the host, says what it is. */
function isOfAnother(netlink: Rtnetlink, { peerIndex }: Link, key: RuleKey): boolean {
  if (peerIndex === undefined) return false;
  const batch = netlink.batch();
  const host = batch.link(peerIndex);
  batch.run();
  return host.value?.alias?.startsWith('tulle:') === true && host.value.alias !== aliasOf(key);
}

/** Errors of steps that do not depend on one another. */
export class Problems {
  readonly #found: unknown[] = [];

  async collect(action: () => unknown): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.#found.push(error);
    }
  }

  /** One error: the only one as it is, several in one line. */
  throwAny(what: string): void {
    const [first, ...others] = this.#found;
    if (first === undefined) return;
    if (others.length === 0 && first instanceof CniError) throw first;
    const text = this.#found.map(messageOf).join('; ');
    throw new CniError(CNI_ERROR.internal, `${what} could not be removed entirely: ${text}`, { cause: first });
  }
}
