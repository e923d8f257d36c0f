/**
 * Every check of lib/wire against random and damaged bytes. What must hold: nothing throws, a reason is one of the closed
 * list, nothing is written, and nothing outside [offset, offset + length) is read. The last is shown without a Proxy: everything
 * that can be learnt from the bytes is collected twice, with other bytes around them, and must be the same.
 */
import t from 'tap';
import { checkSegment4, checkSuperHeaders4, superHeaderLength4 } from '../../lib/wire/gso.ts';
import { checkIcmp, icmpMtu, mayReport4, mayReport6, printIcmp4, printIcmp6 } from '../../lib/wire/icmp.ts';
import {
  checkIp4,
  ip4HeaderLength,
  ip4TotalLength,
  isFragment4,
  printIp4,
  verifyIp4Checksum,
} from '../../lib/wire/ip4.ts';
import { checkIp6, findL4Ip6, isFragment6, printIp6 } from '../../lib/wire/ip6.ts';
import { l4Checksum4, l4Checksum6, verifyL4Checksum4, verifyL4Checksum6 } from '../../lib/wire/l4.ts';
import { MESSAGE_HEADER_BYTES, parseMessagePart } from '../../lib/wire/node-message.ts';
import { describeDatagram, describePacket } from '../../lib/wire/print.ts';
import { OK, REASON_NAMES } from '../../lib/wire/reason.ts';
import { checkTcp, findTcpOption, printTcp, TCP_OPTION_SACK, tcpMss } from '../../lib/wire/tcp.ts';
import * as tulle from '../../lib/wire/tulle.ts';
import { checkUdp, printUdp } from '../../lib/wire/udp.ts';
import { checkVnet, printVnet } from '../../lib/wire/vnet.ts';
import { below, fillRandom, pick, prng, randomBytes, testSeed } from '../support/prng.ts';
import { buildTcp4, buildUdp4, CAPTURED, fromHex } from '../wire/packets.ts';

type Learn = (bytes: Uint8Array, offset: number, length: number) => unknown[];

/** For each wire file: the reason, and when it is OK everything that its accessors and printers say. */
const LEARN: Record<string, Learn> = {
  ip4: (b, o, n) => {
    const reason = checkIp4(b, o, n);
    if (reason !== OK) return [reason];
    const lengthsHold = ip4HeaderLength(b, o) <= ip4TotalLength(b, o) && ip4TotalLength(b, o) <= n;
    const learnt = [reason, lengthsHold, printIp4(b, o), verifyIp4Checksum(b, o), isFragment4(b, o)];
    return [...learnt, l4Checksum4(b, o), verifyL4Checksum4(b, o), mayReport4(b, o)];
  },
  ip6: (b, o, n) => {
    const reason = checkIp6(b, o, n);
    if (reason !== OK) return [reason];
    const learnt = [reason, true, printIp6(b, o), findL4Ip6(b, o), isFragment6(b, o), mayReport6(b, o, 1)];
    return [...learnt, l4Checksum6(b, o), verifyL4Checksum6(b, o)];
  },
  tcp: (b, o, n) => {
    const reason = checkTcp(b, o, n);
    return reason === OK
      ? [reason, true, printTcp(b, o), tcpMss(b, o), findTcpOption(b, o, TCP_OPTION_SACK) >= 0]
      : [reason];
  },
  udp: (b, o, n) => {
    const reason = checkUdp(b, o, n);
    return reason === OK ? [reason, true, printUdp(b, o)] : [reason];
  },
  icmp: (b, o, n) => {
    const reason = checkIcmp(b, o, n);
    return reason === OK ? [reason, true, printIcmp4(b, o), printIcmp6(b, o), icmpMtu(b, o)] : [reason];
  },
  vnet: (b, o, n) => {
    const reason = checkVnet(b, o, n);
    return reason === OK ? [reason, true, printVnet(b, o)] : [reason];
  },
  tulle: (b, o, n) => {
    const reason = tulle.checkTulle(b, o, n);
    if (reason !== OK) return [reason];
    const learnt: unknown[] = [reason, true, tulle.printTulle(b, o)];
    switch (tulle.tulleKind(b, o)) {
      case tulle.KIND_BUNDLE: {
        let packets = 0;
        let at = o + tulle.HEADER_BYTES;
        for (; at < o + n; at = tulle.nextInBundle(b, at)) packets++;
        learnt.push(packets === tulle.tulleIndex(b, o) && at === o + n);
        break;
      }
      case tulle.KIND_PROBE:
      case tulle.KIND_PROBE_REPLY:
        learnt.push(tulle.probeTokenHigh(b, o), tulle.probeTokenLow(b, o));
        break;
      case tulle.KIND_MESSAGE: {
        const part = parseMessagePart(b, o, n);
        if (part === undefined) break;
        const { slice, length, parts } = part;
        learnt.push(slice.length <= length && part.part < parts && (parts > 1 || slice.length === length));
        learnt.push(slice.length === n - MESSAGE_HEADER_BYTES && slice.join());
        break;
      }
      case tulle.KIND_TRACED:
        learnt.push(tulle.traceId(b, o));
        break;
    }
    return learnt;
  },
  superHeaders: (b, o, n) => {
    const reason = checkSuperHeaders4(b, o, n);
    return reason === OK ? [reason, superHeaderLength4(b, o) <= n] : [reason];
  },
  segment: (b, o, n) => {
    if (tulle.checkTulle(b, o, n) !== OK) return [0];
    const reason = checkSegment4(b, o, n);
    return reason === OK ? [reason, superHeaderLength4(b, o + tulle.HEADER_BYTES) < n - tulle.HEADER_BYTES] : [reason];
  },
  describePacket: (b, o, n) => [0, true, describePacket(b, o, n)],
  describeDatagram: (b, o, n) => [0, true, describeDatagram(b, o, n)],
};

