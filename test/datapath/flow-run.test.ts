import { constants } from 'node:os';
import t from 'tap';
import { CONTROL_COALESCE_OFF, CONTROL_UDP_COALESCE_OFF, FORMAT_BARE } from '../../lib/datapath/slab.ts';
import { set16 } from '../../lib/wire/bytes.ts';
import { setIp4Checksum, verifyIp4Checksum } from '../../lib/wire/ip4.ts';
import { finishL4Checksum4, verifyL4Checksum4 } from '../../lib/wire/l4.ts';
import { TCP_ACK, TCP_FIN, TCP_PSH, tcpFlags, tcpSequence } from '../../lib/wire/tcp.ts';
import {
  VNET_GSO_NONE,
  VNET_GSO_TCPV4,
  VNET_GSO_UDP_L4,
  VNET_HEADER_BYTES,
  vnetGsoSize,
  vnetGsoType,
} from '../../lib/wire/vnet.ts';
import { pair } from '../support/node.ts';
import { type PacketOptions, tcpPacket, tunRead, udpPacket } from '../support/packets.ts';
import { prng, randomBytes } from '../support/prng.ts';

const random = prng(4);
const from1 = { source: '10.42.1.2', destination: '10.42.2.2' };
const from = { address: '10.88.0.1', port: 8285 };
/** Segment i of a flow: 500 bytes from sequence number 1000 + 500 i on. */
const segment = (i: number, more: Partial<PacketOptions> = {}): Uint8Array =>
  tcpPacket({ ...from1, payload: randomBytes(random, 500), sequence: 1000 + 500 * i, id: 7 + i, ...more });

/** What node 2 writes for bare packets from node 1, each a datagram of its own. */
function deliver(
  packets: readonly Uint8Array[],
  setup: (b: ReturnType<typeof pair>[1]) => void = () => {},
): Uint8Array[] {
  const [, b] = pair(FORMAT_BARE);
  setup(b);
  b.receive(packets.map(packet => ({ from, datagrams: [packet] })));
  return b.takeWritten();
}

/** Datagrams in each write. */
const runs = (written: readonly Uint8Array[]): number[] =>
  written.map(bytes => {
    if (vnetGsoType(bytes, 0) === VNET_GSO_NONE) return 1;
    const headers = bytes[2] | (bytes[3] << 8);
    return Math.ceil((bytes.length - VNET_HEADER_BYTES - headers) / vnetGsoSize(bytes, 0));
  });

t.test('neighbours of a TCP flow become one write', async t => {
  const packets = [segment(0), segment(1), segment(2, { flags: TCP_ACK | TCP_PSH }), segment(3)];
  const written = deliver(packets);
  t.same(runs(written), [3, 1], 'PSH ends a run');
  t.equal(vnetGsoType(written[0], 0), VNET_GSO_TCPV4);
  t.equal(tcpFlags(written[0], VNET_HEADER_BYTES + 20), TCP_ACK | TCP_PSH, 'and is on the run');
  t.ok(verifyIp4Checksum(written[0], VNET_HEADER_BYTES));
  const payload = packets.slice(0, 3).flatMap(packet => [...packet.slice(40)]);
  t.same([...written[0].slice(VNET_HEADER_BYTES + 40)], payload);
});

t.test('what a kernel would not join is not joined', async t => {
  const options = (value: number) => ({ options: new Uint8Array(12).fill(value) });
  const spoilt = (packet: Uint8Array, change: (bytes: Uint8Array) => void): Uint8Array => {
    change(packet);
    setIp4Checksum(packet, 0);
    finishL4Checksum4(packet, 0);
    return packet;
  };
  const cases: [string, Uint8Array][] = [
    ['a gap', segment(2)],
    ['another acknowledgement', spoilt(segment(1), bytes => set16(bytes, 30, 9))],
    ['another port', spoilt(segment(1), bytes => set16(bytes, 20, 9))],
    ['another source', spoilt(segment(1), bytes => set16(bytes, 14, 0x0109))],
    ['another TTL', segment(1, { ttl: 9 })],
    ['another TOS', segment(1, { tos: 1 })],
    ['another window', spoilt(segment(1), bytes => set16(bytes, 34, 9))],
    ['a fragment', spoilt(segment(1), bytes => set16(bytes, 6, 0x2000))],
    ['without DF', spoilt(segment(1), bytes => set16(bytes, 6, 0))],
    ['FIN', segment(1, { flags: TCP_ACK | TCP_FIN })],
    ['options', segment(1, options(1))],
    ['a longer one', tcpPacket({ ...from1, payload: randomBytes(random, 501), sequence: 1500 })],
    ['UDP', udpPacket({ ...from1, payload: randomBytes(random, 500) })],
  ];
  for (const [name, packet] of cases) t.same(runs(deliver([segment(0), packet])), [1, 1], name);
  t.same(runs(deliver([segment(0, options(1)), segment(1, options(2))])), [1, 1], 'other options');
  t.same(runs(deliver([segment(0, options(1)), segment(1, options(1))])), [2], 'equal options join');
});

