import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { openFileRegistry } from '../../lib/lease/file-registry.ts';
import { flock } from '../../lib/lease/file-store.ts';
import { type LeaseAttributes, parseSubnetKey, subnetKey } from '../../lib/lease/lease.ts';
import type { Events, Registry, Snapshot } from '../../lib/lease/registry.ts';
import type { Logger } from '../../lib/util/log.ts';
import { below, prng, testSeed } from '../support/prng.ts';
import { createVirtualClock } from '../support/virtual-clock.ts';

const attributes = (PublicIP: string): LeaseAttributes => ({ PublicIP, PublicIPv6: null });
const wanted = (key: string, PublicIP = '10.88.0.1') => ({ ...parseSubnetKey(key)!, attributes: attributes(PublicIP) });

function createFolder(t: Test, config = '{"Network":"10.5.0.0/16"}'): string {
  const folder = mkdtempSync(join(tmpdir(), `lease-registry-${process.pid}-`));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  if (config !== '') writeFileSync(join(folder, 'config'), config);
  return folder;
}

function createLog(): Logger & { lines: string[] } {
  const lines: string[] = [];
  const say = (fields: object, message: string): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  return { lines, debug: say, info: say, warn: say, error: say };
}

const keysOf = async (registry: Registry): Promise<string[]> => (await registry.list()).leases.map(subnetKey).sort();

/** Polls until `check` holds; a test hangs (and is stopped by its runner) no longer than this. */
async function until(what: string, check: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
    if (await check()) return;
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  throw new Error(`waited in vain until ${what}`);
}

t.test('the verbs, and files that a person can read', async t => {
  const folder = createFolder(t);
  const clock = createVirtualClock(Date.UTC(2026, 7, 1, 12));
  const registry = openFileRegistry(folder, { clock });
  t.equal((await registry.config()).text, '{"Network":"10.5.0.0/16"}');
  t.same(await registry.list(), { kind: 'snapshot', leases: [], revision: 0 }, 'an empty one');

  const lease = await registry.create(wanted('10.5.1.0-24'), 90);
  t.match(lease, { createRevision: 1, modRevision: 1, expiresAtMs: clock.nowMs() + 90_000 });
  t.equal(
    readFileSync(join(folder, 'subnets', '10.5.1.0-24'), 'utf8'),
    `{
  "PublicIP": "10.88.0.1",
  "PublicIPv6": null,
  "Lease": {
    "ExpiresAt": "2026-08-01T12:01:30.000Z",
    "CreateRevision": 1,
    "ModRevision": 1
  }
}
`,
  );
  t.equal(readFileSync(join(folder, 'revision'), 'utf8'), '1\n');
  for (const key of ['10.5.1.0-24', '10.5.1.128-25', '10.5.0.0-23']) {
    await t.rejects(registry.create(wanted(key, '10.88.0.2'), 90), { code: 'taken', message: /by 10\.88\.0\.1/ }, key);
  }
  const updated = await registry.update(lease, { ...lease.attributes, Rack: 'r7' }, 90);
  t.match(updated, { createRevision: 1, modRevision: 2, attributes: { Rack: 'r7' } });
  t.same((await registry.list()).leases, [updated], 'what is read is what was answered');
  await t.rejects(registry.update(lease, lease.attributes, 90), { code: 'conflict' });
  await t.rejects(registry.remove(lease), { code: 'conflict' });
  await registry.remove(updated);
  await registry.remove(updated);
  await t.rejects(registry.update(updated, lease.attributes, 90), { code: 'missing' });
  t.equal((await registry.create(wanted('10.5.1.0-24'), 90)).createRevision, 4, 'a new holder has a new lease key');
  const dual = await registry.create(wanted('10.5.2.0-24&fd00:0:0:2::-64'), 90);
  t.equal(subnetKey((await registry.list()).leases.find(other => other.subnet6 !== undefined)!), subnetKey(dual));
  t.same(readdirSync(folder).sort(), ['config', 'lock', 'revision', 'subnets'], 'nothing else');
});

