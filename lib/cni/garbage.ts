/**
 * What nobody uses any more. Three things tell, from the strongest word to the weakest:
 *
 *   the runtime's list   GC with valid attachments: what is not in it goes
 *   the boot             an attachment of another boot is gone, with its namespace
 *   the link             the host's end dies with the pod's namespace; while it is there somebody may be talking through it
 *
 * The namespace's file is not asked: it can be unmounted under a running pod, and it can be left behind by one that ended.
 */
import type { Rtnetlink } from '../netlink/netlink.ts';
import { hostLinkName, keyOfAlias } from './names.ts';
import type { Attachment } from './plugin.ts';
import { Problems, type Remover, removeAttachment } from './removal.ts';
import type { AttachmentRecord, AttachmentStore } from './store.ts';

export interface GarbageOptions {
  boot: string;
  /** An ADD in progress. */
  isBusy(record: AttachmentRecord): boolean;
  /** What is in use, by the runtime's word; absent: it did not say. */
  valid?: readonly Attachment[];
}

/** Whether an attachment's pod is surely gone. */
export function isDead(netlink: Rtnetlink, record: AttachmentRecord, boot: string): boolean {
  return record.boot !== boot || netlink.link(record.hostLink) === undefined;
}

/** Goes on whatever fails. @throws CniError with everything that failed */
export async function collectGarbage(remover: Remover, store: AttachmentStore, options: GarbageOptions): Promise<void> {
  const { boot, isBusy, valid } = options;
  const keys = valid === undefined ? undefined : new Set(valid.map(keyOf));
  const problems = new Problems();
  for (const record of store.list()) {
    if (isBusy(record)) continue;
    const isWanted = keys === undefined || keys.has(keyOf(record));
    if (isWanted && !isDead(remover.netlink, record, boot)) continue;
    await problems.collect(() => removeAttachment(remover, store, record));
  }
  await problems.collect(() => removeStrayLinks(remover.netlink, store, keys));
  problems.throwAny('garbage');
}

/** Links of this network that no record tells of: the records were lost. Only the runtime can say that they are stray. */
function removeStrayLinks(netlink: Rtnetlink, store: AttachmentStore, keys: ReadonlySet<string> | undefined): void {
  if (keys === undefined) return;
  for (const { name, alias } of netlink.links()) {
    const key = keyOfAlias(alias, store.network);
    if (key === undefined || keys.has(keyOf(key)) || store.get(key) !== undefined) continue;
    // A long alias was cut, and says another name then.
    if (hostLinkName(key) === name) netlink.deleteLink(name);
  }
}

const keyOf = ({ containerId, ifname }: Attachment): string => `${containerId}/${ifname}`;
