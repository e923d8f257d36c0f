import t, { type Test } from 'tap';
import { chainName } from '../../lib/host/rules/text.ts';
import { startTrafficRules, type TrafficOptions, type TrafficState } from '../../lib/host/rules.ts';
import { recordingLogger } from '../daemon/fakes.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { openRuleTools, type RuleToolFolders, type ToolSet } from './rule-tools.ts';
import { FAR, NODE_FAR, NODE_OUTSIDE, OUTSIDE, openStage, POD, type Stage } from './rules-stage.ts';

const noNamespaces = whyNot();
const found = noNamespaces === false ? openRuleTools() : noNamespaces;
const skip = typeof found === 'string' ? found : false;
const tools = found as RuleToolFolders;
t.teardown(() => {
  if (typeof found !== 'string') found.remove();
});

function open(t: Test): Stage {
  const stage = openStage();
  t.teardown(() => stage.remove());
  return stage;
}

function options(stage: Stage, set: ToolSet, changes: Partial<TrafficOptions> = {}) {
  const { log, lines } = recordingLogger();
  const all: TrafficOptions = {
    ranges: [{ family: 4, network: '10.5.0.0/16', subnet: '10.5.1.0/24' }],
    masquerade: true,
    forward: true,
    randomFully: true,
    resyncSeconds: 1,
    expectNftables: false,
    log,
    namespace: stage.node,
    path: tools.path(set),
    ...changes,
  };
  return { all, lines };
}

