/** The pure parts of a trace: the packet, the answers, the report, the story. test/daemon/tracing.test.ts sends them. */
import t from 'tap';
import { DROP_REASONS, type DropReason } from '../../lib/datapath/counters.ts';
import { NO_LIMIT } from '../../lib/datapath/slab.ts';
import { explain } from '../../lib/observe/trace/explain.ts';
import { buildPacket, checkQuestion, readAnswer, type TraceQuestion } from '../../lib/observe/trace/packet.ts';
import { printStory } from '../../lib/observe/trace/print.ts';
import { parseReport, TracedLog } from '../../lib/observe/trace/report.ts';
import type { FarReport, TraceResult, TraceState } from '../../lib/observe/trace/state.ts';
import { isIp6, l4DistanceOf } from '../../lib/wire/either.ts';
import { emitError4, emitError6 } from '../../lib/wire/icmp.ts';
import { checkIp4, verifyIp4Checksum } from '../../lib/wire/ip4.ts';
import { checkIp6 } from '../../lib/wire/ip6.ts';
import { finishL4Checksum4, finishL4Checksum6, verifyL4Checksum4, verifyL4Checksum6 } from '../../lib/wire/l4.ts';
import { BOTH, cidr, peerOfNode, subnet6Of } from '../support/node.ts';
import { address, address6 } from '../support/packets.ts';
import { below, pick, prng, randomBytes, testSeed } from '../support/prng.ts';

const to2 = { source: '10.42.1.2', destination: '10.42.2.2' };
const to2six = { source: 'fd00:42:0:1::2', destination: 'fd00:42:0:2::2' };
const PROTOCOLS = ['icmp', 'tcp', 'udp'] as const;
const random = prng(5);

t.test('questions', async t => {
  t.same(checkQuestion(to2), { ...to2, protocol: 'icmp', port: 0, size: 84, ttl: 64 });
  t.same(checkQuestion({ ...to2six, protocol: 'tcp' }), { ...to2six, protocol: 'tcp', port: 80, size: 84, ttl: 64 });
  for (const wrong of [
    undefined,
    null,
    'x',
    [],
    {},
    { source: '10.42.1.2' },
    { ...to2, source: 'node1' },
    { ...to2, destination: 'fd00::1' },
    { ...to2, protocol: 'sctp' },
    { ...to2, protocol: 'toString' },
    { ...to2, size: 27 },
    { ...to2six, size: 47 },
    { ...to2, size: 65_536 },
    { ...to2, size: 84.5 },
    { ...to2, ttl: 0 },
    { ...to2, ttl: 256 },
    { ...to2, protocol: 'tcp', port: 0 },
    { ...to2, protocol: 'udp', port: '53' },
  ]) {
    t.throws(() => checkQuestion(wrong), { code: 'bad-trace' }, JSON.stringify(wrong));
  }
});

t.test('the packet is sound, and behind its first bytes there are only zeros', async t => {
  for (const way of [to2, to2six]) {
    for (const protocol of PROTOCOLS) {
      for (const size of [way === to2 ? 40 : 60, 84, 1_460, 9_001, 65_535]) {
        const { bytes } = buildPacket(checkQuestion({ ...way, protocol, size }), random);
        t.equal(bytes.length, size);
        const six = isIp6(bytes, 0);
        t.equal(six ? checkIp6(bytes, 0, size) : checkIp4(bytes, 0, size), 0);
        t.ok(six ? verifyL4Checksum6(bytes, 0) : verifyIp4Checksum(bytes, 0) && verifyL4Checksum4(bytes, 0));
        t.ok(bytes.subarray(128).every(byte => byte === 0));
      }
    }
  }
});

