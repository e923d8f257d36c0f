/**
 * A node fences itself: the main thread is blocked, as by a long garbage collection or a debugger, when the lease's
 * deadline passes; nobody can tell the worker anything. Traffic comes from another process.
 */
import { spawn } from 'node:child_process';
import t from 'tap';
import { ping } from '../../lib/lab/ping.ts';
import { monotonicMs, withNamespace } from '../../lib/sys/sys.ts';
import { addressOf, leaseOf, twoNodes } from '../support/overlays.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

for (const transport of ['offload', 'dgram'] as const) {
  t.test(`the deadline passes while the main thread is blocked (${transport})`, async t => {
    const nodes = twoNodes();
    t.teardown(nodes.remove);
    const [one, two] = [await nodes.start(1, { transport }), await nodes.start(2, { transport })];
    one.apply([{ kind: 'add', lease: leaseOf(2) }]);
    two.apply([{ kind: 'add', lease: leaseOf(1) }]);
    const works = await ping(nodes.namespaces[0], addressOf(2), { count: 3, intervalMs: 1, timeoutMs: 5000 });
    t.equal(works.received, 3, 'it forwards before');

    // bash's /dev/udp sends a datagram; 400 of them over four seconds or more.
    const script = `for i in {1..400}; do printf x > /dev/udp/${addressOf(2)}/9; read -t 0.01 < <(:); sleep 0.01; done`;
    const traffic = withNamespace(nodes.namespaces[0], () => spawn('bash', ['-c', script], { stdio: 'ignore' }));
    t.teardown(() => traffic.kill('SIGKILL'));
    await new Promise(resolve => setTimeout(resolve, 200));
    one.setDeadline(monotonicMs() + 300);
    const blocked = new Int32Array(new SharedArrayBuffer(4));
    Atomics.wait(blocked, 0, 0, 2000);
    // Not one turn of this thread's loop since: what is counted, the worker counted alone.
    t.ok(one.drops()['egress-fenced'] > 0, `${one.drops()['egress-fenced']} packets were held back`);
    t.equal(one.drops()['egress-fenced'] > 0 && one.counters()['egress-packets'] > 0, true, 'and others left before');
    traffic.kill('SIGKILL');
    await Promise.all([one.stop(), two.stop()]);
  });
}
