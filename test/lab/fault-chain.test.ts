import t from 'tap';
import { FaultChain } from '../../lib/lab/fault-chain.ts';
import { checkSpec, type FaultSpec, type Rule } from '../../lib/lab/fault-spec.ts';

const self = { mac: 0x020000000001, address: 0x0a580001 };
const stations: Record<string, typeof self> = {
  node2: { mac: 0x020000000002, address: 0x0a580002 },
  registry: { mac: 0x0200000000fe, address: 0x0a5800fe },
};
const places = { nodes: ['node1', 'node2'], registry: 'etcd' } as const;

function rule(spec: FaultSpec, id: string = spec.kind): Rule {
  const checked = checkSpec({ where: 'node1', ...spec }, places, 1);
  return { ...checked, id, peer: checked.where!.split('-')[1] ?? null };
}

function chainOf(...rules: Rule[]): FaultChain {
  const chain = new FaultChain(self, 0x0a5800fe);
  chain.update('node1', rules, peer => stations[peer]);
  return chain;
}

/** A frame from node1 to a station. */
function frameTo(mac: number, bytes = 60): Uint8Array {
  const frame = new Uint8Array(bytes);
  const view = new DataView(frame.buffer);
  view.setUint16(0, Math.floor(mac / 2 ** 32));
  view.setUint32(2, mac % 2 ** 32);
  return frame;
}
const toNode2 = frameTo(stations['node2'].mac);

/** Which of so many frames are gone. */
function lost(chain: FaultChain, count: number, out = true): number[] {
  const gone: number[] = [];
  for (let i = 0; i < count; i++) if (chain.decide(toNode2, 60, out).copies === 0) gone.push(i);
  return gone;
}

t.test('a seed is a fate', async t => {
  const spec: FaultSpec = { kind: 'loss', percent: 10, seed: 42 };
  const first = lost(chainOf(rule(spec)), 1000);
  t.same(lost(chainOf(rule(spec)), 1000), first, 'the same frames again');
  t.notSame(lost(chainOf(rule({ ...spec, seed: 43 })), 1000), first);
  t.notSame(lost(chainOf(rule(spec)), 1000, false), first, 'each direction has its own');
});

t.test('rates', async t => {
  // Five standard deviations of a binomial: a wrong rate fails, a right one does not, whatever the seed.
  const count = 20_000;
  for (const percent of [0.5, 5, 30, 100]) {
    const p = percent / 100;
    const bound = 5 * Math.sqrt(count * p * (1 - p));
    for (let seed = 0; seed < 5; seed++) {
      const gone = lost(chainOf(rule({ kind: 'loss', percent, seed })), count).length;
      t.ok(Math.abs(gone - count * p) <= bound, `${percent} %, seed ${seed}: ${gone} of ${count}`);
    }
  }
  const chain = chainOf(rule({ kind: 'duplicate', percent: 25 }));
  let copies = 0;
  for (let i = 0; i < count; i++) copies += chain.decide(toNode2, 60, true).copies;
  t.ok(Math.abs(copies - 1.25 * count) < 5 * Math.sqrt(count * 0.25 * 0.75), `${copies} copies`);
  t.equal(chain.hits().get('duplicate'), copies - count);
});

t.test('delay, jitter, frames held back', async t => {
  const chain = chainOf(rule({ kind: 'delay', ms: 20, jitterMs: 5 }));
  const delays = Array.from({ length: 5000 }, () => chain.decide(toNode2, 60, true).delayMs);
  t.ok(Math.min(...delays) >= 15 && Math.max(...delays) <= 25, 'within the jitter');
  t.ok(Math.min(...delays) < 15.2 && Math.max(...delays) > 24.8, 'all of it');
  const both = chainOf(rule({ kind: 'delay', ms: 20 }, 'a'), rule({ kind: 'delay', ms: 30 }, 'b'));
  t.match(both.decide(toNode2, 60, false), { delayMs: 50, heldBack: false, copies: 1 }, 'delays add up');
  const reorder = chainOf(rule({ kind: 'reorder', percent: 100, ms: 7 }));
  t.match(reorder.decide(toNode2, 60, true), { delayMs: 7, heldBack: true });
});

t.test('only the frames that are meant', async t => {
  const between = chainOf(rule({ kind: 'partition', where: 'node1-node2' }));
  t.equal(between.decide(toNode2, 60, true).copies, 0);
  t.equal(between.decide(frameTo(0x020000000003), 60, true).copies, 1, 'to somebody else');
  t.equal(between.decide(frameTo(stations['registry'].mac), 60, true).copies, 1);
  const registry = chainOf(rule({ kind: 'partition', where: 'node1-registry' }));
  t.equal(registry.decide(frameTo(stations['registry'].mac), 60, true).copies, 0);
  const oneWay = chainOf(rule({ kind: 'partition', where: 'node1-node2', direction: 'out' }));
  const back = new Uint8Array(60);
  back.set(toNode2.subarray(0, 6), 6);
  t.equal(oneWay.decide(toNode2, 60, true).copies, 0);
  t.equal(oneWay.decide(back, 60, false).copies, 1);
  t.equal(between.decide(back, 60, false).copies, 0);
  const nobody = new FaultChain(self, 0);
  nobody.update('node1', [rule({ kind: 'partition', where: 'node1-node2' })], () => undefined);
  t.equal(nobody.decide(toNode2, 60, true).copies, 1, 'a peer that cannot be found is not everybody');
});

t.test('a rule that stays goes on where it was', async t => {
  const loss = rule({ kind: 'loss', percent: 50, seed: 5 });
  const alone = chainOf(loss);
  const all = lost(alone, 200);
  const chain = chainOf(loss);
  const half = lost(chain, 100);
  chain.update('node1', [loss, rule({ kind: 'delay', ms: 1 })], peer => stations[peer]);
  t.same([...half, ...lost(chain, 100).map(i => i + 100)], all);
  t.equal(chain.hits().get('loss'), all.length);
  chain.update('node1', [], () => undefined);
  t.ok(chain.empty);
});
