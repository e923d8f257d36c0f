import { constants } from 'node:os';
import t from 'tap';
import { parseAddressMessage } from '../../lib/netlink/address.ts';
import { AnswerReader } from '../../lib/netlink/answer.ts';
import { createVethMessage, listLinksMessage, parseLink, setLinkMessage } from '../../lib/netlink/link.ts';
import {
  align,
  HEADER_BYTES,
  type Message,
  MessageBuilder,
  NLM_F_ACK,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_DUMP_INTR,
  NLM_F_MULTI,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  nestedOf,
  parseAcknowledgement,
  parseAttributes,
  parseBody,
  parseMessages,
  textOf,
  u8Of,
  u32At,
  u32Of,
} from '../../lib/netlink/message.ts';
import { addRouteMessage, parseRoute, parseRouteMessage } from '../../lib/netlink/route.ts';
import { codeOf } from '../../lib/util/errors.ts';

const join = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
const one = (bytes: Uint8Array): Message => {
  const [message, ...others] = parseMessages(bytes);
  if (message === undefined || others.length > 0) throw new Error('expected exactly one message');
  return message;
};
const LITTLE = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
/** An acknowledgement as netlink_ack builds it. */
function acknowledge(sequence: number, errno: number, text?: string, request?: Uint8Array): Uint8Array {
  const flags = (request === undefined ? NLM_F_CAPPED : 0) | (text === undefined ? 0 : NLM_F_ACK_TLVS);
  const original = request ?? new MessageBuilder(16, NLM_F_REQUEST).finish(sequence).slice();
  const builder = new MessageBuilder(NLMSG_ERROR, flags).body(4 + original.length, (view, little) => {
    view.setInt32(0, -errno, little);
    for (const [index, byte] of original.entries()) view.setUint8(4 + index, byte);
  });
  if (text !== undefined) builder.text(1, text);
  return builder.finish(sequence).slice();
}

t.test('what is built is parsed back', async t => {
  const bytes = new MessageBuilder(16, NLM_F_REQUEST | NLM_F_ACK)
    .body(16, (view, little) => view.setInt32(4, 7, little))
    .text(3, 'eth0')
    .u32(4, 1400)
    .bytes(1, Uint8Array.of(2, 0, 0, 0, 0, 9))
    .nest(18, info => info.text(1, 'veth').nest(2, data => data.u32(9, 0xfffffffe)))
    .finish(0xfffffff0);
  t.equal(bytes.length % 4, 0);
  const message = one(bytes);
  t.equal(message.type, 16);
  t.equal(message.flags, 5);
  t.equal(message.sequence, 0xfffffff0);
  t.equal(u32At(parseBody(message.payload, 16), 4), 7);
  const attributes = parseAttributes(message.payload, 16);
  t.equal(textOf(attributes, 3), 'eth0');
  t.equal(u32Of(attributes, 4), 1400);
  t.same([...(attributes.get(1) ?? [])], [2, 0, 0, 0, 0, 9]);
  const info = nestedOf(attributes, 18);
  t.equal(textOf(info, 1), 'veth');
  t.equal(u32Of(nestedOf(info, 2), 9), 0xfffffffe);
  t.equal(u32Of(attributes, 99), undefined);
  t.equal(nestedOf(attributes, 99).size, 0);
});

t.test('the bytes are those of the kernel header', { skip: LITTLE ? false : 'big-endian machine' }, async t => {
  // ip -s link, without the counters, as strace shows it: nlmsghdr, ifinfomsg, IFLA_EXT_MASK = 8
  t.equal(
    Buffer.from(listLinksMessage().finish(1)).toString('hex'),
    '280000001200010301000000000000000000000000000000000000000000000008001d0008000000',
  );
});

t.test('a large message grows, also inside a nest', async t => {
  const value = new Uint8Array(3000).fill(7);
  const message = one(new MessageBuilder(16, 0).nest(2, inner => inner.bytes(5, value).bytes(6, value)).finish(1));
  const inner = nestedOf(parseAttributes(message.payload), 2);
  t.same(inner.get(5), value);
  t.same(inner.get(6), value);
  t.throws(() => new MessageBuilder(16, 0).bytes(1, new Uint8Array(65532)), { code: 'EMSGSIZE' });
  t.throws(() => new MessageBuilder(16, 0).nest(1, nest => nest.bytes(2, new Uint8Array(65530))), { code: 'EMSGSIZE' });
});

