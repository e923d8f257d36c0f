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
    'startTrafficRules',
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
  t.same(node.calls, ['rules.stop', ...UNDONE], 'the lease and the rules stay');
  t.equal(node.registry.leases.size, 1);
});

t.test('the flags and the net-conf reach the traffic rules', async t => {
  const masquerade = { masquerade: true, randomFully: false, forward: false, resyncSeconds: 9 };
  const node = await start(
    fakes => {
      fakes.registry.conf = '{"Network":"10.5.0.0/16","EnableNFTables":true}';
      fakes.state.formerNetworks = ['10.9.0.0/16'];
    },
    { rules: { ...masquerade, removeOnExit: true } },
  );
  t.match(node.state.rules, {
    ...masquerade,
    ranges: [{ family: 4, network: '10.5.0.0/16', subnet: '10.5.1.0/24' }],
    expectNftables: true,
    formerNetworks: ['10.9.0.0/16'],
  });
  node.stop();
  await node.end;
  t.ok(node.calls.includes('rules.remove'), '--remove-rules-on-exit');
});

t.test('a start that fails leaves the rules of an earlier run to its pods', async t => {
  const node = await start(fakes => {
    fakes.state.formerNetworks = ['10.5.0.0/16'];
    fakes.fail.set('writeSubnetFile', new TulleError('broken', 'it is broken'));
  });
  await node.end;
  t.ok(node.calls.includes('rules.stop'));
  t.notOk(node.calls.includes('rules.remove'));
});

t.test('--release-on-exit gives the lease back', async t => {
  const node = await start(undefined, { releaseOnExit: true });
  node.stop();
  await node.end;
  t.equal(node.registry.leases.size, 0);
});

t.test('a stop before the registry has answered leaves no lease either', async t => {
  let answer = (): void => {};
  const answered = new Promise<void>(resolve => {
    answer = resolve;
  });
  const node = await start(
    fakes => {
      fakes.registry.answers = answered;
    },
    { releaseOnExit: true },
  );
  t.equal(node.registry.leases.size, 1, 'it is made');
  node.stop();
  await node.clock.settle();
  answer();
  await node.end;
  t.equal(node.daemon.outcome, 'stopped');
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
    ['writeSubnetFile', ['rules.remove', 'registry.remove', ...UNDONE]],
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
  t.equal(node.state.deadline, 29_940, 'the overlay knows the deadline from the start: TTL less drift');
  await node.clock.advance(11_000);
  t.equal(node.state.deadline, 39_940, 'every renewal moves it');
  node.registry.fail.set('update', new RegistryError('unavailable', 'away'));
  await node.clock.advance(28_000);
  t.equal(node.state.ready, 'ready');
  await node.clock.advance(2000);
  t.equal(node.state.deadline, 39_940, 'it stays: the worker fences by itself');
  t.equal(node.state.ready, 'waiting for the lease to be renewed');
  t.same(node.seen('error'), ['the lease was not renewed in time: forwarding stops']);
  node.registry.put(peerLease(8, 50));
  await node.clock.settle();
  t.same([...node.state.peers.keys()], ['10.5.7.0-24', '10.5.8.0-24'], 'the table goes on following the registry');
  node.registry.fail.clear();
  await node.clock.advance(60_000);
  t.ok(node.state.deadline > node.clock.monotonicMs());
  t.equal(node.state.ready, 'ready');
  node.stop();
  await node.end;
});

t.test('a lost lease: the overlay stops at once', async t => {
  const node = await start();
  node.registry.put({
    ...node.state.own!,
    attributes: peerLease(9, 99).attributes,
    createRevision: 99,
    modRevision: 99,
  });
  await node.clock.settle();
  t.equal(node.state.deadline, Number.NEGATIVE_INFINITY);
  await node.end;
});

const conf = (more: object): string => JSON.stringify({ Network: '10.5.0.0/16', Backend: { Type: 'tulle' }, ...more });

