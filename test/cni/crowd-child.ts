/** ADDs and DELs in a loop until it is killed: crowd.test.ts starts it with the node's folder and a seed. */
import { join } from 'node:path';
import { createNodePlugin } from '../../lib/cni/node-plugin.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { below, prng } from '../support/prng.ts';
import { BRIDGE, FileRules, makeRequest } from './node.ts';

const [directory, seed] = process.argv.slice(2);
const random = prng(Number(seed));
const plugin = createNodePlugin({
  node: () => undefined,
  dataDir: join(directory, 'data'),
  rules: new FileRules(join(directory, 'rules')),
  log: silentLogger,
  namespace: join(directory, 'host'),
});
await plugin.start();
const config = { ...BRIDGE, ipMasq: true, ipam: { subnet: '10.9.0.0/29' } };

/** One pod's life; several go on at once. */
async function live(first: number): Promise<never> {
  for (;;) {
    const pod = `pod${first + 3 * below(random, 2)}`;
    const call = { containerId: pod, netns: join(directory, pod), config };
    const adds = below(random, 2) === 0;
    try {
      if (adds) await plugin.add(makeRequest('ADD', call));
      else await plugin.del(makeRequest('DEL', call));
    } catch {
      // there already, or full
    }
    process.stdout.write('.');
    await new Promise(resolve => setImmediate(resolve));
  }
}

await Promise.all([0, 1, 2].map(live));
