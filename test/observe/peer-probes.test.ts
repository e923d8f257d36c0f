import { constants } from 'node:os';
import t from 'tap';
import type { Mail, ProbeErrand } from '../../lib/datapath/side-link.ts';
import { MOST_A_SECOND, type PeerHealth, PeerProbes, type ProbeOptions } from '../../lib/observe/peer-probes.ts';
import type { Subnet4 } from '../../lib/wire/cidr.ts';
import { PROBE_BYTES } from '../../lib/wire/tulle.ts';
import { prng, testSeed } from '../support/prng.ts';

const INTERVAL = 5_000;

interface Sent extends ProbeErrand {
  subnet: Subnet4;
  at: number;
}

/** A world with a clock: probes are sent, and answered after `rtt` unless `answer` says no. */
class World {
  now = 1_000_000;
  rtt = 2;
  width = 1500;
  mtu = 1500;
  /** Whether a probe gets an answer. */
  answer: (probe: Sent) => boolean = () => true;
  /** What the socket says to it. */
  status: (probe: Sent) => number = () => 0;
  readonly sent: Sent[] = [];
  readonly news: { subnet: string; silent: boolean; at: number }[] = [];
  readonly paths = new Map<number, number | undefined>();
  readonly heard = new Map<number, number>();
  readonly probes: PeerProbes;
  #mails: { at: number; mail: Mail }[] = [];

  constructor(options: Partial<ProbeOptions> = {}) {
    this.probes = new PeerProbes({
      intervalMs: INTERVAL,
      overhead: 28,
      least: 576,
      most: () => this.mtu,
      send: (subnet, errand) => {
        this.#send({ ...errand, subnet, at: this.now });
        return true;
      },
      heardMs: subnet => this.heard.get(subnet.address),
      random: prng(testSeed()),
      onSilent: (subnet, silent) => this.news.push({ subnet: name(subnet), silent, at: this.now }),
      onPath: (subnet, mtu) => this.paths.set(subnet.address, mtu),
      ...options,
    });
  }

  /** Peers 1 to `count`. */
  know(count: number, identity = 'first'): void {
    this.probes.setPeers(
      Array.from({ length: count }, (_, i) => ({ subnet: subnetOf(i + 1), identity })),
      this.now,
    );
  }

  run(ms: number): void {
    const end = this.now + ms;
    let tickAt = this.now;
    while (this.now <= end) {
      for (const { mail } of this.#due()) this.probes.take(mail, this.now);
      if (this.now >= tickAt) tickAt = this.now + this.probes.tick(this.now);
      const next = Math.min(tickAt, end + 1, ...this.#mails.map(mail => mail.at));
      this.now = Math.max(next, this.now + 0.001);
    }
  }

  of(k: number): PeerHealth {
    return this.probes.of(subnetOf(k), this.now)!;
  }

  #due(): { at: number; mail: Mail }[] {
    const due = this.#mails.filter(({ at }) => at <= this.now).sort((a, b) => a.at - b.at);
    this.#mails = this.#mails.filter(({ at }) => at > this.now);
    return due;
  }

  #send(probe: Sent): void {
    this.sent.push(probe);
    const { sequence, tokenHigh, tokenLow, length } = probe;
    const subnet = probe.subnet.address;
    const status = this.status(probe);
    const at = this.now + 0.1;
    const token = { tokenHigh, tokenLow };
    this.#mails.push({ at, mail: { kind: 'receipt', subnet, sequence, status, length, at, ...token } });
    if (status !== 0 || length + 28 > this.width || !this.answer(probe)) return;
    const back = at + this.rtt;
    this.#mails.push({ at: back, mail: { kind: 'probe-reply', subnet, key: 1, sequence, at: back, ...token } });
  }
}

const subnetOf = (k: number): Subnet4 => ({ address: (0x0a000000 + k * 256) >>> 0, prefixLength: 24 });
const name = (subnet: Subnet4): string => `${(subnet.address >>> 8) & 0xffff}`;

