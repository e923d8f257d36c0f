// `tulle lease why SUBNET`: who holds it, how it was chosen, who had it before and why it changed hands. Pure: from a
// history and this node's own decisions to sentences, each of which says no more than what is known.
import { type Change, type Holding, printHolder, printKey, sameHolder } from '../lease/history.ts';
import type { Decision, How } from '../lease/journal.ts';
import { formatTime, type Identity, isMine } from './lease-rows.ts';

export interface StoryInput {
  key: string;
  /** The lease of this moment. */
  current: Holding | undefined;
  /** Of this key alone, oldest first. */
  changes: readonly Change[];
  /** Of this node about this key, oldest first. */
  decisions: readonly Decision[];
  me: Identity;
  /** Where the history begins, in words; undefined: at the beginning. */
  horizon?: string;
}

/** A time for which one node held the subnet under one lease key. */
export interface Reign {
  holder: Holding;
  /** The change that began it. */
  from: Change;
  /** The change that ended it: a removal, or another holder's write over it. */
  end?: Change;
}

/** The holders of one key, oldest first. */
export function reignsOf(changes: readonly Change[]): Reign[] {
  const reigns: Reign[] = [];
  let current: Reign | undefined;
  for (const change of changes) {
    if (change.kind === 'removed') {
      if (current !== undefined) current.end = change;
      current = undefined;
    } else if (change.holding !== undefined) {
      const holder = change.holding;
      if (
        current !== undefined &&
        current.holder.createRevision === holder.createRevision &&
        isSameNode(current.holder, holder)
      ) {
        current.holder = holder; // the same lease, renewed or with other attributes
        continue;
      }
      if (current !== undefined) current.end = change;
      current = { holder, from: change };
      reigns.push(current);
    }
  }
  return reigns;
}

/** With a node id the id counts, whatever the address; without one the address does. */
const isSameNode = (a: Holding, b: Holding): boolean =>
  a.nodeId === null || b.nodeId === null ? a.publicIp === b.publicIp : a.nodeId === b.nodeId;

const HOW: Record<How, string> = {
  'own lease': 'it already had this lease and kept it',
  'subnet.env': 'subnet.env named it from the last run and nobody else had it',
  reservation: 'it is reserved for this node: the key has no TTL',
  free: 'it was drawn from the free ones',
};

export function storyOf({ key, current, changes, decisions, me, horizon }: StoryInput): string[] {
  const name = printKey(key);
  const reigns = reignsOf(changes);
  const last = reigns.at(-1);
  const sentences: string[] = [];

  if (current === undefined) sentences.push(`Nobody holds ${name} now.`);
  else {
    const who = isMine(current, me) ? printSelf(current) : printHolder(current);
    const since = printSince(current, reigns);
    sentences.push(`${name} is held by ${who}, backend ${current.backend}, since ${since}.`);
    sentences.push(...howChosen(current, decisions, me));
  }

  const before = current === undefined ? reigns : reigns.filter(reign => !isReignOf(reign, current));
  for (const reign of [...before].reverse().slice(0, MOST_REIGNS)) {
    const next = reigns[reigns.indexOf(reign) + 1];
    const who = `${reign === last && current === undefined ? 'The last to hold it was' : 'Before that it was held by'} ${printHolder(reign.holder)}`;
    const until = reign.end === undefined ? '' : ` until ${printMoment(reign.end)}`;
    sentences.push(`${who} from ${printMoment(reign.from)}${until}: ${whyEnded(reign, next, decisions, me)}.`);
  }
  if (before.length > MOST_REIGNS)
    sentences.push(
      `${before.length - MOST_REIGNS} holders before that: "tulle lease log ${name.split(' ')[0]}" tells them.`,
    );
  for (const decision of decisions.filter(isTrouble).slice(-MOST_TROUBLES)) sentences.push(printTrouble(decision));
  if (before.length === 0 && current === undefined && changes.length === 0) {
    sentences.push('No record of it is left, or there never was one.');
  }
  if (horizon !== undefined) sentences.push(horizon);
  return sentences;
}

const MOST_REIGNS = 5;
const MOST_TROUBLES = 3;

const printSelf = ({ nodeId, publicIp }: Holding): string =>
  `this node (${nodeId === null ? '' : `${nodeId}, `}${publicIp})`;

/** Since when the holder of this moment has it, no earlier than the records prove. */
function printSince(current: Holding, reigns: readonly Reign[]): string {
  const index = reigns.findIndex(reign => isReignOf(reign, current));
  if (index < 0) return `revision ${current.createRevision} at the latest`;
  const { from } = reigns[index];
  const isBeginning = from.revision === current.createRevision || reigns[index - 1]?.end === from;
  return isBeginning
    ? printMoment(from)
    : `revision ${from.revision} at the latest (its key was made at revision ${current.createRevision})`;
}

const isReignOf = ({ holder }: Reign, current: Holding): boolean =>
  holder.createRevision === current.createRevision && isSameNode(holder, current);

function howChosen(current: Holding, decisions: readonly Decision[], me: Identity): string[] {
  if (!isMine(current, me)) {
    if (current.reservation) return ['It has no TTL: it is a reservation, and its node keeps it without one.'];
    return ['How it was chosen is in the journal of its own node.'];
  }
  const chosen = decisions.findLast(
    ({ kind, lease }) =>
      (kind === 'acquired' || kind === 'reacquired') && lease.createRevision === current.createRevision,
  );
  if (chosen?.kind === 'reacquired') {
    return [
      `This node had it before, its key was gone, and it was made again at ${formatTime(Date.parse(chosen.at))} (lease key ${chosen.previousRevision} became ${current.createRevision}).`,
    ];
  }
  if (chosen?.kind === 'acquired') {
    return [`This node took it at ${formatTime(Date.parse(chosen.at))}: ${HOW[chosen.how]}.`];
  }
  if (current.reservation) return ['It has no TTL: it is reserved for this node.'];
  return ['How it was chosen is not in the journal.'];
}

function whyEnded(reign: Reign, next: Reign | undefined, decisions: readonly Decision[], me: Identity): string {
  const { holder, end } = reign;
  if (end === undefined) return 'how that ended is not recorded';
  if (end.kind === 'put') return `${next === undefined ? 'another node' : printHolder(next.holder)} wrote over it`;
  const own = isMine(holder, me)
    ? decisions.findLast(
        ({ kind, lease }) => (kind === 'released' || kind === 'lost') && lease.createRevision === holder.createRevision,
      )
    : undefined;
  const how =
    own?.kind === 'released'
      ? 'this node gave it back'
      : own?.kind === 'lost'
        ? `this node lost it (${own.reason})`
        : holder.reservation
          ? 'the reservation was removed'
          : 'it was given back, removed, or expired (a registry does not tell these apart)';
  if (next === undefined) return how;
  return sameHolder(next.holder, holder)
    ? `${how}, and the same node made it again`
    : `${how}, and ${printHolder(next.holder)} took the free subnet`;
}

const isTrouble = ({ kind }: Decision): boolean => kind === 'fenced' || kind === 'lost';

function printTrouble(decision: Decision): string {
  const when = formatTime(Date.parse(decision.at));
  if (decision.kind === 'lost') return `At ${when} this node lost it: ${decision.reason}.`;
  return `At ${when} this node could not renew it in time and stopped forwarding.`;
}

function printMoment({ revision, atMs, late }: { revision: number; atMs?: number; late?: boolean }): string {
  if (atMs === undefined) return `revision ${revision}`;
  return `revision ${revision} (${late ? 'seen at ' : ''}${formatTime(atMs)})`;
}
