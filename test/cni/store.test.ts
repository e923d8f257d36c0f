import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { parseRangeSets } from '../../lib/cni/ipam/range.ts';
import { chooseAddresses } from '../../lib/cni/ipam/reserve.ts';
import { type AttachmentRecord, AttachmentStore } from '../../lib/cni/store.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { below as belowOf, prng, testSeed } from '../support/prng.ts';

const directory = mkdtempSync(join(tmpdir(), `tulle-cni-${process.pid}-`));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
const open = (network: string): AttachmentStore => AttachmentStore.open(directory, network, silentLogger);

const recordOf = (containerId: string, ips: readonly string[]): AttachmentRecord => ({
  containerId,
  ifname: 'eth0',
  netns: `/run/netns/${containerId}`,
  boot: 'this',
  hostLink: `veth${containerId}`,
  bridge: 'cni0',
  ips,
});

t.test('one process at a time', async t => {
  const store = open('locked');
  t.throws(() => open('locked'), { cniCode: 11, message: /another process manages/ });
  store.close();
  open('locked').close();
});

t.test('begun, done, ended', async t => {
  const store = open('life');
  store.begin(recordOf('a', ['10.5.1.2']));
  t.same(store.unfinished().length, 1);
  store.done({ containerId: 'a', ifname: 'eth0' });
  t.same(store.unfinished(), []);
  t.match(store.holderOf('10.5.1.2'), { containerId: 'a' });
  store.begin(recordOf('b', ['10.5.1.3']));
  store.close();
  const again = open('life');
  t.same(again.list(), [recordOf('a', ['10.5.1.2']), recordOf('b', ['10.5.1.3'])]);
  t.same(again.unfinished(), [recordOf('b', ['10.5.1.3'])], 'what a killed process left');
  again.end({ containerId: 'a', ifname: 'eth0' });
  again.end({ containerId: 'a', ifname: 'eth0' });
  t.equal(again.holderOf('10.5.1.2'), undefined);
  again.close();
});

t.test('gateways are remembered, also through a rewrite', async t => {
  const store = open('gateways');
  const [first, second] = ['10.5.1.1/24', '10.5.2.1/24'].map(cidr => ({ bridge: 'cni0', cidr, boot: 'this' }));
  store.noteGateway(first);
  store.noteGateway(second);
  store.forgetGateway(first);
  store.forgetGateway(first);
  for (let i = 0; i < 1100; i++) {
    store.begin(recordOf('a', ['10.5.1.2']));
    store.end({ containerId: 'a', ifname: 'eth0' });
  }
  store.close();
  t.ok(readFileSync(join(directory, 'gateways', 'journal')).length < 50_000, 'it was written anew');
  const again = open('gateways');
  t.same(again.gateways(), [second]);
  again.close();
});

t.test('an end that could not be written frees the address all the same', async t => {
  const store = open('full');
  store.begin(recordOf('a', ['10.5.1.2']));
  store.close();
  // The journal still claims that a has it; then b gets it. Later wins.
  const path = join(directory, 'full', 'journal');
  const before = readFileSync(path);
  const second = open('full');
  second.end({ containerId: 'a', ifname: 'eth0' });
  second.begin(recordOf('b', ['10.5.1.2']));
  second.close();
  const lines = readFileSync(path, 'utf8').split('\n');
  truncateSync(path, before.length);
  appendFileSync(path, `${lines[2]}\n`);
  const third = open('full');
  t.same(third.list(), [recordOf('b', ['10.5.1.2'])]);
  third.close();
});

/**
 * The twin keeps a list of what is free in the order in which it will be given out: behind the last one and around, and
 * what is released at the end. A crash loses the order of what was released, nothing else.
 */
class Twin {
  readonly all: string[];
  readonly held = new Map<string, { address: string; done: boolean }>();
  free: string[];
  last = '';

  constructor(all: string[]) {
    this.all = all;
    this.free = [...all];
  }

