import t from 'tap';
import { TARGETS, targetsTable, verdicts } from '../../bench/targets.ts';
import { sampleRows } from './sample.ts';

t.test('each target is judged by the median of its ratios', async t => {
  const rows = sampleRows().map(row => (row.tunnel.startsWith('fastd') ? { ...row, tunnel: 'fastd' } : row));
  const found = verdicts(rows);
  t.equal(found.length, TARGETS.length);
  const of = (what: string) => found.find(verdict => verdict.what.startsWith(what));
  t.match(of('TCP, 1 stream, veth'), { result: 'ok', measured: '0.500 (0.450–0.500)', target: '≥ 0.5 × vxlan' });
  t.match(of('  stretch'), { result: 'missed' });
  t.match(of('TCP, 1 stream, NIC'), { result: '–', measured: 'not measured' });
  t.match(of('TCP, 1 stream, against fastd'), { result: 'ok', measured: '11.000 (10.000–12.000)' });
  t.match(of('UDP, 64 bytes at 300'), { result: 'ok', measured: '0.966 (0.867–0.971)' });
  t.match(of('UDP, 64 bytes at a rate'), { result: 'ok', measured: '4.0 % (up to 30.0)' });
  t.match(of('round trip'), { result: '–' }, 'fastd has none here');
  t.match(of('CPU'), { result: 'ok', measured: '0.100 s/Gb, the best other 0.900 (fastd)' });
  t.match(of('memory'), { result: 'ok', measured: '85.0 MB (up to 90.0)' });
  t.ok(targetsTable(rows).split('\n').length > TARGETS.length);
});

t.test('a target that is missed says so', async t => {
  const rows = sampleRows().map(row => {
    const slow = { tcp1Gbps: [9.9, 9.9, 9.9], cpuPerGb: [1, 1, 1], rssMb: [121, 121, 121] };
    return row.tunnel === 'tulle' ? { ...row, values: { ...row.values, ...slow } } : row;
  });
  const missed = verdicts(rows).filter(({ result }) => result === 'missed');
  t.same(
    missed.map(({ what }) => what.trim()),
    [
      'TCP, 1 stream, veth underlay',
      'stretch',
      'CPU per gigabit, veth underlay',
      'memory of one tulled at its highest',
    ],
  );
});
