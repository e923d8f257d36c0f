import t from 'tap';
import { checkSpec, describe, FAULT_KINDS, type FaultSpec, isDirect, rulesOf } from '../../lib/lab/fault-spec.ts';

const places = { nodes: ['node1', 'node2', 'node3'], registry: 'file' } as const;
const check = (spec: FaultSpec, registry: 'file' | 'etcd' = 'file') => checkSpec(spec, { ...places, registry }, 7);

t.test('what is asked for is answered whole', async t => {
  t.match(check({ kind: 'delay', where: 'node1-node2', ms: 40, jitterMs: 10 }), {
    where: 'node1-node2',
    direction: 'both',
    ms: 40,
    jitterMs: 10,
    seed: 7,
  });
  t.match(check({ kind: 'loss', percent: 0.5, seed: 3 }), { where: null, percent: 0.5, seed: 3 });
  t.match(check({ kind: 'reorder', where: 'node2', percent: 20 }), { ms: 5 });
  t.match(check({ kind: 'mtu', where: 'node1', bytes: 1400 }), { bytes: 1400, mode: 'silent' });
  t.match(check({ kind: 'nat', where: 'node2-node1' }), { address: '10.88.0.201', direction: 'both' });
  t.match(check({ kind: 'partition', where: 'node1-registry' }), { kind: 'partition' });
  t.match(check({ kind: 'delay', where: 'node1-registry', ms: 900 }, 'etcd'), { ms: 900 });
});

t.test('what a lab cannot have is refused in one line', async t => {
  const wrong: [FaultSpec, RegExp][] = [
    [{ kind: 'fire' as 'loss' }, /a fault is one of partition, loss, mtu, nat, duplicate, delay, reorder, not "fire"/],
    [{ kind: 'delay', where: 'node1' }, /--ms is a number from 0 to 10000$/],
    [{ kind: 'delay', ms: 10_001 }, /not 10001/],
    [{ kind: 'delay', ms: 5, percent: 5 }, /delay does not take --percent/],
    [{ kind: 'loss', percent: 5, jitterMs: 5 }, /loss does not take --jitter$/],
    [{ kind: 'loss', percent: 0 }, /--percent is a number from 0\.01 to 100, not 0/],
    [{ kind: 'loss', percent: Number.NaN }, /--percent/],
    [{ kind: 'loss', percent: 101 }, /not 101/],
    [{ kind: 'mtu', where: 'node1', bytes: 100 }, /--bytes is a number from 576 to 1500/],
    [{ kind: 'mtu', where: 'node1-node2', bytes: 1400, mode: 'link' }, /sets the MTU of one node's interface/],
    [{ kind: 'partition', where: 'node4' }, /"node4" is not a place of this lab: say a node \(node1, node2, node3\)/],
    [{ kind: 'partition', where: 'node1-node1' }, /not a place/],
    [{ kind: 'partition', where: 'node1-node2-node3' }, /not a place/],
    [{ kind: 'partition', where: 'registry-node1' }, /not a place/],
    [{ kind: 'partition', direction: 'out' }, /--direction out needs two places/],
    [{ kind: 'nat' }, /nat needs the node/],
    [{ kind: 'nat', where: 'node1', address: '10.88.0.2' }, /a free address of the underlay/],
    [{ kind: 'nat', where: 'node1', address: '10.88.0.254' }, /a free address/],
    [{ kind: 'nat', where: 'node1', address: '10.89.0.9' }, /a free address/],
    [{ kind: 'nat', where: 'node1', address: 'x' }, /not "x"/],
    [{ kind: 'nat', where: 'node1', direction: 'in' }, /nat has no --direction/],
    [{ kind: 'loss', where: 'node1-registry', percent: 5 }, /the file registry is a directory/],
    [{ kind: 'partition', where: 'node1-registry', direction: 'in' }, /the file registry is a directory/],
  ];
  for (const [spec, message] of wrong) t.throws(() => check(spec), { code: 'usage', message }, JSON.stringify(spec));
});

t.test('each rule is kept by one link', async t => {
  const fault = (id: string, spec: FaultSpec) => ({ ...check(spec), id });
  const rules = rulesOf(
    [
      fault('a', { kind: 'delay', ms: 1 }),
      fault('b', { kind: 'partition', where: 'node3' }),
      fault('c', { kind: 'loss', where: 'node2-node1', percent: 1 }),
      fault('d', { kind: 'mtu', where: 'node1', bytes: 1400, mode: 'link' }),
      fault('e', { kind: 'partition', where: 'node1-registry' }),
    ],
    places,
  );
  const seen = [...rules].map(([link, list]) => `${link}: ${list.map(({ id, peer }) => `${id} ${peer}`).join(', ')}`);
  t.same(seen, ['node1: a node2, a node3', 'node2: c node1, a node3', 'node3: b null'], 'in the order of the kinds');
  t.equal(
    isDirect(check({ kind: 'partition', where: 'node1-registry' }, 'etcd'), { ...places, registry: 'etcd' }),
    false,
  );
});

t.test('every kind can be described', async t => {
  const more = { percent: 5, bytes: 1400, ms: 5 };
  const fields: Record<string, (keyof typeof more)[]> = { loss: ['percent'], duplicate: ['percent'], delay: ['ms'] };
  Object.assign(fields, { reorder: ['percent'], mtu: ['bytes'] });
  for (const kind of FAULT_KINDS) {
    const spec = Object.fromEntries((fields[kind] ?? []).map(name => [name, more[name]]));
    const words = describe(check({ kind, where: 'node1', ...spec }));
    t.match(words, /^[a-zA-Z0-9][^\n]{8,90}$/, words);
    t.notMatch(words, /undefined|null|NaN/);
  }
});
