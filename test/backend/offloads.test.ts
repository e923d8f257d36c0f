import t from 'tap';
import { OFFLOADS, offloadsOf, tunOffloadLadder } from '../../lib/backend/offloads.ts';

t.test('a transport is a set of offloads', async t => {
  t.ok(Object.values(offloadsOf('offload')).every(Boolean));
  for (const transport of ['batch', 'dgram'] as const)
    t.notOk(Object.values(offloadsOf(transport)).some(Boolean), transport);
});

t.test('each can be left out by itself; without checksums there are no super-packets', async t => {
  for (const name of Object.keys(OFFLOADS)) {
    const off = Object.entries(offloadsOf('offload', [name])).filter(([, on]) => !on);
    t.same(
      off.map(([one]) => one),
      name === 'checksum' ? ['checksum', 'tso', 'uso'] : [name],
    );
  }
  t.throws(() => offloadsOf('offload', ['lro']), { code: 'bad-flag', message: /"lro".*checksum, tso, uso/ });
});

t.test('the TUN is asked for less and less', async t => {
  t.same(tunOffloadLadder(offloadsOf('offload')), [0x6f, 0x0f, 0x01]);
  t.same(tunOffloadLadder(offloadsOf('offload', ['uso'])), [0x0f, 0x01]);
  t.same(tunOffloadLadder(offloadsOf('offload', ['uso', 'tso'])), [0x01]);
  t.same(tunOffloadLadder(offloadsOf('batch')), []);
});
