// What the C program does before the C library is ready (cmd/tulle-cni/early.c) changes nothing but the time: it is compared
// with the same sources that begin in main().
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { decodeRequest, encodeAnswer, requestBytes } from '../../lib/cni/protocol/frame.ts';
import { type Client, client, makePlace, type Outcome, root } from './tulle-cni-support.ts';

const compiler = ['cc', 'gcc', 'clang'].find(name => spawnSync(name, ['--version']).status === 0);
const hasEarly = process.arch === 'x64' && compiler !== undefined && client().name === 'C';
const skip = !hasEarly
  ? 'needs x64 and a C compiler'
  : process.getuid?.() === 0
    ? false
    : 'needs root for a network namespace';
const sources = join(root, 'cmd/tulle-cni');

/** The plugin without an early start. */
function late(folder: string): Client {
  const files = readdirSync(sources).filter(name => name.endsWith('.c'));
  const output = join(folder, 'late');
  const args = ['-std=gnu11', '-O1', '-DTULLE_VERSION="0"', ...files.map(name => join(sources, name)), '-o', output];
  const { status, stderr } = spawnSync(compiler ?? 'cc', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return { name: 'late', command: [output] };
}

/** A daemon that says yes and notes what it was asked; the client's own number is taken out. */
async function listen(t: Test, path: string): Promise<string[]> {
  const asked: string[] = [];
  const server: Server = createServer(connection => {
    let bytes = Buffer.alloc(0);
    connection.on('error', () => {});
    connection.on('data', chunk => {
      bytes = Buffer.concat([bytes, chunk]);
      const frame = requestBytes(bytes) === bytes.length ? decodeRequest(bytes) : undefined;
      if (frame === undefined) return;
      frame.environment.delete('client.pid');
      asked.push(JSON.stringify([[...frame.environment].sort(), frame.input]));
      connection.end(encodeAnswer({ exitCode: 0, stdout: `{"from": ${JSON.stringify(path)}}\n` }));
    });
  });
  await new Promise<void>(resolve => server.listen(path, resolve));
  t.teardown(() => new Promise<void>(resolve => server.close(() => resolve())));
  return asked;
}

/** `input` in pieces with pauses between them. */
function run(client: Client, environment: Record<string, string>, input: readonly string[]): Promise<Outcome> {
  const [command, ...args] = client.command;
  return new Promise((resolve, reject) => {
    const env = { ...client.environment, ...environment };
    const child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', chunk => {
      stdout += chunk;
    });
    child.stderr.on('data', chunk => {
      stderr += chunk;
    });
    child.stdin.on('error', () => {});
    child.on('error', reject);
    child.on('close', code => resolve({ code, stdout, stderr, json: stdout === '' ? {} : JSON.parse(stdout) }));
    const write = (i: number): void => {
      if (i === input.length) child.stdin.end();
      else child.stdin.write(input[i], () => setTimeout(write, i + 1 < input.length ? 60 : 0, i + 1));
    };
    write(0);
  });
}

