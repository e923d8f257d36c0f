/** Journeys and steps of packets that were built by lib/wire's own functions, and of what is damaged. */
import t from 'tap';
import { receiverChecks } from '../../lib/observe/microscope/checks.ts';
import { exampleNetwork, exampleRecords } from '../../lib/observe/microscope/example.ts';
import { journeysOf } from '../../lib/observe/microscope/journey.ts';
import { layersOf } from '../../lib/observe/microscope/layers.ts';
import type { PacketRecord } from '../../lib/observe/microscope/model.ts';
import { type Step, stepsOf } from '../../lib/observe/microscope/steps.ts';
import { ip4Ttl, verifyIp4Checksum } from '../../lib/wire/ip4.ts';
import { verifyL4Checksum4 } from '../../lib/wire/l4.ts';
import { below, prng } from '../support/prng.ts';

const network = exampleNetwork();
const journeys = journeysOf(exampleRecords());
const byId = (steps: Step[], id: string): Step => {
  const step = steps.find(candidate => candidate.id === id);
  if (step === undefined) throw new Error(`no step ${id} among ${steps.map(each => each.id)}`);
  return step;
};

t.test('a long stream that nothing tells apart: as it comes, and not by its square', async t => {
  const names = { 'tun-read': 'node1', 'udp-send': 'node1', 'udp-receive': 'node2', 'tun-write': 'node2' } as const;
  const [first] = journeysOf(exampleRecords()).filter(({ sent, received, written }) =>
    [sent, received, written].every(sights => sights.length === 1),
  );
  const sights = [first.read!, ...first.sent, ...first.received, ...first.written];
  const packets = 5000;
  let looks = 0;
  const records = Array.from({ length: packets }, (_, i) =>
    sights.map(({ record }) => {
      const { place, ...rest } = { ...record, node: names[record.place], atUs: i * 10 };
      // Whoever looks at a record's place looks at a candidate.
      const get = (): typeof place => {
        looks++;
        return place;
      };
      return Object.defineProperty(rest, 'place', { enumerable: true, get }) as PacketRecord;
    }),
  ).flat();
  const journeys = journeysOf(records);
  t.equal(journeys.length, packets);
  t.ok(
    journeys.every(({ read, sent, received, written }) => read && sent.length + received.length + written.length === 3),
    'each with its four sights',
  );
  t.ok(looks < 200 * records.length, `${looks / records.length} looks a record`);
});

t.test('records of both nodes become one journey each', async t => {
  t.same(
    journeys.map(({ source, destination, sent, received, written, drop }) => [
      source,
      destination,
      sent.length,
      received.length,
      written.length,
      drop,
    ]),
    [
      ['10.42.7.2', '10.42.9.2', 1, 1, 1, undefined],
      ['10.42.9.2', '10.42.7.2', 1, 1, 1, undefined],
      ['10.42.7.2', '10.42.9.2', 4, 4, 1, undefined],
      ['10.42.7.2', '10.42.200.9', 0, 0, 0, 'egress-no-lease'],
      ['10.42.30.3', '10.42.9.2', 1, 1, 0, 'ingress-spoofed-source'],
    ],
  );
  t.match(journeys[0].title, /10\.42\.7\.2 > 10\.42\.9\.2: .*echo request/i);
  t.equal(new Set(journeys.map(journey => journey.id)).size, journeys.length);
});

t.test('a ping from pod to pod', async t => {
  const steps = stepsOf(journeys[0], network);
  t.same(
    steps.map(step => step.id),
    ['pod', 'bridge', 'read', 'lookup', 'header', 'send', 'underlay', 'checks', 'write', 'far-bridge', 'far-pod'],
  );
  t.same(
    steps.map(step => ip4Ttl(step.bytes, step.inner)),
    [64, 63, 63, 62, 62, 62, 62, 62, 62, 61, 61],
    'the TTL at each step',
  );
  for (const step of steps)
    t.ok(verifyIp4Checksum(step.bytes, step.inner), `${step.id}: the inner header checksum is right`);
  t.ok(verifyL4Checksum4(byId(steps, 'far-pod').bytes, 0), 'the pod can check the echo');
  t.same(byId(steps, 'header').difference.added, [{ title: 'tulle header', kind: 'tulle', bytes: 12 }]);
  t.same(
    byId(steps, 'send').difference.added.map(({ kind, bytes }) => [kind, bytes]),
    [
      ['outer-ip', 20],
      ['outer-udp', 8],
    ],
  );
  t.same(
    byId(steps, 'write').difference.removed.map(({ kind, bytes }) => [kind, bytes]),
    [
      ['outer-ip', 20],
      ['outer-udp', 8],
      ['tulle', 12],
    ],
  );
  t.same(byId(steps, 'lookup').difference.changed, [8, 10], 'TTL and checksum');
  t.match(byId(steps, 'lookup').facts.at(-1), ['routes[9]', /node2.*10\.42\.9\.0\/24/]);
  t.same(
    byId(steps, 'checks').checks?.map(check => check.verdict),
    Array(9).fill('passed'),
  );
  t.match(byId(steps, 'send').facts[0], ['length', '20 IP + 8 UDP + 12 tulle + 84 = 124 bytes']);
});

