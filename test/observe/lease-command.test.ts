import t from 'tap';
import { parseTime } from '../../lib/observe/lease-command.ts';

t.test('when', async t => {
  const now = Date.UTC(2026, 7, 1, 12);
  t.equal(parseTime('10m', now), now - 600_000);
  t.equal(parseTime('1.5h', now), now - 5_400_000);
  t.equal(parseTime('2d', now), now - 172_800_000);
  t.equal(parseTime('2026-08-01 11:00:00Z', now), now - 3_600_000);
  t.equal(parseTime('2026-08-01T11:00:00.000Z', now), now - 3_600_000);
  t.equal(parseTime('2026-08-01T13:00+02:00', now), now - 3_600_000);
  for (const text of ['yesterday', '10', '10x', '2026-13-01', '2026-08-01 25:00', '']) {
    t.throws(() => parseTime(text, now), { code: 'usage' }, text);
  }
});
