/**
 * Traces between two nodes in namespaces, with the real data paths: the drop reasons are provoked, and what was explained before
 * agrees with what happened. Not provoked here, because no packet that a trace builds and no datagram that our own worker sends
 * can meet them: egress- and ingress-malformed, ingress-wrong-version, ingress-unknown-kind, ingress-truncated; and ingress-limited
 * and egress-queue-full, which need a flood. test/datapath provokes them all, test/observe/trace.test.ts tells the story of each.
 */
import t from 'tap';
import type { Overlay } from '../../lib/backend/overlay.ts';
import type { Observed } from '../../lib/daemon/observed.ts';
import type { Run } from '../../lib/daemon/run.ts';
import { openSide } from '../../lib/daemon/side.ts';
import { setSysctl } from '../../lib/host/sysctl.ts';
import { systemClock } from '../../lib/lease/clock.ts';
import type { Lease } from '../../lib/lease/lease.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import { buildPacket, checkQuestion } from '../../lib/observe/trace/packet.ts';
import { printStory } from '../../lib/observe/trace/print.ts';
import type { Story } from '../../lib/observe/trace/story.ts';
import { Undo } from '../../lib/util/undo.ts';
import { NETWORK } from '../support/node.ts';
import { addressOf, bothLeaseOf, leaseOf, NETWORK6, type TwoNodes, twoNodes } from '../support/overlays.ts';
import { daemonOptionsOf, recordingLogger } from './fakes.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

async function until(done: () => boolean, deadlineMs = 30_000): Promise<boolean> {
  const deadline = performance.now() + deadlineMs;
  while (!done() && performance.now() < deadline) await new Promise(resolve => setTimeout(resolve, 10));
  return done();
}

interface Tracer {
  overlay: Overlay;
  observed: Observed;
  manager: { fenced: boolean; lease: Lease };
  /** Explains it, then sends it, and holds that both agree. */
  trace(question: object, agree?: boolean): Promise<Story>;
  end(): Promise<void>;
}

type StartOptions = Parameters<TwoNodes['start']>[1] & { six?: boolean; probeIntervalMs?: number };

async function startNode(
  t: Pick<typeof import('tap').t, 'notOk' | 'same'>,
  nodes: TwoNodes,
  k: 1 | 2,
  // Nobody is silent in so long a time, however busy the machine is.
  { six = false, probeIntervalMs = 60_000, ...options }: StartOptions = {},
): Promise<Tracer> {
  const { log } = recordingLogger();
  const undo = new Undo();
  const backend = options.backend ?? { type: 'tulle' as const, port: 8285 };
  const lease = (one: number): Lease => (six ? bothLeaseOf(one) : leaseOf(one, backend.type));
  const manager = { fenced: false, lease: lease(k) };
  const config = { ...NETWORK, ...(six && NETWORK6) };
  const peer = lease(3 - k);
  const observed = {
    options: daemonOptionsOf({ transport: options.transport ?? 'offload' }),
    parts: { clock: systemClock },
    nodeId: `node${k}`,
    manager,
    network: { config, backend },
    peers: { peers: [peer] },
    summary: () => ({ node: `node${k}` }),
  } as unknown as Observed;
  const run = {
    options: daemonOptionsOf({ probeIntervalMs, transport: options.transport ?? 'offload' }),
    parts: { clock: systemClock },
    log,
    undo,
    manager,
    observed,
  } as unknown as Run;
  const overlay = await nodes.start(k, { ...options, ...config, own: lease(k), onMail: () => run.onMail?.() });
  overlay.apply([{ kind: 'add', lease: peer }]);
  observed.overlay = overlay;
  openSide(run, { config, backend } as never, overlay);
  return {
    overlay,
    observed,
    manager,
    async trace(asked, agree = true) {
      const question = checkQuestion(asked);
      const explained = await observed.tracing!.trace(question, { explainOnly: true });
      const sent = await observed.tracing!.trace(question, {});
      t.notOk(explained.sent);
      if (agree) {
        const of = ({ outcome, where, reason }: Story): object => ({ outcome, where, reason });
        t.same(of(explained), of(sent), `${sent.reason ?? sent.outcome}, as it was explained`);
      }
      return sent;
    },
    async end() {
      await undo.run(log, 1_000);
      await overlay.stop();
    },
  };
}

const to2 = { source: addressOf(1), destination: addressOf(2) };

