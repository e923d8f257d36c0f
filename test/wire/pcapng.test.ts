import t from 'tap';
import {
  BLOCK_PACKET,
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
  enhancedPacket,
  interfaceDescription,
  interfaceStatistics,
  LINKTYPE_RAW,
  sectionHeader,
} from '../../lib/wire/pcapng.ts';
import { LONGEST_BLOCK, type PcapngPacket, PcapngReader, readPcapng } from '../../lib/wire/pcapng-read.ts';
import { below, pick, prng, randomBytes, testSeed } from '../support/prng.ts';

const join = (...parts: Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));
const TIME = 1_795_238_400_123_456_789n;

function sample(): Uint8Array {
  return join(
    sectionHeader({ os: 'Linux', application: 'tulle', comment: 'two words' }),
    interfaceDescription({ linkType: LINKTYPE_RAW, snaplen: 256, name: 'tulle0', description: 'the TUN — inner' }),
    interfaceDescription({ linkType: LINKTYPE_RAW, snaplen: 256, name: 'eth0' }),
    enhancedPacket({
      interface: 1,
      time: TIME,
      data: Uint8Array.of(1, 2, 3, 4, 5),
      length: 99,
      direction: DIRECTION_OUTBOUND,
      comments: ['train 1: 2 of 3', 'node2 é'],
      drops: 7,
    }),
    enhancedPacket({ interface: 0, time: TIME + 1n, data: new Uint8Array(0), length: 0, direction: DIRECTION_INBOUND }),
    interfaceStatistics({ interface: 1, time: TIME, start: 1n, end: TIME, received: 5, lost: 2, delivered: 3 }),
  );
}

/** A block in the other order: every number but bytes and text turned round. Only for what `sample` has. */
function bigEndian(): Uint8Array {
  const block = (type: number, body: Uint8Array): Uint8Array => {
    const bytes = new Uint8Array(12 + body.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, type);
    view.setUint32(4, bytes.length);
    view.setUint32(bytes.length - 4, bytes.length);
    bytes.set(body, 8);
    return bytes;
  };
  const body = (...numbers: [bits: 8 | 16 | 32, value: number][]): Uint8Array => {
    const bytes = numbers.flatMap(([bits, value]) =>
      bits === 8
        ? [value]
        : bits === 16
          ? [value >> 8, value & 255]
          : [value >>> 24, (value >> 16) & 255, (value >> 8) & 255, value & 255],
    );
    return Uint8Array.from(bytes);
  };
  return join(
    block(0x0a0d0d0a, body([32, 0x1a2b3c4d], [16, 1], [16, 0], [32, 0xffffffff], [32, 0xffffffff])),
    block(1, body([16, 101], [16, 0], [32, 3], [16, 2], [16, 2], [8, 0x74], [8, 0x30], [16, 0], [32, 0])),
    block(0x0bad, body([32, 1])),
    block(4, body([16, 0], [16, 0])),
    block(
      6,
      body(
        [32, 0],
        [32, 1],
        [32, 2],
        [32, 3],
        [32, 9],
        [8, 1],
        [8, 2],
        [8, 3],
        [8, 0],
        [16, 2],
        [16, 4],
        [32, 1],
        [32, 0],
      ),
    ),
    block(3, body([32, 9], [8, 1], [8, 2], [8, 3], [8, 0])),
  );
}

t.test('what is written is read', async t => {
  const { interfaces, packets, fault } = readPcapng(sample());
  t.equal(fault, undefined);
  t.same(interfaces, [
    { linkType: 101, snaplen: 256, name: 'tulle0', description: 'the TUN — inner' },
    { linkType: 101, snaplen: 256, name: 'eth0', description: '', statistics: { received: 5, lost: 2, delivered: 3 } },
  ]);
  t.same(
    packets.map(packet => ({ ...packet, data: [...packet.data], time: String(packet.time) })),
    [
      {
        interface: 1,
        time: String(TIME),
        data: [1, 2, 3, 4, 5],
        length: 99,
        direction: 'out',
        comments: ['train 1: 2 of 3', 'node2 é'],
        drops: 7,
      },
      { interface: 0, time: String(TIME + 1n), data: [], length: 0, direction: 'in', comments: [], drops: 0 },
    ],
  );
});

t.test('the other order of bytes, simple packets, names and what nobody knows', async t => {
  const { interfaces, packets, fault } = readPcapng(bigEndian());
  t.equal(fault, undefined);
  t.equal(interfaces[0].name, 't0');
  t.same(
    packets.map(({ time, data, length, direction }) => [String(time), [...data], length, direction]),
    [
      [String(((1n << 32n) + 2n) * 1000n), [1, 2, 3], 9, 'in'], // microseconds, because it does not say otherwise
      ['undefined', [1, 2, 3], 9, undefined],
    ],
  );
  const both = readPcapng(join(bigEndian(), sample(), bigEndian()));
  t.equal(both.fault, undefined, 'sections of different orders');
  t.same(
    both.packets.map(packet => packet.interface),
    [0, 0, 2, 1, 3, 3],
  );
});

