import t from 'tap';
import { type Filter, parseFilter, pointAt } from '../../lib/wire/filter.ts';
import { compileFilter, matchesDatagram } from '../../lib/wire/filter-match.ts';
import {
  emitTulle,
  FLAG_PARTIAL_CHECKSUM,
  HEADER_BYTES,
  KIND_BUNDLE,
  KIND_PACKET,
  KIND_PROBE,
  KIND_SEGMENT,
} from '../../lib/wire/tulle.ts';
import { tcpPacket, udpPacket } from '../support/packets.ts';
import { below, pick, prng, randomBytes, testSeed } from '../support/prng.ts';

const payload = new Uint8Array(20);
const tcp = tcpPacket({ source: '10.42.1.2', destination: '10.42.2.3', payload }); // 1234 > 80
const udp = udpPacket({ source: '10.42.1.2', destination: '10.42.2.3', payload });
const tcp6 = tcpPacket({ source: 'fd00:42:0:1::2', destination: 'fd00:42:0:2::3', payload, extension: true });

function matches(text: string, packet: Uint8Array): boolean {
  const parsed = parseFilter(text);
  if ('error' in parsed) throw new Error(pointAt(text, parsed.error));
  return compileFilter(parsed.filter)(packet, 0, packet.length);
}

t.test('what each word chooses', async t => {
  const rows: [text: string, tcp: boolean, udp: boolean, tcp6: boolean][] = [
    ['tcp', true, false, true],
    ['udp', false, true, false],
    ['ip', true, true, false],
    ['ip6', false, false, true],
    ['proto 6', true, false, true],
    ['proto udp', false, true, false],
    ['host 10.42.1.2', true, true, false],
    ['src host 10.42.1.2', true, true, false],
    ['dst host 10.42.1.2', false, false, false],
    ['dst 10.42.2.3', true, true, false],
    ['src 10.42.1.0/24', true, true, false],
    ['net 10.42.2.0/24', true, true, false],
    ['src net 10.42.2.0/24', false, false, false],
    ['net 0.0.0.0/0', true, true, false],
    ['host fd00:42:0:2::3', false, false, true],
    ['dst net fd00:42:0:2::/64', false, false, true],
    ['port 80', true, false, true],
    ['tcp port 80', true, false, true],
    ['udp port 80', false, false, false],
    ['src port 80', false, false, false],
    ['tcp dst port 80', true, false, true],
    ['portrange 70-100', true, false, true],
    ['tcp src portrange 1000-2000', true, false, true],
    ['icmp', false, false, false],
    ['not tcp', false, true, false],
    ['! ip', false, false, true],
    ['tcp and port 80 or udp', true, true, true],
    ['tcp && (port 81 || host 10.42.2.3)', true, false, false],
    ['not (tcp or udp)', false, false, false],
    ['udp or tcp and ip6', false, true, true],
    ['(udp or tcp) and ip6', false, false, true],
    ['not not tcp', true, false, true],
  ];
  for (const [text, ...expected] of rows) {
    t.same(
      [tcp, udp, tcp6].map(packet => matches(text, packet)),
      expected,
      text,
    );
  }
  t.equal(matches('udp port 80', udpPacket({ source: '10.42.1.2', destination: '10.42.2.3', payload })), false);
});