for (const transport of ['offload', 'batch', 'dgram'] as const) {
  t.test(`delivered and answered over ${transport}`, async t => {
    const nodes = twoNodes();
    t.teardown(nodes.remove);
    const [one, two] = [await startNode(t, nodes, 1, { transport }), await startNode(t, nodes, 2, { transport })];
    const story = await one.trace(to2);
    t.equal(story.outcome, 'delivered');
    t.same(
      story.steps.map(step => step.name),
      ['packet', 'kernel', 'fence', 'lookup', 'ttl', 'peer', 'width', 'outer', 'send', 'far', 'answer'],
    );
    const step = (name: string) => story.steps.find(one => one.name === name)!;
    t.match(step('lookup').facts, {
      subnet: '10.42.2.0/24',
      node: 'node2',
      createRevision: 102,
      modRevision: 1,
      key: '00000066',
    });
    t.match(step('outer').facts, { source: '10.88.0.1', destination: '10.88.0.2', length: 124, destinationPort: 8285 });
    t.match(step('far').facts, {
      kind: 'seen',
      node: 'node2',
      drop: null,
      length: 84,
      ttl: 63,
      device: 'tulle0',
      link: 'itself',
    });
    t.match(step('answer').lines[0], /echo reply/, 'the device of node 2 answers pings');
    t.equal(two.overlay.counters()['ingress-packets'], 1, 'one packet, and it went to the TUN');

    const syn = await one.trace({ ...to2, protocol: 'tcp', port: 9 });
    t.match(syn.steps.at(-1)?.lines[0], /nobody listens on that port/);
    const udp = await one.trace({ ...to2, protocol: 'udp', port: 9 });
    t.match(udp.steps.at(-1)?.lines[0], /unreachable/);
    const nobody = await one.trace({ ...to2, destination: '10.42.2.77' });
    t.match([nobody.outcome, nobody.steps.at(-1)?.verdict], ['delivered', 'open'], 'no pod has that address');
    t.match(nobody.steps.at(-1)?.title, /no answer of 10.42.2.77 came/);
    const full = await one.trace({ ...to2, size: 1460 });
    t.equal(full.outcome, 'delivered', 'as long as a packet may be: the mark costs no byte');
    t.match(await one.observed.messages!.ask(one.overlay.peers()[0].subnet, 1, {}, 5_000), { node: 'node2' });
    await Promise.all([one.end(), two.end()]);
  });
}

t.test('each way to be stopped on this node', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const [one, two] = [await startNode(t, nodes, 1), await startNode(t, nodes, 2)];
  const stops = async (question: object, reason: string, where = 'here'): Promise<Story> => {
    const story = await one.trace(question);
    t.equal(story.reason, reason, printStory(story));
    t.equal(story.where, where);
    t.equal(story.steps.at(-1)?.verdict, 'stop');
    return story;
  };
  t.notOk((await stops({ ...to2, destination: '192.0.2.1' }, 'kernel-route')).sent);
  t.notOk((await stops({ ...to2, size: 1461 }, 'kernel-mtu')).sent);
  await stops({ ...to2, destination: '10.42.7.7' }, 'egress-no-lease');
  await stops({ ...to2, destination: '10.42.1.9' }, 'egress-own-subnet');
  await stops({ ...to2, ttl: 1 }, 'egress-ttl-exceeded');
  withRtnetlink(nodes.namespaces[0], netlink => netlink.addRoute({ destination: '192.0.2.0/24', link: 'tulle0' }));
  await stops({ ...to2, destination: '192.0.2.1' }, 'egress-outside-network');
  for (const address of ['fd00:42:0:2::2', 'fe80::1']) {
    withRtnetlink(nodes.namespaces[0], netlink => t.ok(netlink.link('tulle0')));
    t.same(
      (await one.trace({ source: 'fd00:42:0:1::2', destination: address })).reason,
      'kernel-route',
      'no IPv6 here',
    );
  }
  // Somebody gives the device IPv6, and a route.
  setSysctl(nodes.namespaces[0], 'net.ipv6.conf.tulle0.disable_ipv6', '0');
  withRtnetlink(nodes.namespaces[0], netlink => netlink.addRoute({ destination: 'fd00:99::/64', link: 'tulle0' }));
  await stops({ source: 'fd00:42:0:1::2', destination: 'fd00:99::2' }, 'egress-not-ipv4');

  one.overlay.setPathLimit(one.overlay.peers()[0].subnet, 1_000);
  const story = await stops({ ...to2, size: 1_001 }, 'egress-too-big');
  t.same(story.steps.at(-1)?.lines, [
    '  1040  the width of the path to this peer, learnt',
    '   −20  outer IPv4',
    '    −8  outer UDP',
    '   −12  tulle header',
    ' =1000  the largest inner packet',
    '1001 > 1000',
  ]);
  t.equal((await one.trace({ ...to2, size: 1_000 })).outcome, 'delivered');
  one.overlay.setPathLimit(one.overlay.peers()[0].subnet, 65_535);

  one.overlay.setDeadline(0);
  one.manager.fenced = true;
  await stops(to2, 'egress-fenced');
  one.overlay.setDeadline(Number.POSITIVE_INFINITY);
  one.manager.fenced = false;

  withRtnetlink(nodes.namespaces[0], netlink => netlink.deleteAddress('eth0', '10.88.0.1/24'));
  await stops(to2, 'egress-send-failed');
  await Promise.all([one.end(), two.end()]);
});