/** The other way round: the destination's answer of the same protocol. */
function answerTo(packet: Uint8Array, protocol: TraceQuestion['protocol']): Uint8Array {
  const bytes = packet.slice();
  const six = isIp6(bytes, 0);
  const [from, length] = six ? [8, 16] : [12, 4];
  bytes.set(packet.slice(from + length, from + 2 * length), from);
  bytes.set(packet.slice(from, from + length), from + length);
  const l4 = l4DistanceOf(bytes, 0);
  if (protocol === 'icmp') bytes[l4] = six ? 129 : 0;
  else {
    bytes.set(packet.slice(l4 + 2, l4 + 4), l4);
    bytes.set(packet.slice(l4, l4 + 2), l4 + 2);
    if (protocol === 'tcp') bytes[l4 + 13] = 0x12;
  }
  if (six) finishL4Checksum6(bytes, 0);
  else finishL4Checksum4(bytes, 0);
  return bytes;
}

t.test('answers, and what is none', async t => {
  for (const way of [to2, to2six]) {
    for (const protocol of PROTOCOLS) {
      const question = checkQuestion({ ...way, protocol });
      const { bytes, mark } = buildPacket(question, random);
      const answer = answerTo(bytes, protocol);
      t.match(readAnswer(answer, answer.length, question, mark), { reached: true, from: way.destination }, protocol);
      t.equal(readAnswer(answer, answer.length, question, mark + 1), undefined, 'to another question');
      t.match(readAnswer(answer.slice(0, 68), answer.length, question, mark), { reached: true }, 'its end is missing');

      const six = way === to2six;
      const error = new Uint8Array(1_280);
      const router = six ? 'fd00:42:0:9::9' : '10.42.9.9';
      const length = six
        ? emitError6(error, 0, 1, 3, 0, address6(router), bytes, 0, bytes.length)
        : emitError4(error, 0, 3, 1, 0, address(router), bytes, 0, bytes.length);
      t.match(readAnswer(error, length, question, mark), { reached: false, from: router }, 'an ICMP error on the way');
      t.equal(readAnswer(error, length, question, mark + 1), undefined, 'about something else');
    }
  }
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  for (let round = 0; round < 20_000; round++) {
    const way = pick(next, [to2, to2six]);
    const question = checkQuestion({ ...way, protocol: pick(next, PROTOCOLS) });
    const { bytes, mark } = buildPacket(question, next);
    const spoilt = below(next, 5) === 0 ? randomBytes(next, below(next, 100)) : answerTo(bytes, question.protocol);
    for (let i = below(next, 4); i > 0 && spoilt.length > 0; i--) spoilt[below(next, spoilt.length)] = next();
    readAnswer(spoilt.slice(0, below(next, spoilt.length + 1)), below(next, 70_000), question, mark);
  }
  t.pass('noise');
});

t.test('reports: only who sent it is told, and what comes is checked', async t => {
  const log = new TracedLog();
  const about = { node: 'node2', device: 'tulle0', link: 'cni0' };
  log.add(1, { id: 7, drop: undefined, length: 84, ttl: 63 });
  t.match(parseReport(log.answer(1, { id: 7 }, about)), { seen: true, drop: undefined, node: 'node2', link: 'cni0' });
  t.same(parseReport(log.answer(2, { id: 7 }, about)), { seen: false }, 'somebody else');
  for (const question of [undefined, 7, {}, { id: '7' }, { id: 8 }])
    t.same(log.answer(1, question, about), { seen: false });
  for (let id = 100; id < 400; id++) log.add(1, { id, drop: 'ingress-not-ours', length: 1, ttl: 1 });
  t.same(log.answer(1, { id: 7 }, about), { seen: false }, 'the oldest are forgotten');
  t.match(parseReport(log.answer(1, { id: 399 }, { ...about, link: undefined })), { drop: 'ingress-not-ours' });

  const right = { seen: true, drop: null, length: 84, ttl: 63, node: 'n', device: 'd', link: null };
  t.ok(parseReport(right));
  for (const wrong of [
    undefined,
    null,
    'seen',
    { ...right, drop: 'toString' },
    { ...right, drop: 1 },
    { ...right, drop: undefined },
    { ...right, length: -1 },
    { ...right, length: '84' },
    { ...right, ttl: 256 },
    { ...right, node: 5 },
    { ...right, device: undefined },
    { ...right, seen: 1 },
  ]) {
    t.equal(parseReport(wrong), undefined, JSON.stringify(wrong));
  }
  const hostile = parseReport({ ...right, node: `\u001b]0;x\u0007${'y'.repeat(5_000)}` });
  t.ok(hostile?.seen === true && hostile.node.length <= 128 && !hostile.node.includes('\u001b'));
});

