/** Capture files as the page reads them: tulle's own, tcpdump's, and damaged ones. */
import t from 'tap';
import { recordsOfCapture } from '../../lib/observe/microscope/capture-file.ts';
import { exampleNetwork, exampleRecords } from '../../lib/observe/microscope/example.ts';
import { journeysOf } from '../../lib/observe/microscope/journey.ts';
import { stepsOf } from '../../lib/observe/microscope/steps.ts';
import {
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
  enhancedPacket,
  interfaceDescription,
  LINKTYPE_RAW,
  sectionHeader,
} from '../../lib/wire/pcapng.ts';
import { below, prng } from '../support/prng.ts';

interface Captured {
  name: string;
  linkType?: number;
  data: Uint8Array;
  length?: number;
  direction?: number;
  comments?: string[];
}

/** A file with one interface for each packet. */
function file(packets: readonly Captured[]): Uint8Array {
  const interfaces = packets.map(({ name, linkType = LINKTYPE_RAW }) =>
    interfaceDescription({ linkType, snaplen: 0, name }),
  );
  const blocks = packets.map(({ data, length = data.length, direction, comments = [] }, i) =>
    enhancedPacket({
      interface: i,
      time: BigInt(i) * 1000n,
      data,
      length,
      ...(direction !== undefined && { direction }),
      comments,
    }),
  );
  return new Uint8Array(Buffer.concat([sectionHeader({}), ...interfaces, ...blocks]));
}

const [read, sent] = exampleRecords();

t.test('the places: of the TUN as tcpdump sees it, of the underlay as it is', async t => {
  const records = recordsOfCapture(
    file([
      { name: 'node1:tulle0', data: read.bytes, direction: DIRECTION_OUTBOUND },
      { name: 'node1:underlay', data: sent.bytes, direction: DIRECTION_OUTBOUND },
      { name: 'node2:underlay', data: sent.bytes, direction: DIRECTION_INBOUND },
      { name: 'node2:tulle0', data: read.bytes, direction: DIRECTION_INBOUND },
      { name: 'tulle0', data: read.bytes },
      {
        name: 'node1:tulle0 drops',
        data: read.bytes,
        direction: DIRECTION_OUTBOUND,
        comments: ['dropped: egress-no-lease: nobody'],
      },
    ]),
  );
  t.same(
    records.map(({ node, place, drop, atUs }) => [node, place, drop, atUs]),
    [
      ['node1', 'tun-read', undefined, 0],
      ['node1', 'udp-send', undefined, 1],
      ['node2', 'udp-receive', undefined, 2],
      ['node2', 'tun-write', undefined, 3],
      ['', 'tun-read', undefined, 4],
      ['node1', 'tun-read', 'egress-no-lease', 5],
    ],
  );
});

t.test("tcpdump's, from a node's link: Ethernet in front, and what is not ours between", async t => {
  const ethernet = (type: number, packet: Uint8Array): Uint8Array =>
    new Uint8Array([...new Uint8Array(12), type >> 8, type & 255, ...packet]);
  const records = recordsOfCapture(
    file([
      { name: 'eth0', linkType: 1, data: ethernet(0x0800, sent.bytes) },
      { name: 'eth0', linkType: 1, data: ethernet(0x0806, new Uint8Array(28)) },
      { name: 'eth0', linkType: 1, data: ethernet(0x0800, read.bytes) },
      { name: 'usb0', linkType: 220, data: sent.bytes },
    ]),
  );
  t.equal(records.length, 1, 'the datagram; no ARP, no ping of a node, no USB');
  t.same(records[0].bytes, sent.bytes);
});

t.test('a packet that was cut keeps its length', async t => {
  const [record] = recordsOfCapture(
    file([{ name: 'node1:underlay', data: sent.bytes.slice(0, 70), length: sent.length }]),
  );
  t.same([record.bytes.length, record.length], [70, 124]);
  const send = stepsOf(journeysOf([record])[0]).find(step => step.id === 'send');
  t.same([send?.bytes.length, send?.capturedBytes], [124, 70]);
});

t.test('a packet and its drop are one journey', async t => {
  const journeys = journeysOf(
    recordsOfCapture(
      file([
        { name: 'node1:tulle0', data: read.bytes, direction: DIRECTION_OUTBOUND },
        {
          name: 'node1:tulle0 drops',
          data: read.bytes,
          direction: DIRECTION_OUTBOUND,
          comments: ['dropped: egress-no-lease: x'],
        },
      ]),
    ),
  );
  t.match(journeys, [{ drop: 'egress-no-lease' }]);
  t.equal(journeys.length, 1);
  t.match(stepsOf(journeys[0]).at(-1), { id: 'lookup', drop: { reason: 'egress-no-lease' } });
});

t.test('whatever is in a file: one line, or what can be read of it', async t => {
  const whole = file(
    exampleRecords().map(({ node, place, bytes, length }) => ({
      name: `${node}:${place.startsWith('udp') ? 'underlay' : 'tulle0'}`,
      data: bytes,
      length,
      direction: place === 'tun-read' || place === 'udp-send' ? DIRECTION_OUTBOUND : DIRECTION_INBOUND,
    })),
  );
  const random = prng(61_121);
  let [opened, refused] = [0, 0];
  for (let round = 0; round < 400; round++) {
    const bytes = whole.slice(0, below(random, 4) === 0 ? below(random, whole.length) : whole.length);
    for (let i = below(random, 12); i > 0 && bytes.length > 0; i--)
      bytes[below(random, bytes.length)] = below(random, 256);
    try {
      for (const journey of journeysOf(recordsOfCapture(bytes))) stepsOf(journey, exampleNetwork());
      opened++;
    } catch (error) {
      refused++;
      if (!(error instanceof Error) || error.constructor !== Error || error.message.includes('\n')) throw error;
    }
  }
  t.ok(opened > 50 && refused > 5, `${opened} opened, ${refused} refused`);
});
