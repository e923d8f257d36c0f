import { fork } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { ping } from '../../lib/lab/ping.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { crashable } from '../support/crash.ts';
import { addressOf, leaseOf, twoNodes } from '../support/overlays.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

t.test('a data path that is made again has the peers from its first packet on, and the newest lease key', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const two = await nodes.start(2);
  const env = { ...process.env, ...crashable };
  const child = withNamespace(nodes.namespaces[0], () =>
    fork(new URL('./restart-child.js', import.meta.url), { env, execArgv: ['--enable-source-maps'] }),
  );
  t.teardown(() => child.kill('SIGKILL'));
  const ended = once(child, 'exit');
  t.same(await once(child, 'message'), ['up', undefined]);
  let revision = 101;
  for (let round = 0; round < 3; round++) {
    two.apply([{ kind: 'add', lease: leaseOf(1, 'tulle', ++revision) }]);
    let isBack = false;
    const answer = once(child, 'message').finally(() => {
      isBack = true;
    });
    child.send(revision);
    // They wait in the device while the worker starts.
    const some = { count: 20, intervalMs: 1, timeoutMs: 20 };
    while (!isBack) await ping(nodes.namespaces[0], addressOf(2), some);
    const [drops] = await answer;
    t.equal(drops['egress-no-lease'], 0, 'no packet was answered with "no lease"');
    const { received } = await ping(nodes.namespaces[0], addressOf(2), { ...some, timeoutMs: 10_000 });
    t.equal(received, 20, 'the key that came meanwhile is the one that is sent');
  }
  child.disconnect();
  t.same(await ended, [0, null]);
  await two.stop();
});
