/** The past that the page's slider walks through. */
import t from 'tap';
import { replay } from '../../lib/lease/history.ts';
import type { JournalRecord } from '../../lib/lease/journal.ts';
import { historyOf } from '../../lib/observe/page-history.ts';

const holding = (n: number, revision: number) => ({
  subnet: `10.42.${n}.0/24`,
  publicIp: `10.88.0.${n}`,
  nodeId: `node${n}`,
  backend: 'tulle',
  reservation: false,
  createRevision: revision,
  modRevision: revision,
});
const at = '2026-11-21T09:00:00.000Z';
const start: JournalRecord = { at, kind: 'start', node: 'node1', publicIp: '10.88.0.1', registry: 'file:/x' };
const put = (n: number, revision: number): JournalRecord => ({
  at,
  kind: 'put',
  revision,
  lease: holding(n, revision),
});

t.test('nothing is known before a start', async t => {
  t.equal(historyOf([]), undefined);
});

t.test('in the order of the registry, not of what one node saw first', async t => {
  const history = historyOf([start, put(1, 2), put(2, 1), { at, kind: 'removed', revision: 3, lease: holding(2, 1) }]);
  t.same(
    history?.changes.map(({ kind, revision }) => [kind, revision]),
    [
      ['put', 1],
      ['put', 2],
      ['removed', 3],
    ],
  );
  t.match(history, { registry: 'file:/x', since: 0, base: [], revision: 3 });
});

t.test('of a long one the end, on the state that it begins with', async t => {
  const records = [start, ...Array.from({ length: 700 }, (_, i) => put((i % 250) + 1, i + 1))];
  const history = historyOf(records);
  t.equal(history?.changes.length, 500);
  t.equal(history?.base.length, 200, 'what the first 200 changes left');
  t.equal(history?.since, 200);
  const state = new Map(history?.base.map(each => [each.subnet.replace('/', '-'), each]));
  const whole = replay(state, history?.changes ?? []);
  t.equal(whole.size, 250);
  t.equal(whole.get('10.42.200.0-24')?.modRevision, 700);
});

t.test('what etcd remembers is told with the times of the journal', async t => {
  const past = {
    since: 4,
    base: [holding(1, 2)],
    changes: [{ kind: 'put' as const, key: '10.42.2.0-24', holding: holding(2, 5), revision: 5 }],
    revision: 9,
  };
  const history = historyOf([start, put(1, 2), put(2, 5)], past);
  t.same(
    history?.changes.map(({ revision, atMs }) => [revision, atMs]),
    [
      [2, Date.parse(at)],
      [5, Date.parse(at)],
    ],
  );
  t.equal(history?.revision, 9);
});