  crash(): void {
    const taken = new Set([...this.held.values()].map(({ address }) => address));
    const start = this.all.indexOf(this.last) + 1;
    this.free = [...this.all.slice(start), ...this.all.slice(0, start)].filter(address => !taken.has(address));
  }
}

t.test('100,000 operations and 200 crashes against a naive twin', async t => {
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const next32 = prng(seed);
  const below = (limit: number): number => belowOf(next32, limit);
  const random = (): number => next32() / 0x1_0000_0000;
  const sets = parseRangeSets([[{ subnet: '10.5.1.0/26' }, { subnet: '10.6.0.0/27', rangeStart: '10.6.0.9' }]]);
  const all = [
    ...Array.from({ length: 61 }, (_, i) => `10.5.1.${i + 2}`),
    ...Array.from({ length: 22 }, (_, i) => `10.6.0.${i + 9}`),
  ];
  const twin = new Twin(all);
  let store = open('model');
  const path = join(directory, 'model', 'journal');
  let next = 0;
  let failures = 0;
  let largest = 0;
  const check = (isRight: boolean, what: string): void => {
    if (!isRight && failures++ < 5) t.fail(`${what} (seed ${seed})`);
  };
  for (let step = 0; step < 100_000; step++) {
    const choice = random();
    const keys = [...twin.held.keys()];
    if (choice < 0.5) {
      const containerId = `c${next++}`;
      const wanted = random() < 0.1 ? [all[below(all.length)]] : [];
      let given: string | undefined;
      try {
        const choices = chooseAddresses(store, sets, wanted);
        given = choices[0].address;
        store.begin(recordOf(containerId, [given]));
      } catch {
        given = undefined;
      }
      const isFree = wanted.length === 0 || twin.free.includes(wanted[0]);
      const expected = isFree ? (wanted[0] ?? twin.free[0]) : undefined;
      check(given === expected, `step ${step}: given ${given}, expected ${expected}`);
      if (given !== undefined) {
        twin.held.set(containerId, { address: given, done: false });
        twin.free = twin.free.filter(address => address !== given);
        twin.last = given;
      }
    } else if (choice < 0.7 && keys.length > 0) {
      const containerId = keys[below(keys.length)];
      store.done({ containerId, ifname: 'eth0' });
      twin.held.get(containerId)!.done = true;
    } else if (choice < 0.998 && keys.length > 0) {
      const containerId = keys[below(keys.length)];
      const { address } = twin.held.get(containerId)!;
      store.end({ containerId, ifname: 'eth0' });
      twin.held.delete(containerId);
      twin.free.push(address);
    } else {
      // Killed in the middle of a write: some of the next record is in the file.
      store.close();
      const line = `00000000 ${JSON.stringify({ op: 'begin', ...recordOf(`torn${step}`, ['10.5.1.2']) })}`;
      appendFileSync(path, line.slice(0, below(line.length)));
      largest = Math.max(largest, readFileSync(path).length);
      store = open('model');
      store.pool(sets[0], 0); // from now on it sees what is released
      twin.crash();
      const found = Object.fromEntries(store.list().map(({ containerId, ips }) => [containerId, ips[0]]));
      const wanted = Object.fromEntries([...twin.held].map(([containerId, { address }]) => [containerId, address]));
      check(JSON.stringify(sorted(found)) === JSON.stringify(sorted(wanted)), `step ${step}: after a crash`);
      const begun = store.unfinished().map(({ containerId }) => containerId);
      const undone = [...twin.held].filter(([, { done }]) => !done).map(([containerId]) => containerId);
      check(begun.sort().join() === undone.sort().join(), `step ${step}: unfinished after a crash`);
    }
  }
  t.equal(failures, 0);
  t.equal(store.pool(sets[0], 0).free, BigInt(twin.free.length));
  t.ok(largest > 0 && largest < 2_000_000, `the journal is written anew now and then: at most ${largest} bytes`);
  store.close();
});

const sorted = (object: Record<string, string>): [string, string][] =>
  Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1));
