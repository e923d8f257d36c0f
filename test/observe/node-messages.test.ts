import t from 'tap';
import { cutToFit, NodeMessages, plain, VERB_SUMMARY, VERB_TRACED } from '../../lib/observe/node-messages.ts';
import { TulleError } from '../../lib/util/errors.ts';
import type { Subnet4 } from '../../lib/wire/cidr.ts';
import { MESSAGE_DATAGRAM_BYTES } from '../../lib/wire/node-message.ts';
import { emitTulle, HEADER_BYTES, KIND_MESSAGE } from '../../lib/wire/tulle.ts';
import { cidr } from '../support/node.ts';
import { below, pick, prng, randomBytes, testSeed } from '../support/prng.ts';
import { createVirtualClock } from '../support/virtual-clock.ts';

const [SUBNET1, SUBNET2] = [cidr('10.42.1.0/24'), cidr('10.42.2.0/24')];

interface Sent {
  from: number;
  datagram: Uint8Array;
}

/** Two nodes over a way that a test may damage: `way` gives what arrives of one datagram. */
function pairOf(way: (sent: Sent) => Uint8Array[] = ({ datagram }) => [datagram], longest = 1_472) {
  const clock = createVirtualClock();
  const random = prng(testSeed());
  const sent: Sent[] = [];
  const nodes: NodeMessages[] = [];
  const subnets = [SUBNET1, SUBNET2];
  const make = (k: number): NodeMessages =>
    new NodeMessages({
      clock,
      random,
      longest: () => longest,
      send: (_: Subnet4, datagram, part, parts) => {
        emitTulle(datagram, 0, KIND_MESSAGE, 0, 0, 101 + k, part, parts);
        const one = { from: k, datagram };
        sent.push(one);
        for (const arrived of way(one)) {
          nodes[1 - k].take({ kind: 'message', subnet: subnets[k].address, key: 1, datagram: arrived, at: 0 });
        }
        return true;
      },
    });
  nodes.push(make(0), make(1));
  return { clock, sent, a: nodes[0], b: nodes[1] };
}

t.test('a question and its answer', async t => {
  const { a, b, sent } = pairOf();
  b.answer(VERB_SUMMARY, (question, from) => ({ question, from: from.address, ü: '✓' }));
  t.same(await a.ask(SUBNET2, VERB_SUMMARY, { x: 1 }, 1_000), { question: { x: 1 }, from: SUBNET1.address, ü: '✓' });
  t.equal(sent.length, 2, 'one datagram each');
  b.answer(VERB_TRACED, () => {
    throw new TulleError('bad', 'no\u001b[31m such thing');
  });
  await t.rejects(a.ask(SUBNET2, VERB_TRACED, {}, 1_000), { code: 'refused', message: 'no?[31m such thing' });
});

t.test('who does not answer', async t => {
  const { a, sent, clock } = pairOf();
  const message = '10.42.2.0/24 did not answer within 0.9 s';
  const asking = t.rejects(a.ask(SUBNET2, VERB_SUMMARY, {}, 900), { code: 'no-answer', message });
  await clock.advance(899);
  t.equal(sent.length, 3, 'asked three times');
  await clock.advance(1);
  await asking;
  const stop = new AbortController();
  const stopped = a.ask(SUBNET2, VERB_SUMMARY, {}, 900, stop.signal);
  stop.abort();
  await t.rejects(stopped, { code: 'no-answer' });
});

t.test('a lossy way costs another attempt, a narrow one more parts', async t => {
  let count = 0;
  const lossy = pairOf(({ datagram }) => (++count === 1 || count === 3 ? [] : [datagram]));
  lossy.b.answer(VERB_SUMMARY, () => 'here');
  const asking = lossy.a.ask(SUBNET2, VERB_SUMMARY, {}, 900);
  await lossy.clock.advance(800);
  t.equal(await asking, 'here');

  for (const longest of [548, 1_472]) {
    const { a, b, sent } = pairOf(undefined, longest);
    const list = Array.from({ length: 150 }, (_, i) => `entry ${i}`);
    b.answer(VERB_SUMMARY, () => ({ list }));
    t.same(await a.ask(SUBNET2, VERB_SUMMARY, {}, 900), { list });
    t.ok(sent.length > 2 && sent.every(one => one.datagram.length <= Math.min(longest, MESSAGE_DATAGRAM_BYTES)));
  }
});

t.test('parts in any order, twice, and of two messages', async t => {
  const held: Uint8Array[] = [];
  const { a, b } = pairOf(({ from, datagram }) => {
    if (from === 0) return [datagram];
    held.push(datagram);
    return [];
  });
  const list = Array.from({ length: 400 }, (_, i) => i);
  b.answer(VERB_SUMMARY, () => ({ list }));
  const asking = a.ask(SUBNET2, VERB_SUMMARY, {}, 900);
  const mail = (datagram: Uint8Array) => ({
    kind: 'message' as const,
    subnet: SUBNET2.address,
    key: 1,
    datagram,
    at: 0,
  });
  for (const datagram of [...held.slice(1), held[1], ...held].reverse()) a.take(mail(datagram.slice()));
  t.same(await asking, { list });
});

