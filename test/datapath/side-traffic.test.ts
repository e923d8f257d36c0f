import { constants } from 'node:os';
import t from 'tap';
import { readDrops, readFlows } from '../../lib/datapath/counters.ts';
import type { Mail } from '../../lib/datapath/side-link.ts';
import { PER_PEER, REFUSALS } from '../../lib/datapath/side-traffic.ts';
import { CONTROL_CLOCK, ERRANDS, FORMAT_BARE, MAILS, NO_LIMIT } from '../../lib/datapath/slab.ts';
import { WATCH_MS } from '../../lib/datapath/trace-watch.ts';
import { parseMessagePart } from '../../lib/wire/node-message.ts';
import {
  checkTulle,
  emitTulle,
  KIND_MESSAGE,
  KIND_PROBE,
  KIND_PROBE_REPLY,
  KIND_TRACED,
  PROBE_BYTES,
  setProbeToken,
  traceId,
  tulleId,
  tulleKey,
  tulleKind,
} from '../../lib/wire/tulle.ts';
import { VNET_HEADER_BYTES } from '../../lib/wire/vnet.ts';
import { cidr, pair, peerOfNode, type TestNode, type Train } from '../support/node.ts';
import { tunRead, udpPacket } from '../support/packets.ts';

const [SUBNET1, SUBNET2] = [cidr('10.42.1.0/24'), cidr('10.42.2.0/24')];
const endpoint = (k: number): { address: string; port: number } => ({ address: `10.88.0.${k}`, port: 8285 });
const PROBE = { sequence: 7, tokenHigh: 0xdeadbeef, tokenLow: 0x80000001, length: PROBE_BYTES };

const cross = (trains: readonly Train[], from: number, to: TestNode): void =>
  to.receive(trains.map(({ datagrams }) => ({ from: endpoint(from), datagrams })));

const kindsOf = (mails: Mail[]): string[] => mails.map(mail => mail.kind);

t.test('a probe and its reply', async t => {
  const [a, b] = pair();
  for (const length of [PROBE_BYTES, 21, 1_500, 9_000]) {
    t.ok(a.link.probe(SUBNET2, { ...PROBE, length }));
    a.now = 100.25;
    a.runErrands();
    const [sent, ...more] = a.takeSent();
    t.same(more, []);
    t.equal(sent.datagrams[0].length, length);
    t.ok(
      sent.datagrams[0].subarray(PROBE_BYTES).every(byte => byte === 0),
      'padding',
    );
    t.equal(checkTulle(sent.datagrams[0], 0, length), 0);
    cross([sent], 1, b);
    const [reply] = b.takeSent();
    t.same([...reply.to.slice(4)], [10, 88, 0, 1], 'to the endpoint of the lease');
    const [bytes] = reply.datagrams;
    t.equal(bytes.length, PROBE_BYTES, 'never longer than the probe');
    t.same([tulleKind(bytes, 0), tulleKey(bytes, 0), tulleId(bytes, 0)], [KIND_PROBE_REPLY, 102, 7]);
    a.now = 103.5;
    cross([reply], 2, a);
    t.same(a.link.take(), [
      {
        kind: 'receipt',
        subnet: SUBNET2.address,
        sequence: 7,
        status: 0,
        length,
        at: 100.25,
        tokenHigh: PROBE.tokenHigh,
        tokenLow: PROBE.tokenLow,
      },
      {
        kind: 'probe-reply',
        subnet: SUBNET2.address,
        key: 102,
        sequence: 7,
        at: 103.5,
        tokenHigh: PROBE.tokenHigh,
        tokenLow: PROBE.tokenLow,
      },
    ]);
  }
  t.equal(a.told, 4, 'told of each reply, since it looked each time');
  t.same(b.takeWritten(), [], 'nothing of it reaches a pod');
  t.equal(readFlows(a.slab.counters)['side-sent'], 4);
});

t.test('whoever is told of mail is told once until he looks', async t => {
  const [a, b] = pair();
  for (let i = 0; i < 10; i++) a.link.probe(SUBNET2, { ...PROBE, sequence: i });
  a.runErrands();
  cross(a.takeSent(), 1, b);
  for (const train of b.takeSent()) cross([train], 2, a);
  t.equal(a.told, 1);
  t.equal(kindsOf(a.link.take()).filter(kind => kind === 'probe-reply').length, 10);
  t.same(a.link.take(), []);
});