t.test('a net-conf that changes: what this node cannot adopt as it runs makes it start anew, in process', async t => {
  const changes: [string, object, RegExp, string][] = [
    ['a narrower network without us', { Network: '10.5.128.0/17' }, /Network is 10\.5\.128\.0\/17/, '10.5.129.0-24'],
    ['a narrower network with us', { Network: '10.5.0.0/17' }, /Network is 10\.5\.0\.0\/17/, '10.5.1.0-24'],
    ['another SubnetLen', { SubnetLen: 25 }, /SubnetLen is 25, not 24/, '10.5.0.128-25'],
    [
      'another SubnetMin',
      { SubnetMin: '10.5.9.0' },
      /10\.5\.1\.0\/24 is not between SubnetMin and SubnetMax/,
      '10.5.9.0-24',
    ],
    [
      'another port',
      { Backend: { Type: 'tulle', Port: 9000 } },
      /Backend is tulle on port 9000, not tulle on port 8285/,
      '10.5.1.0-24',
    ],
    ['another backend', { Backend: { Type: 'udp' } }, /Backend is udp on port 8285, not tulle/, '10.5.1.0-24'],
  ];
  for (const [what, change, why, subnet] of changes) {
    const node = await start();
    t.same([...node.registry.leases.keys()], ['10.5.1.0-24'], what);
    node.calls.length = 0;
    node.registry.conf = conf(change);
    await node.clock.advance(65_000);
    t.equal(node.state.ready, 'ready', what);
    t.equal(node.daemon.outcome, 'running', what);
    t.same([...node.registry.leases.keys()], [subnet], `${what}: the lease of before is kept or given back`);
    t.ok(node.calls.indexOf('overlay.stop') < node.calls.indexOf('startOverlay'), `${what}: one after the other`);
    t.notOk(node.calls.includes('openRegistry') || node.calls.includes('health.close'), `${what}: the rest stays up`);
    const [line] = node.lines.filter(({ level, message }) => level === 'warn' && /configuration changed/.test(message));
    t.match(line?.fields['why'], why, what);
    node.stop();
    await node.end;
    t.equal(node.daemon.outcome, 'stopped');
  }
});

t.test('a net-conf that changes nothing for us, or to nonsense, disturbs nothing', async t => {
  const node = await start();
  node.calls.length = 0;
  const texts = [conf({ SubnetMax: '10.5.99.0' }), 'rubbish', '{"Network":"10.5.0.0/99"}', conf({ EnableIPv6: true })];
  for (const text of texts) {
    node.registry.conf = text;
    await node.clock.advance(180_000);
  }
  node.registry.conf = undefined;
  await node.clock.advance(180_000);
  t.notOk(node.calls.includes('overlay.stop'));
  t.equal(node.state.ready, 'ready');
  t.equal(node.seen('error').length, 3, 'each reported once');
  t.same(node.seen('warn'), []);
  node.registry.conf = conf({ SubnetLen: 26 });
  await node.clock.advance(61_000);
  t.same([...node.registry.leases.keys()], ['10.5.0.64-26'], 'and the next good one is noticed');
  node.stop();
  await node.end;
});

t.test('a net-conf that leaves no subnet for us: exit code 2, with the reason', async t => {
  const node = await start(fakes => {
    for (const third of [129, 130, 131]) fakes.registry.put(peerLease(third, third));
  });
  node.registry.conf = conf({ Network: '10.5.128.0/22' });
  await node.clock.advance(61_000);
  await node.end;
  t.equal(codeOf(node.daemon.outcome), 'lease-lost');
  t.match(node.daemon.outcome, { message: /^after the network configuration changed: out of subnets/ });
  t.same(node.calls.slice(-2), ['health.close', 'registry.close']);
});

t.test('leases outside the network are no peers', async t => {
  const node = await start(fakes => {
    const stray = peerLease(7, 3);
    fakes.registry.put({ ...stray, subnet: { address: stray.subnet.address + 2 ** 24, prefixLength: 24 } });
    fakes.registry.put(peerLease(8, 4));
  });
  t.same([...node.state.peers.keys()], ['10.5.8.0-24']);
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
