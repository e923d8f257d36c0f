import { chmodSync, rmSync } from 'node:fs';
import t, { type Test } from 'tap';
import { decodeId, encodeId, entriesOf } from '../../lib/host/rules/entry.ts';
import { chainOf, networksOfChain } from '../../lib/host/rules/masquerade-nft.ts';
import { type HostRulesOptions, openHostRules } from '../../lib/host/rules.ts';
import { recordingLogger } from '../daemon/fakes.ts';
import { whyNot } from '../netlink/sandbox.ts';
import { below, prng, testSeed } from '../support/prng.ts';
import { openRuleTools, type RuleToolFolders, type ToolSet } from './rule-tools.ts';
import { FAR, NODE_OUTSIDE, OUTSIDE, openStage, POD, type Stage } from './rules-stage.ts';

const noNamespaces = whyNot();
const found = noNamespaces === false ? openRuleTools() : noNamespaces;
const skip = typeof found === 'string' ? found : false;
const tools = found as RuleToolFolders;
t.teardown(() => {
  if (typeof found !== 'string') found.remove();
});

const NETWORKS = ['10.5.1.0/24', '10.5.0.0/16'];
const A = { id: 'net/0123456789abcdef/eth0', addresses: [`${POD}/24`], exceptNetworks: NETWORKS };

function open(t: Test): Stage {
  const stage = openStage();
  t.teardown(() => stage.remove());
  return stage;
}

async function openRules(t: Test, stage: Stage, set: ToolSet, changes: Partial<HostRulesOptions> = {}) {
  const { log, lines } = recordingLogger();
  const path = tools.path(set);
  const rules = await openHostRules({ log, namespace: stage.node, path, resyncSeconds: 1, ...changes });
  t.teardown(() => rules.close().catch(() => {}));
  return { rules, lines };
}

