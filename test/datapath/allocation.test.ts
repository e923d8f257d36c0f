import t from 'tap';
import { RingSource } from '../../lib/datapath/capture-source.ts';
import { TapSwitch } from '../../lib/datapath/capture-tap.ts';
import { flowIndex } from '../../lib/datapath/counters.ts';
import { Egress } from '../../lib/datapath/egress.ts';
import { Ingress } from '../../lib/datapath/ingress.ts';
import { CONTROL_KEY, FORMAT_BARE, FORMAT_TULLE, SLOT_BYTES, TUN_READ_OFFSET } from '../../lib/datapath/slab.ts';
import { BOTH, cidr, pair, subnet6Of } from '../support/node.ts';
import { tcpPacket, tunRead, udpPacket } from '../support/packets.ts';
import { prng, randomBytes } from '../support/prng.ts';

const BATCHES = 20_000;
/** A few bytes a batch would already be many times this; an object a packet would be 20 MB. */
const MOST_BYTES = 512 * 1024;

/** Bytes that the heap grew by while `action` ran, after it has run often enough to be compiled. */
function growth(action: () => void): number {
  for (let i = 0; i < BATCHES; i++) action();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < BATCHES; i++) action();
  return process.memoryUsage().heapUsed - before;
}

for (const [name, format] of Object.entries({ tulle: FORMAT_TULLE, bare: FORMAT_BARE })) {
  t.test(`a mixed batch allocates nothing (${name})`, async t => {
    const random = prng(3);
    const [a, b] = pair(format, true);
    const to2 = { source: '10.42.1.2', destination: '10.42.2.2' };
    const to2six = { source: 'fd00:42:0:1::2', destination: 'fd00:42:0:2::2' };
    const reads = [
      tunRead(tcpPacket({ ...to2, payload: randomBytes(random, 20_000), partial: true }), { segmentSize: 1408 }),
      tunRead(udpPacket({ ...to2, payload: randomBytes(random, 64), partial: true }), { partial: true }),
      tunRead(udpPacket({ ...to2, payload: randomBytes(random, 64) })),
      tunRead(udpPacket({ ...to2, destination: '10.42.77.1', payload: randomBytes(random, 64) })),
      tunRead(tcpPacket({ ...to2six, payload: randomBytes(random, 20_000), partial: true }), { segmentSize: 1388 }),
      tunRead(udpPacket({ ...to2six, payload: randomBytes(random, 64) })),
    ];
    const egress = new Egress(a.slab, {
      network: BOTH,
      own: { subnet: cidr('10.42.1.0/24'), subnet6: subnet6Of(1) },
      format,
      send: count => count,
      sum: a.sum,
      writeReplies: count => count,
      pathTo: () => 1500,
      now: () => 0,
    });
    a.slab.control[CONTROL_KEY] = 101;
    const fill = (): void => {
      for (let slot = 0; slot < reads.length; slot++) {
        a.slab.bytes.set(reads[slot], a.slab.tunSlotsOffset + slot * SLOT_BYTES + TUN_READ_OFFSET);
        a.slab.words[(a.slab.tunLengthsOffset >> 2) + slot] = reads[slot].length;
      }
    };
    const sent = growth(() => {
      fill();
      egress.take(reads.length);
    });
    t.ok(sent < MOST_BYTES, `egress grew the heap by ${sent} bytes in ${BATCHES} batches`);

    // The receiver's slots are put back as they came before each batch, because ingress rewrites headers in place.
    a.read(reads);
    const trains = a.takeSent().map(({ datagrams }) => ({ from: { address: '10.88.0.1', port: 8285 }, datagrams }));
    b.place(trains);
    const ingress = new Ingress(
      b.slab,
      BOTH,
      { subnet: cidr('10.42.2.0/24'), subnet6: subnet6Of(2) },
      count => count,
      b.sum,
      b.side,
    );
    const slots = b.slab.bytes.slice(b.slab.udpSlotsOffset, b.slab.udpSlotsOffset + trains.length * SLOT_BYTES);
    const deliver = (): void => {
      b.slab.bytes.set(slots, b.slab.udpSlotsOffset);
      b.slab.tap?.received(trains.length);
      ingress.take(trains.length);
    };
    const taken = growth(deliver);
    // Ours of both versions; in flannel's format, which has no IPv6, TCP's of IPv4 and a run of UDP datagrams.
    t.equal(b.slab.counters[flowIndex('ingress-super-packets')], 4 * BATCHES);
    t.ok(taken < MOST_BYTES, `ingress grew the heap by ${taken} bytes in ${BATCHES} batches`);

    // Captured as well: the ring is full at once, or emptied each time.
    const source = new RingSource(b.slab.ring, BOTH, () => {});
    const tap = new TapSwitch(b.slab, BOTH, () => 0);
    source.set({ snaplen: 256 });
    tap.look();
    t.not(b.slab.tap, undefined);
    let seen = 0;
    const see = (): void => {
      seen++;
    };
    const captured = growth(() => {
      deliver();
      source.drain(see, 1_000);
    });
    t.ok(seen > BATCHES * trains.length);
    t.ok(captured < MOST_BYTES, `a captured ingress grew the heap by ${captured} bytes in ${BATCHES} batches`);
    const full = growth(deliver);
    t.ok(full < MOST_BYTES, `with a full ring by ${full} bytes`);
  });
}