/** Node 1 with node 2 as its peer, all well. */
function stateOf(changes: Partial<TraceState> = {}): TraceState {
  const peer = { ...peerOfNode(2), subnet6: subnet6Of(2) };
  return {
    node: 'node1',
    network: BOTH,
    own: { subnet: cidr('10.42.1.0/24'), subnet6: subnet6Of(1) },
    key: 101,
    address: '10.88.0.1',
    port: 8285,
    format: 'tulle',
    underlay: 4,
    transport: 'offload',
    device: 'tulle0',
    mtu: 1460,
    overhead: 40,
    fenced: false,
    peers: [{ peer, lease: undefined, health: undefined, limit: NO_LIMIT }],
    routeTo: to => ({ link: /^(10.42|fd00)/.test(to) ? 'tulle0' : 'eth0', isLocal: false, mtu: 1500 }),
    ...changes,
  };
}

const resultOf = (drop: DropReason | undefined, far: FarReport = { kind: 'not-asked' }): TraceResult => ({
  drop,
  head: new Uint8Array(96),
  id: 0xabcdef,
  far,
  answers: [],
});

t.test('every drop reason of both sides can be told', async t => {
  const question = checkQuestion(to2);
  const seen = {
    kind: 'seen',
    node: 'node2',
    length: 84,
    ttl: 63,
    device: 'tulle0',
    link: 'cni0',
    afterMs: 1,
  } as const;
  const other: Partial<Record<DropReason, object>> = {
    'egress-no-lease': { destination: '10.42.7.7' },
    'egress-own-subnet': { destination: '10.42.1.9' },
    'egress-outside-network': { destination: '192.0.2.1' },
    'egress-link-local': { ...to2six, destination: 'fe80::1' },
    'egress-not-ipv4': to2six,
  };
  const everywhere = { routeTo: () => ({ link: 'tulle0', isLocal: false, mtu: 1500 }) };
  for (const reason of Object.keys(DROP_REASONS) as DropReason[]) {
    if (reason === 'egress-malformed') continue; // what we build is not
    const here = reason.startsWith('egress-');
    const { network, subnetLength } = BOTH;
    const state = stateOf({
      ...everywhere,
      ...(reason === 'egress-not-ipv4' && { network: { network, subnetLength } }),
    });
    const asked = checkQuestion({ ...to2, ...other[reason] });
    const result = here ? resultOf(reason) : resultOf(undefined, { ...seen, drop: reason });
    const story = explain(asked, state, result);
    t.match(story, { outcome: 'stopped', where: here ? 'here' : 'there', reason }, reason);
    t.equal(story.steps.at(-1)?.verdict, 'stop');
    t.ok(
      story.steps.slice(0, -1).every(step => step.verdict === 'pass'),
      'and nothing before it',
    );
    t.ok(printStory(story).includes(reason));
  }
  t.match(explain(question, stateOf(), resultOf(undefined, { ...seen, drop: undefined })), { outcome: 'delivered' });
  t.match(explain(question, stateOf(), resultOf(undefined, { kind: 'not-seen' })), {
    outcome: 'stopped',
    reason: 'lost',
  });
  const refused = { kind: 'refused', drop: 'ingress-stale-key', afterMs: 1 } as const;
  t.match(explain(question, stateOf(), resultOf(undefined, refused)), {
    outcome: 'stopped',
    where: 'there',
    reason: 'ingress-stale-key',
  });
  const silent = explain(question, stateOf(), resultOf(undefined, { kind: 'no-answer' }));
  t.match(silent, { where: 'underway', reason: 'lost' });
  for (const reason of Object.keys(DROP_REASONS)) {
    if (/ingress-(unknown|stale|wrong|fenced)/.test(reason))
      t.ok(printStory(silent).includes(reason), `${reason} is among what remains`);
  }
});

