import t from 'tap';
import { readDrops, readFlows } from '../../lib/datapath/counters.ts';
import { FORMAT_BARE, FORMAT_TULLE } from '../../lib/datapath/slab.ts';
import { warmUp } from '../../lib/datapath/warm-up.ts';

for (const [name, format] of Object.entries({ tulle: FORMAT_TULLE, bare: FORMAT_BARE })) {
  t.test(`what warms the ${name} format crosses whole`, async t => {
    const warming = warmUp(format);
    let steps = 0;
    for (;;) {
      const { done, value } = warming.next();
      if (!done) {
        steps++;
        continue;
      }
      const [near, far] = value;
      const flows = { ...readFlows(near.counters) };
      const arrived = readFlows(far.counters);
      t.equal(flows['egress-packets'], steps * 14, 'each kind alone, and all together');
      t.equal(flows['egress-super-packets'], steps * 2);
      t.equal(arrived['ingress-datagrams'], flows['egress-datagrams']);
      t.equal(flows['egress-bundled'] > 0, format === FORMAT_TULLE, 'bundles are of our format');
      t.ok(flows['egress-trains'] > 0 && arrived['ingress-super-packets'] > 0, 'trains, and what is made of them');
      for (const { counters } of [near, far])
        t.same(
          Object.entries(readDrops(counters)).filter(([, count]) => count > 0),
          [],
          'nothing is discarded',
        );
      return;
    }
  });
}