t.test('what cannot be sent has a receipt that says why', async t => {
  const [a] = pair();
  const statusOf = (): number => {
    const [mail] = a.link.take();
    return mail?.kind === 'receipt' ? mail.status : Number.NaN;
  };
  a.link.probe(SUBNET2, PROBE);
  a.runErrands(true);
  t.equal(statusOf(), -2, 'fenced');
  a.link.probe(cidr('10.42.9.0/24'), PROBE);
  a.runErrands();
  t.equal(statusOf(), -3, 'nobody holds it');
  a.refuseMessage = () => constants.errno.EMSGSIZE;
  a.link.probe(SUBNET2, { ...PROBE, length: 2_000 });
  a.runErrands();
  t.equal(statusOf(), constants.errno.EMSGSIZE);
  t.equal(readDrops(a.slab.counters)['egress-too-big'], 0, 'it was no packet');
  const [bare] = pair(FORMAT_BARE);
  bare.link.probe(SUBNET2, PROBE);
  bare.runErrands();
  t.match(bare.link.take(), [{ kind: 'receipt', status: -4 }], 'flannel has no probes');
  t.same([...a.takeSent(), ...bare.takeSent()], []);
  for (let i = 0; i < ERRANDS; i++) t.ok(a.link.probe(SUBNET2, PROBE));
  t.notOk(a.link.probe(SUBNET2, PROBE), 'the ring is full');
});

t.test('who asks too often is not listened to; packets pass', async t => {
  const [a, b] = pair();
  const probe = new Uint8Array(PROBE_BYTES);
  emitTulle(probe, 0, KIND_PROBE, 0, 0, 101, 1, 0);
  setProbeToken(probe, 0, 1, 2);
  const flood = (): void => {
    for (let i = 0; i < 4; i++) b.receive([{ from: endpoint(1), datagrams: Array.from({ length: 50 }, () => probe) }]);
  };
  flood();
  t.equal(readDrops(b.slab.counters)['ingress-limited'], 200 - PER_PEER);
  t.equal(b.takeSent().flatMap(train => train.datagrams).length, PER_PEER);
  a.read([tunRead(udpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: new Uint8Array(9) }))]);
  cross(a.takeSent(), 1, b);
  t.equal(b.takeWritten().length, 1);
  b.now += 1_000;
  flood();
  t.equal(b.takeSent().flatMap(train => train.datagrams).length, PER_PEER, 'the next second');
});

t.test('mail that nobody takes is dropped, and counted', async t => {
  const [, b] = pair();
  const message = new Uint8Array(40);
  emitTulle(message, 0, KIND_MESSAGE, 0, 0, 101, 0, 1);
  for (let i = 0; i < MAILS + 50; i++) {
    b.now += 20;
    b.receive([{ from: endpoint(1), datagrams: [message] }]);
  }
  t.equal(readDrops(b.slab.counters)['ingress-limited'], 50);
  t.equal(b.link.take().length, MAILS);
});

t.test('a message is what was given, behind our header', async t => {
  const [a, b] = pair();
  const datagram = Uint8Array.from({ length: 200 }, (_, i) => i);
  datagram.set([1, 0, 0, 176], 20);
  a.link.message(SUBNET2, datagram, 2, 5);
  a.runErrands();
  cross(a.takeSent(), 1, b);
  const [mail] = b.link.take();
  t.match(mail, { kind: 'message', subnet: SUBNET1.address, key: 101 });
  const bytes = (mail as Extract<Mail, { kind: 'message' }>).datagram;
  t.same(bytes.slice(12), datagram.slice(12));
  t.match(parseMessagePart(bytes, 0, bytes.length), { part: 2, parts: 5, verb: 1, type: 0, length: 176 });
  t.throws(() => a.link.message(SUBNET2, new Uint8Array(1_281), 0, 1), RangeError);
});

t.test('who is heard, and by what', async t => {
  const [a, b] = pair();
  t.equal(b.table.wayTo(SUBNET1)?.heard, 0, 'never');
  b.slab.control[CONTROL_CLOCK] = 77;
  const read = tunRead(udpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: new Uint8Array(9) }));
  a.read([read]);
  const trains = a.takeSent();
  const stale = trains.map(train => ({ ...train, datagrams: train.datagrams.map(bytes => bytes.slice()) }));
  stale[0].datagrams[0].fill(9, 4, 8);
  cross(stale, 1, b);
  t.equal(b.table.wayTo(SUBNET1)?.heard, 0, 'a datagram that is refused says nothing');
  cross(trains, 1, b);
  t.equal(b.table.wayTo(SUBNET1)?.heard, 77, 'a packet');
  b.slab.control[CONTROL_CLOCK] = 78;
  a.link.probe(SUBNET2, PROBE);
  a.runErrands();
  cross(a.takeSent(), 1, b);
  t.equal(b.table.wayTo(SUBNET1)?.heard, 78, 'a probe');
  t.equal(b.table.wayTo(cidr('10.42.9.0/24')), undefined);
});

