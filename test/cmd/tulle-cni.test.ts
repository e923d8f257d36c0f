// tulle-cni as runtimes execute it, each program that there is: alone, with a daemon, and with one that comes late.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { CniError } from '../../lib/cni/plugin.ts';
import { startCniServer } from '../../lib/cni/server.ts';
import { silentLogger as log } from '../../lib/util/log.ts';
import { fakePlugin, until } from '../cni/fake-plugin.ts';
import { clients, invoke, makePlace } from './tulle-cni-support.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root for a network namespace';
const VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'];

for (const client of clients()) {
  t.test(client.name, { skip }, async t => {
    t.test('without a command it says what it is', async t => {
      const { code, stdout, stderr } = await invoke(client, {}, '');
      t.equal(code, 0);
      t.equal(stdout, '');
      t.match(stderr, /^CNI plugin tulle-cni .*\nCNI protocol versions supported: 0.1.0, 0.2.0, .* 1.1.0\n$/);
    });

    t.test('VERSION needs nobody and nothing', async t => {
      for (const [input, version] of [
        ['', '1.1.0'],
        ['{"cniVersion":"0.4.0"}', '0.4.0'],
        ['{"CNIVERSION":"9.9.9"}', '9.9.9'],
        ['{"cniVersion":7}', '1.1.0'],
        ['not JSON', '1.1.0'],
      ]) {
        const { code, json } = await invoke(client, { CNI_COMMAND: 'VERSION' }, input);
        t.equal(code, 0);
        t.same(json, { cniVersion: version, supportedVersions: VERSIONS }, input);
      }
    });

    const place = makePlace(t);
    const config = (more: object = {}, socket = place.socket): string =>
      JSON.stringify({ cniVersion: '1.1.0', name: 'net', type: 'tulle-cni', socket, ...more });
    const call = (command: string, input: string, more: Record<string, string> = {}) =>
      invoke(
        client,
        {
          CNI_COMMAND: command,
          CNI_CONTAINERID: 'pod1',
          CNI_NETNS: place.namespace,
          CNI_IFNAME: 'eth0',
          CNI_PATH: '/opt/cni/bin',
          ...more,
        },
        input,
      );

    t.test('what is wrong is said before anybody is asked', async t => {
      const variables = { CNI_COMMAND: 'ADD', CNI_PATH: '/x' };
      const absent = await invoke(client, variables, config());
      t.match(absent.json, { code: 4, msg: 'required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing' });
      t.equal(absent.code, 1);
      const gc = await invoke(client, { CNI_COMMAND: 'GC' }, config());
      t.match(gc.json, { code: 4, msg: 'required env variables [CNI_PATH] missing' });
      for (const command of ['add', 'FOO', 'ADD ']) {
        t.match((await call(command, config())).json, { code: 4, msg: `unknown CNI_COMMAND: ${command}` });
      }
      for (const input of ['', '[]', 'null', '{"name":', `${config()} x`]) {
        t.match((await call('STATUS', input)).json, { code: 6, msg: /error unmarshall network config/ }, input);
      }
      t.match((await call('ADD', config({ socket: 'cni.sock' }))).json, { code: 7, msg: /^socket: / });
      t.match((await call('ADD', config({ socket: 5 }))).json, { code: 6, msg: /^socket: / });
      t.match((await call('ADD', config({ socket: `/${'x'.repeat(200)}` }))).json, { code: 7, msg: /^socket: / });
      const large = config({ filler: 'x'.repeat(1 << 20) });
      t.match((await call('ADD', large)).json, { code: 5, msg: /larger than 1048576 bytes/ });
    });

    t.test('without a daemon', async t => {
      const later = { cniVersion: '1.1.0', code: 11, msg: /tulled is not there.*try again later/ };
      for (const command of ['ADD', 'CHECK', 'GC']) {
        const { code, json } = await call(command, config());
        t.match(json, later, command);
        t.equal(code, 1);
      }
      t.match((await call('STATUS', config())).json, { code: 50, msg: /tulled is not there/ });
      t.notOk(existsSync(`${place.socket}.pending`), 'only a DEL leaves something');
      const old = JSON.stringify({ name: 'net', socket: place.socket });
      t.match((await call('ADD', old)).json, { cniVersion: '0.1.0', code: 11 });
    });

    t.test('a DEL without a daemon is done when one starts', async t => {
      const pending = `${place.socket}.pending`;
      t.same(await call('DEL', config()), { code: 0, stdout: '', stderr: '', json: {} });
      t.same(await call('DEL', config(), { CNI_NETNS: '' }), { code: 0, stdout: '', stderr: '', json: {} });
      t.equal((await call('DEL', config(), { CNI_CONTAINERID: 'pod2' })).code, 0);
      t.equal(statSync(pending).mode & 0o777, 0o700);
      t.equal(readdirSync(pending).length, 2, 'one file for each attachment');
      t.same(
        readdirSync(pending).map(name => statSync(join(pending, name)).mode & 0o777),
        [0o600, 0o600],
      );
      for (const [more, code] of [
        [{ CNI_CONTAINERID: 'a/b' }, 4],
        [{ CNI_CONTAINERID: '.a' }, 4],
        [{ CNI_IFNAME: 'longer-than-15-c' }, 4],
        [{ CNI_IFNAME: 'a b' }, 4],
        [{ CNI_IFNAME: '..' }, 4],
      ] as const) {
        t.match((await call('DEL', config(), more)).json, { code }, JSON.stringify(more));
      }
      t.match((await call('DEL', config({ name: '' }))).json, { code: 7, msg: 'missing network name: name' });
      t.match((await call('DEL', config({ name: '-x' }))).json, { code: 7, msg: /name "-x"/ });
      t.match((await call('DEL', config({ cniVersion: '3.0.0' }))).json, { cniVersion: '1.1.0', code: 1 });
      t.equal(readdirSync(pending).length, 2, 'what is wrong is not written down');

      const plugin = fakePlugin();
      const server = await startCniServer({ socket: place.socket, plugin, log });
      t.same(plugin.log().sort(), ['DEL pod1 eth0', 'DEL pod2 eth0'], 'they are done before anybody is served');
      t.same(readdirSync(pending), []);
      await server.close();
      t.notOk(existsSync(place.socket));
    });

    t.test('a folder for DELs that others may write to is not used', async t => {
      const socket = join(place.folder, 'open.sock');
      mkdirSync(`${socket}.pending`);
      chmodSync(`${socket}.pending`, 0o777);
      t.match((await call('DEL', config({}, socket))).json, { code: 5, msg: /tulled is not there/ });
      const linked = join(place.folder, 'linked.sock');
      symlinkSync(place.folder, `${linked}.pending`);
      t.match((await call('DEL', config({}, linked))).json, { code: 5, msg: /tulled is not there/ });
    });

    t.test('with a daemon', async t => {
      const plugin = fakePlugin();
      const server = await startCniServer({ socket: place.socket, plugin, log });
      t.teardown(() => server.close());
      const added = await call('ADD', config({ mtu: 1400 }), { CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAME=web' });
      t.equal(added.code, 0, added.stdout);
      t.equal(added.stderr, '');
      t.match(added.json, { cniVersion: '1.1.0', ips: [{ address: '10.5.1.2/24' }, {}, {}] });
      t.match(plugin.calls[0], {
        netns: place.namespace,
        path: ['/opt/cni/bin'],
        config: { mtu: 1400, name: 'net' },
        argsText: 'IgnoreUnknown=1;K8S_POD_NAME=web',
      });
      for (const [command, more] of [
        ['CHECK', { prevResult: added.json }],
        ['GC', { 'cni.dev/valid-attachments': [] }],
        ['STATUS', {}],
        ['DEL', {}],
      ] as const) {
        t.same(await call(command, config(more)), { code: 0, stdout: '', stderr: '', json: {} }, command);
      }
      t.same(plugin.log(), ['ADD pod1 eth0', 'CHECK pod1 eth0', 'GC', 'STATUS', 'DEL pod1 eth0']);

      const own = await call('ADD', config(), { CNI_NETNS: '/proc/self/ns/net' });
      t.match(own.json, { code: 8, msg: /plugin's netns and netns from CNI_NETNS should not be the same/ });
      const forced = await call('ADD', config(), { CNI_NETNS: '/proc/self/ns/net', CNI_NETNS_OVERRIDE: '1' });
      t.equal(forced.code, 0, 'unless it is asked for');
      t.match(plugin.calls.at(-1)?.netns, /^\/proc\/\d+\/ns\/net$/, "the client's, not the daemon's");

      plugin.before = () => {
        throw new CniError(107, 'no "room"\nleft \u0001 é', { details: 'all of it' });
      };
      const failed = await call('ADD', config({ cniVersion: '0.4.0' }));
      t.equal(failed.code, 1);
      t.same(failed.json, {
        cniVersion: '0.4.0',
        code: 107,
        msg: 'no "room" left \u0001 é',
        details: 'all of it',
      });
    });

    t.test('an answer that does not come, and one that is nonsense', async t => {
      const socket = join(place.folder, 'odd.sock');
      let behave = (_socket: Socket): void => {};
      const server: Server = createServer({ allowHalfOpen: true }, connection => {
        connection.on('error', () => {});
        behave(connection);
      });
      await new Promise<void>(resolve => server.listen(socket, resolve));
      t.teardown(() => server.close());
      const ask = (limitMs: number) => call('ADD', config({}, socket), { TULLE_CNI_TIMEOUT_MS: String(limitMs) });
      const answers: [string, (connection: Socket) => void, RegExp][] = [
        ['nothing', () => {}, /did not answer in time/],
        ['half of the header', connection => connection.write('TCN1'), /did not answer in time/],
        ['an end at once', connection => connection.end(), /ended the connection without an answer/],
        ['another protocol', connection => connection.end('HTTP/1.1 400 Bad Request\r\n\r\n'), /without an answer/],
        [
          'less than it promises',
          connection => connection.end(Buffer.from('54434e31000000000000000a7b7d', 'hex')),
          /without an answer/,
        ],
        [
          'more than anybody needs',
          connection => connection.end(Buffer.from('54434e3100000000fffffff07b7d', 'hex')),
          /without an answer/,
        ],
      ];
      for (const [name, action, pattern] of answers) {
        behave = connection => {
          connection.resume();
          action(connection);
        };
        const limitMs = pattern.source.includes('in time') ? 300 : 60_000;
        t.match((await ask(limitMs)).json, { code: 11, msg: pattern }, name);
      }
    });

    t.test('stdin that does not end', async t => {
      const variables = { CNI_COMMAND: 'STATUS', CNI_PATH: '/x', TULLE_CNI_TIMEOUT_MS: '300' };
      const { code, json } = await invoke(client, variables, config(), { holdsOpen: true });
      t.equal(code, 1);
      t.match(json, { code: 5, msg: 'error reading from stdin: it did not end in time' });
      const version = await invoke(client, { CNI_COMMAND: 'VERSION' }, '', { holdsOpen: true });
      t.match(version, { code: 0, json: { cniVersion: '1.1.0' } });
    });

    t.test('a listener whose queue is full', async t => {
      const socket = join(place.folder, 'full.sock');
      const answer = Buffer.from('54434e3100000000000000027b7d', 'hex');
      const server = createServer(connection => {
        connection.on('error', () => {});
        connection.on('data', () => connection.end(answer));
      });
      await new Promise<void>(resolve => server.listen({ path: socket, backlog: 1 }, resolve));
      t.teardown(() => server.close());
      // All of them are started before this process can accept the first.
      const asked = Promise.all(Array.from({ length: 6 }, () => call('STATUS', config({}, socket))));
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
      t.same(
        (await asked).map(({ code }) => code),
        [0, 0, 0, 0, 0, 0],
      );
    });

    t.test("somebody else's socket is refused", async t => {
      const socket = join(place.folder, 'foreign.sock');
      const { seteuid } = process;
      const server = createServer(connection => connection.resume());
      chmodSync(place.folder, 0o777);
      seteuid?.(65_534);
      try {
        server.listen(socket);
      } finally {
        seteuid?.(0);
      }
      t.teardown(() => server.close());
      await until('it listens', () => server.listening);
      chmodSync(place.folder, 0o755);
      const { json } = await call('ADD', config({}, socket));
      t.match(json, { code: 100, msg: /neither root nor this user/ });
      t.match((await call('DEL', config({}, socket))).json, { code: 100 });
    });

    t.test('a file in place of the socket is nobody who listens', async t => {
      const socket = join(place.folder, 'file.sock');
      writeFileSync(socket, 'kept');
      t.match((await call('ADD', config({}, socket))).json, { code: 11 });
      t.equal(readFileSync(socket, 'utf8'), 'kept');
    });
  });
}