t.test('an answer is believed from whom was asked alone, and only with the token', async t => {
  const seen: Uint8Array[] = [];
  const { a, b, clock } = pairOf(({ from, datagram }) => {
    if (from === 0) return [datagram];
    seen.push(datagram);
    return [];
  });
  b.answer(VERB_SUMMARY, () => 'true');
  let answered = false;
  const asking = a.ask(SUBNET2, VERB_SUMMARY, {}, 900).then(value => {
    answered = true;
    return value;
  });
  const take = (datagram: Uint8Array, subnet: number): void =>
    void a.take({ kind: 'message', subnet, key: 1, datagram, at: 0 });
  take(seen[0], SUBNET1.address);
  for (const at of [HEADER_BYTES, HEADER_BYTES + 7, HEADER_BYTES + 8, HEADER_BYTES + 9]) {
    const forged = seen[0].slice();
    forged[at] ^= 1;
    take(forged, SUBNET2.address);
  }
  await clock.settle();
  t.notOk(answered);
  take(seen[0], SUBNET2.address);
  t.equal(await asking, 'true');
});

t.test('a notice is heard by who listens for its verb, and by nobody else', async t => {
  const { a, b, sent } = pairOf();
  const heard: unknown[] = [];
  a.listen(VERB_TRACED, (token, body, from) => heard.push({ ...token, body, from }));
  const token = { tokenHigh: 0xfedc, tokenLow: 0x89abcdef };
  b.notify(SUBNET1, VERB_TRACED, token, { drop: 'ingress-stale-key' });
  t.same(heard, [{ ...token, body: { drop: 'ingress-stale-key' }, from: SUBNET2.address }]);
  b.notify(SUBNET1, VERB_SUMMARY, token, {});
  t.equal(heard.length, 1);
  t.equal(sent.length, 2, 'and nobody answers it');
});

t.test('not more questions are answered than a node can', async t => {
  const { a, b, clock, sent } = pairOf();
  b.answer(VERB_SUMMARY, () => 1);
  const asked = Array.from({ length: 300 }, () => a.ask(SUBNET2, VERB_SUMMARY, {}, 90).catch(() => 'none'));
  await clock.advance(100);
  const answers = await Promise.all(asked);
  t.equal(answers.filter(answer => answer === 1).length, 200);
  t.ok(sent.length < 1_000);
});

t.test('what is too long is cut where it hurts least', async t => {
  const short = { a: [1, 2], b: 'x' };
  t.equal(cutToFit(short, 100), JSON.stringify(short));
  const long = { ok: { node: 'n', list: Array.from({ length: 5_000 }, (_, i) => i), other: [1, 2, 3] } };
  const cut = JSON.parse(cutToFit(long, 1_000)) as {
    ok: { list: number[]; cut: boolean; node: string; other: number[] };
  };
  t.equal(cut.ok.cut, true);
  t.ok(cut.ok.list.length > 100 && cut.ok.list.length < 400);
  t.same([cut.ok.node, cut.ok.other], ['n', [1, 2, 3]]);
  t.same(JSON.parse(cutToFit({ text: 'x'.repeat(2_000) }, 1_000)), { error: 'the answer is too long' });
  t.equal(plain('a\u202eb\n\u009b1mc'), 'a?b??1mc');
});

t.test('whatever comes, nothing breaks and little is kept', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const real: Uint8Array[] = [];
  const { a, b } = pairOf(({ datagram }) => {
    real.push(datagram.slice());
    return [datagram];
  });
  b.answer(VERB_SUMMARY, () => ({ list: Array.from({ length: 500 }, (_, i) => i) }));
  await a.ask(SUBNET2, VERB_SUMMARY, {}, 900);
  for (let round = 0; round < 20_000; round++) {
    const datagram = pick(next, real).slice();
    for (let i = below(next, 5); i > 0; i--) datagram[below(next, Math.min(40, datagram.length))] = next();
    const cut = below(next, 3) === 0 ? datagram.slice(0, 24 + below(next, datagram.length - 23)) : datagram;
    const noise = below(next, 10) === 0 ? randomBytes(next, 24 + below(next, 100)) : cut;
    const subnet = pick(next, [SUBNET1, SUBNET2]).address;
    pick(next, [a, b]).take({ kind: 'message', subnet, key: 1, datagram: noise, at: 0 });
    if (real.length > 200) real.length = 20;
  }
  t.same(await a.ask(SUBNET2, VERB_SUMMARY, {}, 900).then(value => Object.keys(value as object)), ['list']);
});