t.test('what probes proved is the limit, and what is learnt falls back to it', async t => {
  const [a] = pair();
  const big = (size: number): Uint8Array =>
    tunRead(udpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: new Uint8Array(size - 28) }));
  a.table.setProven(SUBNET2, 1_000);
  a.read([big(1_000), big(1_001)]);
  t.equal(a.takeSent().length, 1);
  t.equal(a.takeReplies().length, 1, 'its sender is told');
  a.refuseMessage = () => constants.errno.EMSGSIZE;
  a.pathMtu = 900;
  a.read([big(950)]);
  t.equal(a.table.wayTo(SUBNET2)?.limit, 860, 'the kernel knows better');
  a.refuseMessage = () => 0;
  a.now += 700_000;
  a.read([big(1_000), big(1_001)]);
  t.equal(a.takeSent().length, 1, 'ten minutes later');
  t.equal(a.table.wayTo(SUBNET2)?.limit, 1_000);
  a.table.setProven(SUBNET2, NO_LIMIT);
  a.read([big(1_400)]);
  t.equal(a.takeSent().length, 1);
});

t.test('a traced packet is the packet, and its number', async t => {
  const packet = udpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: new Uint8Array(100) });
  const id = 0xfedc_89ab_cdef;
  const [a, b] = pair();
  a.link.trace(packet, packet.length, id);
  a.runErrands();
  const [sent] = a.takeSent();
  const [datagram] = sent.datagrams;
  t.equal(datagram.length, 12 + packet.length, 'not a byte longer');
  t.same([tulleKind(datagram, 0), traceId(datagram, 0), tulleKey(datagram, 0)], [KIND_TRACED, id, 101]);
  const mails = a.link.take();
  t.match(mails, [{ kind: 'trace-sent', id, drop: undefined, length: packet.length }]);
  t.same((mails[0] as Extract<Mail, { kind: 'trace-sent' }>).head, datagram);
  cross([sent], 1, b);
  t.match(b.link.take(), [{ kind: 'traced', subnet: SUBNET1.address, id, drop: undefined, length: packet.length }]);
  const [written] = b.takeWritten();
  t.equal(written.length, VNET_HEADER_BYTES + packet.length, 'and it reached the TUN');

  b.refusePacket = () => constants.errno.EIO;
  cross([sent], 1, b);
  t.match(b.link.take(), [{ kind: 'traced', id, drop: 'ingress-write-failed' }]);
  b.refusePacket = () => 0;
  const spoofed = datagram.slice();
  spoofed.set([10, 42, 3, 3], 12 + 12);
  b.receive([{ from: endpoint(1), datagrams: [spoofed] }]);
  t.match(b.link.take(), [{ kind: 'traced', drop: 'ingress-spoofed-source' }]);
  t.equal(readDrops(b.slab.counters)['ingress-spoofed-source'], 1, 'counted as any packet');

  // A long one: what does not fit a letter is zeros.
  const long = udpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: new Uint8Array(1_400) });
  a.link.trace(long.subarray(0, 1_280), long.length, 5);
  a.runErrands();
  const [whole] = a.takeSent();
  const expected = long.slice();
  expected.set(whole.datagrams[0].slice(12 + 8, 12 + 12), 8); // TTL and checksum were updated
  t.same(whole.datagrams[0].slice(12), expected);
});

t.test('a traced packet with a stale key is told of, and takes nothing from its peer', async t => {
  const [a, b] = pair();
  const packet = udpPacket({ source: '10.42.1.2', destination: '10.42.2.2', payload: new Uint8Array(8) });
  a.link.trace(packet, packet.length, 7);
  a.runErrands();
  const [{ datagrams }] = a.takeSent();
  const stale = datagrams[0].slice();
  stale[7] ^= 1;
  b.now = 5_000;
  b.receive(Array.from({ length: PER_PEER }, () => ({ from: endpoint(1), datagrams: [stale] })));
  const told = b.link.take();
  t.match(told[0], { kind: 'traced', subnet: SUBNET1.address, id: 7, drop: 'ingress-stale-key' });
  t.equal(told.length, REFUSALS, 'a few a second');
  t.equal(readDrops(b.slab.counters)['ingress-stale-key'], PER_PEER);
  b.receive([{ from: endpoint(1), datagrams: [datagrams[0]] }]);
  t.match(b.link.take(), [{ kind: 'traced', drop: undefined }], 'its peer is listened to as before');
  b.now = 6_000;
  b.receive([stale.subarray(0, 12), stale].map(datagram => ({ from: endpoint(1), datagrams: [datagram] })));
  t.equal(b.link.take().length, 1, 'a header alone is no packet');
  b.receive([{ from: endpoint(9), datagrams: [stale] }]);
  t.same(b.link.take(), [], 'a stranger is told nothing');
});

