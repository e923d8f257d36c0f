import t from 'tap';
import { OFFLOADS, offloadStates, offloadsOf, takesUdpRuns, tunOffloadLadder } from '../../lib/backend/offloads.ts';
import { socketOffloads } from '../../lib/backend/socket.ts';
import { silentLogger } from '../../lib/util/log.ts';

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

t.test('a socket without offloads is used without them, and not asked for what is not wanted', async t => {
  const lines: object[] = [];
  const log = { ...silentLogger, info: (fields: object) => void lines.push(fields) };
  const refusing = 0; // a handle that is none
  t.same(socketOffloads(refusing, offloadsOf('offload'), log), { trains: false, gro: false });
  t.match(lines, [{ option: 'UDP_SEGMENT' }, { option: 'UDP_GRO' }]);
  t.same(socketOffloads(refusing, offloadsOf('batch'), log), { trains: false, gro: false });
  t.equal(lines.length, 2);
});

t.test('UDP is coalesced where the kernel takes it, as far as is known', async t => {
  t.ok(takesUdpRuns(offloadsOf('offload'), 0x6f));
  t.notOk(takesUdpRuns(offloadsOf('offload'), 0x0f), 'Linux before 6.2');
  t.ok(takesUdpRuns(offloadsOf('offload', ['uso']), 0x0f), 'not asked for: it is tried');
  t.notOk(takesUdpRuns(offloadsOf('offload', ['coalescing']), 0x6f));
});

t.test('each offload says why it is off', async t => {
  const alive = { trains: true, coalescing: true, 'udp-coalescing': true };
  const socket = { trains: true, gro: true };
  const all = { transport: 'offload', without: [], tunBits: 0x6f, socket, alive } as const;
  const reasons = (changes: object) =>
    Object.fromEntries(
      Object.entries(offloadStates({ ...all, ...changes })).flatMap(([name, { on, reason }]) =>
        on === (reason === 'in-use') && !on ? [[name, reason]] : [],
      ),
    );
  t.same(reasons({}), {});
  t.same(new Set(Object.values(reasons({ transport: 'batch', tunBits: 0 }))), new Set(['transport']));
  t.same(reasons({ without: ['gro'] }), { gro: 'without-offload' });
  t.same(reasons({ without: ['checksum'], tunBits: 0 }), {
    checksum: 'without-offload',
    tso: 'needs-checksum',
    uso: 'needs-checksum',
  });
  t.same(reasons({ socket: { trains: true, gro: false } }), { gro: 'kernel-lacks' }, 'Linux before 5.0');
  t.same(reasons({ socket: { trains: false, gro: false } }), { trains: 'kernel-lacks', gro: 'kernel-lacks' });
  t.same(reasons({ tunBits: 0x0f }), { uso: 'kernel-lacks' });
  t.same(reasons({ alive: { ...alive, trains: false } }), { trains: 'kernel-refused' });
  const tcpAlone = offloadStates({ ...all, alive: { ...alive, 'udp-coalescing': false } }).coalescing;
  t.match(tcpAlone, { on: true, reason: 'in-use', why: /for TCP; .* UDP/ });
  t.same(reasons({ alive: undefined }), {}, 'a data path that is made again begins without refusals');
});
