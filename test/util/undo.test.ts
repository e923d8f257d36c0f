import t from 'tap';
import type { Logger } from '../../lib/util/log.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { Undo } from '../../lib/util/undo.ts';

function recorder() {
  const warnings: object[] = [];
  const log: Logger = { ...silentLogger, warn: fields => void warnings.push(fields) };
  return { warnings, log };
}

t.test('last made, first undone, each once', async t => {
  const order: string[] = [];
  const undo = new Undo();
  undo.push('first', () => void order.push('first'));
  undo.push('second', async () => void order.push('second'));
  t.same(undo.pending, ['second', 'first']);
  t.equal(await undo.run(silentLogger), true);
  t.equal(await undo.run(silentLogger), true);
  t.same(order, ['second', 'first']);
  t.same(undo.pending, []);
});

t.test('a step that fails is a warning and stops nothing', async t => {
  const order: string[] = [];
  const { warnings, log } = recorder();
  const undo = new Undo();
  undo.push('first', () => void order.push('first'));
  undo.push('throws', () => {
    throw new Error('no');
  });
  undo.push('rejects', () => Promise.reject(new Error('never')));
  t.equal(await undo.run(log), false);
  t.same(order, ['first']);
  t.same(warnings, [
    { what: 'rejects', error: 'never' },
    { what: 'throws', error: 'no' },
  ]);
});

t.test('a step that hangs costs the limit, and what is quick still runs after it', async t => {
  const order: string[] = [];
  const { warnings, log } = recorder();
  const undo = new Undo();
  undo.push('first', async () => void order.push('first'));
  undo.push('hangs', () => new Promise(() => {}));
  t.equal(await undo.run(log, 20), false);
  t.same(order, ['first']);
  t.same(warnings, [{ what: 'hangs', error: 'it took too long' }]);
});

t.test('disarmed, it does nothing', async t => {
  const undo = new Undo();
  undo.push('x', () => void t.fail('it ran'));
  undo.disarm();
  t.equal(await undo.run(silentLogger), true);
});
