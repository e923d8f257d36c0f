import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import t from 'tap';
import * as sys from '../../lib/sys/sys.ts';
import {
  addAddress,
  arena,
  deleteLink,
  fixture,
  linkIndex,
  linkUp,
  namespace,
  noNamespaces,
  readable,
  run,
} from './support.ts';

const memory = arena(1 << 20);
const LENGTHS = 0; // Int32 a slot
const PACKETS = 256;
const IOVS = 1024;
const POLL = 16_384;
const MESSAGE = 17_408;
const ADDRESS = 18_432;
const SCRATCH = 32_768;
const SLOTS = 131_072;
const SLOT = 66_048;
const ALL = sys.TUN_F_CSUM | sys.TUN_F_TSO4 | sys.TUN_F_TSO6 | sys.TUN_F_USO4 | sys.TUN_F_USO6;

/** A device with 10.99.0.1/24, up. */
function device(
  path: string,
  options: { vnetHeader: boolean; offloads: number },
): { handle: number; offloads: number } {
  const tun = sys.withNamespace(path, () => {
    // Without this the kernel sends router solicitations into the device, now and then.
    const noIpv6 = '/proc/sys/net/ipv6/conf/default/disable_ipv6';
    if (existsSync(noIpv6)) writeFileSync(noIpv6, '1');
    return sys.openTun({ name: 'tulle%d', ...options });
  });
  const index = linkIndex(path, tun.name);
  addAddress(path, index, '10.99.0.1', 24);
  linkUp(path, index);
  return tun;
}

/** An IPv4 and UDP packet from the neighbour 10.99.0.2 to ourselves; UDP's checksum 0 means none. */
function packetFor(port: number, payload: string): Uint8Array {
  const bytes = new Uint8Array(28 + payload.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 99, 0, 2, 10, 99, 0, 1]);
  view.setUint16(2, bytes.length);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += view.getUint16(i);
  view.setUint16(10, ~((sum & 0xffff) + (sum >>> 16)) & 0xffff);
  view.setUint16(20, 4000);
  view.setUint16(22, port);
  view.setUint16(24, 8 + payload.length);
  bytes.set(new TextEncoder().encode(payload), 28);
  return bytes;
}

/** Reads until a UDP packet over IPv4 comes; the kernel's own (router solicitations and the like) are passed over. */
function readUdp(handle: number, headerBytes: number): Uint8Array | undefined {
  while (readable(handle, memory, POLL)) {
    const count = sys.readTun(handle, memory.id, SLOTS, SLOT, SLOT, 8, LENGTHS);
    if (count < 0) throw new Error(sys.errnoName(count));
    for (let i = 0; i < count; i++) {
      const at = SLOTS + i * SLOT;
      const bytes = memory.bytes.slice(at, at + memory.words[LENGTHS / 4 + i]);
      if (bytes[headerBytes] >> 4 === 4 && bytes[headerBytes + 9] === 17) return bytes;
    }
  }
  return undefined;
}