t.test('a damaged packet is never made good', async t => {
  const damaged = segment(1);
  damaged[60] ^= 1;
  const written = deliver([segment(0), damaged, segment(2)]);
  t.same(runs(written), [1, 1, 1]);
  t.notOk(verifyL4Checksum4(written[1].slice(VNET_HEADER_BYTES), 0), 'the pod sees that it is damaged');
  t.equal(written[1][0], 0, 'and the kernel is not told otherwise');

  const header = segment(1);
  header[10] ^= 1;
  const rest = deliver([segment(0), header, segment(2)]);
  t.same(runs(rest), [1, 1, 1]);
  t.notOk(verifyIp4Checksum(rest[1], VNET_HEADER_BYTES), 'nor is a damaged IP header');
});

/** A kernel before 6.2: GSO writes of TCP only. */
const tcpOnly = (bytes: Uint8Array): number => (vnetGsoType(bytes, 0) === VNET_GSO_UDP_L4 ? constants.errno.EINVAL : 0);

t.test('a kernel that takes no coalesced UDP gets coalesced TCP all the same', async t => {
  const datagrams = [0, 1, 2].map(() => udpPacket({ ...from1, payload: randomBytes(random, 300) }));
  const segments = [segment(0), segment(1), segment(2)];
  for (const known of [false, true]) {
    let node: ReturnType<typeof pair>[1] | undefined;
    let refused = 0;
    const written = deliver([...datagrams, ...segments], b => {
      node = b;
      b.slab.control[CONTROL_UDP_COALESCE_OFF] = known ? 1 : 0;
      b.refusePacket = bytes => {
        if (tcpOnly(bytes) !== 0) refused++;
        return tcpOnly(bytes);
      };
    });
    t.same(runs(written).sort(), [1, 1, 1, 3], 'every datagram arrives');
    t.equal(refused, known ? 0 : 1, known ? 'nothing is tried' : 'one write is refused');
    t.equal(node?.slab.control[CONTROL_UDP_COALESCE_OFF], 1);
    t.equal(node?.slab.control[CONTROL_COALESCE_OFF], 0);
  }
});

t.test("the same for a UDP super-packet's segments", async t => {
  const [a, b] = pair();
  b.refusePacket = tcpOnly;
  const udp = udpPacket({ ...from1, payload: randomBytes(random, 2_500), partial: true });
  const tcp = tcpPacket({ ...from1, payload: randomBytes(random, 2_500), partial: true });
  for (const round of ['refused', 'not tried again']) {
    a.read([udp, tcp].map(packet => tunRead(packet, { segmentSize: 1_000 })));
    b.receive(a.takeSent().map(({ datagrams }) => ({ from, datagrams })));
    t.same(runs(b.takeWritten()).sort(), [1, 1, 1, 3], round);
    t.equal(b.slab.control[CONTROL_COALESCE_OFF], 0);
  }
});

t.test('a refused run is written packet by packet', async t => {
  const packets = [segment(0), segment(1), segment(2, { flags: TCP_ACK | TCP_PSH })];
  let node: ReturnType<typeof pair>[1] | undefined;
  const written = deliver(packets, b => {
    node = b;
    b.refusePacket = bytes => (vnetGsoType(bytes, 0) === VNET_GSO_NONE ? 0 : constants.errno.EINVAL);
  });
  t.equal(node?.slab.control[CONTROL_COALESCE_OFF], 1);
  t.same(
    written.map(bytes => tcpSequence(bytes, VNET_HEADER_BYTES + 20)),
    [1000, 1500, 2000],
  );
  written.forEach((bytes, i) => {
    const packet = bytes.slice(VNET_HEADER_BYTES);
    if ((bytes[0] & 1) !== 0) finishL4Checksum4(packet, 0);
    t.same(packet.slice(20), packets[i].slice(20), `packet ${i} is as it was sent`);
    t.ok(verifyIp4Checksum(packet, 0));
  });
});

t.test('UDP datagrams of a tulle train are one write, partial checksums or finished', async t => {
  for (const partial of [false, true]) {
    const [a, b] = pair();
    const packets = [64, 64, 64, 30].map(size => udpPacket({ ...from1, payload: randomBytes(random, size), partial }));
    a.read(packets.map(packet => tunRead(packet, { partial })));
    const [train] = a.takeSent();
    b.receive([{ from, datagrams: train.datagrams }]);
    const written = b.takeWritten();
    t.same(runs(written), [4]);
    t.equal(written[0][0], 1, 'the run has a partial checksum');
  }
});