t.test('a super-packet is cut and joined', async t => {
  const steps = stepsOf(journeys[2], network, 3);
  t.match(byId(steps, 'header').title, /Cut/);
  t.match(byId(steps, 'header').text, /segments of 1408 bytes.*segment 3/);
  t.equal(byId(steps, 'read').bytes.length, 10 + 40 + 3 * 1408 + 500);
  t.equal(byId(steps, 'send').bytes.length, 28 + 12 + 40 + 500, 'the last segment is shorter');
  t.notOk(byId(steps, 'checks').checks?.some(check => check.verdict === 'refused'));
  t.match(byId(steps, 'write').title, /Joined/);
});

t.test('drops end a journey, with their sentence', async t => {
  const lost = stepsOf(journeys[3], network);
  t.equal(lost.at(-1)?.drop?.reason, 'egress-no-lease');
  t.match(lost.at(-1)?.drop?.sentence, /nobody holds a lease/);
  const spoofed = stepsOf(journeys[4], network);
  t.equal(spoofed.at(-1)?.id, 'checks');
  t.match(spoofed.at(-1)?.drop, { reason: 'ingress-spoofed-source' });
  t.match(
    spoofed.at(-1)?.checks?.find(check => check.verdict === 'refused'),
    { name: 'inner source', reason: 'ingress-spoofed-source' },
    'the page comes to the same verdict as the data path',
  );
});

t.test('a capture of one node is enough for what that node can know', async t => {
  const near = journeysOf(exampleRecords().filter(record => record.node === 'node1'));
  t.same(
    stepsOf(near[0]).map(step => step.id),
    ['pod', 'bridge', 'read', 'lookup', 'header', 'send', 'underlay'],
  );
  const far = journeysOf(exampleRecords().filter(record => record.node === 'node2'));
  const steps = stepsOf(far[0]);
  t.same(steps.map(step => step.id).slice(-4), ['checks', 'write', 'far-bridge', 'far-pod']);
  t.equal(ip4Ttl(byId(steps, 'pod').bytes, 0), 64, 'worked out from the datagram');
  t.notOk(byId(steps, 'pod').captured);
  t.ok(byId(steps, 'checks').checks?.every(check => check.verdict !== 'refused'));
});

t.test('each check refuses what it is about', async t => {
  const good = journeys[0].received[0].record.bytes;
  const spoil = (at: number, value: number): string | undefined => {
    const bytes = good.slice();
    bytes[at] = value;
    return receiverChecks(bytes, 'node2', network).find(check => check.verdict === 'refused')?.reason;
  };
  t.equal(spoil(28, 0x10), undefined, 'as it is');
  t.equal(spoil(15, 77), 'ingress-unknown-sender');
  t.equal(spoil(28, 0x20), 'ingress-wrong-version');
  t.equal(spoil(35, 9), 'ingress-stale-key');
  t.equal(spoil(28, 0x1f), 'ingress-unknown-kind');
  t.equal(spoil(28, 0x11), 'ingress-malformed', 'a segment without a size');
  t.equal(spoil(40, 0x41), 'ingress-malformed');
  t.equal(spoil(54, 200), 'ingress-spoofed-source');
  t.equal(spoil(58, 200), 'ingress-not-ours');
});

t.test('the fields of a packet cover all of its bytes, each once', async t => {
  for (const journey of journeys) {
    for (const step of stepsOf(journey, network)) {
      const covered = new Uint8Array(step.bytes.length);
      for (const layer of step.layers) {
        for (let i = 0; i < layer.length; i++) covered[layer.offset + i]++;
        for (const field of layer.fields) {
          t.ok(
            field.offset >= layer.offset && field.offset + field.length <= layer.offset + layer.length,
            `${step.id}: ${field.name} lies in ${layer.title}`,
          );
        }
      }
      t.ok(
        covered.every(count => count === 1),
        `${step.id} of ${journey.title}`,
      );
    }
  }
});

t.test('damaged and random bytes never throw', async t => {
  const random = prng(20_261_121);
  const records = exampleRecords();
  let steps = 0;
  for (let round = 0; round < 3000; round++) {
    const record = records[below(random, records.length)];
    const bytes = record.bytes.slice(0, below(random, record.bytes.length + 1));
    for (let i = below(random, 6); i > 0 && bytes.length > 0; i--)
      bytes[below(random, Math.min(90, bytes.length))] = below(random, 256);
    for (const journey of journeysOf([{ ...record, bytes, length: bytes.length + below(random, 9) }]))
      steps += stepsOf(journey, below(random, 2) === 0 ? network : undefined).length;
    for (const begins of ['inner', 'vnet', 'datagram', 'outer'] as const) {
      const layers = layersOf(bytes, begins);
      const end = layers.reduce((total, layer) => total + layer.length, 0);
      if (end !== bytes.length)
        t.fail(`layers of ${end} bytes in ${bytes.length}: ${Buffer.from(bytes).toString('hex')}`);
    }
  }
  t.ok(steps > 1000, `${steps} steps were told`);
});