for (const vnetHeader of [false, true]) {
  t.test(`packets in and out, ${vnetHeader ? 'with' : 'without'} vnet header`, { skip: noNamespaces }, async t => {
    const path = namespace(t);
    const head = vnetHeader ? 10 : 0;
    const tun = device(path, { vnetHeader, offloads: vnetHeader ? ALL : 0 });
    const { handle: socket, port } = sys.withNamespace(path, () => sys.openUdp({ address: '10.99.0.1', port: 0 }));

    // In: three packets, the second spoiled; the first gathered from three places.
    const first = packetFor(port, 'first');
    const third = packetFor(port, 'the third');
    memory.bytes.fill(0, SCRATCH, SCRATCH + 16);
    memory.bytes.set(first, SCRATCH + 16);
    memory.bytes.set(third, SCRATCH + 216);
    memory.bytes.fill(0, SCRATCH + 200, SCRATCH + 216);
    memory.words.set([0, 3, 99, 3, 1, 99, 4, 1, 99], PACKETS / 4);
    memory.words.set([SCRATCH + 16 - head, head, SCRATCH + 16, 20, SCRATCH + 36, first.length - 20], IOVS / 4);
    memory.words.set([memory.bytes.length - 1, 2, SCRATCH + 216 - head, head + third.length], IOVS / 4 + 6);
    t.equal(sys.writeTun(tun.handle, memory.id, PACKETS, 3, IOVS), 2);
    t.same(
      [2, 5, 8].map(word => memory.words[PACKETS / 4 + word]),
      [0, 14, 0],
      'the status of each',
    );
    t.ok(readable(socket, memory, POLL));
    t.equal(sys.receiveUdp(socket, memory.id, SLOTS, SLOT, SLOT, 8, SCRATCH), 2);
    t.equal(new TextDecoder().decode(memory.bytes.slice(SLOTS, SLOTS + 5)), 'first');
    t.same(sys.decodeAddress(memory.bytes, SCRATCH + 16), { family: 4, address: '10.99.0.2', port: 4000 });

    // Out: the answer.
    sys.encodeAddress(memory.bytes, ADDRESS, '10.99.0.2', 4000);
    memory.words.set([0, 1, 0, ADDRESS, 99], MESSAGE / 4);
    memory.words.set([SLOTS, 5], IOVS / 4);
    t.equal(sys.sendUdp(socket, memory.id, MESSAGE, 1, IOVS), 1);
    const packet = readUdp(tun.handle, head)!;
    t.equal(packet.length, head + 33);
    t.same([...packet.slice(head + 12, head + 20)], [10, 99, 0, 1, 10, 99, 0, 2]);
    t.equal(new TextDecoder().decode(packet.slice(head + 28)), 'first');
    if (vnetHeader) t.equal(packet[0] & 1, 1, 'VIRTIO_NET_HDR_F_NEEDS_CSUM: the checksum is left to us');

    // A train becomes one super-packet where the kernel knows USO.
    if (tun.offloads & sys.TUN_F_USO4) {
      memory.words.set([0, 1, 1000, ADDRESS, 99], MESSAGE / 4);
      memory.words.set([SCRATCH, 4500], IOVS / 4);
      t.equal(sys.sendUdp(socket, memory.id, MESSAGE, 1, IOVS), 1);
      const train = readUdp(tun.handle, head)!;
      const view = new DataView(train.buffer);
      t.equal(train.length, head + 28 + 4500);
      t.equal(train[1], 5, 'VIRTIO_NET_HDR_GSO_UDP_L4');
      t.equal(view.getUint16(4, true), 1000, 'gso_size');
    }
    t.equal(sys.readTun(tun.handle, memory.id, SLOTS, SLOT, SLOT, 0, LENGTHS), 0, 'no slots, no packets');
    sys.close(socket);
    sys.close(tun.handle);
    t.equal(sys.readTun(tun.handle, memory.id, SLOTS, SLOT, SLOT, 8, LENGTHS), -9);
    t.throws(() => linkIndex(path, 'tulle0'), { code: 'ENODEV' }, 'the device went with its handle');
  });
}

t.test(
  'a slot that is too small ends where it ends, and one packet takes one slot',
  { skip: noNamespaces },
  async t => {
    const path = namespace(t);
    const tun = device(path, { vnetHeader: false, offloads: 0 });
    const { handle: socket } = sys.withNamespace(path, () => sys.openUdp({ address: '10.99.0.1', port: 0 }));
    while (sys.readTun(tun.handle, memory.id, SLOTS, SLOT, SLOT, 8, LENGTHS) > 0);
    sys.encodeAddress(memory.bytes, ADDRESS, '10.99.0.2', 4000);
    memory.words.set([0, 1, 0, ADDRESS, 99, 0, 1, 0, ADDRESS, 99, 0, 1, 0, ADDRESS, 99], MESSAGE / 4);
    memory.words.set([SCRATCH, 100], IOVS / 4);
    t.equal(sys.sendUdp(socket, memory.id, MESSAGE, 3, IOVS), 3);
    memory.bytes.fill(0xee, SLOTS, SLOTS + 400);
    t.equal(sys.readTun(tun.handle, memory.id, SLOTS, 100, 40, 2, LENGTHS), 2, 'two slots, two packets');
    t.same([...memory.words.subarray(0, 2)], [40, 40]);
    t.same(
      [40, 99, 140].map(at => memory.bytes[SLOTS + at]),
      [0xee, 0xee, 0xee],
    );
    t.equal(sys.readTun(tun.handle, memory.id, SLOTS, SLOT, SLOT, 8, LENGTHS), 1, 'the third');
    t.equal(sys.readTun(tun.handle, memory.id, SLOTS, SLOT, SLOT, 8, LENGTHS), 0, 'EAGAIN');
    sys.close(socket);
    sys.close(tun.handle);
  },
);

t.test('a deleted device is EBADFD', { skip: noNamespaces }, async t => {
  const path = namespace(t);
  const tun = device(path, { vnetHeader: true, offloads: 0 });
  deleteLink(path, linkIndex(path, 'tulle0'));
  t.ok(readable(tun.handle, memory, POLL), 'poll says so');
  t.equal(sys.errnoName(sys.readTun(tun.handle, memory.id, SLOTS, SLOT, SLOT, 8, LENGTHS)), 'EBADFD');
  memory.words.set([0, 1, 99], PACKETS / 4);
  memory.words.set([SCRATCH, 38], IOVS / 4);
  t.equal(sys.writeTun(tun.handle, memory.id, PACKETS, 1, IOVS), 0);
  t.equal(sys.errnoName(memory.words[PACKETS / 4 + 2]), 'EBADFD');
  t.throws(() => sys.setTunOffloads(tun.handle, 0), { code: 'EBADFD' });
  sys.close(tun.handle);
});

