import t from 'tap';
import { runDaemon } from '../../lib/daemon/daemon.ts';
import type { DaemonOptions } from '../../lib/daemon/options.ts';
import { printSubnets } from '../../lib/lease/lease.ts';
import { RegistryError } from '../../lib/lease/registry.ts';
import { codeOf, TulleError } from '../../lib/util/errors.ts';
import { daemonOptionsOf, fakeParts, peerLease, recordingLogger } from './fakes.ts';

/** A daemon on fakes. `outcome` is 'running', 'stopped' or the error that ended it. */
async function start(
  prepare: (fakes: ReturnType<typeof fakeParts>) => void = () => {},
  changes: Partial<DaemonOptions> = {},
) {
  const fakes = fakeParts();
  prepare(fakes);
  const { log, lines } = recordingLogger();
  const stop = new AbortController();
  const daemon = { outcome: 'running' as unknown };
  const end = runDaemon(daemonOptionsOf(changes), fakes.parts, log, stop.signal).then(
    () => {
      daemon.outcome = 'stopped';
    },
    error => {
      daemon.outcome = error;
    },
  );
  await fakes.clock.settle();
  const seen = (level: string) => lines.filter(line => line.level === level).map(line => line.message);
  return { ...fakes, daemon, end, lines, seen, stop: () => stop.abort() };
}

const UNDONE = ['overlay.stop', 'forwarding.undo', 'health.close', 'registry.close'];

t.test('from nothing to ready and back', async t => {
  const node = await start();
  t.equal(node.daemon.outcome, 'running');
  t.equal(node.state.ready, 'ready');
  t.same(node.calls, [
    'checkMachine',
    'openRegistry',
    'startHealth',
    'registry.config',
    'chooseInterface',
    'previousSubnet',
    'registry.list',
    'registry.create',
    'ensureForwarding',
    'startOverlay',
    'registry.watch',
    'writeSubnetFile',
  ]);
  const [lease] = [...node.registry.leases.values()];
  t.same(lease?.attributes, {
    PublicIP: '10.88.0.1',
    PublicIPv6: null,
    BackendType: 'tulle',
    BackendData: { Version: 1, Port: 8285, NodeID: 'node1' },
  });
  t.same(node.seen('info'), ['lease acquired', 'overlay up', 'ready']);

  node.calls.length = 0;
  node.stop();
  await node.end;
  t.equal(node.daemon.outcome, 'stopped');
  t.same(node.calls, UNDONE, 'the lease stays');
  t.equal(node.registry.leases.size, 1);
});

t.test('--release-on-exit gives the lease back', async t => {
  const node = await start(undefined, { releaseOnExit: true });
  node.stop();
  await node.end;
  t.equal(node.registry.leases.size, 0);
});

t.test('peers come, change and go; our own lease is none', async t => {
  const node = await start(fakes => fakes.registry.put(peerLease(7, 3)));
  t.same([...node.state.peers.keys()], ['10.5.7.0-24'], 'the first snapshot is applied before ready');
  node.registry.put(peerLease(9, 20));
  await node.clock.settle();
  t.same([...node.state.peers.keys()], ['10.5.7.0-24', '10.5.9.0-24']);
  node.registry.drop(peerLease(7, 3));
  await node.clock.settle();
  t.same([...node.state.peers.keys()], ['10.5.9.0-24']);
  t.same(
    node.lines.filter(line => line.message.startsWith('peer')).map(line => [line.message, line.fields['subnet']]),
    [
      ['peer added', '10.5.7.0/24'],
      ['peer added', '10.5.9.0/24'],
      ['peer removed', '10.5.7.0/24'],
    ],
  );
  node.stop();
  await node.end;
});

t.test('each failing step undoes what was made before it, and only that', async t => {
  const steps: [string, string[]][] = [
    ['checkMachine', []],
    ['openRegistry', []],
    ['startHealth', ['registry.close']],
    ['chooseInterface', ['health.close', 'registry.close']],
    ['startOverlay', ['registry.remove', 'forwarding.undo', 'health.close', 'registry.close']],
    ['writeSubnetFile', ['registry.remove', ...UNDONE]],
  ];
  for (const [step, undone] of steps) {
    const node = await start(fakes => fakes.fail.set(step, new TulleError('broken', `${step} is broken`)));
    await node.end;
    t.match(node.daemon.outcome, { message: new RegExp(`${step} is broken`) }, step);
    const after = node.calls.slice(node.calls.indexOf(step) + 1).filter(call => call !== 'registry.watch');
    t.same([...after].sort(), [...undone].sort(), `${step}: undone`);
    t.equal(node.registry.leases.size, 0, `${step}: no lease is left behind`);
    t.same(
      node
        .seen('info')
        .concat(node.seen('warn'), node.seen('error'))
        .filter(text => text !== 'lease acquired' && text !== 'overlay up'),
      [],
      step,
    );
  }
});

t.test('a start that fails keeps a lease that was there before', async t => {
  const mine = { ...peerLease(5, 3), attributes: { ...peerLease(5, 3).attributes, BackendData: { NodeID: 'node1' } } };
  const node = await start(fakes => {
    fakes.registry.put(mine);
    fakes.fail.set('startOverlay', new TulleError('broken', 'no device'));
  });
  await node.end;
  t.ok(node.registry.leases.has('10.5.5.0-24'));
});

