import { execFileSync } from 'node:child_process';
import t from 'tap';
import { MessageBuilder, parseList } from '../../lib/netlink/message.ts';
import {
  commentBytes,
  commentOf,
  HOOK_FORWARD,
  LONGEST_COMMENT,
  type MapChange,
  NfTables,
  openNfTables,
  parseElements,
  watchNfTables,
} from '../../lib/netlink/nftables.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { openRuleTools } from '../host/rule-tools.ts';
import { below, fillRandom, prng, testSeed } from '../support/prng.ts';
import { makeSandbox, whyNot } from './sandbox.ts';

const noNamespaces = whyNot();
const tools = noNamespaces === false ? openRuleTools() : noNamespaces;
const skip = typeof tools === 'string' ? tools : false;
const sandbox = makeSandbox();
t.teardown(() => {
  sandbox.remove();
  if (typeof tools !== 'string') tools.remove();
});

const TABLE = `table ip t {
  map pods { type ipv4_addr : verdict; }
  chain one {
    masquerade
  }
  chain two {
    accept
  }
  chain out {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr vmap @pods
  }
}
`;
const place = { family: 'ip', table: 't', map: 'pods' } as const;
const add = (last: number, chain = 'one', comment = `pod ${last}`): MapChange => ({
  kind: 'add',
  place,
  element: { key: Uint8Array.of(10, 5, last >>> 8, last & 255), chain, comment },
});
const remove = (last: number): MapChange => ({
  kind: 'remove',
  place,
  element: { key: Uint8Array.of(10, 5, 0, last) },
});

let number = 0;
function open(t: { teardown(action: () => void): void }) {
  number++;
  const path = sandbox.namespace(`nft${number}`);
  const tables = new NfTables(path);
  t.teardown(() => tables.close());
  const nft = (...args: string[]): string => {
    if (typeof tools === 'string') throw new Error(tools);
    return withNamespace(path, () => execFileSync(tools.nft, args, { encoding: 'utf8' }));
  };
  return { path, tables, nft };
}

t.test('elements as nft shows them, and back', { skip }, async t => {
  const { tables, nft } = open(t);
  nft(TABLE);
  t.same(tables.elements(place), []);
  tables.change('add', [add(1), add(2, 'two', ''), add(3, 'one', 'ü'.repeat(60))]);
  const list = nft('list', 'map', 'ip', 't', 'pods');
  t.match(list, '10.5.0.1 comment "pod 1" : goto one');
  t.match(list, '10.5.0.2 : goto two');
  const elements = tables.elements(place).sort((a, b) => a.key[3] - b.key[3]);
  t.same(
    elements.map(({ key, chain, comment }) => [...key, chain, comment]),
    [
      [10, 5, 0, 1, 'one', 'pod 1'],
      [10, 5, 0, 2, 'two', ''],
      [10, 5, 0, 3, 'one', 'ü'.repeat(60)],
    ],
  );
  nft('add element ip t pods { 10.5.0.9 : accept }');
  t.equal(tables.elements(place).length, 3, 'what goes to no chain is not listed');
  tables.change('remove', [remove(1), remove(2)]);
  t.equal(tables.elements(place).length, 1);
});

t.test('a transaction is done as a whole or not at all', { skip }, async t => {
  const { tables, nft } = open(t);
  nft(TABLE);
  tables.change('add', [add(1)]);
  t.throws(() => tables.change('remove two', [remove(1), remove(2)]), {
    code: 'ENOENT',
    message: /^remove two: ENOENT/,
  });
  t.throws(() => tables.change('add two', [add(5), add(6, 'no such chain')]), { code: 'ENOENT' });
  t.throws(() => tables.change('elsewhere', [add(7), add(1, 'two')]), { code: 'EEXIST' });
  t.same(
    tables.elements(place).map(element => element.comment),
    ['pod 1'],
  );
  tables.change('the same again', [add(1)]);
  tables.change('replace', [remove(1), add(1, 'two', 'next')]);
  t.match(tables.elements(place), [{ chain: 'two', comment: 'next' }]);
  t.throws(() => tables.elements({ ...place, table: 'none' }), { code: 'ENOENT' });
  tables.change('nothing', []);
});