t.test('each way to be stopped on the far node, or on the way', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const [one, two] = [await startNode(t, nodes, 1), await startNode(t, nodes, 2)];
  const spoofed = await one.trace({ ...to2, source: '10.42.9.9' });
  t.match(spoofed, { outcome: 'stopped', where: 'there', reason: 'ingress-spoofed-source' });

  // Node 2 is told of another subnet of its own, so what is node 2's for us is not for it.
  const far = async (reason: string): Promise<void> => {
    const story = await one.trace(to2, false);
    t.match(story, { outcome: 'stopped', where: 'there', reason }, printStory(story));
  };
  withRtnetlink(nodes.namespaces[1], netlink => netlink.setLink('tulle0', { up: false }));
  await far('ingress-write-failed');
  withRtnetlink(nodes.namespaces[1], netlink => netlink.setLink('tulle0', { up: true }));
  one.overlay.apply([{ kind: 'remove', lease: leaseOf(2) }]);
  // The lease of 10.42.3.0/24 names node 2's endpoint, and node 2 has another one.
  const strange = { ...leaseOf(3), attributes: leaseOf(2).attributes };
  one.overlay.apply([{ kind: 'add', lease: { ...strange, createRevision: 102 } }]);
  one.observed.peers = { peers: [strange] } as never;
  const notOurs = await one.trace({ ...to2, destination: '10.42.3.3' }, false);
  t.match(notOurs, { outcome: 'stopped', where: 'there', reason: 'ingress-not-ours' }, printStory(notOurs));
  one.overlay.apply([
    { kind: 'remove', lease: strange },
    { kind: 'add', lease: leaseOf(2) },
  ]);
  one.observed.peers = { peers: [leaseOf(2)] } as never;
  t.equal((await one.trace(to2, false)).outcome, 'delivered');

  const lost = async (what: string): Promise<void> => {
    const story = await one.trace(to2, false);
    t.match(story, { outcome: 'stopped', where: 'underway', reason: 'lost' }, what);
    t.match(story.steps.at(-1)?.title, /does not answer/);
  };
  two.overlay.setDeadline(0);
  await lost('a fenced node tells nobody');
  two.overlay.setDeadline(Number.POSITIVE_INFINITY);
  one.overlay.setLease(leaseOf(1, 'tulle', 99));
  await far('ingress-stale-key'); // whoever has a stale key could not ask: the far node says so
  one.overlay.setLease(leaseOf(1));
  two.overlay.apply([{ kind: 'remove', lease: leaseOf(1) }]);
  await lost('an unknown sender');
  two.overlay.apply([{ kind: 'add', lease: leaseOf(1) }]);
  t.equal((await one.trace(to2, false)).outcome, 'delivered', 'and all is well again');

  await Promise.all([one.end(), two.end()]);
});

