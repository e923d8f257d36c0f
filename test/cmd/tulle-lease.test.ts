// The command as a person runs it: a process, over a directory and over a real etcd.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { findEtcd, startEtcd } from '../../etcd/server.ts';
import { openFileRegistry } from '../../lib/lease/file-registry.ts';
import { openJournal } from '../../lib/lease/journal-writer.ts';
import { parseSubnetKey } from '../../lib/lease/lease.ts';
import type { NewLease, Registry } from '../../lib/lease/registry.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { makeNode, skip } from '../daemon/node.ts';

const program = fileURLToPath(new URL('../../cmd/tulle.js', import.meta.url));

interface Result {
  code: number | null;
  out: string;
  error: string;
}

function tulle(args: string[], variables: Record<string, string> = {}): Promise<Result> {
  const environment: NodeJS.ProcessEnv = { ...process.env, ...variables };
  delete environment['NODE_EXTRA_CA_CERTS'];
  const child = spawn(process.execPath, [program, 'lease', ...args], {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const result: Result = { code: null, out: '', error: '' };
  child.stdout.on('data', chunk => {
    result.out += chunk;
  });
  child.stderr.on('data', chunk => {
    result.error += chunk;
  });
  return new Promise(done => child.on('close', code => done({ ...result, code })));
}

function folder(t: Test): string {
  const made = mkdtempSync(join(tmpdir(), `tulle-lease-test-${process.pid}-`));
  t.teardown(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

function newLease(key: string, node: string): NewLease {
  const attributes = { PublicIP: '10.88.0.1', PublicIPv6: null, BackendType: 'tulle', BackendData: { NodeID: node } };
  return { ...parseSubnetKey(key)!, attributes };
}

/** A daemon's journal beside a registry: what it would have written of these steps. */
async function story(registry: Registry, name: string, path: string): Promise<void> {
  const journal = openJournal({ path });
  journal.start({ nodeId: 'me', attributes: { PublicIP: '10.88.0.1', PublicIPv6: null } }, name);
  const seen = async () => journal.observe(await registry.list());
  journal.acquired(await registry.create(newLease('10.5.1.0-24', 'me'), 3600), {});
  const other = await registry.create(newLease('10.5.2.0-24', 'other'), 3600);
  await seen();
  await registry.remove(other);
  await seen();
}

t.test('over a directory', async t => {
  const directory = folder(t);
  const registry = join(directory, 'leases');
  mkdirSync(registry);
  writeFileSync(join(registry, 'config'), '{"Network":"10.5.0.0/16"}');
  const opened = openFileRegistry(registry);
  t.teardown(() => opened.close());
  await story(opened, `file:${registry}`, join(directory, 'subnet.journal'));
  const flags = [`--registry=file:${registry}`, `-subnet-file=${directory}/subnet.env`];
  const before = readFileSync(join(directory, 'subnet.journal'), 'utf8');

  const [ls, table, log, now, past, why, whyFree, early] = await Promise.all([
    tulle(['ls', '--json', ...flags]),
    tulle([...flags, 'ls']),
    tulle(['log', '10.5.2.0/24', '--json', ...flags]),
    tulle(['at', '0s', '--json', ...flags]),
    tulle(['at', '2', '--json', ...flags]),
    tulle(['why', '10.5.1.77', ...flags]),
    tulle(['why', '10.5.2.0/24', ...flags]),
    tulle(['at', '1d', ...flags]),
  ]);
  const rows = JSON.parse(ls.out);
  t.match(rows, [
    { subnet: '10.5.1.0/24', publicIp: '10.88.0.1', nodeId: 'me', backend: 'tulle', revision: 1, mine: true },
  ]);
  t.ok(rows[0].expiresInSeconds > 3000 && rows[0].expiresInSeconds <= 3600);
  t.match(table.out, /^SUBNET .*\n10\.5\.1\.0\/24 .* in (59m|1h).* this node\n$/);
  t.same(
    JSON.parse(log.out).map((line: { kind: string }) => line.kind),
    ['added', 'removed'],
  );
  t.same(JSON.parse(now.out).leases.length, 1);
  t.match(JSON.parse(past.out), { revision: 2, source: 'journal', leases: [{ nodeId: 'me' }, { nodeId: 'other' }] });
  t.match(
    why.out,
    /^10\.5\.1\.0\/24 is held by this node \(me, 10\.88\.0\.1\)[^\n]*since revision 1[^\n]*\nThis node took it at [^\n]*: it was drawn from the free ones\.\n/,
  );
  t.match(whyFree.out, /^Nobody holds 10\.5\.2\.0\/24 now\.\nThe last to hold it was node other/);
  t.match(early, {
    code: 1,
    out: '',
    error: /^tulle: this registry keeps no history, and the journal .* begins at [^\n]*\n$/,
  });
  t.equal(readFileSync(join(directory, 'subnet.journal'), 'utf8'), before, 'a look changes nothing');
});

t.test('words and flags that make no sense: one line, exit code 1', async t => {
  const directory = folder(t);
  for (const [args, message] of [
    [['lss'], /there is no "tulle lease lss"/],
    [['ls', 'x'], /takes no argument/],
    [['why'], /which one\?/],
    [['at'], /when\?/],
    [['why', 'nonsense'], /neither a subnet/],
    [['at', 'noon'], /is no time/],
    [['ls', '--etcd-endpoint=x'], /did you mean -etcd-endpoints\?/],
    [['ls', '-ip-masq'], /no such flag/],
  ] as const) {
    const result = await tulle([...args, `--registry=file:${directory}`]);
    t.match(result, { code: 1, out: '', error: message }, args.join(' '));
    t.equal(result.error.trimEnd().split('\n').length, 1);
  }
  t.match(await tulle(['--help']), { code: 0, out: /usage: tulle lease VERB/ });
  t.match(await tulle(['ls'], { FLANNELD_ETCD_ENDPOINTS: 'http://127.0.0.1:1', FLANNELD_IP_MASQ: 'true' }), {
    code: 1,
    error: /^tulle: etcd at http:\/\/127\.0\.0\.1:1 does not answer: connection refused\n$/,
  });
});

t.test('watch tells changes as they happen, until it is told to end', async t => {
  const directory = folder(t);
  const registry = openFileRegistry(directory);
  await registry.create(newLease('10.5.1.0-24', 'a'), 3600);
  const child = spawn(process.execPath, [program, 'lease', 'watch', '--json', `--registry=file:${directory}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  const lines = async (count: number): Promise<Record<string, unknown>[]> => {
    const end = performance.now() + 20_000;
    while (out.split('\n').length <= count) {
      if (performance.now() > end) throw new Error(`only ${out}`);
      await new Promise(done => setTimeout(done, 20));
    }
    return out
      .trim()
      .split('\n')
      .map(line => JSON.parse(line));
  };
  child.stdout.on('data', chunk => {
    out += chunk;
  });
  const ended = new Promise(done => child.on('close', (...how) => done(how)));
  await lines(1);
  const lease = await registry.create(newLease('10.5.2.0-24', 'b'), 3600);
  await lines(2);
  await registry.remove(lease);
  t.match(await lines(3), [
    { kind: 'snapshot', leases: [{ nodeId: 'a' }] },
    { kind: 'added', lease: { subnet: '10.5.2.0/24', nodeId: 'b' } },
    { kind: 'removed', subnet: '10.5.2.0/24' },
  ]);
  child.kill('SIGINT');
  t.same(await ended, [0, null]);
  await registry.close();
});

t.test(
  'over etcd: true expiries, every revision, a compaction explained',
  { skip: findEtcd() === undefined && 'needs an etcd server' },
  async t => {
    const directory = folder(t);
    const server = await startEtcd({ directory: join(directory, 'etcd'), clientAddress: '127.0.0.1' });
    t.teardown(() => server.stop());
    const { openEtcdRegistry } = await import('../../etcd/registry.ts');
    const registry = openEtcdRegistry({ endpoints: [server.endpoint], log: silentLogger });
    await story(registry, 'etcd:/coreos.com/network', join(directory, 'subnet.journal'));
    await registry.close();
    const flags = [`-etcd-endpoints=${server.endpoint}`, `-subnet-file=${directory}/subnet.env`];
    const [ls, log, past, why, away] = await Promise.all([
      tulle(['ls', '--json', ...flags]),
      tulle(['log', '--json', ...flags]),
      tulle(['at', '3', '--json'], { FLANNELD_ETCD_ENDPOINTS: server.endpoint }),
      tulle(['why', '10.5.2.0/24', ...flags]),
      tulle(['at', '99', ...flags]),
    ]);
    const [row] = JSON.parse(ls.out);
    t.match(row, { subnet: '10.5.1.0/24', nodeId: 'me', mine: true });
    t.ok(
      row.expiresInSeconds > 3000 && row.expiresInSeconds <= 3600,
      `the TTL, not flannel's day: ${row.expiresInSeconds}`,
    );
    t.same(
      JSON.parse(log.out).map(({ revision, kind, at }: { revision: number; kind: string; at: string | null }) => [
        revision,
        kind,
        at !== null,
      ]),
      [
        [2, 'added', true],
        [2, 'this node: acquired', true],
        [3, 'added', false],
        [4, 'removed', false],
      ],
    );
    t.match(JSON.parse(past.out), { revision: 3, source: 'registry', leases: [{ nodeId: 'me' }, { nodeId: 'other' }] });
    t.match(why.out, /The last to hold it was node other \(10\.88\.0\.1\) from revision 3 until revision 4/);
    t.match(away, { code: 1, error: /is at revision 4: revision 99 is still to come\n$/ });

    const raw = await fetch(`${server.endpoint}/v3/kv/compaction`, {
      method: 'POST',
      body: '{"revision":"4","physical":true}',
    });
    t.equal(raw.status, 200);
    const [compacted, journal, gone] = await Promise.all([
      tulle(['at', '3', `-etcd-endpoints=${server.endpoint}`, `-subnet-file=${directory}/none`]),
      tulle(['at', '3', '--json', ...flags]),
      tulle(['why', '10.5.2.0/24', ...flags]),
    ]);
    t.match(compacted, {
      code: 1,
      error: /revision 3 was compacted: etcd at .* has forgotten what was before revision 4, and there is no journal/,
    });
    t.match(JSON.parse(journal.out), { source: 'journal', leases: [{ nodeId: 'me' }, { nodeId: 'other' }] });
    t.match(gone.out, /The last to hold it was node other .*\netcd has compacted what was before revision 4\.\n$/);
  },
);

t.test(
  'the journal of a real tulled: how it came to its subnet, over a restart, a SIGKILL and a release',
  { skip },
  async t => {
    const world = makeNode(t);
    const args = ['-node-id=node1', `--state-dir=${world.run}/state`];
    const flags = [`--registry=file:${world.registry}`, `-subnet-file=${world.subnetFile}`, ...args];
    let tulled = world.start(...args);
    await tulled.saw(/ ready /);
    const [name] = world.leases();
    t.match(
      (await tulle(['why', name, ...flags])).out,
      /is held by this node \(node1, 10\.88\.0\.1\)[\s\S]*it was drawn from the free ones\./,
    );
    await tulled.end('SIGKILL');

    tulled = world.start(...args);
    await tulled.saw(/ ready /);
    t.match(
      (await tulle(['why', name, ...flags])).out,
      /This node took it at [^\n]*: it already had this lease and kept it\./,
    );
    await tulled.end('SIGTERM');
    rmSync(join(world.registry, 'subnets', name)); // somebody removed it; subnet.env still names it
    tulled = world.start(...args, '--release-on-exit');
    await tulled.saw(/ ready /);
    t.match(
      (await tulle(['why', name, ...flags])).out,
      /: subnet\.env named it from the last run and nobody else had it\./,
    );
    t.equal((await tulled.end('SIGTERM')).code, 0, tulled.stderr());

    const log = JSON.parse((await tulle(['log', '--json', ...flags])).out) as { kind: string }[];
    t.same(
      log.filter(({ kind }) => /acquired|released/.test(kind)).map(({ kind }) => kind),
      ['this node: acquired', 'this node: acquired', 'this node: acquired', 'this node: released'],
    );
    t.match((await tulle(['why', name, ...flags])).out, /^Nobody holds [\s\S]*: this node gave it back\./);
  },
);
