// The journal survives what happens to files: kills, torn lines, full disks, deletion, rotation; and stays bounded.
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  journalChanges,
  journalDecisions,
  journalPath,
  parseJournal,
  readJournal,
  viewOf,
} from '../../lib/lease/journal.ts';
import { howChosen, openJournal } from '../../lib/lease/journal-writer.ts';
import { type Lease, parseSubnetKey } from '../../lib/lease/lease.ts';
import type { Snapshot } from '../../lib/lease/registry.ts';
import type { Logger } from '../../lib/util/log.ts';
import { silentLogger } from '../../lib/util/log.ts';

function place(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), `tulle-journal-${process.pid}-`));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'subnet.journal');
}

function leaseOf(key: string, nodeId: string, createRevision: number, modRevision = createRevision): Lease {
  const attributes = { PublicIP: '10.88.0.1', PublicIPv6: null, BackendType: 'tulle', BackendData: { NodeID: nodeId } };
  return { ...parseSubnetKey(key)!, attributes, expiresAtMs: 1, createRevision, modRevision };
}

const me = { nodeId: 'me', attributes: { PublicIP: '10.88.0.1', PublicIPv6: null } };
const snapshot = (revision: number, ...leases: Lease[]): Snapshot => ({ kind: 'snapshot', leases, revision });

/** A clock that ticks a second at each look. */
function ticking() {
  let now = Date.UTC(2026, 7, 1);
  return { nowMs: () => (now += 1000), monotonicMs: () => now };
}

t.test('where it is', async t => {
  t.equal(journalPath('/run/flannel/subnet.env'), '/run/flannel/subnet.journal');
  t.equal(journalPath('/run/flannel/subnet.env', '/var/lib/tulle'), '/var/lib/tulle/subnet.journal');
  t.equal(journalPath('/run/a/b.conf'), '/run/a/b.conf.journal');
});

t.test('seen and decided, over a restart', async t => {
  const path = place(t);
  const [mine, a, b] = [
    leaseOf('10.5.1.0-24', 'me', 1),
    leaseOf('10.5.2.0-24', 'a', 2),
    leaseOf('10.5.3.0-24', 'b', 3),
  ];
  let journal = openJournal({ path, clock: ticking() });
  journal.start(me, 'file:/x');
  journal.acquired(mine, {});
  journal.observe(snapshot(2, mine, a));
  journal.observe({ kind: 'events', revision: 3, events: [{ kind: 'put', lease: b }] });
  journal.observe({ kind: 'events', revision: 4, events: [{ kind: 'put', lease: { ...a, modRevision: 4 } }] }); // a renewal
  journal.event({ kind: 'fenced', why: 'late', lease: mine });
  journal.event({ kind: 'renewed', lease: mine });
  journal.event({ kind: 'renewed', lease: mine });
  journal.stop();

  journal = openJournal({ path, clock: ticking() }); // a is gone when it is back, b has moved
  journal.start(me, 'file:/x');
  journal.observe(snapshot(9, mine, leaseOf('10.5.3.0-24', 'c', 8)));
  journal.event({ kind: 'lost', lease: mine, reason: 'somebody took it' });

  const records = readJournal(path);
  t.same(
    journalChanges(records, 'file:/x').map(({ kind, key, revision, holding, late }) => [
      kind,
      key,
      revision,
      holding?.nodeId,
      late ?? false,
    ]),
    [
      ['put', '10.5.1.0-24', 1, 'me', false],
      ['put', '10.5.2.0-24', 2, 'a', true],
      ['put', '10.5.3.0-24', 3, 'b', false],
      ['removed', '10.5.2.0-24', 9, 'a', true],
      ['removed', '10.5.3.0-24', 8, 'b', true], // another key: the one before must have gone
      ['put', '10.5.3.0-24', 8, 'c', true],
    ],
  );
  t.same(
    journalDecisions(records, 'file:/x').map(record => record.kind),
    ['acquired', 'fenced', 'renewed', 'lost'],
    'of renewals one an hour',
  );
  t.same(journalChanges(records, 'etcd:/other'), [], 'another registry is another story');
  t.match(viewOf(records), { registry: 'file:/x', revision: 9, own: { node: 'me', acquired: { how: 'free' } } });
});