t.test('names, queues and offloads', { skip: noNamespaces }, async t => {
  sys.withNamespace(namespace(t), () => {
    const tun = sys.openTun({ name: 'exact0', vnetHeader: true, offloads: 0xffff });
    t.equal(tun.name, 'exact0');
    t.ok(tun.offloads < 0xffff, 'unknown bits are left out');
    t.throws(() => sys.openTun({ name: 'exact0', vnetHeader: true, offloads: 0 }), {
      code: 'EBUSY',
      message: /^ioctl TUNSETIFF exact0: EBUSY \(resource busy or locked\): another process/,
    });
    sys.setTunOffloads(tun.handle, sys.TUN_F_CSUM);
    t.throws(() => sys.setTunOffloads(tun.handle, 1 << 20), { code: 'EINVAL' });
    t.throws(() => sys.openTun({ name: 'lo', vnetHeader: true, offloads: 0 }), {
      code: 'EINVAL',
      message: /another kind/,
    });
    t.throws(() => sys.openTun({ name: 'sixteen-letters-', vnetHeader: true, offloads: 0 }), { code: 'EINVAL' });
    t.equal(sys.openTun({ name: 'plain%d', vnetHeader: false, offloads: ALL }).offloads, 0);
    const queues = [1, 2].map(() => sys.openTun({ name: 'many0', vnetHeader: true, offloads: 0, multiQueue: true }));
    t.same(
      queues.map(({ name }) => name),
      ['many0', 'many0'],
    );
    sys.close(tun.handle);
    for (const { handle } of queues) sys.close(handle);
  });
});

t.test('tables are checked', { skip: noNamespaces }, async t => {
  const { handle } = sys.withNamespace(namespace(t), () =>
    sys.openTun({ name: 't%d', vnetHeader: false, offloads: 0 }),
  );
  const { id, bytes } = memory;
  t.equal(sys.readTun(handle, id, SLOTS, SLOT, SLOT, 8, 2), -22, 'not aligned');
  t.equal(sys.readTun(handle, id, SLOTS, SLOT, SLOT, 15, LENGTHS), -14, 'slots over the end');
  t.equal(sys.readTun(handle, id, SLOTS, SLOT, SLOT, 8, bytes.length - 28), -14, 'lengths over the end');
  t.equal(sys.readTun(handle, id, SLOTS, 0x7fffffff, SLOT, 0x7fffffff, LENGTHS), -14);
  t.equal(sys.readTun(handle, id, -SLOT, SLOT, SLOT, 8, LENGTHS), -14);
  t.equal(sys.readTun(handle, id, SLOTS, -SLOT, SLOT, 2, LENGTHS), -14);
  t.equal(sys.readTun(handle, id, SLOTS, SLOT, 0, 8, LENGTHS), -22);
  t.equal(sys.readTun(handle, id, SLOTS, SLOT, SLOT, -1, LENGTHS), -22);
  t.equal(sys.writeTun(handle, id, bytes.length - 8, 1, IOVS), -14);
  t.equal(sys.writeTun(handle, id, PACKETS, 0x7fffffff, IOVS), -14);
  t.equal(sys.writeTun(handle, id, PACKETS, 1, -8), -22);
  t.equal(sys.writeTun(handle, id, PACKETS, 0, IOVS), 0);
  for (const [first, count, status] of [
    [-1, 1, 22],
    [0, 0, 22],
    [0, -1, 22],
    [0, 1025, 22],
    [0x7fffffff, 1, 14],
    [131_000, 1000, 14],
  ]) {
    memory.words.set([first, count, 99], PACKETS / 4);
    t.equal(sys.writeTun(handle, id, PACKETS, 1, IOVS), 0);
    t.equal(memory.words[PACKETS / 4 + 2], status, `${count} iovecs from ${first}`);
  }
  sys.close(handle);
});

t.test('a user without rights gets one clear line', { skip: noNamespaces }, async t => {
  const child = run(process.execPath, [fixture('open-tun'), '65534']);
  const { code, message } = JSON.parse(child.stdout);
  t.match(code, /^(EPERM|EACCES)$/);
  t.match(message, /^(ioctl TUNSETIFF|open \/dev\/net\/tun).*: run as root/);
});

const noMounts =
  spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'none', '/dev/net']).status !== 0 &&
  'SKIPPED: nothing can be mounted over /dev/net here';

t.test('no /dev/net/tun', { skip: noMounts }, async t => {
  const inside = (commands: string): { code: string; message: string } => {
    const script = `mount -t tmpfs none /dev/net && ${commands} "$0" "$1"`;
    return JSON.parse(run('unshare', ['-m', 'sh', '-c', script, process.execPath, fixture('open-tun')]).stdout);
  };
  t.match(inside(''), { code: 'ENOENT', message: /^open \/dev\/net\/tun: ENOENT .*: make it with "mkdir -p/ });
  t.match(inside('touch /dev/net/tun &&'), { code: 'ENOTTY', syscall: 'ioctl TUNSETIFF' }, 'a file in its place');
});
