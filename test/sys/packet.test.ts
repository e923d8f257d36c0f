// A packet socket on one end of a veth, a TAP on a bridge: what the lab's relay is made of.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { makeNamespace } from '../../lib/netlink/namespace.ts';
import { withRtnetlink } from '../../lib/netlink/netlink.ts';
import * as sys from '../../lib/sys/sys.ts';

const skip = process.getuid!() === 0 ? false : 'needs root';
const SLOT = 2048;
const VNET = 10;

t.test('frames in and out', { skip }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-packet-'));
  const namespace = join(folder, 'ns');
  makeNamespace(namespace);
  t.teardown(() => {
    sys.removeNamespace(namespace);
    rmSync(folder, { recursive: true, force: true });
  });
  sys.withNamespace(namespace, () => writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1')); // no chatter
  withRtnetlink(namespace, netlink => {
    netlink.createVeth({ name: 'a', peerName: 'b', up: true, peerUp: true });
  });
  const [a, b] = ['a', 'b'].map(link => sys.openPacket({ link, namespace, receiveBuffer: 1 << 20 }));
  const tap = sys.withNamespace(namespace, () =>
    sys.openTun({ name: 'tap%d', vnetHeader: true, offloads: 0, frames: true }),
  );
  const kind = withRtnetlink(namespace, netlink => netlink.link(tap.name));
  t.match(kind, { kind: 'tun', mac: /^([0-9a-f]{2}:){5}/ }, 'a TAP device has a MAC address');

  const memory = new Uint8Array(8 * SLOT + 64);
  const arena = sys.registerArena(memory);
  const tables = new Int32Array(memory.buffer, 8 * SLOT, 16);
  const FRAMES = 3;
  const send = (handle: number, text: string): number => {
    memory.fill(0, 0, VNET + 14).set(new TextEncoder().encode(text), VNET + 14);
    memory.set([0x88, 0xb5], VNET + 12); // IEEE 802: for experiments
    tables.set([0, 1, 0, 0, VNET + 14 + text.length]);
    return sys.writeTun(handle, arena, 8 * SLOT, 1, 8 * SLOT + 12);
  };
  const read = async (handle: number): Promise<string[]> => {
    const seen: string[] = [];
    for (const deadline = performance.now() + 20_000; seen.length === 0 && performance.now() < deadline; ) {
      await new Promise(resolve => setTimeout(resolve, 5));
      const count = sys.readTun(handle, arena, SLOT, SLOT, SLOT, FRAMES, 8 * SLOT + 32);
      for (let i = 0; i < count; i++)
        seen.push(new TextDecoder().decode(memory.slice((i + 1) * SLOT + VNET + 14, (i + 1) * SLOT + tables[8 + i])));
    }
    return seen;
  };

  t.equal(send(a, 'hello'), 1);
  t.same(await read(b), ['hello']);
  t.equal(
    sys.readTun(a, arena, SLOT, SLOT, SLOT, FRAMES, 8 * SLOT + 32),
    0,
    'what we send ourselves does not come back',
  );
  t.equal(sys.packetDrops(b), 0);

  t.throws(() => sys.openPacket({ link: 'nobody', namespace }), { code: 'ENODEV', message: /nobody/ });
  t.throws(() => sys.openPacket({ link: 'a-name-that-is-too-long' }), { code: 'EINVAL' });
  t.throws(() => sys.openPacket({ link: 'a', namespace: join(folder, 'none') }), { code: 'ENOENT' });
  t.throws(() => sys.packetDrops(tap.handle), { code: 'EINVAL' }, 'another kind of handle');
  for (const handle of [a, b, tap.handle]) sys.close(handle);
  t.throws(() => sys.packetDrops(b), { code: 'EBADF' });
  sys.unregisterArena(arena);
});