t.test('how a lease was chosen', async t => {
  const made = leaseOf('10.5.1.0-24', 'me', 5);
  t.equal(howChosen(made, {}), 'free');
  t.equal(howChosen(made, { previousSubnet: parseSubnetKey('10.5.1.0-24')! }), 'subnet.env');
  t.equal(howChosen(made, { previousSubnet: parseSubnetKey('10.5.2.0-24')! }), 'free');
  t.equal(howChosen({ ...made, modRevision: 6 }, {}), 'own lease');
  t.equal(howChosen({ ...made, expiresAtMs: null, modRevision: 6 }, {}), 'reservation');
});

t.test('a file that grew becomes the one before; both together stay bounded, and the newer one is enough', async t => {
  const path = place(t);
  const journal = openJournal({ path, fileBytes: 20_000 });
  journal.start(me, 'file:/x');
  const mine = leaseOf('10.5.1.0-24', 'me', 1);
  journal.acquired(mine, {});
  let biggest = 0;
  for (let revision = 2; revision < 1000; revision++) {
    const lease = leaseOf(`10.5.${(revision % 9) + 2}.0-24`, `n${revision}`, revision);
    journal.observe({ kind: 'events', revision, events: [{ kind: 'put', lease }] });
    biggest = Math.max(biggest, statSync(path).size);
  }
  t.ok(existsSync(`${path}.1`), 'it rotated');
  t.ok(biggest <= 20_000 && statSync(`${path}.1`).size < 21_000, 'bounded');
  const whole = viewOf(readJournal(path));
  t.equal(whole.leases.size, 10);
  unlinkSync(`${path}.1`);
  const newer = viewOf(readJournal(path));
  t.same(newer.leases, whole.leases);
  t.same(newer.own?.acquired?.how, 'free', 'how our lease was chosen is carried over');
  t.equal(journalDecisions(readJournal(path), 'file:/x')[0]?.kind, 'acquired');
  t.equal(journalChanges(readJournal(path), 'file:/x').length >= 10, true);
});

t.test('a network larger than the limit: the limit grows with it', async t => {
  const path = place(t);
  const journal = openJournal({ path, fileBytes: 10_000 });
  journal.start(me, 'file:/x');
  const leases = Array.from({ length: 2000 }, (_, i) => leaseOf(`10.${i >> 8}.${i & 255}.0-24`, `node-${i}`, i + 1));
  journal.observe(snapshot(2000, ...leases));
  for (let revision = 2001; revision < 2100; revision++) {
    journal.observe({
      kind: 'events',
      revision,
      events: [{ kind: 'put', lease: leaseOf('10.200.1.0-24', `x${revision}`, revision) }],
    });
  }
  t.equal(viewOf(readJournal(path)).leases.size, 2001);
  const checkpoint = readFileSync(path, 'utf8').split('\n')[0].length;
  t.ok(statSync(path).size + statSync(`${path}.1`).size < 4 * checkpoint, 'four checkpoints at most');
});

t.test('torn lines, garbage and unknown kinds are skipped; what is appended after a torn line is whole', async t => {
  const path = place(t);
  let journal = openJournal({ path });
  journal.start(me, 'file:/x');
  journal.observe(snapshot(1, leaseOf('10.5.1.0-24', 'a', 1)));
  truncateSync(path, statSync(path).size - 30); // a crash in the middle of a line
  journal = openJournal({ path });
  journal.start(me, 'file:/x');
  journal.observe(snapshot(2, leaseOf('10.5.2.0-24', 'b', 2)));
  t.same(
    readJournal(path).map(({ kind }) => kind),
    ['checkpoint', 'start', 'start', 'put'],
    'the torn line alone is lost',
  );
  t.same([...viewOf(readJournal(path)).leases.keys()], ['10.5.2.0-24']);
  appendFileSync(
    path,
    '{"at":"2026-08-01T00:00:00Z","kind":"future"}\n[]\nnull\n{"at":1}\n{"at":"x","kind":"put"}\n\u0000\n{"at":"2026-08-01T00:00:00Z","kind":"put","revision":1,"lease":{}}\n',
  );
  t.same([...viewOf(readJournal(path)).leases.keys()], ['10.5.2.0-24']);
  t.same(parseJournal('\n\n{"kind":"stop"}\n'), []);
});

