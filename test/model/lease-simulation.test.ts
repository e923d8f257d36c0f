import t from 'tap';
import { simulate } from './lease-simulation.ts';

// A loaded machine takes its time; test/support/run.ts ends a file that hangs.
t.setTimeout(0);

t.test('200 seeds, up to 1000 nodes: what must hold holds', { timeout: 0 }, async t => {
  let [events, virtualHours, nodes] = [0, 0, 0];
  const kinds = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const result = await simulate({ seed });
    events += result.events;
    virtualHours += result.virtualHours;
    nodes = Math.max(nodes, result.nodes);
    kinds.add(result.kind);
    if (result.violation === undefined) continue;
    t.fail(`seed ${seed}: ${result.violation}; npm run simulate -- --replay ${seed} --trace`);
    t.comment(result.tail.join('\n'));
  }
  t.same([...kinds].sort(), ['changing', 'large', 'roomy', 'scarce', 'tight']);
  t.equal(nodes, 1000);
  t.comment(`${events} events, ${virtualHours.toFixed(0)} virtual hours`);
});

t.test('equal seeds give equal traces, other seeds others', { timeout: 0 }, async t => {
  for (const seed of [1, 17, 42]) {
    const [once, again, other] = [
      await simulate({ seed }),
      await simulate({ seed }),
      await simulate({ seed: seed + 1 }),
    ];
    t.equal(once.hash, again.hash);
    t.equal(once.events, again.events);
    t.not(once.hash, other.hash);
  }
});
