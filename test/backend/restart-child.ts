/**
 * Node 1's overlay in a process of its own, because a data path is made again in the namespace that its process is in. Told a
 * revision, it loses its worker, gets a lease with a key of that revision while there is none, and says what it dropped.
 */
import { startOverlay } from '../../lib/backend/overlay.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { NETWORK } from '../support/node.ts';
import { leaseOf } from '../support/overlays.ts';

const overlay = await startOverlay({
  backend: { type: 'tulle', port: 8285 },
  ...NETWORK,
  own: leaseOf(1),
  address: '10.88.0.1',
  underlayMtu: 1500,
  transport: 'offload',
  deviceName: 'tulle%d',
  log: silentLogger,
});
overlay.apply([{ kind: 'add', lease: leaseOf(2) }]);

async function until(done: () => boolean): Promise<void> {
  while (!done()) await new Promise(resolve => setTimeout(resolve, 1));
}

process.on('message', async (revision: number) => {
  process.kill(process.pid, 'SIGUSR2'); // test/support/crash.ts
  await until(() => {
    overlay.apply([]); // wakes it
    return !overlay.facts().running;
  });
  overlay.setLease(leaseOf(1, 'tulle', revision));
  await until(() => overlay.facts().running);
  process.send?.(overlay.drops());
});
process.on('disconnect', async () => {
  await overlay.stop();
});
process.send?.('up');
