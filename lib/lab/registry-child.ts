/**
 * Speaks to the lab's etcd from inside the switch's namespace:
 *   registry-child.js config ENDPOINT PREFIX JSON    writes the net-conf
 *   registry-child.js leases ENDPOINT PREFIX         prints the leases, one JSON array of LeaseFacts
 */
import { createEtcdClient } from '../../etcd/client.ts';
import { openEtcdRegistry } from '../../etcd/registry.ts';
import { messageOf } from '../util/errors.ts';
import { silentLogger } from '../util/log.ts';
import { factsOf } from './leases.ts';

const [verb, endpoint, prefix, text] = process.argv.slice(2);
try {
  if (verb === 'config') {
    const client = createEtcdClient({ endpoints: [endpoint] });
    await client.txn(
      { success: [{ request_put: { key: Buffer.from(`${prefix}/config`), value: Buffer.from(text) } }] },
      client.deadline(),
    );
    client.close();
  } else {
    const registry = openEtcdRegistry({ endpoints: [endpoint], prefix, exactExpiry: true, log: silentLogger });
    const { leases } = await registry.list();
    process.stdout.write(JSON.stringify(leases.map(factsOf)));
    await registry.close();
  }
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
