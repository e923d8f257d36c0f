/**
 * Probes over a real underlay: two namespaces, a veth between them, an overlay in each (test/support/overlays.ts).
 */
import t from 'tap';
import type { Overlay } from '../../lib/backend/overlay.ts';
import type { PeerView } from '../../lib/daemon/observed.ts';
import { startProbes } from '../../lib/daemon/probing.ts';
import type { Run } from '../../lib/daemon/run.ts';
import type { Mail } from '../../lib/datapath/side-link.ts';
import { systemClock } from '../../lib/lease/clock.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import {
  close,
  encodeAddress,
  monotonicMs,
  openUdp,
  registerArena,
  sendUdp,
  unregisterArena,
  withNamespace,
} from '../../lib/sys/sys.ts';
import { Undo } from '../../lib/util/undo.ts';
import { emitTulle, KIND_PROBE, PROBE_BYTES } from '../../lib/wire/tulle.ts';
import { cidr } from '../support/node.ts';
import { leaseOf, type TwoNodes, twoNodes } from '../support/overlays.ts';
import { daemonOptionsOf, type LogLine, recordingLogger } from './fakes.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

const INTERVAL_MS = 200;
const [SUBNET1, SUBNET2] = [cidr('10.42.1.0/24'), cidr('10.42.2.0/24')];

async function until(done: () => boolean, deadlineMs = 30_000): Promise<boolean> {
  const deadline = performance.now() + deadlineMs;
  while (!done() && performance.now() < deadline) await new Promise(resolve => setTimeout(resolve, 10));
  return done();
}

interface Probing {
  overlay: Overlay;
  view: PeerView;
  lines: LogLine[];
  mail: Mail[];
  manager: { fenced: boolean };
  end(): Promise<void>;
}

/** Node K with probes, and the other node as its peer. */
async function startNode(
  nodes: TwoNodes,
  k: 1 | 2,
  options: Parameters<TwoNodes['start']>[1] = {},
  probeIntervalMs = INTERVAL_MS,
): Promise<Probing> {
  const { log, lines } = recordingLogger();
  const undo = new Undo();
  const manager = { fenced: false };
  const run = {
    options: daemonOptionsOf({ probeIntervalMs, transport: options.transport ?? 'offload' }),
    parts: { clock: systemClock },
    log,
    undo,
    manager,
  } as unknown as Run;
  const backend = options.backend ?? { type: 'tulle' as const, port: 8285 };
  const overlay = await nodes.start(k, { ...options, onMail: () => run.onMail?.() });
  const mail: Mail[] = [];
  overlay.apply([{ kind: 'add', lease: leaseOf(3 - k, backend.type) }]);
  const view = startProbes(run, { backend } as never, overlay, letter => mail.push(letter));
  return {
    overlay,
    view,
    lines,
    mail,
    manager,
    async end() {
      await undo.run(log, 1_000);
      await overlay.stop();
    },
  };
}

for (const transport of ['offload', 'batch', 'dgram'] as const) {
  t.test(`round trip, silence and return over ${transport}`, async t => {
    const nodes = twoNodes();
    t.teardown(nodes.remove);
    const [one, two] = [await startNode(nodes, 1, { transport }), await startNode(nodes, 2, { transport })];
    t.ok(await until(() => one.view.of(SUBNET2)?.rttMs != null && one.view.of(SUBNET2)?.pathMtu === 1500));
    t.ok(await until(() => two.view.of(SUBNET1)?.pathMtu === 1500));
    const { rttMs, lossPct, lastHeardMs, silent } = one.view.of(SUBNET2)!;
    t.ok(rttMs! > 0 && rttMs! < 1_000, `${rttMs} ms`);
    t.ok(lossPct! <= 50 && lastHeardMs! < 2_000 && !silent);

    // Node 2 may have been silent before it was there.
    t.ok(await until(() => !one.view.of(SUBNET2)!.silent));
    one.lines.length = 0;
    const setLink = (up: boolean): void =>
      withRtnetlink(nodes.namespaces[1], netlink => netlink.setLink('eth0', { up }));
    setLink(false);
    const lost = monotonicMs();
    t.ok(await until(() => one.view.of(SUBNET2)!.silent), 'silent');
    // Three intervals, and what a busy machine adds to a timer.
    t.ok(monotonicMs() - lost < 3 * INTERVAL_MS + 3_000);
    setLink(true);
    t.ok(await until(() => !one.view.of(SUBNET2)!.silent), 'and back');
    // One line a change: on a machine that stalls for long there may be more changes than ours.
    const told = one.lines.map(({ message }) => message).filter(message => /silent|heard again/.test(message));
    t.ok(told.length >= 2 && told.length % 2 === 0, told.join(', '));
    t.ok(told.every((message, i) => message.includes(i % 2 === 0 ? 'silent' : 'heard again')));
    t.same(one.lines.find(line => line.message.includes('silent'))?.fields['endpoint'], '10.88.0.2:8285');
    await Promise.all([one.end(), two.end()]);
  });
}

