import t from 'tap';
import { Schedule } from '../../lib/cni/schedule.ts';
import { below, pick, prng, testSeed } from '../support/prng.ts';
import { deferred } from './fake-plugin.ts';

const LIMITS = { running: 100, waiting: 1000 };

/** Jobs that start and end when told; `events` says what happened in which order. */
function jobs(schedule: Schedule) {
  const events: string[] = [];
  const ends = new Map<string, () => void>();
  return {
    events,
    add: (name: string, network: string, container: string | undefined): Promise<void> =>
      schedule.run(network, container, async () => {
        events.push(`+${name}`);
        const { promise, resolve } = deferred();
        ends.set(name, () => resolve());
        await promise;
        events.push(`-${name}`);
      }),
    end: async (name: string): Promise<void> => {
      ends.get(name)?.();
      await settle();
    },
  };
}

const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

t.test('a container waits for itself, others do not', async t => {
  const { events, add, end } = jobs(new Schedule(LIMITS));
  const all = [add('a1', 'net', 'a'), add('b1', 'net', 'b'), add('a2', 'net', 'a'), add('a3', 'other', 'a')];
  await settle();
  t.same(events, ['+a1', '+b1', '+a3'], 'the same id in another network is another container');
  await end('b1');
  t.same(events.slice(3), ['-b1']);
  await end('a1');
  t.same(events.slice(4), ['-a1', '+a2']);
  await end('a2');
  await end('a3');
  await Promise.all(all);
});

t.test('GC is alone in its network, and nobody overtakes it', async t => {
  const { events, add, end } = jobs(new Schedule(LIMITS));
  const all = [add('a', 'net', 'a'), add('gc', 'net', undefined), add('b', 'net', 'b'), add('c', 'other', 'c')];
  await settle();
  t.same(events, ['+a', '+c']);
  await end('a');
  t.same(events.slice(2), ['-a', '+gc']);
  await end('gc');
  t.same(events.slice(4), ['-gc', '+b']);
  await end('b');
  await end('c');
  await Promise.all(all);
});

t.test('the bounds', async t => {
  const { events, add, end } = jobs(new Schedule({ running: 2, waiting: 1 }));
  const all = [add('a', 'net', 'a'), add('b', 'net', 'b'), add('c', 'net', 'c')];
  await t.rejects(add('d', 'net', 'd'), { cniCode: 11, message: /try again later/ });
  await settle();
  t.same(events, ['+a', '+b']);
  await end('a');
  t.same(events, ['+a', '+b', '-a', '+c']);
  await end('b');
  await end('c');
  await Promise.all(all);
});

t.test('a failure frees the turn', async t => {
  const schedule = new Schedule(LIMITS);
  await t.rejects(
    schedule.run('net', 'a', async () => {
      throw new Error('no');
    }),
    { message: 'no' },
  );
  t.equal(await schedule.run('net', 'a', async () => 'yes'), 'yes');
  t.same([schedule.running, schedule.waiting], [0, 0]);
});

t.test('at random', async t => {
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const next = prng(seed);
  const schedule = new Schedule({ running: 6, waiting: 10_000 });
  const active: { network: string; container: string | undefined }[] = [];
  let most = 0;
  const all = Array.from({ length: 2000 }, async (_, i) => {
    const network = pick(next, ['x', 'y']);
    const container = below(next, 20) === 0 ? undefined : pick(next, ['a', 'b', 'c', 'd', 'e']);
    const turns = below(next, 3);
    await schedule.run(network, container, async () => {
      const clash = active.filter(
        other =>
          other.network === network &&
          (other.container === undefined || container === undefined || other.container === container),
      );
      if (clash.length > 0) t.fail(`job ${i} ran beside another of its own`);
      const self = { network, container };
      active.push(self);
      most = Math.max(most, active.length);
      for (let turn = 0; turn < turns; turn++) await settle();
      active.splice(active.indexOf(self), 1);
    });
  });
  await Promise.all(all);
  t.ok(most > 1 && most <= 6, `${most} at once`);
  t.same([schedule.running, schedule.waiting], [0, 0]);
});