t.test('the registry is away: one line a minute, then all goes on', async t => {
  const node = await start(fakes =>
    fakes.registry.fail.set('config', new RegistryError('unavailable', 'etcd is away')),
  );
  t.equal(node.state.ready, 'waiting for the network configuration');
  await node.clock.advance(5 * 60_000);
  const lines = node.lines.filter(line => line.level === 'warn');
  t.ok(lines.length >= 4 && lines.length <= 6, `${lines.length} lines in five minutes`);
  t.match(lines[0]!.fields['reason'], 'etcd is away: look at the directory');
  t.ok(node.calls.filter(call => call === 'registry.config').length > 20, 'it was tried much more often');
  node.registry.fail.clear();
  await node.clock.advance(20_000);
  t.equal(node.state.ready, 'ready');
  node.stop();
  await node.end;
});

t.test('no net-conf: it is said what to write where, and picked up when it is there', async t => {
  const node = await start(fakes => {
    fakes.registry.conf = undefined;
  });
  const [line] = node.lines.filter(line => line.level === 'warn');
  t.equal(
    line?.fields['reason'],
    '/fake/config does not exist',
    "the registry's own words, which say what to write where",
  );
  node.registry.conf = '{"Network":"10.5.0.0/16"}';
  await node.clock.advance(2000);
  t.equal(node.state.ready, 'ready');
  t.same(
    [...node.registry.leases.values()][0]?.attributes,
    { PublicIP: '10.88.0.1', PublicIPv6: null },
    "flannel's udp",
  );
  node.stop();
  await node.end;
});

t.test('a registry that refuses us, or holds nonsense, ends the start', async t => {
  for (const verb of ['config', 'list']) {
    for (const code of ['denied', 'corrupt'] as const) {
      const node = await start(fakes => fakes.registry.fail.set(verb, new RegistryError(code, `it is ${code}`)));
      await node.end;
      t.match(node.daemon.outcome, { code }, `${verb}: ${code}`);
      t.same(node.calls.slice(-2), ['health.close', 'registry.close']);
    }
  }
  const node = await start(fakes => {
    fakes.registry.conf = '{"Network":"10.5.0.0/99"}';
  });
  await node.end;
  t.match(node.daemon.outcome, { code: 'bad-config', message: /^\/fake\/config: Network "10.5.0.0\/99"/ });
});

t.test('a stop in the middle of the start', async t => {
  for (const verb of ['config', 'list', 'create']) {
    const node = await start(fakes => fakes.registry.fail.set(verb, new RegistryError('unavailable', 'away')));
    t.equal(node.daemon.outcome, 'running', `waiting at ${verb}`);
    node.stop();
    await node.end;
    t.equal(node.daemon.outcome, 'stopped');
    t.same(node.calls.slice(-2), ['health.close', 'registry.close']);
  }
});

t.test('public-ip is what the lease says', async t => {
  const node = await start(undefined, { interface: { iface: ['eth0'], ifaceRegex: [], publicIp: '192.0.2.9' } });
  t.equal([...node.registry.leases.values()][0]?.attributes.PublicIP, '192.0.2.9');
  node.stop();
  await node.end;
});

t.test('our lease is removed by somebody: made again, and the overlay is told the new key', async t => {
  const node = await start();
  const before = node.state.own!;
  node.registry.drop(before);
  await node.clock.settle();
  t.ok(node.calls.includes('overlay.setLease'));
  t.equal(printSubnets(node.state.own!), printSubnets(before), 'the same subnet');
  t.not(node.state.own!.createRevision, before.createRevision);
  t.equal(node.daemon.outcome, 'running');
  node.stop();
  await node.end;
});

t.test('another node takes our subnet: the daemon ends with lease-lost and leaves the lease alone', async t => {
  const node = await start(undefined, { releaseOnExit: true });
  const theirs = { ...node.state.own!, attributes: peerLease(9, 99).attributes, createRevision: 99, modRevision: 99 };
  node.registry.put(theirs);
  await node.clock.settle();
  await node.end;
  t.equal(codeOf(node.daemon.outcome), 'lease-lost');
  t.match(node.daemon.outcome, { message: /^the lease is lost: .*start again to get another one$/ });
  t.ok(node.registry.leases.has('10.5.1.0-24'), 'it is not ours to remove');
  t.same(node.calls.slice(-4), UNDONE);
});

t.test('no renewal until the deadline: fenced, and back when the registry is', async t => {
  const node = await start(fakes => fakes.registry.put(peerLease(7, 3)));
  node.registry.fail.set('update', new RegistryError('unavailable', 'away'));
  await node.clock.advance(29_000);
  t.equal(node.state.peers.size, 1, 'before the deadline it forwards');
  await node.clock.advance(2000);
  t.equal(node.state.peers.size, 0, 'after it nothing is forwarded');
  t.equal(node.state.ready, 'waiting for the lease to be renewed');
  node.registry.put(peerLease(8, 50));
  await node.clock.settle();
  t.equal(node.state.peers.size, 0, 'a peer that comes meanwhile waits');
  node.registry.fail.clear();
  await node.clock.advance(60_000);
  t.same([...node.state.peers.keys()].sort(), ['10.5.7.0-24', '10.5.8.0-24']);
  t.equal(node.state.ready, 'ready');
  node.stop();
  await node.end;
});

t.test('an undo that hangs does not keep the daemon', async t => {
  const node = await start(fakes => {
    fakes.registry.close = () => new Promise(() => {});
  });
  const begin = performance.now();
  node.stop();
  await node.end;
  t.equal(node.daemon.outcome, 'stopped');
  t.ok(performance.now() - begin < 4900, 'within 5 s');
  t.same(node.seen('warn'), ['not undone']);
});