t.test('nodes that disagree about the network', async t => {
  t.test('IPv6 for one of them alone', async t => {
    const nodes = twoNodes();
    t.teardown(nodes.remove);
    const [one, two] = [await startNode(t, nodes, 1, { six: true }), await startNode(t, nodes, 2)];
    const story = await one.trace({ source: 'fd00:42:0:1::', destination: 'fd00:42:0:2::' }, false);
    t.match(story, { outcome: 'stopped', where: 'there', reason: 'ingress-not-ipv4' }, printStory(story));
    t.equal((await one.trace(to2)).outcome, 'delivered', 'IPv4 is well');
    await Promise.all([one.end(), two.end()]);
  });

  t.test('another backend in the net-conf of each', async t => {
    const nodes = twoNodes();
    t.teardown(nodes.remove);
    const backend = { type: 'udp', port: 8285 } as const;
    const [one, two] = [await startNode(t, nodes, 1), await startNode(t, nodes, 2, { backend })];
    const story = await one.trace(to2, false);
    t.match(story, { outcome: 'stopped', where: 'underway', reason: 'lost' }, printStory(story));
    t.match(printStory(story), /ingress-wrong-format/);
    t.ok(two.overlay.drops()['ingress-wrong-format'] > 0, 'and the counters of that node say which');
    await Promise.all([one.end(), two.end()]);
  });
});

t.test('what a silent peer will not get is foreseen', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const [one, two] = [await startNode(t, nodes, 1, { probeIntervalMs: 200 }), await startNode(t, nodes, 2)];
  const isSilent = (): boolean => one.observed.probes!.of(leaseOf(2).subnet)!.silent;
  t.ok(await until(() => one.observed.probes!.of(leaseOf(2).subnet)!.rttMs !== null && !isSilent()));
  withRtnetlink(nodes.namespaces[1], netlink => netlink.setLink('eth0', { up: false }));
  t.ok(await until(isSilent));
  const story = await one.trace(to2);
  t.match(story, { outcome: 'stopped', where: 'underway', reason: 'lost' });
  t.match(story.steps.find(step => step.name === 'peer')?.lines[0], /SILENT/);
  await Promise.all([one.end(), two.end()]);
});

t.test('IPv6 inside, and an underlay of IPv6', async t => {
  for (const underlay of [undefined, 6] as const) {
    const nodes = twoNodes();
    t.teardown(nodes.remove);
    const backend = { type: 'tulle' as const, port: 8285, ...(underlay && { underlay }) };
    const address = (k: number): object => (underlay === 6 ? { address: `2001:db8:88::${k}` } : {});
    const one = await startNode(t, nodes, 1, { six: true, backend, ...address(1) });
    const two = await startNode(t, nodes, 2, { six: true, backend, ...address(2) });
    const both = { source: 'fd00:42:0:1::', destination: 'fd00:42:0:2::' };
    const story = await one.trace(both);
    t.equal(story.outcome, 'delivered', printStory(story));
    t.match(story.steps.at(-1)?.lines[0], /echo reply/);
    t.equal((await one.trace({ ...both, protocol: 'tcp', port: 9 })).outcome, 'delivered');
    t.equal((await one.trace(to2)).outcome, 'delivered', 'and IPv4 beside it');
    t.equal((await one.trace({ ...both, destination: 'fd00:42:0:7::7' })).reason, 'egress-no-lease');
    t.equal((await one.trace({ ...both, destination: 'fd00:42:0:1::7' })).reason, 'egress-own-subnet');
    t.equal((await one.trace({ ...both, ttl: 1 })).reason, 'egress-ttl-exceeded');
    t.equal((await one.trace({ ...both, source: 'fd00:42:0:9::1' })).reason, 'ingress-spoofed-source');
    t.equal((await one.trace({ ...both, source: 'fe80::1' })).reason, 'egress-link-local');
    await Promise.all([one.end(), two.end()]);
  }
});

t.test('flannel’s format: nobody to ask, but an answer proves it', async t => {
  const nodes = twoNodes();
  t.teardown(nodes.remove);
  const backend = { type: 'udp', port: 8285 } as const;
  const [one, two] = [await startNode(t, nodes, 1, { backend }), await startNode(t, nodes, 2, { backend })];
  const story = await one.trace(to2, false);
  t.equal(story.outcome, 'delivered', 'its echo reply came');
  t.equal(story.steps.find(step => step.name === 'far')?.verdict, 'open');
  t.equal((await one.trace({ ...to2, destination: '10.42.2.77' })).outcome, 'unknown', 'nobody has that address');
  const packet = buildPacket(checkQuestion(to2), () => 1);
  t.equal(packet.bytes.length, 84);
  await Promise.all([one.end(), two.end()]);
});