t.test('the same request at the same socket, whatever the configuration looks like', { skip }, async t => {
  const { folder, namespace } = makePlace(t);
  const [a, b] = ['a', 'b'].map(name => join(folder, name));
  const asked = new Map([
    [a, await listen(t, a)],
    [b, await listen(t, b)],
  ]);
  const [pathA, pathB] = [a, b].map(path => JSON.stringify(path));
  const rest = '"cniVersion": "1.0.0", "name": "n", "type": "tulle-cni"';
  const long = 'x'.repeat(200);
  // What is written to stdin, in pieces.
  const inputs: Record<string, string[]> = {
    plain: [`{${rest}, "socket": ${pathA}}`],
    first: [`{"socket":${pathA},${rest}}`],
    spaced: [` {\n\t"socket" \r\n :\n ${pathA} , ${rest} }\n`],
    'another case': [`{"SockeT": ${pathA}, ${rest}}`],
    'the last counts': [`{"socket": ${pathB}, ${rest}, "SOCKET": ${pathA}}`],
    'null is none': [`{"socket": ${pathA}, "socket": null, ${rest}}`],
    'deeper ones do not count': [
      `{"x": {"socket": ${pathB}}, ${rest}, "y": [{"socket": ${pathB}}], "socket": ${pathA}, "z": [["socket"]]}`,
    ],
    'a value is no key': [`{"x": "socket", "y": "}", "socket": ${pathA}, "z": "{", ${rest}}`],
    'an escaped key': [`{"\\u0073ocket": ${pathA}, ${rest}}`],
    'an escaped value': [`{"socket": "${a.replaceAll('/', '\\/')}", ${rest}}`],
    'a key behind an escaped quote': [`{"x": "\\"socket\\": \\"/b\\"", "socket": ${pathA}, ${rest}}`],
    'no string': [`{"socket": 7, ${rest}}`],
    'not absolute': [`{"socket": "a", ${rest}}`],
    'too long': [`{"socket": "/${long}", ${rest}}`],
    'one byte too long': [`{"socket": "/${'x'.repeat(107)}", ${rest}}`],
    'nobody there': [`{"socket": ${JSON.stringify(join(folder, 'c'))}, ${rest}}`],
    'a list': [`["socket", ${pathA}]`],
    nothing: [''],
    'in pieces': [`{"sock`, `et": ${pathA}, `, `${rest}}`],
    large: [`{"socket": ${pathA}, "x": "${'y'.repeat(32_600)}", ${rest}}`],
    larger: [`{"socket": ${pathA}, "x": "${'y'.repeat(200_000)}", ${rest}}`],
  };
  const environment = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: 'pod1',
    CNI_NETNS: namespace,
    CNI_IFNAME: 'eth0',
    CNI_PATH: folder,
    CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAME=x',
    CNIX: 'not ours',
    TULLE_CNI_TIMEOUT_MS: '20000',
  };
  const programs = [client(), late(folder)];
  for (const [name, input] of Object.entries(inputs)) {
    const seen = [];
    for (const program of programs) {
      for (const log of asked.values()) log.length = 0;
      const { code, stdout } = await run(program, environment, input);
      const requests = [...asked.values()].map(log => [...log]);
      seen.push({ code, stdout, requests });
    }
    t.same(seen[0], seen[1], name);
  }

  // The same for other environments.
  const variants: Record<string, Record<string, string>> = {
    DEL: { CNI_COMMAND: 'DEL', CNI_NETNS: '' },
    CHECK: { CNI_COMMAND: 'CHECK' },
    GC: { CNI_COMMAND: 'GC' },
    'a namespace that is none': { CNI_NETNS: '/no/such/file' },
    'no container': { CNI_CONTAINERID: '' },
    'no command of ours': { CNI_COMMAND: 'ADDS' },
    'a long variable': { CNI_ARGS: `IgnoreUnknown=1;X=${'y'.repeat(70_000)}` },
  };
  for (const [name, more] of Object.entries(variants)) {
    const seen = [];
    for (const program of programs) {
      for (const log of asked.values()) log.length = 0;
      const { code, stdout } = await run(program, { ...environment, ...more }, inputs['plain']);
      seen.push({ code, stdout, requests: [...asked.values()].map(log => [...log]) });
    }
    t.same(seen[0], seen[1], name);
  }
});

t.test('what is not JSON is sent before anybody knows, and refused here and there', { skip }, async t => {
  const { folder, namespace } = makePlace(t);
  const asked = await listen(t, join(folder, 'a'));
  const environment = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'pod1', CNI_NETNS: namespace, CNI_IFNAME: 'eth0' };
  const config = `{"socket": ${JSON.stringify(join(folder, 'a'))}, "name": "n"}`;
  const broken = { open: config.slice(0, -1), closed: `${config}}` };
  const inputsAsked = (): unknown[] => asked.map(request => JSON.parse(request)[1]);
  for (const [name, input] of Object.entries(broken)) {
    const { code, json } = await run(late(folder), environment, [input]);
    t.match({ code, json }, { code: 1, json: { code: 6, msg: /not a JSON object/ } }, name);
  }
  await run(late(folder), environment, [config]);
  t.same(inputsAsked(), [config], 'begun in main() it asks only what it has read');
  asked.length = 0;
  // On a busy machine stdin may come too late for the early start: then the next one is early.
  const deadline = performance.now() + 30_000;
  for (const input of Object.values(broken)) {
    while (!inputsAsked().includes(input) && performance.now() < deadline) {
      const { code, json } = await run(client(), environment, [input]);
      if (code !== 1 || json['code'] !== 6) t.fail('it was not refused', { code, json });
      await new Promise(resolve => setTimeout(resolve, 10));
    }
    t.ok(inputsAsked().includes(input), 'the early start sends first');
  }
});

t.test('it needs nothing of the library, however it is compiled', { skip }, async t => {
  if (spawnSync('nm', ['--version']).status !== 0) {
    t.pass('skip: there is no nm');
    return;
  }
  const object = join(t.testdir(), 'early.o');
  t.teardown(() => rmSync(object, { force: true }));
  for (const flags of [['-O0'], ['-O1'], ['-O2'], ['-O3'], ['-Os'], ['-O2', '-fstack-protector-all']]) {
    const args = ['-std=gnu11', ...flags, '-c', join(sources, 'early.c'), '-o', object];
    const { status, stderr } = spawnSync(compiler ?? 'cc', args, { encoding: 'utf8' });
    t.equal(status, 0, stderr);
    const { stdout } = spawnSync('nm', ['-u', object], { encoding: 'utf8' });
    t.same(stdout.match(/\S+$/gm), ['_start'], flags.join(' '));
  }
});