t.test('expiry', async t => {
  const folder = createFolder(t);
  const clock = createVirtualClock();
  const registry = openFileRegistry(folder, { clock });
  const lease = await registry.create(wanted('10.5.1.0-24'), 90);
  const kept = await registry.update(await registry.create(wanted('10.5.2.0-24'), 90), lease.attributes, null);
  clock.jump(89_999);
  t.same(await keysOf(registry), ['10.5.1.0-24', '10.5.2.0-24']);
  clock.jump(1);
  t.same(await keysOf(registry), ['10.5.2.0-24'], 'absent for readers');
  t.ok(existsSync(join(folder, 'subnets', '10.5.1.0-24')), 'which write nothing');
  await t.rejects(registry.update(lease, lease.attributes, 90), { code: 'missing' });
  t.notOk(existsSync(join(folder, 'subnets', '10.5.1.0-24')), 'removed by the next writer');
  t.equal((await registry.list()).revision, 4, 'which is a change of its own');
  clock.jump(1e12);
  t.equal((await registry.update(kept, kept.attributes, null)).expiresAtMs, null, 'no TTL, no end');
  t.ok((await registry.create(wanted('10.5.1.0-24'), 90)).createRevision > kept.modRevision);
});

t.test('a reservation written by a person', async t => {
  const folder = createFolder(t);
  mkdirSync(join(folder, 'subnets'));
  writeFileSync(join(folder, 'subnets', '10.5.7.0-24'), '{"PublicIP": "10.88.0.1", "Rack": "r7"}');
  const registry = openFileRegistry(folder);
  const [lease] = (await registry.list()).leases;
  t.match(lease, { expiresAtMs: null, createRevision: 0, attributes: { PublicIPv6: null, Rack: 'r7' } });
  const taken = await registry.update(lease, lease.attributes, null);
  t.match(taken, { expiresAtMs: null, createRevision: 1, modRevision: 1 });
  t.equal(taken.attributes['Rack'], 'r7');
});

t.test('corrupt files are said once, skipped, and their subnets stay taken', async t => {
  const folder = createFolder(t);
  const log = createLog();
  const registry = openFileRegistry(folder, { log });
  const well = await registry.create(wanted('10.5.9.0-24'), 90);
  const texts = [
    '',
    '{"PublicIP"',
    '[]',
    '{}',
    '{"PublicIP":"1.2.3.4","Lease":7}',
    '{"PublicIP":"1.2.3.4","Lease":{}}',
  ];
  texts.push('{"PublicIP":"1.2.3.4","Lease":{"ExpiresAt":"soon","CreateRevision":1,"ModRevision":1}}', '\0\u00ff');
  for (const [i, text] of texts.entries()) writeFileSync(join(folder, 'subnets', `10.5.${10 + i}.0-24`), text);
  writeFileSync(join(folder, 'subnets', 'notes.txt'), 'hello');
  for (let i = 0; i < 3; i++) {
    const { leases, unreadable } = await registry.list();
    t.same(leases, [well]);
    t.equal(unreadable?.length, texts.length);
  }
  t.equal(log.lines.length, texts.length + 1, 'one line each');
  t.match(log.lines.join('\n'), /skipping a corrupt lease file.*10\.5\.10\.0-24.*it is empty/);
  t.match(log.lines.join('\n'), /notes\.txt.*not a subnet/);
  await t.rejects(registry.create(wanted('10.5.10.0-24'), 90), {
    code: 'taken',
    message: /unreadable file 10\.5\.10\.0-24/,
  });
  await t.rejects(registry.update({ ...well, ...parseSubnetKey('10.5.10.0-24')! }, well.attributes, 90), {
    code: 'corrupt',
  });
  t.ok(await registry.update(well, well.attributes, 90), 'the others go on');
  writeFileSync(join(folder, 'revision'), 'seven\n');
  const after = await registry.create(wanted('10.5.30.0-24'), 90);
  t.ok(after.createRevision > 2, 'a corrupt counter goes on from the leases');
  t.equal(readFileSync(join(folder, 'revision'), 'utf8'), `${after.createRevision}\n`, 'and is mended');
});