t.test('a comment of any length', async t => {
  const comment = 'é'.repeat(40_000);
  const packet = enhancedPacket({ interface: 0, time: 0n, data: new Uint8Array(3), length: 3, comments: [comment] });
  const file = join(sectionHeader(), interfaceDescription({ linkType: 101, snaplen: 0 }), packet);
  const { packets, fault } = readPcapng(file);
  t.equal(fault, undefined);
  t.equal(packets[0].comments[0], 'é'.repeat(32_767));
});

t.test('in pieces of any size it is the same', async t => {
  const random = prng(testSeed());
  const file = join(sample(), bigEndian());
  const whole = readPcapng(file).packets;
  for (let round = 0; round < 50; round++) {
    const packets: PcapngPacket[] = [];
    let blocks = 0;
    const reader = new PcapngReader({
      packet: packet => packets.push({ ...packet, data: packet.data.slice() }),
      block: type => {
        if (type === BLOCK_PACKET) blocks++;
      },
    });
    for (let at = 0; at < file.length; ) {
      const next = Math.min(file.length, at + 1 + below(random, 40));
      reader.push(file.slice(at, next));
      at = next;
    }
    t.equal(reader.end(), undefined);
    t.equal(reader.wholeBytes, file.length);
    t.equal(blocks, 3);
    if (packets.length !== whole.length) t.fail('packets are missing');
  }
});

t.test('each lie has its reason', async t => {
  const spoil = (change: (view: DataView, bytes: Uint8Array) => Uint8Array | undefined): [number, string] => {
    const bytes = sample();
    const { fault } = readPcapng(change(new DataView(bytes.buffer), bytes) ?? bytes);
    return [fault?.offset ?? -1, fault?.reason ?? ''];
  };
  const section = sectionHeader({ os: 'Linux', application: 'tulle', comment: 'two words' }).length;
  const first = sample().length;
  t.match(readPcapng(new Uint8Array(0)).fault?.reason, /empty/);
  t.match(readPcapng(Uint8Array.of(1, 2, 3, 4)).fault?.reason, /no pcapng/);
  t.match(readPcapng(Uint8Array.of(0x0a)).fault?.reason, /middle of a block/);
  t.match(
    spoil(view => void view.setUint32(8, 7)),
    [0, /magic/],
  );
  t.match(
    spoil(view => void view.setUint16(12, 2, true)),
    [0, /version 2/],
  );
  t.match(
    spoil(view => void view.setUint32(4, 11, true)),
    [0, /a block of 11 bytes/],
  );
  t.match(
    spoil(view => void view.setUint32(4, 0xffff_fffc, true)),
    [0, new RegExp(`more than ${LONGEST_BLOCK}`)],
  );
  t.match(
    spoil(view => void view.setUint32(section - 4, 4, true)),
    [0, /two different lengths/],
  );
  t.match(
    spoil((_, bytes) => bytes.slice(0, first - 1)),
    [Number, /middle of a block/],
  );
  t.match(
    spoil((_, bytes) => bytes.slice(section)),
    [0, /no pcapng/],
  );
  const packetAt = readPacketOffset(sample());
  t.match(
    spoil(view => void view.setUint32(packetAt + 8, 2, true)),
    [packetAt, /interface 2/],
  );
  t.match(
    spoil(view => void view.setUint32(packetAt + 20, 0x7fff_ffff, true)),
    [packetAt, /longer than its block/],
  );
  t.match(
    spoil(view => void view.setUint16(packetAt + 28 + 8 + 2, 0xffff, true)),
    [packetAt, /an option longer/],
  );
  const statistics = interfaceStatistics({ interface: 3, time: 0n });
  t.match(readPcapng(join(sample(), statistics)).fault, { offset: first, reason: /statistics of an interface/ });
});

function readPacketOffset(file: Uint8Array): number {
  let [at, found] = [0, -1];
  const reader = new PcapngReader({
    packet: () => {},
    block: (type, bytes) => {
      if (type === BLOCK_PACKET && found < 0) found = at;
      at += bytes.length;
    },
  });
  reader.push(file);
  return found;
}

t.test('fuzz: spoilt files end in a reason, never in an exception', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const random = prng(seed);
  const files = [sample(), bigEndian()];
  let faults = 0;
  for (let round = 0; round < 30_000; round++) {
    let file: Uint8Array = pick(random, files).slice();
    for (let changes = 1 + below(random, 4); changes > 0; changes--) {
      const at = below(random, file.length);
      const kind = below(random, 4);
      if (kind === 0) file[at] = random();
      else if (kind === 1) file.set(randomBytes(random, Math.min(4, file.length - at)), at);
      else if (kind === 2) file = file.slice(0, at + 1);
      else file = join(file.subarray(0, at), file.subarray(below(random, file.length)));
    }
    const { packets, interfaces, fault } = readPcapng(file);
    if (fault !== undefined) {
      faults++;
      if (fault.offset > file.length || fault.reason === '') t.fail('a fault that says nothing');
    }
    const bytes = packets.reduce((sum, { data }) => sum + data.length, 0);
    if (bytes > file.length || interfaces.length > file.length) t.fail('more came out than went in');
  }
  t.ok(faults > 5_000, `${faults} were faulty`);
});
