/** A registry's past as the page's slider wants it: from a daemon's journal, and from the registry where that remembers. */
import { type Change, type Holding, keyOfHolding, mergeHistory, type Past, replay } from '../lease/history.ts';
import { type JournalRecord, journalChanges, viewOf } from '../lease/journal.ts';
import type { LeaseHistory } from './microscope/model.ts';

/** Changes that are shown; what was before them is the state that the slider begins with. */
const MOST_CHANGES = 500;

/** undefined: nothing is known yet. */
export function historyOf(records: readonly JournalRecord[], past?: Past): LeaseHistory | undefined {
  const { registry, revision } = viewOf(records);
  if (registry === undefined) return undefined;
  // A journal tells what its node saw in the order in which it saw it: its own lease first, then those that were there before.
  const all = mergeHistory(past, journalChanges(records, registry)).sort((a, b) => a.revision - b.revision);
  const changes = all.slice(-MOST_CHANGES);
  const before: Change[] = all.slice(0, all.length - changes.length);
  const base: Holding[] = [...replay(new Map<string, Holding>(), before).values()].sort((a, b) =>
    keyOfHolding(a) < keyOfHolding(b) ? -1 : 1,
  );
  const since = before.at(-1)?.revision ?? Math.max(0, (changes[0]?.revision ?? 1) - 1);
  return { registry, since, base, changes, revision: Math.max(revision, past?.revision ?? 0) };
}
