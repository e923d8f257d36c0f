// What etcd remembers, read back: every version, holes by compaction, and changes of other keys in between.
import t, { type Test } from 'tap';
import { openEtcdHistory } from '../../etcd/history.ts';
import { type Change, printHolder } from '../../lib/lease/history.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { type Bench, bench, requireEtcd } from './support.ts';

requireEtcd();
const subnets = '/coreos.com/network/subnets/';

const value = (node: string, publicIp = '10.88.0.1'): string =>
  `{"PublicIP":"${publicIp}","PublicIPv6":null,"BackendType":"tulle","BackendData":{"NodeID":"${node}"}}`;

async function put(made: Bench, key: string, node: string): Promise<number> {
  return Number((await made.raw.put(subnets + key).value(value(node))).header.revision);
}
async function drop(made: Bench, key: string): Promise<number> {
  return Number((await made.raw.delete().key(subnets + key)).header.revision);
}
const tell = ({ kind, key, revision, holding }: Change): string =>
  `${revision} ${kind} ${key} ${holding === undefined ? '?' : printHolder(holding)}`;

function open(t: Test, made: Bench) {
  const history = openEtcdHistory({ endpoints: [made.server.endpoint], log: silentLogger });
  t.teardown(() => history.close());
  return history;
}

t.test('every change, also of leases that came and went, and the state at each revision', async t => {
  const made = await bench(t);
  const history = open(t, made);
  t.same((await history.past()).changes, [], 'an empty etcd has no past');
  const one = await put(made, '10.5.1.0-24', 'a');
  await made.raw.put('/somebody/else').value('x');
  const two = await put(made, '10.5.2.0-24', 'b');
  const three = await drop(made, '10.5.1.0-24');
  const four = await put(made, '10.5.1.0-24', 'c');
  const five = await put(made, '10.5.3.0-24', 'd');
  const six = await drop(made, '10.5.3.0-24');
  await made.raw.put('/somebody/else').value('y'); // the last change is not one of ours

  const past = await history.past();
  t.same(past.changes.map(tell), [
    `${one} put 10.5.1.0-24 node a (10.88.0.1)`,
    `${two} put 10.5.2.0-24 node b (10.88.0.1)`,
    `${three} removed 10.5.1.0-24 node a (10.88.0.1)`,
    `${four} put 10.5.1.0-24 node c (10.88.0.1)`,
    `${five} put 10.5.3.0-24 node d (10.88.0.1)`,
    `${six} removed 10.5.3.0-24 node d (10.88.0.1)`,
  ]);
  t.same([past.since, past.base], [0, []]);
  const nodesAt = async (revision: number) => (await history.at(revision)).map(({ nodeId }) => nodeId);
  t.same(await nodesAt(one), ['a']);
  t.same(await nodesAt(two), ['a', 'b']);
  t.same(await nodesAt(three), ['b']);
  t.same(await nodesAt(five), ['c', 'b', 'd']);
  t.same(await nodesAt(six), ['c', 'b']);
  await t.rejects(history.at(six + 1000), { code: 'future', message: /still to come/ });
});

t.test('a past of which nothing is left, and whose end no change of ours marks', async t => {
  const made = await bench(t);
  const history = open(t, made);
  for (const node of ['a', 'b', 'c']) {
    await put(made, '10.5.1.0-24', node);
    await drop(made, '10.5.1.0-24');
  }
  await made.raw.put('/somebody/else').value('x');
  const { changes, base } = await history.past();
  t.same([changes.length, base], [6, []]);
});

t.test('after a compaction: the state at it, and what came after; before it a clear word', async t => {
  const made = await bench(t);
  const history = open(t, made);
  const one = await put(made, '10.5.1.0-24', 'a');
  await put(made, '10.5.2.0-24', 'b');
  await drop(made, '10.5.1.0-24');
  const compacted = await put(made, '10.5.1.0-24', 'c');
  const later = await put(made, '10.5.3.0-24', 'd');
  await made.raw.kv.compact({ revision: `${compacted}`, physical: true });

  const past = await history.past();
  t.equal(past.since, compacted);
  t.same(
    past.base.map(({ subnet, nodeId }) => `${subnet} ${nodeId}`),
    ['10.5.1.0/24 c', '10.5.2.0/24 b'],
  );
  t.same(past.changes.map(tell), [`${later} put 10.5.3.0-24 node d (10.88.0.1)`]);
  await t.rejects(history.at(one), {
    code: 'compacted',
    message: new RegExp(
      `^revision ${one} was compacted: etcd at .* has forgotten what was before revision ${compacted}$`,
    ),
  });
  t.equal((await history.at(compacted)).length, 2);

  await made.raw.kv.compact({ revision: `${later}`, physical: true });
  const nothing = await history.past();
  t.same([nothing.since, nothing.base.length, nothing.changes], [later, 3, []], 'compacted up to this moment');
});

t.test('5,000 changes, and values that cannot be read are left out', async t => {
  const made = await bench(t);
  const history = open(t, made);
  for (let round = 0; round < 50; round++) {
    const success = Array.from({ length: 100 }, (_, index) => ({
      request_put: {
        key: Buffer.from(`${subnets}10.${round}.${index}.0-24`),
        value: Buffer.from(index === 7 ? 'garbage' : value('n')),
      },
    }));
    await made.raw.kv.txn({ success });
  }
  const past = await history.past();
  t.equal(past.changes.length, 50 * 99);
  t.equal(past.changes.at(-1)?.revision, past.revision);
});