t.test('why a traced packet did not leave', async t => {
  const [a] = pair();
  const dropOf = (changes: object, size = 60, fenced = false): string | undefined => {
    const packet = udpPacket({
      source: '10.42.1.2',
      destination: '10.42.2.2',
      payload: new Uint8Array(size - 28),
      ...changes,
    });
    a.link.trace(packet, packet.length, 1);
    a.runErrands(fenced);
    const mail = a.link.take().find(one => one.kind === 'trace-sent');
    return mail?.kind === 'trace-sent' ? mail.drop : 'no letter';
  };
  t.equal(dropOf({}), undefined);
  t.equal(dropOf({}, 60, true), 'egress-fenced');
  t.equal(dropOf({ destination: '10.42.7.7' }), 'egress-no-lease');
  t.equal(dropOf({ destination: '10.42.1.7' }), 'egress-own-subnet');
  t.equal(dropOf({ destination: '8.8.8.8' }), 'egress-outside-network');
  t.equal(dropOf({ ttl: 1 }), 'egress-ttl-exceeded');
  t.equal(dropOf({ source: 'fd00:42:0:1::2', destination: 'fd00:42:0:2::2' }), 'egress-not-ipv4');
  a.table.setProven(SUBNET2, 500);
  t.equal(dropOf({}, 501), 'egress-too-big');
  a.table.setProven(SUBNET2, NO_LIMIT);
  for (const [errno, reason] of [
    [constants.errno.EMSGSIZE, 'egress-too-big'],
    [constants.errno.EAGAIN, 'egress-queue-full'],
    [constants.errno.ENETUNREACH, 'egress-send-failed'],
  ] as const) {
    a.refuseMessage = () => errno;
    t.equal(dropOf({}), reason);
    a.table.setProven(SUBNET2, NO_LIMIT);
  }
  a.refuseMessage = () => 0;
  a.link.trace(new Uint8Array(3), 3, 1);
  a.runErrands();
  t.match(a.link.take(), [{ kind: 'trace-sent', drop: 'egress-malformed' }]);
});

t.test('an answer is noticed, whoever else is listening, and for a while only', async t => {
  const [a, b] = pair();
  const there = { source: '10.42.1.2', destination: '10.42.2.2', payload: new Uint8Array(20) };
  const back = { source: there.destination, destination: there.source, payload: new Uint8Array(30) };
  const answer = (changes: object = {}): void => {
    b.read([tunRead(udpPacket({ ...back, ...changes }))]);
    cross(b.takeSent(), 2, a);
  };
  const trace = (id: number): void => {
    const packet = udpPacket(there);
    a.link.trace(packet, packet.length, id);
    a.runErrands();
    a.takeSent();
    a.link.take();
  };
  answer();
  t.same(a.link.take(), [], 'nobody traces');
  trace(5);
  answer({ source: '10.42.2.9' });
  t.same(a.link.take(), [], 'another pod');
  answer();
  const [found] = a.link.take();
  t.match(found, { kind: 'answer', id: 5, length: 58 });
  t.same([...(found as Extract<Mail, { kind: 'answer' }>).packet.slice(12, 20)], [10, 42, 2, 2, 10, 42, 1, 2]);
  trace(6);
  answer();
  t.same(
    a.link
      .take()
      .map(mail => (mail.kind === 'answer' ? mail.id : 0))
      .sort(),
    [5, 6],
    'two traces, both are told',
  );
  for (let i = 0; i < 10; i++) answer();
  t.ok(a.link.take().length <= 8, 'a few each');
  a.now += WATCH_MS + 1;
  for (let i = 0; i < 3; i++) answer();
  t.same(a.link.take(), []);
  t.equal(a.slab.tap, undefined, 'nothing listens any more');

  // Our own ICMP error is an answer too.
  const packet = udpPacket({ ...there, destination: '10.42.7.7' });
  a.link.trace(packet, packet.length, 7);
  a.runErrands();
  t.same(kindsOf(a.link.take()).sort(), ['answer', 'trace-sent']);
});

t.test('a peer that changes between errand and turn', async t => {
  const [a] = pair();
  a.link.probe(SUBNET2, PROBE);
  a.table.update([{ ...peerOfNode(2), address: 0x0a580063 }], []);
  a.runErrands();
  t.same([...a.takeSent()[0].to.slice(4)], [10, 88, 0, 99], 'goes to where it is now');
  a.link.probe(SUBNET2, PROBE);
  a.table.update([], [SUBNET2]);
  a.runErrands();
  t.same(a.takeSent(), []);
});