t.test('a thousand elements', { skip }, async t => {
  const { tables, nft } = open(t);
  nft(TABLE);
  const changes = Array.from({ length: 1000 }, (_, i) => add(i, 'one', `${i}`.padEnd(LONGEST_COMMENT, '.')));
  tables.change('add', changes);
  const found = tables.elements(place);
  t.equal(new Set(found.map(element => element.comment)).size, 1000);
  t.ok(found.every(element => element.comment.length === LONGEST_COMMENT));
});

t.test('the fingerprint of a table changes with its rules and with nothing else', { skip }, async t => {
  const { tables, nft } = open(t);
  t.equal(tables.fingerprint('ip', 't'), '');
  nft(TABLE);
  const before = tables.fingerprint('ip', 't');
  t.not(before, '');
  tables.change('add', [add(1)]);
  nft('table ip other {\n chain c {\n accept\n}\n}');
  t.equal(tables.fingerprint('ip', 't'), before);
  t.equal(tables.fingerprint('ip6', 't'), '');
  nft('add rule ip t two drop');
  t.not(tables.fingerprint('ip', 't'), before);
  nft('flush ruleset');
  t.equal(tables.fingerprint('ip', 't'), '');
});

t.test('base chains, and the generation', { skip }, async t => {
  const { path, tables, nft } = open(t);
  const before = tables.generation();
  t.equal(tables.generation(), before);
  nft('table inet wall {\n chain through {\n type filter hook forward priority 0; policy drop\n}\n}');
  nft(TABLE);
  t.not(tables.generation(), before);
  t.same(
    tables
      .baseChains()
      .map(({ family, table, name, hook, policy }) => [family, table, name, hook, policy])
      .sort(),
    [
      ['inet', 'wall', 'through', HOOK_FORWARD, 'drop'],
      ['ip', 't', 'out', 4, 'accept'],
    ],
  );
  const probe = openNfTables(path);
  t.ok(probe !== undefined);
  probe?.close();
  t.equal(openNfTables('/no/such/namespace'), undefined);
});

t.test('news of changes, until stopped', { skip }, async t => {
  const { path, nft } = open(t);
  let news = 0;
  const stop = watchNfTables(path, () => {
    news++;
  });
  nft(TABLE);
  for (const deadline = performance.now() + 10_000; news === 0 && performance.now() < deadline; ) {
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  t.ok(news > 0);
  stop();
  stop();
  const until = news;
  nft('flush ruleset');
  await new Promise(resolve => setTimeout(resolve, 50));
  t.equal(news, until);
});

t.test('comments in user data', async t => {
  for (const text of ['a', 'net/0a/eth0', 'ü', 'x'.repeat(LONGEST_COMMENT)])
    t.equal(commentOf(commentBytes(text)), text);
  t.throws(() => commentBytes('x'.repeat(LONGEST_COMMENT + 1)), RangeError);
  t.equal(commentOf(undefined), '');
  t.equal(commentOf(Uint8Array.of(7, 1, 1, 0, 2, 65, 0)), 'A', 'another label goes before it');
  for (const bytes of [[], [0], [0, 9], [5, 200, 1]]) t.equal(commentOf(Uint8Array.from(bytes)), '');
});

t.test('hostile bytes throw EBADMSG and nothing else', async t => {
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const random = prng(seed);
  const good = new MessageBuilder(1, 0)
    .body(4, () => {})
    .nest(3, list => list.nest(1, item => item.nest(1, key => key.bytes(1, Uint8Array.of(1, 2, 3, 4)))))
    .finish(1)
    .slice(16);
  let refused = 0;
  for (let i = 0; i < 20_000; i++) {
    const payload = i % 2 === 0 ? good.slice() : new Uint8Array(below(random, 64));
    if (i % 2 === 0) payload[below(random, payload.length)] = random();
    else fillRandom(random, payload);
    try {
      parseElements({ payload });
      parseList(payload);
    } catch (error) {
      refused++;
      if ((error as { code?: string }).code !== 'EBADMSG') throw error;
    }
  }
  t.ok(refused > 1000, `${refused} were refused`);
});
