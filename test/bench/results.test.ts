import t from 'tap';
import { Collector, jsonLines, lastRun, quickLine, ratioOf, rowOf, summaryOf } from '../../bench/results.ts';
import { sampleRun } from './sample.ts';

t.test('visits become rows, with a gap where there was none', async t => {
  const collector = new Collector();
  const tulle = { tunnel: 'tulle', kind: 'user', underlay: 'veth' } as const;
  collector.add({ ...tulle, tunnel: 'vxlan', kind: 'kernel' }, 0, { tcp1Gbps: 20 });
  collector.add(tulle, 1, { tcp1Gbps: 10, rssMb: null });
  collector.add({ ...tulle, underlay: 'nic' }, 0, { tcp1Gbps: 5 });
  t.same(collector.rows(2), [
    { ...tulle, tunnel: 'vxlan', kind: 'kernel', values: { tcp1Gbps: [20, null] } },
    { ...tulle, values: { tcp1Gbps: [null, 10], rssMb: [null, null] } },
    { ...tulle, underlay: 'nic', values: { tcp1Gbps: [5, null] } },
  ]);
});

t.test('JSON lines say all that a comparison needs, and are read back', async t => {
  const run = sampleRun();
  const text = jsonLines(run, 'vxlan');
  const lines = text.trimEnd().split('\n');
  t.equal(lines.length, run.rows.length);
  const [, , tulle] = lines.map(line => JSON.parse(line));
  t.match(tulle, {
    run: '2026-11-21T03:00:00.000Z',
    commit: '0123456789ab',
    dirty: false,
    quick: false,
    rounds: 3,
    tunnel: 'tulle',
    underlay: 'veth',
    metrics: { tcp1Gbps: { median: 10, min: 9, max: 12, values: [10, 12, 9] } },
    ratioTo_vxlan: { tcp1Gbps: 0.5 },
    machine: { cores: 2 },
  });
  const quick = jsonLines({ ...run, quick: true, whole: false }, 'vxlan');
  const older = jsonLines(
    { ...run, rounds: 1, machine: { ...run.machine, date: '2026-01-01T00:00:00.000Z' } },
    'vxlan',
  );
  // What no round has is not stored.
  const rows = run.rows.map(row => {
    const { tcp4Gbps: _, ...values } = row.values;
    return { ...row, values };
  });
  t.same(lastRun(older + text + quick), { ...run, rows }, 'the last whole one');
  t.equal(lastRun(quick), undefined);
  t.equal(lastRun(''), undefined);
});

t.test('the line of --quick', async t => {
  const { rows } = JSON.parse(quickLine(sampleRun().rows));
  const keys = ['tunnel', 'underlay', 'tcp1Gbps', 'tcp4Gbps', 'rttMs', 'udp64Kpps', 'udp64LossPct', 'cpuPerGb'];
  for (const row of rows) t.same(Object.keys(row), keys);
  t.match(rows[2], { tunnel: 'tulle', underlay: 'veth', tcp1Gbps: 10, tcp4Gbps: null, rttMs: 0.1 });
});

t.test('ratios are of rows of one underlay', async t => {
  const { rows } = sampleRun();
  const [tulle, vxlan] = ['tulle', 'vxlan'].map(tunnel => rowOf(rows, tunnel, 'veth'));
  t.same(ratioOf(tulle, vxlan, 'tcp1Gbps'), { median: 0.5, min: 0.45, max: 0.5, count: 3 });
  t.equal(ratioOf(tulle, undefined, 'tcp1Gbps'), null);
  t.equal(summaryOf(undefined, 'tcp1Gbps'), null);
});
