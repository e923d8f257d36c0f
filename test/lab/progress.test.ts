import t from 'tap';
import { openProgress } from '../../lib/lab/progress.ts';

t.test('steps, notes, failures, and a step that was left alone', async t => {
  let text = '';
  let clock = 0;
  const progress = openProgress({ write: (piece: string) => (text += piece) }, () => clock);
  t.equal(
    await progress.step('first', () => {
      clock += 1234;
      return 7;
    }),
    7,
  );
  await t.rejects(
    progress.step('second', async () => {
      throw new Error('no');
    }),
    { message: 'no' },
  );
  let finish = (): void => {};
  const third = progress.step('third', () => new Promise<void>(resolve => (finish = resolve)));
  progress.note('news');
  await progress.step('fourth', () => {});
  finish();
  await third;
  t.equal(
    text,
    [
      `  first ${'.'.repeat(56)}   1.23 s`,
      `  second ${'.'.repeat(55)}  failed`,
      `  third ${'.'.repeat(56)}`,
      'news',
      `  fourth ${'.'.repeat(55)}   0.00 s`,
      '',
    ].join('\n'),
  );
});