t.test('round trip, loss and the way’s width of a peer that answers', async t => {
  const world = new World();
  world.know(1);
  t.same(world.of(1), {
    rttMs: null,
    lastRttMs: null,
    minRttMs: null,
    lossPct: null,
    lastHeardMs: null,
    pathMtu: null,
    silent: false,
  });
  world.run(60_000);
  const { rttMs, lastRttMs, minRttMs, lossPct, lastHeardMs, pathMtu } = world.of(1);
  t.ok(Math.abs(rttMs! - 2) < 0.01 && Math.abs(lastRttMs! - 2) < 0.01 && Math.abs(minRttMs! - 2) < 0.01, `${rttMs}`);
  t.equal(lossPct, 0);
  t.ok(lastHeardMs! < 1.2 * INTERVAL);
  t.equal(pathMtu, 1500);
  t.equal(world.paths.get(subnetOf(1).address), undefined, 'no limit of its own');
  const small = world.sent.filter(probe => probe.length === PROBE_BYTES).length;
  t.ok(small >= 12 && small <= 17, `${small} in a minute`);
  world.rtt = 50;
  world.run(INTERVAL * 1.3);
  t.ok(world.of(1).lastRttMs! > 49 && world.of(1).rttMs! < 20, 'smoothed');
  t.ok(world.of(1).minRttMs! < 3);
});

t.test('one probe in four is lost', async t => {
  const world = new World();
  let count = 0;
  world.answer = () => ++count % 4 !== 0;
  world.know(1);
  world.run(400_000);
  const { lossPct, silent } = world.of(1);
  t.ok(lossPct! >= 15 && lossPct! <= 35, `${lossPct} %`);
  t.notOk(silent);
  t.same(world.news, []);
});

t.test('a silent peer is news within three intervals, and so is its return; once each', async t => {
  const world = new World();
  world.know(3);
  world.run(60_000);
  const lost = world.now;
  world.answer = probe => name(probe.subnet) !== '2';
  world.run(100_000);
  t.equal(world.news.length, 1);
  t.same([world.news[0].subnet, world.news[0].silent], ['2', true]);
  t.ok(world.news[0].at - lost <= 3 * INTERVAL, `${world.news[0].at - lost} ms`);
  t.ok(world.of(2).silent);
  t.equal(world.of(2).lossPct, 100);
  t.equal(world.of(2).pathMtu, 1500, 'a silent peer says nothing of the way’s width');
  const back = world.now;
  world.answer = () => true;
  world.run(30_000);
  t.same(
    world.news.map(news => [news.subnet, news.silent]),
    [
      ['2', true],
      ['2', false],
    ],
  );
  t.ok(world.news[1].at - back <= 1.2 * INTERVAL);
  t.notOk(world.of(2).silent);
});

t.test('a peer that was never heard is silent too; one whose packets come is not, whatever its answers do', async t => {
  const world = new World();
  world.answer = () => false;
  world.know(2);
  for (let i = 0; i < 60; i++) {
    world.heard.set(subnetOf(2).address, world.now);
    world.run(1_000);
  }
  t.same(
    world.news.map(news => news.subnet),
    ['1'],
  );
  t.equal(world.of(1).lastHeardMs, null);
  t.ok(world.of(2).lastHeardMs! <= 3_000);
});

t.test('an answer that nobody could know is not believed', async t => {
  const world = new World();
  world.answer = () => false;
  world.know(2);
  world.run(1);
  const [probe] = world.sent;
  const reply = (changes: object): Mail => ({
    kind: 'probe-reply',
    subnet: probe.subnet.address,
    key: 1,
    sequence: probe.sequence,
    tokenHigh: probe.tokenHigh,
    tokenLow: probe.tokenLow,
    at: world.now,
    ...changes,
  });
  const other = subnetOf(probe.subnet.address === subnetOf(1).address ? 2 : 1).address;
  for (const forged of [
    { tokenHigh: probe.tokenHigh ^ 1 },
    { tokenLow: probe.tokenLow ^ 1 },
    { sequence: (probe.sequence + 1) & 0xffff },
    { subnet: other },
    { subnet: 7 },
  ]) {
    t.ok(world.probes.take(reply(forged), world.now), 'taken');
    t.equal(world.of(1).rttMs ?? world.of(2).rttMs, null, JSON.stringify(forged));
  }
  const k = Number(name(probe.subnet));
  world.probes.take(reply({}), world.now);
  t.ok(world.of(k).rttMs !== null, 'the true one');
  const { rttMs } = world.of(k);
  world.now += 500;
  world.probes.take(reply({ at: world.now }), world.now);
  t.equal(world.of(k).rttMs, rttMs, 'and only once');
});

