// When the daemon serves CNI, and what it does about a socket that it cannot have.
import t from 'tap';
import { nodeNetwork } from '../../lib/daemon/cni.ts';
import { runCniOnly } from '../../lib/daemon/serve-cni.ts';
import { TulleError } from '../../lib/util/errors.ts';
import { daemonOptionsOf, fakeParts, peerLease, recordingLogger } from './fakes.ts';

const taken = new TulleError('cni-socket-taken', 'another tulled serves CNI at /x');
const cni = { socket: '/x', given: false, dataDir: '/d' };

function only(given: boolean, error?: Error) {
  const { parts, calls, fail } = fakeParts();
  const { log, lines } = recordingLogger();
  const stop = new AbortController();
  if (error !== undefined) fail.set('startCni /x', error);
  const options = daemonOptionsOf({ cni: { ...cni, given }, cniOnly: true });
  return { calls, lines, stop, run: () => runCniOnly(options, parts, log, stop.signal) };
}

t.test('alone, until it is stopped', async t => {
  const { calls, stop, run } = only(true);
  const running = run();
  await new Promise(resolve => setImmediate(resolve));
  t.same(calls, ['startHealth', 'startCni /x']);
  stop.abort();
  await running;
  t.same(calls.slice(2), ['cni.close', 'health.close']);
});

t.test('a socket that was asked for must work', async t => {
  const { calls, run } = only(true, taken);
  await t.rejects(run(), { code: 'cni-socket-taken' });
  t.same(calls, ['startHealth', 'startCni /x', 'health.close'], 'and nothing is left');
});

t.test('the default is only taken where it can be had', async t => {
  const { lines, stop, run } = only(false, taken);
  stop.abort();
  await run();
  t.match(lines.find(line => line.level === 'warn')?.fields, { reason: taken.message });
  const broken = only(false, new Error('a mistake'));
  await t.rejects(broken.run(), { message: 'a mistake' }, 'but a mistake is one');
});

t.test('what pods may know of the lease', async t => {
  const network = { address: 0x0a05_0000, prefixLength: 16 };
  const { subnet } = peerLease(7, 1);
  t.same(nodeNetwork({ network } as Parameters<typeof nodeNetwork>[0], peerLease(7, 1), 1460, true), {
    subnet,
    network,
    mtu: 1460,
    masquerade: true,
  });
});