t.test('bad lengths are EBADMSG, padding is not', async t => {
  const good = new MessageBuilder(16, 0).u32(4, 1).finish(1).slice();
  const spoil = (change: (view: DataView, bytes: Uint8Array) => void, parse: (bytes: Uint8Array) => unknown): void => {
    const bytes = good.slice();
    change(new DataView(bytes.buffer), bytes);
    t.throws(() => parse(bytes), { code: 'EBADMSG' });
  };
  spoil(view => view.setUint32(0, 15, LITTLE), parseMessages);
  spoil(view => view.setUint32(0, good.length + 1, LITTLE), parseMessages);
  spoil(view => view.setUint32(0, 0xffffffff, LITTLE), parseMessages);
  t.throws(() => parseMessages(good.subarray(0, 15)), { code: 'EBADMSG' });
  spoil(
    view => view.setUint16(HEADER_BYTES, 3, LITTLE),
    bytes => parseAttributes(bytes, HEADER_BYTES),
  );
  spoil(
    view => view.setUint16(HEADER_BYTES, 0, LITTLE),
    bytes => parseAttributes(bytes, HEADER_BYTES),
  );
  spoil(
    view => view.setUint16(HEADER_BYTES, 9, LITTLE),
    bytes => parseAttributes(bytes, HEADER_BYTES),
  );
  t.equal(parseAttributes(Uint8Array.of(1, 2, 3)).size, 0, 'three bytes at the end are padding');
  t.throws(() => u32Of(new Map([[1, Uint8Array.of(1, 2, 3)]]), 1), { code: 'EBADMSG' });
  t.throws(() => u8Of(new Map([[1, new Uint8Array(0)]]), 1), { code: 'EBADMSG' });
  t.throws(() => parseBody(new Uint8Array(11), 12), { code: 'EBADMSG' });
});

t.test('acknowledgements, capped and whole', async t => {
  t.same(parseAcknowledgement(one(acknowledge(3, 0))), { errno: 0 });
  t.same(parseAcknowledgement(one(acknowledge(3, 17, 'no room'))), { errno: 17, text: 'no room' });
  const request = new MessageBuilder(16, 0).text(3, 'abcdefg').finish(3).slice();
  t.same(parseAcknowledgement(one(acknowledge(3, 22, 'odd name', request))), { errno: 22, text: 'odd name' });
  const cut = acknowledge(3, 22, 'odd name', request);
  new DataView(cut.buffer).setUint32(HEADER_BYTES + 4, 4000, LITTLE); // the copied request claims to be longer
  t.throws(() => parseAcknowledgement(one(cut)), { code: 'EBADMSG' });
  const positive = acknowledge(3, -5);
  t.throws(() => parseAcknowledgement(one(positive)), { code: 'EBADMSG' });
  const done = new MessageBuilder(NLMSG_DONE, NLM_F_MULTI).finish(3);
  t.same(parseAcknowledgement(one(done)), { errno: 0 });
});

t.test('an answer: stale parts skipped, the end found, refusals thrown', async t => {
  const data = (sequence: number, type = 16, flags = NLM_F_MULTI): Uint8Array =>
    new MessageBuilder(type, flags)
      .body(4, () => {})
      .finish(sequence)
      .slice();
  const done = (sequence: number, errno = 0): Uint8Array =>
    new MessageBuilder(NLMSG_DONE, NLM_F_MULTI)
      .body(4, (view, little) => view.setInt32(0, -errno, little))
      .finish(sequence)
      .slice();
  const types: number[] = [];
  const dump = new AnswerReader('list links', 8, true, message => types.push(message.type));
  t.equal(dump.read(join(data(7, 20), done(7))), false, 'the answer to an earlier request');
  t.equal(dump.read(join(data(8, 16), data(8, 17))), false);
  t.equal(dump.read(join(data(7, 21), data(8, 18))), false);
  t.equal(dump.read(join(done(8), data(8, 19))), true);
  t.same(types, [16, 17, 18]);
  t.equal(dump.interrupted, false);

  const changed = new AnswerReader('list links', 8, true, () => {});
  t.equal(changed.read(join(data(8, 16, NLM_F_MULTI | NLM_F_DUMP_INTR), done(8))), true);
  t.equal(changed.interrupted, true);
  t.throws(() => new AnswerReader('list links', 8, true, () => {}).read(done(8, constants.errno.EINTR)), {
    code: 'EINTR',
  });

  const plain = new AnswerReader('create veth a', 5, false, () => {});
  t.equal(plain.read(acknowledge(4, 17)), false, 'a stale refusal is not ours');
  t.throws(() => plain.read(acknowledge(5, 17, 'name taken')), {
    code: 'EEXIST',
    message: /^create veth a: EEXIST \(.*exists: name taken\)$/,
  });
  t.equal(new AnswerReader('x', 5, false, () => {}).read(acknowledge(5, 0)), true);
  t.throws(() => new AnswerReader('x', 5, false, () => {}).read(acknowledge(5, 95)), { code: 'EOPNOTSUPP' });
  t.throws(() => new AnswerReader('x', 5, false, () => {}).read(acknowledge(5, 3999)), { code: 'E3999' });
});