t.test('another holder of the subnet is another peer', async t => {
  const world = new World();
  world.know(2);
  world.run(30_000);
  world.know(2, 'second');
  t.equal(world.of(1).rttMs, null, 'forgotten');
  world.run(5);
  world.know(2, 'second');
  t.ok(world.of(1).rttMs !== null, 'the same again changes nothing');
  world.know(1, 'second');
  t.equal(world.probes.of(subnetOf(2), world.now), undefined, 'removed');
});

t.test('a narrow way is found while small probes cross, and told', async t => {
  const world = new World();
  world.know(1);
  world.run(20_000);
  world.width = 1387;
  world.run(90_000);
  t.equal(world.of(1).pathMtu, 1387);
  t.equal(world.paths.get(subnetOf(1).address), 1387);
  t.equal(world.of(1).lossPct, 0, 'a long probe that is lost is no loss of the peer');
  world.width = 1500;
  world.run(700_000);
  t.equal(world.of(1).pathMtu, 1500, 'and a wide one again');
  t.equal(world.paths.get(subnetOf(1).address), undefined);

  // The kernel knows already, and says so.
  const told = new World();
  told.status = probe => (probe.length + 28 > 1400 ? constants.errno.EMSGSIZE : 0);
  told.know(1);
  told.run(30_000);
  t.equal(told.of(1).pathMtu, 1400);

  // Where the socket fragments what is too long, an answer proves no more than the kernel believes.
  const fragmenting = new World({ believedMtu: () => 1420 });
  fragmenting.know(1);
  fragmenting.run(30_000);
  t.equal(fragmenting.of(1).pathMtu, 1420);
});

t.test('another MTU of the underlay begins the search anew', async t => {
  const world = new World();
  world.width = 9000;
  world.know(1);
  world.run(20_000);
  t.equal(world.of(1).pathMtu, 1500);
  world.mtu = 9000;
  world.run(20_000);
  t.equal(world.of(1).pathMtu, 9000);
});

t.test('thousands of peers: never more than so many a second, evenly, everyone in turn', async t => {
  const world = new World();
  world.know(3_000);
  world.run(15_000);
  t.equal(world.probes.intervalMs, (3_000 * 1_000) / MOST_A_SECOND);
  const begin = world.now;
  const from = world.sent.length;
  world.run(60_000);
  const sent = world.sent.slice(from);
  const perSecond = new Map<number, number>();
  for (const { at } of sent) {
    const second = Math.floor((at - begin) / 1_000);
    perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
  }
  const most = Math.max(...perSecond.values());
  // With the searches for the way's width, two probes each, that are due every half minute.
  t.ok(most <= 4 * MOST_A_SECOND, `${most} in a second`);
  t.equal(new Set(sent.map(probe => probe.subnet.address)).size, 3_000, 'nobody is left out');
  t.same(world.news, [], 'nobody is silent for it');
});

t.test('neither a sleep of the machine nor a fence is anybody’s silence', async t => {
  const world = new World();
  world.know(2);
  world.run(30_000);
  world.now += 3_600_000;
  world.run(4_000);
  t.same(world.news, []);
  world.probes.pause();
  world.now += 60_000;
  world.run(4_000);
  t.same(world.news, []);
  world.status = () => -2;
  world.run(4_000);
  t.equal(world.of(1).lossPct, 0, 'what a fenced node did not send is not lost');
});

t.test('an underlay that takes nothing is loss', async t => {
  const world = new World();
  world.know(1);
  world.run(20_000);
  world.status = () => constants.errno.ENETUNREACH;
  world.run(120_000);
  t.equal(world.of(1).lossPct, 100);
  t.ok(world.of(1).silent);
});

t.test('a data path that is busy is asked again', async t => {
  let free = false;
  let sent = 0;
  const world = new World({
    send: () => {
      if (free) sent++;
      return free;
    },
  });
  world.know(2);
  world.run(2_000);
  t.equal(sent, 0);
  free = true;
  world.run(2_000);
  t.ok(sent >= 2);
});
