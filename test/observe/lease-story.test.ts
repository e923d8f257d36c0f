// `why` as transcripts: what happened on the left, what is told on the right.
import t from 'tap';
import type { Change, Holding } from '../../lib/lease/history.ts';
import type { Decision } from '../../lib/lease/journal.ts';
import { storyOf } from '../../lib/observe/lease-story.ts';

const key = '10.5.1.0-24';
const me = { nodeId: 'me', addresses: new Set(['10.88.0.2']) };
const time = (minute: number): number => Date.UTC(2026, 7, 1, 12, minute);
const at = (minute: number): string => new Date(time(minute)).toISOString();

function held(nodeId: string | null, createRevision: number, more: Partial<Holding> = {}): Holding {
  const base = { subnet: '10.5.1.0/24', publicIp: `10.88.0.${(nodeId ?? 'x').length}`, nodeId, backend: 'tulle' };
  return { ...base, reservation: false, createRevision, modRevision: createRevision, ...more };
}
const put = (holding: Holding, more: Partial<Change> = {}): Change => ({
  kind: 'put',
  key,
  holding,
  revision: holding.modRevision,
  ...more,
});
const removed = (revision: number, more: Partial<Change> = {}): Change => ({ kind: 'removed', key, revision, ...more });

t.test('our own, drawn from the free ones', async t => {
  const lease = held('me', 7);
  const decisions: Decision[] = [{ at: at(1), kind: 'acquired', how: 'free', lease }];
  t.same(storyOf({ key, current: lease, changes: [put(lease, { atMs: time(0) })], decisions, me }), [
    '10.5.1.0/24 is held by this node (me, 10.88.0.2), backend tulle, since revision 7 (2026-08-01 12:00:00Z).',
    'This node took it at 2026-08-01 12:01:00Z: it was drawn from the free ones.',
  ]);
});

t.test("another's, that expired and was taken by a third, renewed since", async t => {
  const [a, b] = [held('a', 3), held('bb', 9)];
  const renewed = { ...b, modRevision: 12 };
  t.same(
    storyOf({
      key,
      current: renewed,
      changes: [put(a), removed(8, { atMs: time(3) }), put(b), put(renewed)],
      decisions: [],
      me,
    }),
    [
      '10.5.1.0/24 is held by node bb (10.88.0.2), backend tulle, since revision 9.',
      'How it was chosen is in the journal of its own node.',
      'Before that it was held by node a (10.88.0.1) from revision 3 until revision 8 (2026-08-01 12:03:00Z): it was given back, removed, or expired (a registry does not tell these apart), and node bb (10.88.0.2) took the free subnet.',
    ],
  );
});

t.test('written over, as flannel does: said so', async t => {
  const [a, b] = [held(null, 3, { publicIp: '10.88.0.7' }), held(null, 3, { publicIp: '10.88.0.8', modRevision: 5 })];
  const story = storyOf({ key, current: b, changes: [put(a), put(b)], decisions: [], me });
  t.match(story[0], /since revision 5\.$/);
  t.match(story[2], /held by node 10\.88\.0\.7 from revision 3 until revision 5: node 10\.88\.0\.8 wrote over it\.$/);
});

t.test('lost, fenced, given back, made again', async t => {
  const [first, second] = [held('me', 3), held('me', 9)];
  const decisions: Decision[] = [
    { at: at(1), kind: 'fenced', lease: first },
    { at: at(2), kind: 'released', lease: first },
    { at: at(3), kind: 'reacquired', lease: second, previousRevision: 3 },
  ];
  t.same(storyOf({ key, current: second, changes: [put(first), removed(8), put(second)], decisions, me }), [
    '10.5.1.0/24 is held by this node (me, 10.88.0.2), backend tulle, since revision 9.',
    'This node had it before, its key was gone, and it was made again at 2026-08-01 12:03:00Z (lease key 3 became 9).',
    'Before that it was held by node me (10.88.0.2) from revision 3 until revision 8: this node gave it back, and the same node made it again.',
    'At 2026-08-01 12:01:00Z this node could not renew it in time and stopped forwarding.',
  ]);
});

t.test('free, a reservation, unknown, and where the history begins', async t => {
  const reserved = held(null, 3, { reservation: true });
  t.match(
    storyOf({ key, current: reserved, changes: [], decisions: [], me }),
    ['since revision 3 at the latest.', 'It has no TTL: it is a reservation, and its node keeps it without one.'].map(
      text => new RegExp(text.replace(/[.]/g, '\\.')),
    ),
  );
  const last = held('a', 3);
  t.match(storyOf({ key, current: undefined, changes: [put(last), removed(5)], decisions: [], me }), [
    'Nobody holds 10.5.1.0/24 now.',
    /^The last to hold it was node a \(10\.88\.0\.1\) from revision 3 until revision 5: it was given back/,
  ]);
  t.same(storyOf({ key, current: undefined, changes: [], decisions: [], me, horizon: 'It began at 5.' }), [
    'Nobody holds 10.5.1.0/24 now.',
    'No record of it is left, or there never was one.',
    'It began at 5.',
  ]);
  const base = held('a', 3, { modRevision: 8 }); // all that a compaction left
  t.match(
    storyOf({ key, current: base, changes: [put(base)], decisions: [], me })[0],
    /since revision 8 at the latest \(its key was made at revision 3\)/,
  );
});

t.test('many holders: the last five, and where the others are', async t => {
  const changes = Array.from({ length: 8 }, (_, i) => [put(held(`n${i}`, 10 * i + 1)), removed(10 * i + 2)]).flat();
  const story = storyOf({ key, current: undefined, changes, decisions: [], me });
  t.equal(story.length, 7);
  t.match(story.at(-1), /^3 holders before that: "tulle lease log 10\.5\.1\.0\/24"/);
});
