/**
 * `tulle capture` as a program, over a control socket, and its file as tshark and tcpdump read it: two real overlays, a TCP
 * transfer whose bytes are known by their sum, found again in every view of the file.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { ping } from '../../lib/lab/ping.ts';
import { addCaptureRoutes } from '../../lib/observe/capture/routes.ts';
import { Captures } from '../../lib/observe/capture.ts';
import { ControlRoutes } from '../../lib/observe/control.ts';
import { serveControl } from '../../lib/observe/control-server.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { get16, get32 } from '../../lib/wire/bytes.ts';
import { nodeOf, readFile } from '../support/captured.ts';
import { addressOf, leaseOf, twoNodes } from '../support/overlays.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

const findRoot = (from: string): string => (existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from)));
const root = findRoot(dirname(fileURLToPath(import.meta.url)));
const tulle = join(root, 'dist/cmd/tulle.js');
const child = join(root, 'dist/lib/lab/traffic-child.js');
const lua = join(root, 'deploy/wireshark/tulle.lua');

interface Found {
  path?: string;
  environment?: Record<string, string>;
  reason?: string;
}
const { fetchDebian } = (await import(join(root, 'scripts/fetch-debian.mjs'))) as {
  fetchDebian(wanted: { package: string }): Found;
};
const tools = new Map<string, Found>();

/** A program of Debian, or undefined when it is not to be had: then the test says so. */
function tool(t: Test, name: string): ((...args: string[]) => { text: string; bytes: Buffer }) | undefined {
  const found = tools.get(name) ?? fetchDebian({ package: name });
  tools.set(name, found);
  const { path } = found;
  if (path === undefined) {
    t.pass(`SKIPPED: ${found.reason}`, { skip: found.reason ?? true });
    return undefined;
  }
  return (...args) => {
    // A tshark that was fetched looks for its own files where it would have been installed; root's ignores a variable that says
    // otherwise, and without those files it reads no script. Root's tcpdump wants to become the user that its package makes.
    // So what was fetched runs as somebody else, who may read what root may.
    const WIRESHARK_DATA_DIR = join(dirname(path), '../share/wireshark');
    const isFetched = Object.keys(found.environment ?? {}).length > 0;
    const somebody = isFetched ? ['unshare', '--user', '--map-user=1000', '--map-group=1000'] : [];
    const [program, ...words] = [...somebody, path, ...args];
    const options = {
      env: { ...process.env, ...found.environment, WIRESHARK_DATA_DIR, TZ: 'UTC' },
      maxBuffer: 1 << 28,
    };
    const { stdout, stderr, status } = spawnSync(program, words, options);
    if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ${stderr}`);
    if (/Lua Error/i.test(String(stderr))) throw new Error(String(stderr));
    return { text: String(stdout), bytes: stdout };
  };
}

async function until(done: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!done()) {
    if (performance.now() > deadline) throw new Error(`30 s passed and not ${what}`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

async function stage(t: Test, type: 'tulle' | 'udp' = 'tulle') {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-capture-'));
  const nodes = twoNodes();
  const options = { backend: { type, port: 8285 } };
  const [one, two] = [await nodes.start(1, options), await nodes.start(2, options)];
  one.apply([{ kind: 'add', lease: leaseOf(2, type) }]);
  two.apply([{ kind: 'add', lease: leaseOf(1, type) }]);
  const node = nodeOf(one, 'node1', [leaseOf(2, type)]);
  const captures = new Captures(node);
  const routes = new ControlRoutes();
  addCaptureRoutes(routes, captures, node);
  const socket = join(folder, 'control.sock');
  const server = await serveControl(socket, routes, silentLogger);
  t.teardown(async () => {
    captures.close();
    await Promise.all([server.close(), one.stop(), two.stop()]);
    nodes.remove();
    rmSync(folder, { recursive: true, force: true });
  });
  /** Starts the command; resolves with how it ended. */
  const capture = (...args: string[]) => {
    const program = spawn(process.execPath, [tulle, 'capture', '--socket', socket, ...args]);
    const [out, error]: [Buffer[], Buffer[]] = [[], []];
    program.stdout.on('data', part => out.push(part));
    program.stderr.on('data', part => error.push(part));
    const ended = once(program, 'close').then(([code]) => ({
      code: code as number,
      out: Buffer.concat(out),
      error: Buffer.concat(error).toString(),
    }));
    return { program, ended };
  };
  return { folder, nodes, captures, capture, server, one };
}

type Stage = Awaited<ReturnType<typeof stage>>;

/** Sends bytes from node 1 to node 2 over the overlay; the sum of what was sent. */
async function transfer({ nodes }: Stage, bytes: number): Promise<string> {
  const start = (namespace: string, ...args: string[]) => {
    const program = withNamespace(namespace, () => spawn(process.execPath, [child, ...args]));
    const lines: Record<string, unknown>[] = [];
    let rest = '';
    program.stdout.on('data', part => {
      const all = (rest + String(part)).split('\n');
      rest = all.pop() ?? '';
      for (const line of all) lines.push(JSON.parse(line));
    });
    return { lines, ended: once(program, 'close') };
  };
  const sender = start(nodes.namespaces[0], 'send', addressOf(1), 'bytes', String(bytes), '7');
  await until(() => sender.lines.length > 0, 'listening');
  const receiver = start(nodes.namespaces[1], 'receive', addressOf(1), String(sender.lines[0]['port']), 'hash');
  await Promise.all([sender.ended, receiver.ended]);
  const sum = String(sender.lines.at(-1)?.['sha256']);
  if (receiver.lines.at(-1)?.['sha256'] !== sum) throw new Error('the transfer itself went wrong');
  return sum;
}

/** The sum of a stream whose pieces are known by their TCP sequence numbers; pieces may come twice. */
function sumOf(pieces: readonly { sequence: number; bytes: Uint8Array }[]): string {
  const first = pieces.reduce(
    (least, { sequence }) => (((sequence - least) | 0) < 0 ? sequence : least),
    pieces[0].sequence,
  );
  const sorted = pieces
    .map(({ sequence, bytes }) => ({ at: (sequence - first) >>> 0, bytes }))
    .sort((a, b) => a.at - b.at);
  const hash = createHash('sha256');
  let next = 0;
  for (const { at, bytes } of sorted) {
    if (at > next) throw new Error(`bytes ${next} to ${at} are missing`);
    const fresh = bytes.subarray(next - at);
    hash.update(fresh);
    next += fresh.length;
  }
  return hash.digest('hex');
}

/** What a folder holds beside the control socket. */
const filesOf = (folder: string): string[] =>
  readdirSync(folder)
    .filter(name => !name.startsWith('control.sock'))
    .sort();

/** The TCP payload of an IPv4 packet. */
function tcpOf(packet: Uint8Array, skip = 0): { sequence: number; bytes: Uint8Array; source: string } | undefined {
  const ip = (packet[skip] & 15) * 4;
  if (packet[skip] >> 4 !== 4 || packet[skip + 9] !== 6) return undefined;
  const tcp = skip + ip;
  const bytes = packet.subarray(tcp + (packet[tcp + 12] >> 4) * 4, skip + get16(packet, skip + 2));
  return { sequence: get32(packet, tcp + 4), bytes, source: packet.subarray(skip + 12, skip + 16).join('.') };
}

const BYTES = 400_000; // inside and outside together they fit into the ring, however slow this machine is

t.test('a transfer, found again by its sum: by our reader, by tshark, by tcpdump', async t => {
  const here = await stage(t);
  const file = join(here.folder, 'out.pcapng');
  writeFileSync(file, 'something older');
  const { program, ended } = here.capture('--snaplen', '0', '-w', file);
  await until(() => here.captures.size === 1, 'captured');
  const sum = await transfer(here, BYTES);
  await ping(here.nodes.namespaces[0], '10.42.77.1', { count: 3, intervalMs: 1, timeoutMs: 50 });
  await until(() => here.one.drops()['egress-no-lease'] === 3, 'dropped');
  await new Promise(resolve => setTimeout(resolve, 50));
  program.kill('SIGINT');
  const { code, error } = await ended;
  t.equal(code, 0);
  t.match(error, new RegExp(`^tulle: \\d+ packets captured to ${file}, 0 lost by the capture\n$`));
  t.equal(statSync(file).mode & 0o777, 0o600);
  t.same(filesOf(here.folder), ['out.pcapng'], 'nothing lies beside it');

  const { packets, interfaces } = readFile(readFileSync(file));
  t.equal(Number(error.split(' ')[1]), packets.length);
  t.same(
    interfaces.map(({ name }) => name),
    ['node1:tulle0', 'node1:underlay', 'node1:tulle0 drops', 'node1:underlay drops'],
  );
  const sent = packets.filter(({ on, direction }) => on === 'node1:tulle0' && direction === 'out');
  const pieces = sent.flatMap(({ data }) => tcpOf(data) ?? []).filter(({ bytes }) => bytes.length > 0);
  t.equal(sumOf(pieces), sum, 'inside');
  t.ok(
    sent.some(({ comments }) => comments.some(comment => /^super-packet: \d+ segments of 1408 bytes$/.test(comment))),
    'super-packets',
  );
  const outer = packets.filter(({ on, direction }) => on === 'node1:underlay' && direction === 'out');
  t.ok(
    outer.some(({ comments }) =>
      comments.some(comment => /^train \d+: datagram 2 of \d+, 1472 bytes each$/.test(comment)),
    ),
  );

  const tshark = tool(t, 'tshark');
  if (tshark !== undefined) {
    const fields = (filter: string, ...names: string[]): string[][] =>
      tshark(
        '-X',
        `lua_script:${lua}`,
        '-r',
        file,
        '-Y',
        filter,
        '-T',
        'fields',
        ...names.flatMap(name => ['-e', name]),
      )
        .text.trim()
        .split('\n')
        .map(line => line.split('\t'));
    // What left: segments by their slices, packets by their payload.
    const slices = fields('tulle.kind == 1', 'tulle.slice.seq', 'tulle.slice', 'tulle.super_packet.segments');
    const whole = fields(
      'tulle.kind == 0 && frame.interface_id == 1 && tcp.len > 0 && ip.src == 10.42.1.0',
      'tcp.seq_raw',
      'tcp.payload',
    );
    t.ok(slices.length > 100, `${slices.length} segments`);
    const found = [...slices, ...whole.filter(([sequence]) => sequence !== '')].map(([sequence, hex]) => ({
      sequence: Number(sequence.split(',').at(-1)),
      bytes: Buffer.from(hex.split(',').at(-1) ?? '', 'hex'),
    }));
    t.equal(sumOf(found), sum, 'outside, as tshark sees it');
    const drops = fields('frame.interface_id == 2', 'frame.comment', 'frame.interface_name', 'ip.dst');
    t.equal(drops.length, 3);
    t.match(drops[0], [/^dropped: egress-no-lease: nobody holds a lease/, 'node1:tulle0 drops', '10.42.77.1']);
    t.equal(
      fields('tulle.short || tulle.bad_segment || tulle.bad_bundle || tulle.unknown_kind', 'frame.number').join(),
      '',
    );
    t.equal(fields('frame', 'frame.number').length, packets.length);
    const tree = tshark('-X', `lua_script:${lua}`, '-r', file, '-Y', 'tulle.kind == 1', '-c', '400', '-V').text;
    t.match(tree, /tulle overlay, segment\n {4}0001 .... = Version: 1\n {4}.... 0001 = Kind: segment \(1\)/);
    t.match(tree, /Source: 10\.42\.1\.0:\d+\n {8}Destination: 10\.42\.2\.0:\d+/);
    const wrong = tshark(
      ...['-o', 'ip.check_checksum:TRUE', '-o', 'udp.check_checksum:TRUE', '-r', file],
      ...['-Y', 'frame.interface_id == 1 && (ip.checksum.status == "Bad" || udp.checksum.status == "Bad")'],
    ).text;
    t.equal(wrong, '', 'the outer checksums are right');
  }

  const tcpdump = tool(t, 'tcpdump');
  if (tcpdump !== undefined) {
    const lines = tcpdump('-n', '-r', file).text.trim().split('\n');
    t.ok(lines.length >= packets.length, `${lines.length} lines`);
    t.match(
      tcpdump('-n', '-r', file, 'udp port 8285', '-c', '1').text,
      /IP 10.88.0.[12].8285 > 10.88.0.[12].8285: UDP/,
    );
  }
});

t.test('the dissector: every kind, what is damaged, another port', async t => {
  const tshark = tool(t, 'tshark');
  if (tshark === undefined) return;
  const folder = mkdtempSync(join(tmpdir(), 'tulle-lua-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const { kinds } = await import('./fixtures/kinds.ts');
  const file = join(folder, 'kinds.pcapng');
  writeFileSync(file, kinds(8285));
  const rows = (path: string, more: string[], ...names: string[]): string[] =>
    tshark('-X', `lua_script:${lua}`, ...more, '-r', path, '-T', 'fields', ...names.flatMap(name => ['-e', name]))
      .text.trimEnd()
      .split('\n')
      .map(line => line.replace(/\t+$/, ''));
  t.same(
    rows(
      file,
      [],
      'tulle.kind',
      'tulle.key',
      'tulle.packets',
      'tulle.sequence',
      'tulle.token',
      'tulle.trace',
      'ip.src',
      'ipv6.src',
    ),
    [
      '0\t0x00000007\t\t\t\t\t10.88.0.1,10.42.1.2',
      '0\t0x00000007\t\t\t\t\t10.88.0.1\tfd00:42:0:1::2',
      '1\t0x00000007\t\t\t\t\t10.88.0.1',
      '1\t0x00000007\t\t\t\t\t10.88.0.1',
      '2\t0x00000007\t2\t\t\t\t10.88.0.1,10.42.1.2\tfd00:42:0:1::2',
      '3\t0x00000007\t\t9\t0x0102030405060708\t\t10.88.0.1',
      '4\t0x00000007\t\t9\t0x0102030405060708\t\t10.88.0.1',
      '5\t0x00000007\t\t\t0x0102030405060708\t\t10.88.0.1',
      '6\t0x00000007\t\t\t\t0x0000010203040506\t10.88.0.1,10.42.1.2',
      '15\t0x00000007\t\t\t\t\t10.88.0.1',
      '\t\t\t\t\t\t10.88.0.1,10.42.1.2', // flannel's format
      '1\t0x00000007\t\t\t\t\t10.88.0.1', // a slice that is too short
      '2\t0x00000007\t3\t\t\t\t10.88.0.1,10.42.1.2\tfd00:42:0:1::2', // a packet that is not there
      '\t\t\t\t\t\t10.88.0.1', // eleven bytes
      '\t\t\t\t\t\t10.88.0.1', // version 7
    ],
  );
  t.same(
    rows(
      file,
      ['-Y', 'tulle.kind == 1'],
      'tulle.super_packet.src',
      'tulle.super_packet.segments',
      'tulle.slice.offset',
      'tulle.slice.length',
      'tulle.slice.seq',
    ),
    ['10.42.1.2:1234\t3\t1000\t1000\t2000', 'fd00:42:0:1::2 5000\t3\t2000\t500', '10.42.1.2:1234\t3\t1000\t1000\t2000'],
  );
  const marked = (filter: string): string => rows(file, ['-Y', filter], 'frame.number').join();
  t.equal(marked('tulle.bad_segment'), '12');
  t.equal(marked('tulle.bad_bundle'), '13');
  t.equal(marked('tulle.short'), '14');
  t.equal(marked('tulle.unknown_kind'), '10');
  t.equal(marked('_ws.malformed'), '12,13,14', 'nothing else is');

  const elsewhere = join(folder, 'elsewhere.pcapng');
  writeFileSync(elsewhere, kinds(9000));
  const count = (...more: string[]): number =>
    rows(elsewhere, ['-Y', 'tulle', ...more], 'frame.number').filter(Boolean).length;
  t.equal(count(), 0);
  t.equal(count('-o', 'tulle.ports:8285,9000'), 13);
  t.equal(count('-d', 'udp.port==9000,tulle'), 13);
  t.equal(count('-o', 'tulle.heuristic:TRUE'), 13, 'the first that is well formed tells of the others');
  writeFileSync(elsewhere, kinds(9000, 9));
  t.equal(count('-o', 'tulle.heuristic:TRUE'), 0, 'what is not is left alone');
});

t.test('to standard output, printed, ended by a count, into a pipe that closes', async t => {
  const here = await stage(t);
  const one = { count: 1, intervalMs: 1, timeoutMs: 5_000 };
  const piped = here.capture('--count', '4');
  await until(() => here.captures.size === 1, 'captured');
  await ping(here.nodes.namespaces[0], addressOf(2), one);
  const { code, out, error } = await piped.ended;
  t.equal(code, 0);
  t.equal(readFile(out).packets.length, 4);
  t.equal(error, 'tulle: 4 packets captured, 0 lost by the capture\n');

  const printed = here.capture('--print', '--inner', 'icmp', '--count', '4');
  await until(() => here.captures.size === 1, 'captured');
  await ping(here.nodes.namespaces[0], addressOf(2), one);
  const lines = (await printed.ended).out.toString().trim().split('\n');
  t.equal(lines.length, 4);
  const time = String.raw`^\d\d:\d\d:\d\d\.\d{6}`;
  const request = String.raw`IP 10\.42\.1\.0 > 10\.42\.2\.0: ICMP echo request, id \d+, seq \d+, length 64`;
  t.match(lines[0], new RegExp(`${time} read  ${request} {2}\\(to lease 10.42.2.0/24 of node2\\)$`));
  t.match(
    lines[1],
    new RegExp(`${time} send  10.88.0.1:8285 > 10.88.0.2:8285  tulle packet key 00000065 \\| ${request}`),
  );
  t.match(lines[2], new RegExp(`${time} recv  10.88.0.2:8285 > 10.88.0.1:8285  tulle packet key 00000066`));
  t.match(lines[3], new RegExp(`${time} write IP 10.42.2.0 > 10.42.1.0: ICMP echo reply`));
  t.notOk(lines.join().includes('\x1b'), 'no colours where there is no terminal');

  const closed = here.capture('--inner', 'icmp');
  await until(() => here.captures.size === 1, 'captured');
  closed.program.stdout.destroy();
  for (let i = 0; i < 100 && here.captures.size > 0; i++) await ping(here.nodes.namespaces[0], addressOf(2), one);
  t.equal((await closed.ended).code, 0);
  await until(() => here.captures.size === 0, 'ended');

  const left = here.capture('-w', join(here.folder, 'left.pcapng'));
  await until(() => here.captures.size === 1, 'captured');
  await ping(here.nodes.namespaces[0], addressOf(2), one);
  await new Promise(resolve => setTimeout(resolve, 50));
  await here.server.close();
  const leftEnd = await left.ended;
  t.equal(leftEnd.code, 1);
  t.match(
    leftEnd.error,
    /4 packets captured to .*left.pcapng, how many were lost is not known\ntulle: tulled ended the stream/,
  );
  t.equal(readFile(readFileSync(join(here.folder, 'left.pcapng'))).packets.length, 4, 'and the file is valid');
});

t.test('mistakes are one line, and leave an older file alone', async t => {
  const here = await stage(t);
  const file = join(here.folder, 'old.pcapng');
  writeFileSync(file, 'old');
  const fails = async (args: string[], message: RegExp): Promise<void> => {
    const { code, error, out } = await here.capture(...args).ended;
    t.equal(code, 1, args.join(' '));
    t.match(error, message);
    t.equal(out.length, 0);
  };
  await fails(['-w', file, '--peer', 'node9'], /^tulle: no peer is called "node9": this node knows node2/);
  await fails(['-w', file, '--inner', 'tcp prt 80'], /^tulle: --inner, column 5: .*\n {2}tcp prt 80\n {6}\^/);
  await fails(['--snaplen', 'many'], /^tulle: --snaplen many: a number is wanted: see "tulle capture --help"\n$/);
  await fails(['--snaplen', '999999999'], /^tulle: snaplen "999999999": a number from 0 to 262144\n$/);
  await fails(['--prnt'], /^tulle: Unknown option '--prnt': see "tulle capture --help"\n$/);
  await fails(['--print', '-w', file], /exclude each other/);
  await fails(['-w', join(here.folder, 'no/such')], /^tulle: cannot write .*no\/such: ENOENT/);
  await fails(['--socket', '/nowhere'], /^tulle: no tulled runs here: there is no \/nowhere/);
  t.equal(readFileSync(file, 'utf8'), 'old');
  t.same(filesOf(here.folder), ['old.pcapng']);
  t.equal(here.captures.size, 0);
  // A terminal, as script(1) makes one.
  const script = spawnSync('script', ['-qec', `${process.execPath} ${tulle} capture`, '/dev/null'], {
    encoding: 'utf8',
  });
  if (script.error === undefined) t.match(script.stdout, /a capture is not for a terminal: write it with -w FILE/);
});