t.test('the arithmetic of the width', async t => {
  const widthOf = (changes: Partial<TraceState>, size = 84): string[] =>
    explain(checkQuestion({ ...to2, size }), stateOf(changes)).steps.find(step => step.name === 'width')?.lines ?? [];
  t.same(widthOf({}), [
    "  1500  the underlay's MTU",
    '   −20  outer IPv4',
    '    −8  outer UDP',
    '   −12  tulle header',
    ' =1460  the largest inner packet',
    '84 ≤ 1460',
  ]);
  t.same(widthOf({ format: 'bare', overhead: 28, mtu: 1472 }).slice(1), [
    '   −20  outer IPv4',
    '    −8  outer UDP',
    ' =1472  the largest inner packet',
    '84 ≤ 1472',
  ]);
  t.equal(widthOf({ underlay: 6, overhead: 60, mtu: 1440 })[1], '   −40  outer IPv6');
  const [peer] = stateOf().peers;
  t.equal(widthOf({ peers: [{ ...peer, limit: 1_000 }] }, 1_001).at(-1), '1001 > 1000');
  const believed = {
    routeTo: (to: string) => ({ link: to === '10.88.0.2' ? 'eth0' : 'tulle0', isLocal: false, mtu: 1_400 }),
  };
  t.equal(widthOf(believed)[0], '  1400  the width of the path to this peer, learnt', 'the kernel has learnt it');
  t.equal(
    widthOf({ ...believed, transport: 'dgram' })[0],
    "  1500  the underlay's MTU",
    'dgram lets the kernel fragment',
  );
});

t.test('whatever is asked, a story comes out', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const addresses4 = ['10.42.1.2', '10.42.2.2', '10.42.9.9', '0.0.0.0', '255.255.255.255', '8.8.8.8', '127.0.0.1'];
  const addresses6 = ['fd00:42:0:1::2', 'fd00:42:0:2::2', 'fe80::1', '::', '::1', 'ff02::1', '2001:db8::1'];
  for (let round = 0; round < 5_000; round++) {
    const from = pick(next, [addresses4, addresses6]);
    const question = checkQuestion({
      source: pick(next, from),
      destination: pick(next, from),
      protocol: pick(next, PROTOCOLS),
      size: 60 + below(next, 3_000),
      ttl: 1 + below(next, 3),
    });
    const [peer] = stateOf().peers;
    const health = {
      rttMs: 1,
      lastRttMs: 1,
      minRttMs: 1,
      lossPct: 0,
      lastHeardMs: 5,
      pathMtu: 1500,
      silent: below(next, 2) === 0,
    };
    const story = explain(
      question,
      stateOf({
        fenced: below(next, 5) === 0,
        format: pick(next, ['tulle', 'bare'] as const),
        peers:
          below(next, 4) === 0
            ? []
            : [{ ...peer, limit: pick(next, [576, 1_000, NO_LIMIT]), health: pick(next, [health, undefined]) }],
        routeTo: () => pick(next, [undefined, { link: 'tulle0', isLocal: false, mtu: 1_500 }]),
      }),
    );
    const text = printStory(story);
    if (/undefined|NaN|\[object/.test(text)) t.fail(text);
    if ((story.outcome === 'stopped') !== (story.reason !== undefined)) t.fail(text);
    if (story.outcome === 'stopped' && story.steps.at(-1)?.verdict !== 'stop') t.fail(text);
  }
  t.pass('5000 stories');
});