async function until(what: () => boolean): Promise<boolean> {
  for (const deadline = performance.now() + 15_000; performance.now() < deadline; ) {
    if (what()) return true;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return false;
}

const source = (stage: Stage): string => stage.send(stage.pod, POD, stage.outside, OUTSIDE);
const ours = (stage: Stage): string[] =>
  stage
    .run(tools.nft, 'list', 'ruleset')
    .split('\n')
    .filter(line => /tulle/i.test(line));

for (const set of ['nft', 'iptables'] as const) {
  t.test(`${set}: an attachment is masqueraded until it is removed`, { skip }, async t => {
    const stage = open(t);
    const { rules } = await openRules(t, stage, set);
    t.same(ours(stage), [], 'nothing is written before somebody asks');
    t.same(rules.state(), { tool: set === 'nft' ? 'nftables' : 'iptables' });
    await rules.ensureMasquerade(A);
    t.equal(source(stage), NODE_OUTSIDE);
    t.equal(stage.send(stage.pod, POD, stage.far, FAR), POD, 'the pod network is left alone');
    t.same(rules.list(), [A.id]);
    t.same([await rules.stands(A.id), await rules.stands('net/b/eth0')], [true, false]);

    const other = { id: 'net/b/eth0', addresses: ['10.5.1.3'], exceptNetworks: NETWORKS };
    await rules.ensureMasquerade(other);
    await rules.ensureMasquerade(A);
    t.same(rules.list(), [A.id, other.id], 'idempotent');
    await rules.removeMasquerade(A.id);
    await rules.removeMasquerade(A.id);
    await rules.removeMasquerade('never added');
    t.equal(source(stage), POD);
    t.same(rules.list(), [other.id]);
    await rules.removeMasquerade(other.id);
    await rules.close();
    t.same(ours(stage), [], 'the last one takes everything along');
  });

  t.test(`${set}: a new process knows what an old one made`, { skip }, async t => {
    const stage = open(t);
    const first = await openRules(t, stage, set);
    const six = { id: 'odd\'id "%" ü', addresses: ['fd00:5::2/64', '10.5.1.9'], exceptNetworks: ['fd00:5::/48'] };
    await first.rules.ensureMasquerade(A);
    await first.rules.ensureMasquerade(six);
    await first.rules.close();
    t.equal(source(stage), NODE_OUTSIDE, 'they stay');

    const second = await openRules(t, stage, set);
    t.same(second.rules.list().sort(), [A.id, six.id].sort());
    t.equal(source(stage), NODE_OUTSIDE);
    await second.rules.ensureMasquerade(six);
    await second.rules.removeMasquerade(A.id);
    t.equal(source(stage), POD);
    await second.rules.removeMasquerade(six.id);
    await second.rules.close();
    t.same(ours(stage), []);
    t.same(
      second.lines.filter(line => line.level === 'warn'),
      [],
    );
  });

  t.test(`${set}: an id that changes, an address that changes hands`, { skip }, async t => {
    const stage = open(t);
    const { rules } = await openRules(t, stage, set);
    await rules.ensureMasquerade({ ...A, addresses: ['10.5.1.7', '10.5.1.8'] });
    await rules.ensureMasquerade(A);
    await rules.ensureMasquerade({ ...A, id: 'net/next/eth0', exceptNetworks: ['192.0.2.0/24'] });
    t.same(rules.list(), ['net/next/eth0'], 'an address left behind is taken over');
    t.equal(source(stage), POD, 'with the networks of the new owner');
    await rules.removeMasquerade(A.id);
    t.same(rules.list(), ['net/next/eth0']);
    const text = stage.run(tools.nft, 'list', 'ruleset');
    t.notMatch(text, /10\.5\.1\.[78]/);
  });

  t.test(`${set}: flushed by somebody, made again`, { skip }, async t => {
    const stage = open(t);
    const { rules, lines } = await openRules(t, stage, set);
    await rules.ensureMasquerade(A);
    const flush = ['flush', 'ruleset'];
    stage.run(tools.nft, ...flush);
    t.ok(await until(() => lines.some(line => line.message === 'somebody changed our traffic rules: made again')));
    t.equal(source(stage), NODE_OUTSIDE);
    // Right after a flush, before anybody has looked.
    stage.run(tools.nft, ...flush);
    t.notOk(await rules.stands(A.id), 'what is remembered is not what is there');
    await rules.ensureMasquerade({ id: 'b', addresses: ['10.5.1.3'], exceptNetworks: [] });
    stage.run(tools.nft, ...flush);
    await rules.removeMasquerade('b');
    t.same(rules.list(), [A.id]);
    t.ok(await until(() => source(stage) === NODE_OUTSIDE));
  });
}

t.test('nftables: the table as nft shows it', { skip }, async t => {
  const stage = open(t);
  const { rules } = await openRules(t, stage, 'nft', { name: 'cni-node1', randomFully: false });
  await rules.ensureMasquerade(A);
  t.equal(
    stage.run(tools.nft, 'list', 'table', 'ip', 'tulle-cni-node1'),
    `table ip tulle-cni-node1 {
	map pods {
		type ipv4_addr : verdict
		elements = { 10.5.1.2 comment "net/0123456789abcdef/eth0" : goto except-10.5.0.0-16_10.5.1.0-24 }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr vmap @pods
	}

	chain except-10.5.0.0-16_10.5.1.0-24 {
		ip daddr 10.5.0.0/16 return
		ip daddr 10.5.1.0/24 return
		ip daddr != 224.0.0.0/4 masquerade
	}
}
`,
  );
});

t.test('only the first attachment starts a program', { skip }, async t => {
  const stage = open(t);
  const folder = t.testdir({ nft: `#!/bin/sh\nexec ${tools.nft} "$@"\n` });
  chmodSync(`${folder}/nft`, 0o755);
  const { rules } = await openRules(t, stage, 'nft', { path: [folder], resyncSeconds: 600 });
  await rules.ensureMasquerade(A);
  rmSync(`${folder}/nft`);
  for (let i = 0; i < 300; i++) {
    const addresses = [`10.5.${2 + (i >> 8)}.${i & 255}`];
    await rules.ensureMasquerade({ id: `net/pod${i}/eth0`, addresses, exceptNetworks: NETWORKS });
  }
  t.equal(rules.list().length, 301);
  for (let i = 0; i < 300; i++) await rules.removeMasquerade(`net/pod${i}/eth0`);
  const map = stage.run(tools.nft, 'list', 'map', 'ip', 'tulle-cni', 'pods');
  t.match(map, /elements = \{ 10\.5\.1\.2 comment "[^"]*" : goto \S+ \}/);
});

t.test('many at once, against a naive twin', { skip }, async t => {
  const stage = open(t);
  const { rules } = await openRules(t, stage, 'nft');
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const random = prng(seed);
  const twin = new Map<string, string>(); // address to id
  const calls: Promise<void>[] = [];
  for (let i = 0; i < 400; i++) {
    const id = `id${below(random, 40)}`;
    for (const [address, owner] of twin) if (owner === id) twin.delete(address);
    if (below(random, 10) < 3) calls.push(rules.removeMasquerade(id));
    else {
      const addresses = [...new Set([`10.5.9.${below(random, 60)}`, `fd00::${below(random, 60)}`])].map(text =>
        text.replace('::0', '::f'),
      );
      for (const address of addresses) twin.set(address, id);
      calls.push(
        rules.ensureMasquerade({ id, addresses, exceptNetworks: below(random, 2) === 0 ? NETWORKS : ['fd00::/16'] }),
      );
    }
  }
  await Promise.all(calls);
  t.same(rules.list().sort(), [...new Set(twin.values())].sort());
  const text = ['ip', 'ip6'].map(family => stage.run(tools.nft, 'list', 'map', family, 'tulle-cni', 'pods')).join();
  const kernel = [...text.matchAll(/(\S+) comment "(\w+)"/g)].map((match): [string, string] => [match[1], match[2]]);
  t.same(new Map(kernel.sort()), new Map([...twin].sort()), 'and the kernel has just these');
});

t.test('neither tool: opening works, masquerading says what to do', { skip }, async t => {
  const stage = open(t);
  const { rules } = await openRules(t, stage, 'neither');
  t.match(rules.state(), { tool: 'none', degraded: /install nftables/ });
  await t.rejects(rules.ensureMasquerade(A), {
    code: 'no-rules',
    message: /install nftables, or set ipMasq to false$/,
  });
  await rules.removeMasquerade(A.id);
  t.same(rules.list(), []);
});

t.test('a transaction that the kernel refuses changes nothing', { skip }, async t => {
  const stage = open(t);
  const { rules } = await openRules(t, stage, 'nft');
  await rules.ensureMasquerade(A);
  const many = Array.from({ length: 20 }, (_, i) => `172.16.${i}.0/24`);
  const next = { id: A.id, addresses: ['10.5.1.4'], exceptNetworks: NETWORKS };
  const tooMany = { code: 'bad-masquerade', message: /20 networks .* too many/ };
  await t.rejects(rules.ensureMasquerade({ ...next, exceptNetworks: many }), tooMany);
  stage.run(tools.nft, 'add element ip tulle-cni pods { 10.5.1.4 : accept }');
  const message = /^masquerade in nftables table ip tulle-cni: EEXIST/;
  await t.rejects(rules.ensureMasquerade({ ...next, addresses: ['fd00::4', '10.5.1.4'] }), { code: 'EEXIST', message });
  t.equal(source(stage), NODE_OUTSIDE);
  t.same(rules.list(), [A.id]);
  t.notMatch(stage.run(tools.nft, 'list', 'ruleset'), /fd00::4/);
});

t.test('requests that make no sense', async t => {
  const bad = (changes: Partial<typeof A>, message: RegExp) =>
    t.throws(() => entriesOf({ ...A, ...changes }), { code: 'bad-masquerade', message });
  bad({ id: '' }, /1 to 180/);
  bad({ id: 'x'.repeat(181) }, /1 to 180/);
  bad({ addresses: ['10.5.1'] }, /"10\.5\.1" is not an address/);
  bad({ exceptNetworks: ['10.5.0.0'] }, /"10\.5\.0\.0" is not a network/);
  t.same(entriesOf({ id: 'a', addresses: ['FD00::0:1/64'], exceptNetworks: ['fd00::5/64', '10.0.0.0/8'] }), [
    { id: 'a', family: 6, address: 'fd00::1', networks: ['fd00::/64'] },
  ]);
});

t.test('ids and networks as names, there and back', async t => {
  for (const id of ['net/0a/eth0', 'a b', '"', '%41', 'é', "it's", 'x~y!(z)*']) {
    t.match(encodeId(id), /^[\w.:/@%-]+$/);
    t.equal(decodeId(encodeId(id)), id);
  }
  t.equal(decodeId('100%'), undefined, 'not ours');
  t.equal(decodeId(''), undefined);
  for (const networks of [[], ['10.5.0.0/16'], ['10.5.0.0/16', '10.6.0.0/16'], ['::/0', 'fd00:5::/48']]) {
    t.match(chainOf(networks), /^[a-z][\w.-]*$/);
    t.same(networksOfChain(chainOf(networks)), networks);
  }
  t.equal(networksOfChain('postrouting'), undefined);
});