t.test('what is missing or wrong is one clear line', async t => {
  const missing = openFileRegistry(join(createFolder(t), 'none'));
  for (const verb of [() => missing.list(), () => missing.create(wanted('10.5.1.0-24'), 9)]) {
    await t.rejects(verb() as Promise<unknown>, { code: 'no-config', message: /does not exist: make it and write/ });
  }
  await t.rejects(missing.config(), { code: 'no-config', message: /config does not exist: write/ });
  await t.rejects(openFileRegistry(createFolder(t, '{"Network')).config(), {
    code: 'corrupt',
    message: /config is not JSON/,
  });
  await t.rejects(openFileRegistry(createFolder(t, ' ')).config(), { code: 'corrupt' });
  const file = join(createFolder(t), 'config');
  await t.rejects(openFileRegistry(file).config(), { code: 'corrupt', message: /must be a directory/ });
  await t.rejects(openFileRegistry(file).list(), { code: 'corrupt', message: /must be a directory/ });
});

t.test('the lock: waited for up to a deadline, taken again when it is free', async t => {
  const folder = createFolder(t);
  const registry = openFileRegistry(folder, { lockTimeoutMs: 100 });
  const unlock = flock(join(folder, 'lock'));
  await t.rejects(registry.create(wanted('10.5.1.0-24'), 90), {
    code: 'unavailable',
    message: /held by another process/,
  });
  t.same(await keysOf(registry), [], 'readers need none');
  const waiting = openFileRegistry(folder).create(wanted('10.5.1.0-24'), 90);
  unlock();
  t.equal((await waiting).createRevision, 1);
});

t.test('temporary files of killed writers are ignored and swept', async t => {
  const folder = createFolder(t);
  const registry = openFileRegistry(folder);
  await registry.create(wanted('10.5.1.0-24'), 90);
  for (const stray of ['.revision.1-1.tulle-tmp', 'subnets/.10.5.2.0-24.1-2.tulle-tmp'])
    writeFileSync(join(folder, stray), '{');
  t.same(await keysOf(registry), ['10.5.1.0-24']);
  await registry.create(wanted('10.5.2.0-24'), 90);
  t.same(
    [...readdirSync(folder), ...readdirSync(join(folder, 'subnets'))].filter(name => name.startsWith('.')),
    [],
  );
});

t.test('a watch: snapshot, puts, removals and expiry, with inotify and without', async t => {
  for (const pollMs of [50, 60_000]) {
    const folder = createFolder(t);
    const registry = openFileRegistry(folder, { pollMs });
    await registry.create(wanted('10.5.1.0-24'), 90); // the folder exists, so inotify can look at it
    const stop = new AbortController();
    const lines: string[] = [];
    const ended = follow(registry, stop.signal, lines);
    const see = (line: string) => until(line, () => lines.includes(line));
    await see('snapshot 10.5.1.0-24');
    const lease = await registry.create(wanted('10.5.2.0-24'), 90);
    await see('put 10.5.2.0-24 2');
    await registry.update(lease, lease.attributes, 90);
    await see('put 10.5.2.0-24 3');
    writeFileSync(join(folder, 'subnets', '10.5.2.0-24'), 'garbage');
    rmSync(join(folder, 'subnets', '10.5.1.0-24'));
    await see('removed 10.5.1.0-24');
    t.notOk(lines.includes('removed 10.5.2.0-24'), 'garbage removes nobody');
    rmSync(join(folder, 'subnets', '10.5.2.0-24'));
    await see('removed 10.5.2.0-24');
    await registry.create(wanted('10.5.3.0-24'), 0.3);
    await see('removed 10.5.3.0-24');
    if (pollMs === 50) {
      rmSync(join(folder, 'subnets'), { recursive: true });
      await registry.create(wanted('10.5.4.0-24'), 90);
      await see(`put 10.5.4.0-24 ${readFileSync(join(folder, 'revision'), 'utf8').trim()}`);
    }
    stop.abort();
    await ended;
    t.pass(`poll ${pollMs} ms`);
  }
});