for (const transport of ['offload', 'dgram'] as const) {
  t.test(`a way that swallows long packets in silence is found over ${transport}`, async t => {
    const nodes = twoNodes();
    t.teardown(nodes.remove);
    const [one, two] = [await startNode(nodes, 1, { transport }), await startNode(nodes, 2, { transport })];
    t.ok(await until(() => one.view.of(SUBNET2)?.pathMtu === 1500));
    // A veth drops what is longer than its own MTU (and 4 bytes for a VLAN's tag), and tells nobody.
    withRtnetlink(nodes.namespaces[1], netlink => netlink.setLink('eth0', { mtu: 1300 }));
    t.ok(await until(() => one.view.of(SUBNET2)!.pathMtu! < 1400, 60_000));
    const width = one.view.of(SUBNET2)!.pathMtu!;
    t.ok(width >= 1300 && width <= 1304, `${width}`);
    t.equal(one.overlay.wayTo(SUBNET2)?.limit, width - 40, 'the data path knows it');
    t.notOk(one.view.of(SUBNET2)!.silent);
    await Promise.all([one.end(), two.end()]);
  });
}

t.test('a fenced node neither asks nor answers', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const [one, two] = [await startNode(nodes, 1), await startNode(nodes, 2)];
  t.ok(await until(() => one.view.of(SUBNET2)?.rttMs != null && two.view.of(SUBNET1)?.rttMs != null));
  two.overlay.setDeadline(0);
  two.manager.fenced = true;
  const sent = two.overlay.counters()['side-sent'];
  t.ok(await until(() => one.view.of(SUBNET2)!.silent), 'it does not answer');
  t.equal(two.overlay.counters()['side-sent'], sent, 'nor ask');
  t.ok(two.overlay.drops()['ingress-fenced'] > 0);
  two.overlay.setDeadline(Number.POSITIVE_INFINITY);
  two.manager.fenced = false;
  t.ok(await until(() => !one.view.of(SUBNET2)!.silent));
  t.notOk(two.view.of(SUBNET1)!.silent);
  await Promise.all([one.end(), two.end()]);
});

t.test('a lease key of yesterday gets no answer, a stranger neither', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const [one, two] = [await startNode(nodes, 1), await startNode(nodes, 2)];
  t.ok(await until(() => one.view.of(SUBNET2)?.rttMs != null));
  one.overlay.setLease(leaseOf(1, 'tulle', 99));
  // Its own probes still come, so it is heard; but nothing of ours is answered.
  t.ok(await until(() => one.view.of(SUBNET2)!.lossPct === 100), 'all lost');
  t.notOk(one.view.of(SUBNET2)!.silent);
  t.ok(two.overlay.drops()['ingress-stale-key'] > 0);

  const before = two.overlay.counters()['side-sent'];
  const unknown = two.overlay.drops()['ingress-unknown-sender'];
  const buffer = new Uint8Array(new SharedArrayBuffer(256));
  const handle = withNamespace(nodes.namespaces[0], () => openUdp({ address: '10.88.0.1', port: 9999 }).handle);
  const arena = registerArena(buffer);
  const words = new Int32Array(buffer.buffer);
  words.set([0, 1, 0, 64, 0, 128, PROBE_BYTES]);
  encodeAddress(buffer, 64, '10.88.0.2', 8285);
  emitTulle(buffer, 128, KIND_PROBE, 0, 0, 101, 1, 0);
  t.equal(sendUdp(handle, arena, 0, 1, 20), 1);
  t.ok(await until(() => two.overlay.drops()['ingress-unknown-sender'] === unknown + 1));
  unregisterArena(arena);
  close(handle);
  t.ok(two.overlay.counters()['side-sent'] >= before);
  await Promise.all([one.end(), two.end()]);
});

t.test('flannel’s format is not probed, but who is heard is known', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const backend = { type: 'udp', port: 8285 } as const;
  const [one, two] = [await startNode(nodes, 1, { backend }), await startNode(nodes, 2, { backend })];
  t.equal(one.view.of(SUBNET2), undefined);
  t.equal(one.view.lastHeardMs(SUBNET2), undefined);
  t.equal(one.overlay.side.probe(SUBNET2, { sequence: 1, tokenHigh: 1, tokenLow: 2, length: 20 }), true);
  await until(() => one.overlay.side.take().some(mail => mail.kind === 'receipt' && mail.status < 0), 5_000);
  t.equal(one.overlay.counters()['side-sent'], 0, 'not even when asked to');
  await Promise.all([one.end(), two.end()]);
});