t.test('a daemon that stops before it came to a lease leaves nothing', async t => {
  const path = place(t);
  openJournal({ path: join(path, '../none/x.journal') }).stop();
  t.notOk(existsSync(join(path, '../none')));
});

t.test('removed by somebody, killed between the two renames: it goes on', async t => {
  const path = place(t);
  const journal = openJournal({ path });
  journal.start(me, 'file:/x');
  journal.observe(snapshot(1, leaseOf('10.5.1.0-24', 'a', 1)));
  unlinkSync(path);
  journal.observe({ kind: 'events', revision: 2, events: [{ kind: 'put', lease: leaseOf('10.5.2.0-24', 'b', 2) }] });
  t.same(
    [...viewOf(readJournal(path)).leases.keys()],
    ['10.5.1.0-24', '10.5.2.0-24'],
    'a new file knows what the old one did',
  );
  writeFileSync(`${path}.1`, readFileSync(path));
  unlinkSync(path);
  t.equal(viewOf(readJournal(path)).leases.size, 2);
  openJournal({ path }).start(me, 'file:/x');
  t.match(readFileSync(path, 'utf8'), /^\{"at":"[^"]*","kind":"checkpoint"/);
});

t.test('SIGKILL at any moment leaves a journal that can be read, and loses nothing that was written', async t => {
  const path = place(t);
  const writer = new URL('../../lib/lease/journal-writer.js', import.meta.url).href;
  const program = `
    import { openJournal } from ${JSON.stringify(writer)};
    const journal = openJournal({ path: ${JSON.stringify(path)}, fileBytes: 4000 });
    journal.start({ nodeId: 'me', attributes: { PublicIP: '10.88.0.1' } }, 'file:/x');
    for (let revision = Number(process.argv[1]); ; revision++) {
      const lease = { subnet: { address: 0x0a050100, prefixLength: 24 }, attributes: { PublicIP: '10.88.0.1', PublicIPv6: null, BackendData: { NodeID: 'n' + revision } }, expiresAtMs: 1, createRevision: revision, modRevision: revision };
      journal.observe({ kind: 'events', revision, events: [{ kind: 'put', lease }] });
      console.log(revision);
    }`;
  let last = 0;
  for (let round = 0; round < 5; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', program, `${last + 1}`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    await new Promise<void>(done => {
      child.stdout.on('data', chunk => {
        text += chunk;
        if (text.length > 200 + round * 333) child.kill('SIGKILL');
      });
      child.on('close', () => done());
    });
    const told = Number(text.slice(0, text.lastIndexOf('\n')).split('\n').at(-1));
    const view = viewOf(readJournal(path));
    t.ok(view.revision >= told, `revision ${view.revision} of ${told} that were told`);
    t.equal(view.leases.size, 1);
    last = view.revision;
  }
});

t.test('a disk that cannot be written is told once, and the daemon goes on', async t => {
  const path = join(place(t), 'below-a-file', 'x.journal');
  writeFileSync(join(path, '../..'), 'a file where the folder should be');
  const said: string[] = [];
  const log: Logger = { ...silentLogger, warn: (_, message) => void said.push(message) };
  const journal = openJournal({ path, log });
  journal.start(me, 'file:/x');
  journal.observe(snapshot(1, leaseOf('10.5.1.0-24', 'a', 1)));
  journal.stop();
  t.equal(said.length, 1);
});
