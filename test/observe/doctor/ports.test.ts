// /proc/net/udp as the kernel writes it, garbage, and a real socket of ours.
import { createSocket } from 'node:dgram';
import t from 'tap';
import { findPortHolders, parseUdpTable } from '../../../lib/observe/doctor/ports.ts';
import { below, prng, testSeed } from '../../support/prng.ts';

const TABLE = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  335: 0100007F:205D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0
  336: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12 2 0000000000000000 0
`;

t.test('rows', async t => {
  t.same(parseUdpTable(TABLE), [
    { address: '127.0.0.1', port: 8285, inode: '4711' },
    { address: '0.0.0.0', port: 68, inode: '12' },
  ]);
  const six = TABLE.replaceAll('0100007F:', 'B80D0120000000000000000001000000:');
  t.match(parseUdpTable(six)[0], { address: '2001:db8::1', port: 8285 });
});

t.test('garbage gives no rows and no errors', async t => {
  const seed = testSeed();
  t.comment(`TULLE_SEED=${seed}`);
  const next = prng(seed);
  for (let i = 0; i < 2000; i++) {
    const letters = TABLE.split('');
    for (let k = 0; k < 1 + below(next, 30); k++)
      letters[below(next, letters.length)] = String.fromCharCode(below(next, 128));
    for (const { port, inode } of parseUdpTable(letters.join(''))) {
      if (!(port >= 0 && port <= 0xffff) || !/^\d+$/.test(inode)) t.fail(`port ${port}, inode ${inode}`);
    }
  }
});

t.test('a socket of ours is found, and allowed when it is the daemon', async t => {
  const socket = createSocket('udp4');
  t.teardown(() => socket.close());
  await new Promise<void>(resolve => socket.bind(0, '127.0.0.1', resolve));
  const { port } = socket.address();
  t.match(findPortHolders(port, undefined), [{ address: '127.0.0.1', port, pid: process.pid }]);
  t.same(findPortHolders(port, process.pid), []);
});
