import t from 'tap';
import { systemClock } from '../../lib/lease/clock.ts';
import { createVirtualClock } from '../support/virtual-clock.ts';

t.test('the machine’s clock sleeps until the time or the signal', async t => {
  const before = systemClock.monotonicMs();
  await systemClock.sleep(20);
  t.ok(systemClock.monotonicMs() - before >= 20, 'never too short');
  const stop = new AbortController();
  const sleeping = systemClock.sleep(Number.POSITIVE_INFINITY, stop.signal);
  setImmediate(() => stop.abort());
  await sleeping;
  await systemClock.sleep(Number.POSITIVE_INFINITY, stop.signal);
  await systemClock.sleep(-1);
  t.ok(Math.abs(systemClock.nowMs() - Date.now()) < 60_000);
});

t.test('the virtual clock wakes sleepers in order and at their time', async t => {
  const clock = createVirtualClock();
  const lines: string[] = [];
  const sleep = async (name: string, ...pieces: number[]): Promise<void> => {
    for (const ms of pieces) {
      await clock.sleep(ms);
      lines.push(`${name} ${clock.monotonicMs()}`);
    }
  };
  const all = Promise.all([sleep('a', 30, 30), sleep('b', 20, 25)]);
  await clock.advance(50);
  t.same(lines, ['b 20', 'a 30', 'b 45']);
  t.equal(clock.sleepers(), 1);
  clock.jump(1000);
  t.equal(clock.nowMs(), Date.UTC(2026, 7, 1) + 1050);
  await clock.advance(10);
  await all;
  t.equal(lines.at(-1), 'a 60', 'the wall clock’s jump moves no sleeper');
});
