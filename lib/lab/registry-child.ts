/**
 * Speaks to the lab's registry from inside the switch's namespace:
 *   registry-child.js config ENDPOINT PREFIX JSON    writes the net-conf
 *   registry-child.js leases ENDPOINT PREFIX         prints the leases, one JSON array of LeaseFacts
 *   registry-child.js past ENDPOINT PREFIX           prints what etcd remembers, a Past
 *   registry-child.js nodes KUBECONFIG NET-CONF      the leases from a lab with Kubernetes
 */
import type { Registry } from '../lease/registry.ts';
import { messageOf } from '../util/errors.ts';
import { silentLogger } from '../util/log.ts';
import { factsOf } from './leases.ts';

const [verb, endpoint, prefix, text] = process.argv.slice(2);
try {
  if (verb === 'config') {
    const { createEtcdClient } = await import('../../etcd/client.ts');
    const client = createEtcdClient({ endpoints: [endpoint] });
    await client.txn(
      { success: [{ request_put: { key: Buffer.from(`${prefix}/config`), value: Buffer.from(text) } }] },
      client.deadline(),
    );
    client.close();
  } else if (verb === 'past') {
    const { openEtcdHistory } = await import('../../etcd/history.ts');
    const history = openEtcdHistory({ endpoints: [endpoint], prefix, log: silentLogger });
    process.stdout.write(JSON.stringify(await history.past()));
    history.close();
  } else {
    const registry = await openRegistry();
    const { leases } = await registry.list();
    process.stdout.write(JSON.stringify(leases.map(factsOf)));
    await registry.close();
  }
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}

/** The clients are heavy: only the one that is needed is loaded. */
async function openRegistry(): Promise<Registry> {
  if (verb === 'nodes') {
    const { openKubeRegistry } = await import('../kube/registry.ts');
    return openKubeRegistry({ kubeconfigFile: endpoint, netConfigPath: prefix, log: silentLogger });
  }
  const { openEtcdRegistry } = await import('../../etcd/registry.ts');
  return openEtcdRegistry({ endpoints: [endpoint], prefix, exactExpiry: true, log: silentLogger });
}
