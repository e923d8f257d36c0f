// The metrics page: its format, that the documentation and the dashboard speak of the same metrics, and bounds.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { BATCH_BOUNDS, countBatch, DROP_REASONS, flowIndex, readFlows } from '../../lib/datapath/counters.ts';
import { SLOTS } from '../../lib/datapath/slab.ts';
import { RegistryError } from '../../lib/lease/registry.ts';
import { CniMeter } from '../../lib/observe/cni-meter.ts';
import { Histogram } from '../../lib/observe/histogram.ts';
import { METRICS, type MetricsInput, MOST_PEERS, metricFamilies } from '../../lib/observe/metrics.ts';
import { ProcessMeter } from '../../lib/observe/process-figures.ts';
import { writeMetrics } from '../../lib/observe/prometheus.ts';
import { RegistryMeter } from '../../lib/observe/registry-meter.ts';
import { statusDocument } from '../../lib/observe/status.ts';
import { parsePrometheus } from '../support/prometheus.ts';
import { createVirtualClock } from '../support/virtual-clock.ts';
import { statusInput } from './status-input.ts';

function findRoot(from: string): string {
  return existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from));
}
const root = findRoot(dirname(fileURLToPath(import.meta.url)));
const all = Object.values(METRICS).flat();

async function input(more: Partial<MetricsInput> = {}): Promise<MetricsInput> {
  const registry = new RegistryMeter(createVirtualClock());
  await registry.measure('config', async () => 1);
  await registry
    .measure('update', async () => {
      throw new RegistryError('unavailable', 'no answer');
    })
    .catch(() => {});
  const cni = new CniMeter();
  cni.done('ADD', 0, 3);
  cni.done('ADD', 11, 5000);
  cni.done('rubbish"\n', 777_777, 1);
  cni.done(undefined, 4, 1);
  const meter = new ProcessMeter();
  t.teardown(() => meter.close());
  return {
    status: statusDocument(statusInput()),
    registry,
    cni,
    process: meter.read(),
    nodeVersion: '20.0.0',
    nowMs: 1_800_000_000_000,
    ...more,
  };
}

t.test('every metric is there, well formed, with its type and its labels', async t => {
  const families = parsePrometheus(writeMetrics(metricFamilies(await input())));
  t.same([...families.keys()].sort(), all.map(({ name }) => name).sort());
  for (const { name, type, labels } of all) {
    const family = families.get(name);
    t.equal(family?.type, type, name);
    t.match(name, /^(tulle|process|nodejs)_[a-z0-9_]+$/);
    t.equal(name.endsWith('_total'), type === 'counter', `${name}: only counters end with _total`);
    for (const sample of family?.samples ?? []) {
      t.same(
        Object.keys(sample.labels).filter(label => label !== 'le'),
        labels,
        name,
      );
    }
  }
});

t.test('values are those of the status', async t => {
  const families = parsePrometheus(writeMetrics(metricFamilies(await input())));
  const value = (name: string, labels: Record<string, string> = {}): number | undefined =>
    families
      .get(name.replace(/_(bucket|count|sum)$/, ''))
      ?.samples.find(
        sample => sample.name === name && Object.entries(labels).every(([key, text]) => sample.labels[key] === text),
      )?.value;
  t.equal(value('tulle_packets_total', { direction: 'egress' }), 1001);
  t.equal(value('tulle_packets_total', { direction: 'ingress' }), 1008);
  t.equal(value('tulle_dropped_packets_total', { reason: 'egress-no-lease' }), 7);
  t.equal(value('tulle_lease_deadline_seconds'), 3000);
  t.equal(value('tulle_lease_renewed_timestamp_seconds'), 1_800_000_000 - 600);
  t.equal(value('tulle_peer_round_trip_seconds', { node: 'node2' }), 0.0005);
  t.equal(value('tulle_peer_loss_ratio', { node: 'node2' }), 0.05);
  t.equal(value('tulle_registry_errors_total', { verb: 'update', code: 'unavailable' }), 1);
  t.equal(value('tulle_registry_request_duration_seconds_count', { verb: 'update' }), 1);
  t.equal(value('tulle_cni_operations_total', { command: 'ADD', code: '11' }), 1);
  t.equal(value('tulle_cni_operations_total', { command: 'other', code: 'other' }), 1, 'whatever clients send');
  t.equal(value('tulle_cni_operation_duration_seconds_bucket', { command: 'ADD', le: '0.005' }), 1);
  t.equal(value('tulle_cni_operation_duration_seconds_bucket', { command: 'ADD', le: '5' }), 2);
  t.ok((value('process_resident_memory_bytes') ?? 0) > 1e6);
});

t.test('every counter of the data path is told', async t => {
  const flows = Object.keys(readFlows(new Float64Array(1000)));
  const quiet = statusDocument(statusInput());
  for (const name of [...flows, ...Object.keys(DROP_REASONS)]) {
    const loud = structuredClone(quiet);
    if (name in DROP_REASONS) loud.drops = { ...loud.drops, [name]: 987_654_321 };
    else if (/-batches-\d+$/.test(name)) {
      // A histogram's buckets are sums: of nothing else here.
      loud.counters = { ...Object.fromEntries(flows.map(flow => [flow, 0])), [name]: 987_654_321 };
    } else loud.counters = { ...loud.counters, [name]: 987_654_321 };
    t.match(writeMetrics(metricFamilies(await input({ status: loud }))), / 987654321\n/, name);
  }
});

