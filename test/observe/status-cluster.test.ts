// The cluster's status: rows out of what other machines sent, whatever that is.
import t from 'tap';
import { isClusterHealthy, printCluster, readCluster } from '../../lib/observe/status-cluster.ts';
import { below, pick, prng, testSeed } from '../support/prng.ts';

const good = {
  subnet: '10.5.1.0/24',
  node: 'node1',
  endpoint: null,
  status: {
    healthy: true,
    problems: [],
    lease: { subnet: '10.5.1.0/24', fenced: false, secondsLeft: 60 },
    drops: { a: 2, b: 3 },
  },
};
const sick = {
  ...good,
  node: 'node2',
  endpoint: '10.88.0.2:8285',
  status: { ...good.status, healthy: false, problems: [{ text: 'no registry' }], lease: { subnet: 'x', fenced: true } },
};
const away = { subnet: '10.5.3.0/24', node: null, endpoint: '10.88.0.3:8285', error: 'no answer in time' };

t.test('one line a node', async t => {
  const nodes = readCluster({ nodes: [good, sick, away] });
  t.equal(
    printCluster(nodes),
    `NODE   SUBNET       ENDPOINT        STATUS       LEASE       DROPPED
node1  10.5.1.0/24  -               healthy      1 min left  5
node2  10.5.1.0/24  10.88.0.2:8285  NOT HEALTHY  FENCED      5        no registry
-      10.5.3.0/24  10.88.0.3:8285  NO ANSWER    -           -        no answer in time
1 of 3 nodes did not answer
`,
  );
  t.equal(isClusterHealthy(nodes), false);
  t.equal(isClusterHealthy(readCluster({ nodes: [good] })), true);
  t.equal(isClusterHealthy(readCluster({ nodes: [good, away] })), false);
  t.equal(isClusterHealthy(readCluster({ nodes: [] })), false, 'nobody is not health');
});

t.test('whatever nodes send, it is a table of one line each', async t => {
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const next = prng(seed);
  const odd = [null, undefined, 0, -1, NaN, '', 'a\nb\x1b[2J', [], {}, true, [null], { nodes: 1 }, '\u0000'];
  const spoil = (value: unknown): unknown => {
    if (below(next, 6) === 0) return pick(next, odd);
    if (Array.isArray(value)) return value.map(spoil);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, spoil(inner)]));
  };
  for (let i = 0; i < 3000; i++) {
    const nodes = readCluster(spoil({ nodes: [good, sick, away] }));
    const text = printCluster(nodes);
    const silent = nodes.some(({ summary }) => summary === null) ? 1 : 0;
    if (text.split('\n').length !== nodes.length + 2 + silent) t.fail(JSON.stringify(text));
    if (text.includes('\x1b')) t.fail('an escape came through');
    isClusterHealthy(nodes);
  }
});
