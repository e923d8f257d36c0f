// When is a registry well? The meter over a registry that fails in every way, and rates out of counters.
import t from 'tap';
import { RegistryError, type RegistryErrorCode } from '../../lib/lease/registry.ts';
import { RateWindow } from '../../lib/observe/rates.ts';
import { measureRegistry, RegistryMeter, type Verb } from '../../lib/observe/registry-meter.ts';
import { FakeRegistry, peerLease } from '../daemon/fakes.ts';
import { createVirtualClock } from '../support/virtual-clock.ts';

function world() {
  const clock = createVirtualClock();
  const meter = new RegistryMeter(clock);
  const call = (verb: Verb, code?: RegistryErrorCode): Promise<unknown> =>
    meter
      .measure(verb, async () => {
        if (code !== undefined) throw new RegistryError(code, `${verb}: ${code}`);
      })
      .catch(() => {});
  return { clock, meter, call };
}

t.test('an answer is an answer, a fault lasts until the next one', async t => {
  const { clock, meter, call } = world();
  t.same(meter.health, { healthy: true });
  for (const code of ['taken', 'conflict', 'missing'] as const) {
    await call('update', code);
    t.same(meter.health, { healthy: true }, code);
  }
  await call('config', 'unavailable');
  await clock.advance(3000);
  await call('config', 'unavailable');
  t.same(meter.health, { healthy: false, reason: 'config: unavailable', forMs: 3000 }, 'since the first');
  await call('config');
  t.same(meter.health, { healthy: true });
  t.same(Object.fromEntries(meter.errors), {
    'update taken': 1,
    'update conflict': 1,
    'update missing': 1,
    'config unavailable': 2,
  });
});

t.test('a registry that is read may still refuse writes; one that takes writes is there', async t => {
  const { meter, call } = world();
  await call('update', 'unavailable');
  await call('list');
  t.equal(meter.health.healthy, false, 'read-only');
  await call('config', 'unavailable');
  await call('update');
  t.equal(meter.health.healthy, true);
  await call('config', 'no-config');
  await call('update');
  t.match(
    meter.health,
    { healthy: false, reason: 'config: no-config' },
    'that it has no configuration is another matter',
  );
});

t.test('a call that hangs, and a watch that broke', async t => {
  const { clock, meter } = world();
  let answer = (): void => {};
  const hanging = meter.measure(
    'list',
    () =>
      new Promise<void>(resolve => {
        answer = resolve;
      }),
  );
  await clock.advance(4000);
  t.same(meter.health, { healthy: true });
  await clock.advance(2000);
  t.match(meter.health, { healthy: false, reason: 'it has not answered "list" yet', forMs: 6000 });
  answer();
  await hanging;
  t.same(meter.health, { healthy: true });
  t.match(meter.latency.get('list'), { count: 1, sum: 6 });

  meter.watched('gone');
  meter.watched('still gone');
  t.match(meter.health, { healthy: false, reason: 'still gone' });
  meter.watched(undefined);
  t.same(meter.health, { healthy: true });
  t.equal(meter.watchInterruptions, 1);
});

t.test('the measured registry is the same registry', async t => {
  const meter = new RegistryMeter(createVirtualClock());
  const fake = new FakeRegistry([]);
  const registry = measureRegistry(fake, meter);
  const lease = await registry.create(peerLease(7, 1), 60);
  t.same((await registry.list()).leases, [lease]);
  await t.rejects(registry.create(peerLease(7, 1), 60), { code: 'taken' });
  const stop = new AbortController();
  for await (const message of registry.watch(stop.signal)) {
    t.equal(message.kind, 'snapshot');
    stop.abort();
  }
  await registry.remove(await registry.update(lease, lease.attributes, 60));
  const { text } = await registry.config();
  t.match(text, /Network/);
  await registry.close();
  const counts = [...meter.latency].map(([verb, { count }]) => [verb, count]);
  t.same(Object.fromEntries(counts), { config: 1, list: 1, create: 2, update: 1, remove: 1 });
  t.equal(registry.kind, 'file');
});

t.test('rates', async t => {
  const rates = new RateWindow();
  t.equal(rates.get(), undefined);
  rates.add(1000, { a: 10, b: 5 });
  t.equal(rates.get(), undefined, 'one look says nothing');
  rates.add(3000, { a: 30, b: 5 });
  t.same(rates.get(), { a: 10, b: 0 });
  rates.add(4000, { a: 3, b: 7, c: 4 });
  t.same(rates.get(), { a: 0, b: 2, c: 4 }, 'a counter that fell is a new one');
  rates.add(4000, { a: 3 });
  t.equal(rates.get(), undefined, 'no time passed');
  rates.add(64_001, { a: 3 });
  t.equal(rates.get(), undefined, 'the machine slept');
});