t.test('a mistake is shown where it is', async t => {
  const rows: [text: string, column: number, message: RegExp][] = [
    ['', 1, /empty/],
    ['   ', 1, /empty/],
    ['tcp port', 9, /here must stand a port/],
    ['tcp port 70000', 10, /"70000" is no port/],
    ['port 80 tcp', 9, /"and" or "or" must stand before "tcp"/],
    ['(tcp', 5, /"\)" is missing: it closes the "\(" of column 1/],
    ['tcp)', 4, /without its "\("/],
    ['host 10.42.1', 6, /"10.42.1" is no address/],
    ['host 10.42.0.0/16', 6, /a net is "net/],
    ['net 10.42.1.2/16', 5, /has bits behind its prefix/],
    ['net fd00::1/64', 5, /has bits behind its prefix/],
    ['net 10.42.1.2', 5, /is no net/],
    ['tcp and', 8, /here must stand an expression/],
    ['and tcp', 1, /here must stand an expression/],
    ['tcp and or udp', 9, /here must stand an expression/],
    ['10.42.1.2', 1, /write "host 10.42.1.2"/],
    ['10.42.1.0/24', 1, /write "net 10.42.1.0\/24"/],
    ['80', 1, /write "port 80"/],
    ['TCP', 1, /written small/],
    ['http', 1, /"http" is not known/],
    ['src', 4, /behind "src"/],
    ['src tcp', 5, /"tcp" is no address/],
    ['icmp port 7', 6, /icmp has no ports/],
    ['portrange 9-8', 11, /ends before it begins/],
    ['portrange 9', 11, /no range/],
    ['portrange 9-99999', 13, /"99999" is no port/],
    ['proto 256', 7, /is no protocol/],
    ['tcp & udp', 5, /must stand before "&"/],
    [`${'('.repeat(200)}tcp`, 101, /too deep/],
    [`${'not '.repeat(200)}tcp`, 401, /too deep/],
    ['x'.repeat(1001), 1001, /longer than 1000/],
    ['constructor', 1, /is not known/],
  ];
  for (const [text, column, message] of rows) {
    const parsed = parseFilter(text);
    t.match(parsed, { error: { column, message } }, text.slice(0, 40));
  }
  t.equal(pointAt('tcp prt 80', { column: 5, message: 'what?' }), 'tcp prt 80\n    ^ what?');
});

t.test('a datagram is meant when a packet in it is', async t => {
  const datagram = (kind: number, index: number, ...parts: Uint8Array[]): Uint8Array => {
    const header = new Uint8Array(HEADER_BYTES);
    emitTulle(header, 0, kind, FLAG_PARTIAL_CHECKSUM, kind === KIND_SEGMENT ? 1400 : 0, 1, 0, index);
    return Uint8Array.from(Buffer.concat([header, ...parts]));
  };
  const counted = (packet: Uint8Array): Uint8Array => Uint8Array.of(packet.length >> 8, packet.length & 255, ...packet);
  const isMeant = (text: string, bytes: Uint8Array, available = bytes.length): boolean => {
    const parsed = parseFilter(text);
    return 'filter' in parsed && matchesDatagram(compileFilter(parsed.filter), bytes, 0, available);
  };
  t.ok(isMeant('tcp', tcp), 'flannel’s format');
  t.ok(isMeant('tcp', datagram(KIND_PACKET, 0, tcp)));
  t.ok(isMeant('port 80', datagram(KIND_SEGMENT, 3, tcp)));
  const bundle = datagram(KIND_BUNDLE, 2, counted(udp), counted(tcp6));
  t.ok(isMeant('udp', bundle));
  t.ok(isMeant('ip6', bundle));
  t.notOk(isMeant('icmp', bundle));
  t.notOk(isMeant('ip6', bundle, HEADER_BYTES + 2 + udp.length), 'cut before it');
  t.notOk(isMeant('not tcp', datagram(KIND_PROBE, 0)), 'there is no packet in a probe');
  t.notOk(isMeant('tcp', new Uint8Array(0)));
});

// The naive twin: reads a packet into words, with its own code, and evaluates the tree of which the text was made.
interface Read {
  version: number;
  source: string;
  destination: string;
  protocol: number;
  ports: [number, number] | undefined;
}

function naiveRead(packet: Uint8Array): Read | undefined {
  const view = Buffer.from(packet);
  const version = packet.length > 0 ? packet[0] >> 4 : 0;
  const bits = (from: number, to: number): string =>
    [...packet.subarray(from, to)].map(byte => byte.toString(2).padStart(8, '0')).join('');
  if (version === 4 && packet.length >= 20) {
    const header = (packet[0] & 15) * 4;
    const later = (view.readUInt16BE(6) & 0x1fff) !== 0;
    const ports = header >= 20 && !later && packet.length >= header + 4;
    return {
      ...{ version, source: bits(12, 16), destination: bits(16, 20), protocol: packet[9] },
      ports: ports ? [view.readUInt16BE(header), view.readUInt16BE(header + 2)] : undefined,
    };
  }
  if (version !== 6 || packet.length < 40) return undefined;
  let [next, at, protocol, later] = [packet[6], 40, -1, false];
  for (;;) {
    if (later || ![0, 43, 44, 51, 60].includes(next)) {
      protocol = next;
      break;
    }
    if (packet.length < at + 8)
      return { version, source: bits(8, 24), destination: bits(24, 40), protocol, ports: undefined };
    if (next === 44 && view.readUInt16BE(at + 2) >> 3 !== 0) later = true;
    const size = next === 44 ? 8 : next === 51 ? 4 * (packet[at + 1] + 2) : 8 * (packet[at + 1] + 1);
    next = packet[at];
    at += size;
  }
  const ports = !later && packet.length >= at + 4;
  return {
    ...{ version, source: bits(8, 24), destination: bits(24, 40), protocol },
    ports: ports ? [view.readUInt16BE(at), view.readUInt16BE(at + 2)] : undefined,
  };
}

function naive(filter: Filter, read: Read | undefined): boolean {
  if (filter.kind === 'and') return naive(filter.left, read) && naive(filter.right, read);
  if (filter.kind === 'or') return naive(filter.left, read) || naive(filter.right, read);
  if (filter.kind === 'not') return !naive(filter.of, read);
  if (read === undefined) return false;
  if (filter.kind === 'version') return read.version === filter.version;
  if (filter.kind === 'protocol') return read.protocol === filter.protocol;
  const chosen = <T>(source: T, destination: T, side: string): T[] =>
    side === 'src' ? [source] : side === 'dst' ? [destination] : [source, destination];
  if (filter.kind === 'port') {
    const protocols = filter.protocol === undefined ? [6, 17] : [filter.protocol];
    if (read.ports === undefined || !protocols.includes(read.protocol)) return false;
    return chosen(...read.ports, filter.side).some(port => port >= filter.from && port <= filter.to);
  }
  if (read.version !== (filter.kind === 'net4' ? 4 : 6)) return false;
  const width = filter.kind === 'net4' ? 32 : 128;
  const prefix = filter.net.address.toString(2).padStart(width, '0').slice(0, filter.net.prefixLength);
  return chosen(read.source, read.destination, filter.side).some(address => address.startsWith(prefix));
}

t.test('against a naive twin: random trees, as text, on random packets', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const random = prng(seed);
  const addresses4 = ['10.42.1.2', '10.42.2.3', '10.42.2.77', '192.0.2.1'];
  const addresses6 = ['fd00:42:0:1::2', 'fd00:42:0:2::3', '2001:db8::1'];
  const texts = (): string => {
    const side = pick(random, ['', 'src ', 'dst ']);
    const ports = pick(random, ['80', '1234', '7']);
    switch (below(random, 8)) {
      case 0:
        return `${side}host ${pick(random, [...addresses4, ...addresses6])}`;
      case 1:
        return `${side}net ${pick(random, ['10.42.0.0/16', '10.42.2.0/24', '0.0.0.0/0', 'fd00:42::/48', 'fd00:42:0:2::/64'])}`;
      case 2:
        return `${pick(random, ['', 'tcp ', 'udp '])}${side}port ${ports}`;
      case 3:
        return `${side}portrange ${pick(random, ['0-100', '1000-2000', '0-65535'])}`;
      case 4:
        return pick(random, ['ip', 'ip6']);
      default:
        return pick(random, ['tcp', 'udp', 'icmp', 'icmp6', 'proto 6', 'proto 0']);
    }
  };
  const tree = (depth: number): string => {
    if (depth === 0 || below(random, 4) === 0) return texts();
    const kind = below(random, 4);
    if (kind === 0) return `${pick(random, ['not ', '! '])}${tree(depth - 1)}`;
    if (kind === 1) return `(${tree(depth - 1)})`;
    return `${tree(depth - 1)} ${pick(random, ['and', 'or', '&&', '||'])} ${tree(depth - 1)}`;
  };
  let chosen = 0;
  for (let round = 0; round < 20_000; round++) {
    const six = below(random, 2) === 0;
    const addresses = six ? addresses6 : addresses4;
    const options = {
      source: pick(random, addresses),
      destination: pick(random, addresses),
      payload: randomBytes(random, below(random, 20)),
      extension: below(random, 2) === 0,
    };
    let packet = below(random, 2) === 0 ? tcpPacket(options) : udpPacket(options);
    if (below(random, 3) === 0) packet[below(random, Math.min(60, packet.length))] = random();
    if (below(random, 3) === 0) packet = packet.slice(0, below(random, packet.length));
    const text = tree(4);
    const parsed = parseFilter(text);
    if ('error' in parsed) throw new Error(pointAt(text, parsed.error));
    const found = compileFilter(parsed.filter)(packet, 0, packet.length);
    if (found !== naive(parsed.filter, naiveRead(packet))) {
      throw new Error(`${text} on ${Buffer.from(packet).toString('hex')}: ${found}`);
    }
    if (found) chosen++;
  }
  t.ok(chosen > 2_000 && chosen < 18_000, `${chosen} of 20000 were chosen`);
});

t.test('fuzz: any text is a filter or a mistake', async t => {
  const random = prng(testSeed());
  const words = [
    'tcp',
    'udp',
    'port',
    'host',
    'net',
    'src',
    'dst',
    'and',
    'or',
    'not',
    '(',
    ')',
    '!',
    '&&',
    '||',
    '&',
    '80',
    '1-2',
    '10.42.1.2',
    '10.0.0.0/8',
    '::1',
    'ø',
    '"',
    '-1',
    'proto',
    'ip6',
  ];
  let good = 0;
  for (let round = 0; round < 30_000; round++) {
    const text = Array.from({ length: below(random, 9) }, () => pick(random, words)).join(
      pick(random, [' ', '  ', '', '\t']),
    );
    const parsed = parseFilter(text);
    if ('error' in parsed) {
      if (parsed.error.column < 1 || parsed.error.column > text.length + 1 || parsed.error.message === '') t.fail(text);
    } else {
      good++;
      compileFilter(parsed.filter)(tcp, 0, tcp.length);
    }
  }
  t.ok(good > 100, `${good} were good`);
});