/** Runs one entry on `content` with two kinds of surroundings, and says what is wrong, if anything. */
function trouble(learn: Learn, content: Uint8Array, next: () => number): string | undefined {
  const offset = below(next, 70);
  const size = offset + content.length + below(next, 70);
  const answers: string[] = [];
  for (const around of [0x00, 0xff, -1]) {
    const bytes = new Uint8Array(size).fill(around);
    if (around < 0) fillRandom(next, bytes);
    bytes.set(content, offset);
    const before = bytes.slice();
    const [reason, holds, ...rest] = learn(bytes, offset, content.length);
    if (typeof reason !== 'number' || REASON_NAMES[reason] === undefined) return `reason ${reason}`;
    if (holds === false || rest.includes(undefined)) return `an accessor failed: ${rest.join()}`;
    if (rest.some(value => Number.isNaN(value) || /NaN|undefined/.test(String(value))))
      return `read nothing: ${rest.join()}`;
    if (Buffer.compare(bytes, before) !== 0) return 'wrote to the bytes';
    answers.push(JSON.stringify([reason, holds, rest]));
  }
  // And at the very end of an array, where a read too far gives undefined.
  const tight = learn(content, 0, content.length);
  answers.push(JSON.stringify([tight[0], tight[1], tight.slice(2)]));
  return answers.every(answer => answer === answers[0]) ? undefined : `read outside: ${answers.join(' or ')}`;
}

/** Right ones of every sort, to be damaged: pure noise seldom gets past a version nibble. */
function specimens(next: () => number): Uint8Array[] {
  const packets = Object.values(CAPTURED).map(fromHex);
  packets.push(buildTcp4({ payload: randomBytes(next, 100), options: fromHex('0101080a1122334455667788') }));
  packets.push(buildUdp4(randomBytes(next, 50)));
  const behind = (kind: number, flags: number, size: number, index: number, content: Uint8Array): Uint8Array => {
    const bytes = new Uint8Array(tulle.HEADER_BYTES + content.length);
    tulle.emitTulle(bytes, 0, kind, flags, size, next(), next(), index);
    bytes.set(content, tulle.HEADER_BYTES);
    return bytes;
  };
  const superPacket = buildTcp4({ payload: randomBytes(next, 250) });
  const records = packets.slice(0, 3).flatMap(packet => [packet.length >> 8, packet.length & 0xff, ...packet]);
  const routing = fromHex(CAPTURED.udp6);
  routing[6] = pick(next, [0, 43, 44, 51, 60, 135]);
  return [
    ...packets,
    routing,
    behind(tulle.KIND_PACKET, 1, 0, 0, packets[0]),
    behind(tulle.KIND_SEGMENT, 1, 100, 1, superPacket.slice(0, 140)),
    behind(tulle.KIND_SEGMENT, 3, 100, 2, Uint8Array.from([...superPacket.slice(0, 40), ...superPacket.slice(240)])),
    behind(tulle.KIND_BUNDLE, 0, 0, 3, Uint8Array.from(records)),
    behind(tulle.KIND_PROBE, 0, 0, 0, randomBytes(next, 8).fill(0, 0, 2)),
    behind(tulle.KIND_MESSAGE, 0, 0, 1, fromHex('0102030405060708010000027b7d')),
    behind(tulle.KIND_TRACED, 0, next() & 0xffff, 7, packets[1]),
    fromHex('010134008005140010004500003c'),
  ];
}

function damage(next: () => number, specimen: Uint8Array): Uint8Array {
  const cut = below(next, 3) === 0 ? specimen.slice(0, below(next, specimen.length + 1)) : specimen.slice();
  for (let spots = below(next, 4); spots > 0 && cut.length > 0; spots--) {
    // Mostly in the headers, where it matters.
    const at = below(next, below(next, 2) === 0 ? Math.min(cut.length, 64) : cut.length);
    cut[at] = pick(next, [0, 1, 0xff, 0x80, next(), cut[at] ^ (1 << below(next, 8))]);
  }
  return cut;
}

for (const [name, learn] of Object.entries(LEARN)) {
  t.test(name, async t => {
    const seed = testSeed();
    t.comment(`seed ${seed}`);
    const next = prng(seed);
    let passed = 0;
    for (let round = 0; round < 6000; round++) {
      const specimen =
        round % 4 === 0 ? randomBytes(next, below(next, 120)) : damage(next, pick(next, specimens(next)));
      // L4 headers do not stand at the beginning of a packet, nor do inner packets.
      const content = specimen.subarray(pick(next, [0, 0, 12, 20, 40]));
      let problem: string | undefined;
      try {
        problem = trouble(learn, content.slice(), next);
        if (learn(content, 0, content.length)[1] !== undefined) passed++;
      } catch (error) {
        problem = String(error);
      }
      if (problem !== undefined) {
        t.fail(`round ${round}, ${Buffer.from(content).toString('hex')}: ${problem}`);
        return;
      }
    }
    t.ok(passed > 50, `${passed} of 6000 got past the check, so that accessors were tried too`);
  });
}
