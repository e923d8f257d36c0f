import t from 'tap';
import { formatTable, metricsTable, tablesOf } from '../../bench/table.ts';
import { sampleRows } from './sample.ts';

t.test('columns line up', async t => {
  const rows = [
    ['', 'a', 'long title'],
    ['row – one', '1.00', '2'],
  ];
  t.equal(formatTable(rows, 1), '              a  long title\nrow – one  1.00           2\n');
});

t.test('a table of one underlay', async t => {
  const rows = sampleRows().slice(1, 4);
  t.equal(
    metricsTable(rows, 'veth', ['tcp1Gbps', 'tcp4Gbps', 'rssMb'], { baseline: 'vxlan', ratio: 'tcp1Gbps' }),
    `                             TCP 1      memory  × vxlan
veth underlay                 Gb/s          MB
vxlan          20.00 (20.00–24.00)           –     1.00
tulle           10.00 (9.00–12.00)  85 (80–90)     0.50
tulle-batch       1.50 (1.50–1.60)           –     0.07
`,
  );
});

t.test('groups without a figure are left out', async t => {
  const rows = sampleRows().slice(3, 4);
  const text = tablesOf(rows, 'veth', 'vxlan');
  t.match(text, /TCP 1 {2}× vxlan/);
  t.notMatch(text, /UDP|RTT|NaN|undefined/);
  t.equal(tablesOf(rows, 'nic', 'vxlan'), '');
});