t.test('a watch begins before there is a directory, and ends with close()', async t => {
  const folder = join(createFolder(t), 'later');
  const log = createLog();
  const registry = openFileRegistry(folder, { pollMs: 20, log });
  const lines: string[] = [];
  const ended = follow(registry, new AbortController().signal, lines);
  await until('a warning', () => log.lines.length > 0);
  mkdirSync(folder);
  await until('a snapshot', () => lines.length > 0);
  await registry.close();
  await ended;
  t.same(lines, ['snapshot ']);
  t.equal(log.lines.length, 1, 'one warning, not one a poll');
});

async function follow(registry: Registry, signal: AbortSignal, lines: string[]): Promise<void> {
  for await (const message of registry.watch(signal)) lines.push(...print(message));
}

function print(message: Snapshot | Events): string[] {
  if (message.kind === 'snapshot') return [`snapshot ${message.leases.map(subnetKey).join(' ')}`];
  return message.events.map(event =>
    event.kind === 'put' ? `put ${subnetKey(event.lease)} ${event.lease.modRevision}` : `removed ${subnetKey(event)}`,
  );
}

// ---- several processes

const childProgram = fileURLToPath(new URL('./file-child.js', import.meta.url));

function startChild(mode: string, folder: string, node: number) {
  const child = spawn(process.execPath, [childProgram, mode, folder, String(node)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', chunk => {
    output += chunk;
  });
  const ended = new Promise<void>(resolve => child.on('close', () => resolve()));
  return { pid: child.pid!, output: () => output.trim(), ended, kill: () => child.kill('SIGKILL') };
}

t.test('as many processes as subnets acquire at once: all different, none lost', async t => {
  const count = 15; // a /26 holds 16 subnets of /30; the first is skipped
  const folder = createFolder(t, '{"Network":"10.5.0.0/26","SubnetLen":30}');
  const children = Array.from({ length: count }, (_, i) => startChild('acquire', folder, i + 1));
  await Promise.all(children.map(child => child.ended));
  const keys = children.map(child => child.output());
  t.equal(new Set(keys).size, count, keys.join(' '));
  t.notOk(keys.includes(''));
  t.same(await keysOf(openFileRegistry(folder)), [...keys].sort());
});

t.test('processes killed at random instants leave a registry that works', async t => {
  const seed = testSeed();
  t.comment(`seed ${seed}`);
  const next = prng(seed);
  const folder = createFolder(t);
  const registry = openFileRegistry(folder, { lockTimeoutMs: 20_000 });
  let revision = 0;
  for (let round = 0; round < 25; round++) {
    // Two at a time, so that one is often waiting for the lock that the other holds when it dies: 50 kills.
    const children = [startChild('churn', folder, 1), startChild('churn', folder, 2)];
    await until('both work', () => children.every(child => child.output() === 'ready'));
    for (const child of children) {
      await new Promise(resolve => setTimeout(resolve, below(next, 20)));
      child.kill();
      await child.ended;
    }
    const snapshot = await registry.list();
    t.equal(snapshot.unreadable, undefined, 'every file is whole');
    t.ok(snapshot.revision > revision, 'the revision only grows');
    revision = snapshot.revision;
    t.ok(snapshot.leases.length <= 2);
    for (const lease of snapshot.leases) t.ok(lease.modRevision <= revision);
  }
  const lease = await registry.create(wanted('10.5.77.0-24', '10.88.0.77'), 90);
  t.ok(lease.createRevision > revision, 'no lock is stuck');
  t.same(
    [...readdirSync(folder), ...readdirSync(join(folder, 'subnets'))].filter(name => name.startsWith('.')),
    [],
  );
});