t.test('bad arguments never reach the kernel', async t => {
  const veth = (name: string, peerName: string, mac?: string): unknown =>
    createVethMessage({ name, peerName, ...(mac !== undefined && { mac }) }, undefined, undefined);
  for (const name of ['', '.', '..', 'a/b', 'a b', 'a:b', 'a\0b', '0123456789abcdef', 'ééééééééx']) {
    t.throws(() => veth(name, 'ok'), { code: 'EINVAL', message: /link's name/ }, JSON.stringify(name));
    t.throws(() => veth('ok', name), { code: 'EINVAL' });
  }
  for (const mac of ['', '02:00:00:00:00', '02:00:00:00:00:0g', '03:00:00:00:00:01']) {
    t.throws(() => veth('a', 'b', mac), { code: 'EINVAL' }, mac);
  }
  for (const destination of ['10.0.0.0/33', '10.0.0.0/', '10.0.0/8', 'x', '::/129', '10.0.0.0/08', '10.0.0.0/-1']) {
    t.throws(() => parseRoute({ destination }), { code: 'EINVAL' }, destination);
  }
  t.throws(() => parseRoute({ destination: '10.0.0.0/8', gateway: 'fd00::1' }), {
    code: 'EINVAL',
    message: 'route 10.0.0.0/8: its gateway must be an IPv4 address too',
  });
  t.equal(parseRoute({ destination: 'default', gateway: 'fd00::1' }).destination.family, 6);
});

/** mulberry32 */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

t.test('hostile bytes: parsed, or EBADMSG; nothing else, and never outside the bytes', async t => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
  t.comment(`SEED=${seed}`);
  const next = random(seed);
  const below = (limit: number): number => Math.floor(next() * limit);
  const route = { destination: '10.1.0.0/16', gateway: '10.0.0.1', source: '10.0.0.2', mtu: 1400, metric: 5 };
  const seeds = [
    createVethMessage({ name: 'a', peerName: 'b', mtu: 1400, mac: '02:00:00:00:00:01' }, 3, 4).finish(1).slice(),
    setLinkMessage(4, { mtu: 1400, newName: 'abc', txQueueLength: 5, up: true }, undefined, 0).finish(1).slice(),
    addRouteMessage(parseRoute(route), route, 4).finish(1).slice(),
    new MessageBuilder(24, 0)
      .body(12, view => {
        view.setUint8(0, 2);
        view.setUint8(7, 1);
      })
      .nest(9, hops =>
        hops.body(8, (view, little) => view.setUint16(0, 16, little)).bytes(5, Uint8Array.of(1, 2, 3, 4)),
      )
      .finish(1)
      .slice(),
    new MessageBuilder(20, 0)
      .body(8, view => view.setUint8(0, 2))
      .bytes(2, Uint8Array.of(10, 0, 0, 1))
      .finish(1)
      .slice(),
    acknowledge(1, 17, 'some words', new MessageBuilder(16, 0).text(3, 'abc').finish(1).slice()),
  ];
  const outcomes = { parsed: 0, refused: 0 };
  const readers: ((message: Message) => unknown)[] = [
    ({ payload }) => parseLink(payload),
    ({ payload }) => parseAddressMessage(payload),
    ({ payload }) => parseRouteMessage(payload),
    parseAcknowledgement,
  ];
  for (let round = 0; round < 40_000; round++) {
    const original = seeds[below(seeds.length)];
    const bytes = original.slice(0, next() < 0.2 ? below(original.length + 1) : original.length);
    for (let change = below(4); change > 0; change--) bytes[below(bytes.length)] = next() < 0.3 ? 0xff : below(256);
    // The neighbour's bytes: reading them would be the defect, so put the message in the middle of a poisoned slab.
    const slab = new Uint8Array(bytes.length + 64).fill(0xa5);
    slab.set(bytes, 32);
    const framed = next() < 0.5 ? slab.subarray(32, 32 + bytes.length) : join(bytes, bytes);
    const messages: Message[] = [];
    try {
      messages.push(...parseMessages(framed));
    } catch (error) {
      if (codeOf(error) !== 'EBADMSG') throw error;
    }
    for (const message of messages) {
      if (message.payload.byteOffset + message.payload.length > framed.byteOffset + framed.length) t.fail('outside');
      for (const read of readers) {
        try {
          read(message);
          outcomes.parsed++;
        } catch (error) {
          if (codeOf(error) !== 'EBADMSG') throw error;
          outcomes.refused++;
        }
      }
    }
  }
  t.ok(outcomes.parsed > 1000, `${outcomes.parsed} parsed`);
  t.ok(outcomes.refused > 1000, `${outcomes.refused} refused`);
  t.equal(align(5), 8);
});