/** Waits until it is so, 15 s at most. */
async function until(what: () => boolean): Promise<boolean> {
  for (const deadline = performance.now() + 15_000; performance.now() < deadline; ) {
    if (what()) return true;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return false;
}

/** What there is of ours; legacy iptables is only asked where the test has it, because asking makes its tables. */
function ours(stage: Stage, legacy = false): string[] {
  const chains = legacy ? stage.run(tools.legacy, '-S') + stage.run(tools.legacy, '-t', 'nat', '-S') : '';
  const text = stage.run(tools.nft, 'list', 'ruleset') + chains;
  return text.split('\n').filter(line => /tulle/i.test(line));
}

const TABLE = `table ip tulle-10.5.0.0-16 {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return
		ip saddr 10.5.1.0/24 ip daddr 10.5.0.0/16 return
		ip saddr 10.5.0.0/16 ip daddr 10.5.1.0/24 return
		ip saddr != 10.5.0.0/16 ip daddr 10.5.1.0/24 return
		ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random
	}
}
`;
const NAT_CHAIN = `-N TULLE-NAT-10.5.0.0-16
-A TULLE-NAT-10.5.0.0-16 -m mark --mark 0x4000/0x4000 -m comment --comment "tulle masquerade" -j RETURN
-A TULLE-NAT-10.5.0.0-16 -s 10.5.1.0/24 -d 10.5.0.0/16 -m comment --comment "tulle masquerade" -j RETURN
-A TULLE-NAT-10.5.0.0-16 -s 10.5.0.0/16 -d 10.5.1.0/24 -m comment --comment "tulle masquerade" -j RETURN
-A TULLE-NAT-10.5.0.0-16 ! -s 10.5.0.0/16 -d 10.5.1.0/24 -m comment --comment "tulle masquerade" -j RETURN
-A TULLE-NAT-10.5.0.0-16 -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "tulle masquerade" -j MASQUERADE --random-fully
-A TULLE-NAT-10.5.0.0-16 ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "tulle masquerade" -j MASQUERADE --random-fully
`;
const NAT_JUMP = '-A POSTROUTING -m comment --comment "tulle masquerade" -j TULLE-NAT-10.5.0.0-16';
const FORWARD = `-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N TULLE-FWD-10.5.0.0-16
-A FORWARD -m comment --comment "tulle forward" -j TULLE-FWD-10.5.0.0-16
-A TULLE-FWD-10.5.0.0-16 -s 10.5.0.0/16 -m comment --comment "tulle forward" -j ACCEPT
-A TULLE-FWD-10.5.0.0-16 -d 10.5.0.0/16 -m comment --comment "tulle forward" -j ACCEPT
`;

/** The four directions that the rules tell apart, with packets. */
function checkTraffic(t: Test, stage: Stage): void {
  const { pod, outside, far } = stage;
  t.equal(stage.send(pod, POD, outside, OUTSIDE), NODE_OUTSIDE, "a pod to the outside has the node's address");
  t.equal(stage.send(pod, POD, far, FAR), POD, 'a pod to a pod of another node keeps its own');
  t.equal(stage.send(far, FAR, pod, POD), FAR, 'and so does the other way');
  t.equal(stage.send(outside, OUTSIDE, pod, POD), OUTSIDE, 'from outside to a pod here: the pod sees who asks');
  t.equal(
    stage.send(outside, OUTSIDE, far, FAR),
    NODE_FAR,
    "from outside to another node's pod: the answer comes back here",
  );
}

for (const set of ['nft', 'iptables', 'legacy', 'both'] as const) {
  t.test(`with ${set}: packets get the addresses that they should, and remove leaves nothing`, { skip }, async t => {
    const stage = open(t);
    t.equal(stage.send(stage.pod, POD, stage.outside, OUTSIDE), POD, 'nothing is masqueraded before');
    const { all, lines } = options(stage, set);
    const rules = await startTrafficRules(all);
    const state: Record<typeof set, TrafficState> = {
      nft: { masquerade: 'nftables', forward: 'unneeded' },
      iptables: { masquerade: 'iptables', forward: 'iptables' },
      legacy: { masquerade: 'iptables', forward: 'iptables' },
      both: { masquerade: 'nftables', forward: 'iptables' },
    };
    t.same(rules.state(), state[set]);
    checkTraffic(t, stage);
    t.not(ours(stage, set === 'legacy').length, 0);
    await rules.stop({ remove: true });
    t.same(ours(stage, set === 'legacy'), []);
    t.equal(stage.send(stage.pod, POD, stage.outside, OUTSIDE), POD, 'nothing is masqueraded after');
    t.same(
      lines.filter(line => line.level === 'warn' || line.level === 'error'),
      [],
    );
  });
}

t.test('the text of the rules', { skip }, async t => {
  const stage = open(t);
  const nft = await startTrafficRules(options(stage, 'nft').all);
  t.equal(stage.run(tools.nft, 'list', 'table', 'ip', 'tulle-10.5.0.0-16'), TABLE);
  await nft.stop({ remove: false });
  t.equal(stage.run(tools.nft, 'list', 'table', 'ip', 'tulle-10.5.0.0-16'), TABLE, 'they stay');
  const again = await startTrafficRules(options(stage, 'nft', { randomFully: false }).all);
  const plain = TABLE.replaceAll(' fully-random', '');
  t.equal(stage.run(tools.nft, 'list', 'table', 'ip', 'tulle-10.5.0.0-16'), plain, 'replaced, not added to');
  await again.stop({ remove: true });

  stage.run(tools.iptables, '-P', 'FORWARD', 'DROP');
  for (let round = 0; round < 2; round++) {
    const rules = await startTrafficRules(options(stage, 'iptables').all);
    t.equal(stage.run(tools.iptables, '-S'), FORWARD);
    const nat = stage.run(tools.iptables, '-t', 'nat', '-S');
    t.ok(nat.includes(NAT_CHAIN.split('\n')[0]) && nat.includes(NAT_CHAIN.slice(NAT_CHAIN.indexOf('\n'))), nat);
    t.equal(nat.split(NAT_JUMP).length, 2, 'one jump, also the second time');
    await rules.stop({ remove: false });
  }
});

t.test('dual stack: both families, and what is left of IPv6 goes with it', { skip }, async t => {
  const range6 = { family: 6, network: 'fd00:5::/48', subnet: 'fd00:5:0:1::/64' } as const;
  for (const set of ['nft', 'iptables'] as const) {
    const stage = open(t);
    const { all, lines } = options(stage, set);
    const rules = await startTrafficRules({ ...all, ranges: [...all.ranges, range6] });
    t.same(rules.state(), {
      masquerade: set === 'nft' ? 'nftables' : 'iptables',
      forward: set === 'nft' ? 'unneeded' : 'iptables',
    });
    const text = stage.run(tools.nft, 'list', 'ruleset');
    if (set === 'nft') {
      t.match(text, 'table ip6 tulle-fd00.5..-48 {');
      t.match(text, 'ip6 saddr fd00:5:0:1::/64 ip6 daddr fd00:5::/48 return');
      t.match(text, 'ip6 saddr fd00:5::/48 ip6 daddr != ff00::/8 masquerade fully-random');
    } else {
      const rule =
        '-A TULLE-NAT-fd00.5..-48 -s fd00:5:0:1::/64 -d fd00:5::/48 -m comment --comment "tulle masquerade" -j RETURN';
      const ip6tables = tools.iptables.replace(/iptables$/, 'ip6tables');
      t.ok(stage.run(ip6tables, '-t', 'nat', '-S').includes(rule));
      t.ok(
        stage
          .run(ip6tables, '-S')
          .includes('-A TULLE-FWD-fd00.5..-48 -s fd00:5::/48 -m comment --comment "tulle forward" -j ACCEPT'),
      );
    }
    stage.run(tools.nft, 'flush ruleset');
    t.ok(
      await until(() =>
        stage.run(tools.nft, 'list', 'ruleset').includes(set === 'nft' ? 'table ip6 tulle' : 'NAT-fd00.5..-48'),
      ),
    );
    await rules.stop({ remove: false });
    const four = await startTrafficRules({ ...all, formerNetworks: ['10.5.0.0/16', 'fd00:5::/48'] });
    t.notMatch(stage.run(tools.nft, 'list', 'ruleset'), /fd00/);
    t.equal(stage.send(stage.pod, POD, stage.outside, OUTSIDE), NODE_OUTSIDE);
    await four.stop({ remove: true });
    t.same(
      lines.filter(line => line.level === 'error'),
      [],
    );
  }
});

t.test('names of chains fit into 28 characters', async t => {
  t.equal(chainName('NAT', '255.255.255.255/32').length, 28);
  t.equal(chainName('FWD', 'fd00:5::/48'), 'TULLE-FWD-fd00.5..-48');
  const long = ['fd00:1234:5678:9abc::/64', 'fd00:1234:5678:9abd::/64'].map(network => chainName('NAT', network));
  t.not(long[0], long[1]);
  t.ok(long.every(name => name.length <= 28));
});

t.test('what kube-proxy marked is left to kube-proxy, whatever other bits are set', { skip }, async t => {
  const stage = open(t);
  for (const set of ['nft', 'iptables'] as const) {
    const rules = await startTrafficRules(options(stage, set).all);
    const mark = (value: string): string =>
      stage.run(
        tools.nft,
        `table ip marker {\n chain early {\n type filter hook prerouting priority mangle\n meta mark set ${value}\n}\n}`,
      );
    mark('0x4001');
    t.equal(stage.send(stage.pod, POD, stage.outside, OUTSIDE), POD, `${set}: 0x4001 returns`);
    stage.run(tools.nft, 'delete table ip marker');
    mark('0x8000');
    t.equal(stage.send(stage.pod, POD, stage.outside, OUTSIDE), NODE_OUTSIDE, `${set}: 0x8000 is masqueraded`);
    stage.run(tools.nft, 'delete table ip marker');
    await rules.stop({ remove: true });
  }
});

t.test('FORWARD drops, as docker sets it: pods are forwarded all the same', { skip }, async t => {
  for (const [set, iptables] of [
    ['both', tools.iptables],
    ['legacy', tools.legacy],
    ['both', tools.legacy], // iptables is the one over nf_tables, and it is the other that drops
    ['legacy', tools.iptables],
  ] as const) {
    const stage = openStage();
    stage.run(iptables, '-P', 'FORWARD', 'DROP');
    t.equal(stage.send(stage.pod, POD, stage.far, FAR, 200), 'lost', 'the policy works');
    const rules = await startTrafficRules(options(stage, set).all);
    checkTraffic(t, stage);
    await rules.stop({ remove: true });
    t.equal(stage.send(stage.pod, POD, stage.far, FAR, 200), 'lost');
    stage.remove();
  }
});

t.test(
  'an nftables chain of somebody else that drops: said once, because no rule of ours overrules it',
  { skip },
  async t => {
    const stage = open(t);
    stage.run(
      tools.nft,
      'table inet wall {\n chain through {\n type filter hook forward priority filter; policy drop\n}\n}',
    );
    const { all, lines } = options(stage, 'both');
    const rules = await startTrafficRules(all);
    t.match(
      lines.filter(line => line.level === 'warn'),
      [{ fields: { chain: 'inet wall through' }, message: /accept the pod network there/ }],
    );
    await rules.stop({ remove: true });
  },
);

t.test('what somebody flushes or changes is made again', { skip }, async t => {
  const damages: [ToolSet, (stage: Stage) => void][] = [
    ['nft', stage => stage.run(tools.nft, 'flush ruleset')],
    ['nft', stage => stage.run(tools.nft, 'flush chain ip tulle-10.5.0.0-16 postrouting')],
    ['nft', stage => stage.run(tools.nft, 'insert rule ip tulle-10.5.0.0-16 postrouting accept')],
    ['iptables', stage => stage.run(tools.nft, 'flush ruleset')],
    ['iptables', stage => stage.run(tools.iptables, '-t', 'nat', '-F', 'POSTROUTING')],
    ['iptables', stage => stage.run(tools.iptables, '-t', 'nat', '-D', 'TULLE-NAT-10.5.0.0-16', '5')],
    ['legacy', stage => stage.run(tools.legacy, '-t', 'nat', '-F')],
  ];
  for (const [set, damage] of damages) {
    const stage = openStage();
    const { all, lines } = options(stage, set);
    const rules = await startTrafficRules(all);
    t.equal(stage.send(stage.pod, POD, stage.outside, OUTSIDE), NODE_OUTSIDE);
    damage(stage);
    const mended = () => lines.some(line => line.message === 'somebody changed our traffic rules: made again');
    t.ok(await until(mended), `${set}: ${damage}`);
    t.equal(stage.send(stage.pod, POD, stage.outside, OUTSIDE), NODE_OUTSIDE);
    await rules.stop({ remove: true });
    stage.remove();
  }
});

t.test('neither tool: one line, a state that says so, and nothing breaks', { skip }, async t => {
  const stage = open(t);
  const { all, lines } = options(stage, 'neither');
  const rules = await startTrafficRules(all);
  const { degraded, ...state } = rules.state();
  t.same(state, { masquerade: 'none', forward: 'unneeded' });
  t.match(degraded, /^neither nft nor iptables works here.*install nftables/);
  t.same(
    lines.filter(line => line.level !== 'debug').map(line => line.message),
    [degraded],
  );
  await rules.stop({ remove: true });

  const unasked = options(stage, 'neither', { masquerade: false });
  const quiet = await startTrafficRules(unasked.all);
  t.same(quiet.state(), { masquerade: 'off', forward: 'unneeded' });
  t.same(
    unasked.lines.filter(line => line.level !== 'debug'),
    [],
    'nobody asked for what is not there',
  );
  await quiet.stop({ remove: false });
});

t.test('the leftovers of an earlier run go: another network, another tool, a flag taken back', { skip }, async t => {
  const stage = open(t);
  const former = '10.9.0.0/16';
  const of = (network: string) => ({ ranges: [{ family: 4 as const, network, subnet: network }] });
  for (const set of ['nft', 'iptables'] as const) {
    for (const network of [former, '10.5.0.0/16']) {
      const rules = await startTrafficRules(options(stage, set, of(network)).all);
      await rules.stop({ remove: false });
    }
  }
  t.ok(ours(stage).some(line => line.includes('10.9.0.0')));
  const other = await startTrafficRules(options(stage, 'both', of('10.7.0.0/16')).all);
  const next = options(stage, 'both', { formerNetworks: [former], forward: false });
  const rules = await startTrafficRules(next.all);
  t.same(
    ours(stage).filter(line => !line.includes('10.7.0.0')),
    ['table ip tulle-10.5.0.0-16 {'],
    'of the other daemon on this machine nothing is touched',
  );
  t.ok(ours(stage).some(line => line.includes('10.7.0.0')));
  await rules.stop({ remove: true });
  await other.stop({ remove: true });
  t.same(ours(stage), []);
});

t.test('rules that cannot be written are an error once, and tried again', { skip }, async t => {
  const stage = open(t);
  stage.run(tools.nft, 'table ip tulle-10.5.0.0-16 {\n map m {\n type ipv4_addr : verdict\n}\n}');
  const { all, lines } = options(stage, 'nft', { path: [`${tools.path('nft')[0]}-broken`] });
  const { mkdirSync, writeFileSync, rmSync } = await import('node:fs');
  const [folder] = all.path!;
  t.teardown(() => rmSync(folder, { recursive: true }));
  mkdirSync(folder);
  const program = (text: string): void => writeFileSync(`${folder}/nft`, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  program('echo "Error: no luck today" >&2; echo details >&2; exit 1');
  const rules = await startTrafficRules(all);
  t.match(rules.state(), { masquerade: 'nftables', degraded: 'nft: Error: no luck today' });
  await new Promise(resolve => setTimeout(resolve, 1500));
  t.equal(lines.filter(line => line.level === 'error').length, 1, 'the same trouble is one line');
  program(`exec ${tools.nft} "$@"`);
  t.ok(await until(() => rules.state().degraded === undefined));
  t.equal(stage.send(stage.pod, POD, stage.outside, OUTSIDE), NODE_OUTSIDE);
  await rules.stop({ remove: true });
});