t.test('batches by size, each where it fits', async t => {
  const counters = new Float64Array(1000);
  const sizes = [1, 1, 2, 3, 4, 5, 8, 9, 15, 16];
  for (const size of sizes) countBatch(counters, flowIndex('ingress-batches'), flowIndex('ingress-batches-1'), size);
  const status = { ...statusDocument(statusInput()), counters: readFlows(counters) };
  const { samples } = parsePrometheus(writeMetrics(metricFamilies(await input({ status })))).get('tulle_batch_size')!;
  const ingress = samples.filter(({ labels }) => labels['direction'] === 'ingress');
  t.same(
    ingress.map(({ labels, value }) => [labels['le'], value]),
    [
      ...[1, 2, 4, 8, 16].map(bound => [`${bound}`, sizes.filter(size => size <= bound).length]),
      ['+Inf', sizes.length],
      [undefined, sizes.reduce((a, b) => a + b)],
      [undefined, sizes.length],
    ],
  );
  t.equal(readFlows(counters)['ingress-batches'], sizes.length);
  t.equal(BATCH_BOUNDS.at(-1), SLOTS, 'no batch is longer');
});

t.test('a node that waits, and one that serves CNI only, have a page too', async t => {
  for (const cniOnly of [false, true]) {
    const status = statusDocument({
      ...statusInput(),
      cniOnly,
      lease: undefined,
      overlay: undefined,
      registry: undefined,
      waitingFor: 'a lease',
    });
    const families = parsePrometheus(writeMetrics(metricFamilies(await input({ status }))));
    t.equal(families.get('tulle_ready')?.samples[0].value, 0);
    t.notOk(families.has('tulle_lease_deadline_seconds'));
    t.equal(families.has('tulle_registry_up'), !cniOnly);
  }
});

t.test('labels are escaped, and peers do not grow without a bound', async t => {
  const status = statusDocument(statusInput());
  const [peer] = status.peers;
  const odd = 'a"b\\c\nd{}=,';
  status.peers = Array.from({ length: MOST_PEERS + 500 }, (_, i) => ({ ...peer, node: i === 0 ? odd : `node${i}` }));
  const families = parsePrometheus(writeMetrics(metricFamilies(await input({ status }))));
  t.equal(families.get('tulle_peers')?.samples[0].value, MOST_PEERS + 500);
  t.equal(families.get('tulle_peer_path_mtu_bytes')?.samples.length, MOST_PEERS);
  t.equal(families.get('tulle_peer_path_mtu_bytes')?.samples[0].labels['node'], odd);
});

t.test('a histogram against a naive count', async t => {
  const histogram = new Histogram([1, 2, 5]);
  const values = [0, 0.5, 1, 1.5, 2, 3, 5, 6, 1000];
  for (const value of values) histogram.observe(value);
  t.same(
    histogram.cumulative(),
    [1, 2, 5].map(bound => values.filter(value => value <= bound).length),
  );
  t.equal(histogram.count, values.length);
  t.equal(
    histogram.sum,
    values.reduce((a, b) => a + b),
  );
});

t.test('the reader of these tests is strict', async t => {
  const refused = [
    'a 1',
    'a 1\n',
    '# HELP a b\n# TYPE a counter\na -1\n',
    '# HELP a b\n# TYPE a counter\na 1\na 1\n',
    '# HELP a b\n# TYPE a gauge\nb 1\n',
    '# HELP a b\n# TYPE a gauge\na{x="1} 1\n',
    '# HELP a b\n# TYPE a gauge\na 1 \n',
    '# HELP a b\n# TYPE a histogram\na_bucket{le="1"} 2\na_bucket{le="+Inf"} 1\na_sum 1\na_count 1\n',
  ];
  for (const text of refused) t.throws(() => parsePrometheus(text), text);
});

t.test('docs/metrics.md lists exactly these', async t => {
  const text = readFileSync(join(root, 'docs/metrics.md'), 'utf8');
  const rows = [...text.matchAll(/^\| `([a-z_0-9]+)` \| (\w+) \| ([^|]*) \| (.*) \|$/gm)].map(([, ...cells]) => cells);
  t.same(
    rows,
    all.map(({ name, type, labels, help }) => [name, type, labels.map(label => `\`${label}\``).join(', '), help]),
  );
});

t.test('the dashboard asks only for what there is', async t => {
  const text = readFileSync(join(root, 'deploy/grafana/tulle.json'), 'utf8');
  const { panels, templating } = JSON.parse(text);
  const expressions: string[] = [
    ...panels.flatMap((panel: { targets?: { expr: string }[] }) => (panel.targets ?? []).map(({ expr }) => expr)),
    ...templating.list.flatMap((variable: { query?: { query?: string } }) => variable.query?.query ?? []),
  ];
  t.ok(expressions.length > 20, `${expressions.length} expressions`);
  const known = new Set(all.flatMap(({ name, type }) => (type === 'histogram' ? [`${name}_bucket`] : [name])));
  const asked = expressions.flatMap(expr => expr.match(/\b(tulle|process|nodejs)_[a-z0-9_]+/g) ?? []);
  t.same(
    [...new Set(asked)].filter(name => !known.has(name)),
    [],
  );
  const labels = new Set(all.flatMap(metric => metric.labels).concat('le', 'instance'));
  const used = panels.flatMap((panel: { targets?: { legendFormat: string }[] }) =>
    (panel.targets ?? []).flatMap(({ legendFormat }) =>
      [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(match => match[1]),
    ),
  );
  t.same(
    [...new Set<string>(used)].filter(label => !labels.has(label)),
    [],
  );
});
