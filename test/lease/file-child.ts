// A process beside the test: node file-child.js acquire DIR NODE | churn DIR NODE
import { parseNetworkConfig } from '../../lib/lease/config.ts';
import { openFileRegistry } from '../../lib/lease/file-registry.ts';
import { subnetKey } from '../../lib/lease/lease.ts';
import { LeaseManager } from '../../lib/lease/manager.ts';

const [mode, directory, node] = process.argv.slice(2);
const registry = openFileRegistry(directory);
const config = parseNetworkConfig((await registry.config()).text);
const manager = new LeaseManager({ registry });
const attributes = {
  PublicIP: `10.88.0.${node}`,
  PublicIPv6: null,
  BackendType: 'tulle',
  BackendData: { NodeID: `n${node}` },
};
const request = { config, nodeId: `n${node}`, attributes, ttlSeconds: 600 };

if (mode === 'acquire') {
  const lease = await manager.acquire(request);
  process.stdout.write(`${subnetKey(lease)}\n`);
} else {
  // Creates, renews and removes until it is killed.
  for (let turn = 0; ; turn++) {
    const lease = await manager.acquire(request);
    if (turn === 0) process.stdout.write('ready\n');
    if (turn % 5 === 4) await registry.remove(lease);
    await new Promise(resolve => setImmediate(resolve));
  }
}
