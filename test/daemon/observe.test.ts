// The control socket in the daemon's run: there from the first step to the last, whatever happens between.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { runDaemon } from '../../lib/daemon/daemon.ts';
import { runCniOnly } from '../../lib/daemon/serve-cni.ts';
import type { ControlRoutes } from '../../lib/observe/control.ts';
import { TulleError } from '../../lib/util/errors.ts';
import { daemonOptionsOf, fakeParts, recordingLogger } from './fakes.ts';

const taken = new TulleError('control-socket-taken', 'another tulled serves control at /x');

t.test('it is open before the registry is, and closed after the lease is given back', async t => {
  const { parts, calls, fail } = fakeParts();
  fail.set('chooseInterface', new TulleError('no-interface', 'no interface'));
  const { log } = recordingLogger();
  const options = daemonOptionsOf({ control: { socket: '/x', given: true } });
  await t.rejects(runDaemon(options, parts, log, new AbortController().signal), { code: 'no-interface' });
  t.ok(calls.indexOf('serveControl /x') < calls.indexOf('openRegistry'));
  t.equal(calls.at(-1), 'control.close');
});

t.test('a default socket that is taken is one warning; one that was asked for ends the start', async t => {
  for (const given of [false, true]) {
    const { parts, calls, fail } = fakeParts();
    fail.set('serveControl /x', taken);
    const { log, lines } = recordingLogger();
    const stop = new AbortController();
    stop.abort();
    const run = runCniOnly(daemonOptionsOf({ control: { socket: '/x', given } }), parts, log, stop.signal);
    if (given) await t.rejects(run, { code: 'control-socket-taken' });
    else await run;
    t.equal(calls.includes('startHealth'), !given);
    t.same(
      lines.filter(line => line.level === 'warn').map(line => line.message),
      given ? [] : ['there is no control socket: give a --control-socket, or "none"'],
    );
  }
});

t.test('none', async t => {
  const { parts, calls } = fakeParts();
  const stop = new AbortController();
  stop.abort();
  await runCniOnly(daemonOptionsOf(), parts, recordingLogger().log, stop.signal);
  t.notOk(calls.some(call => call.startsWith('serveControl')));
});

t.test('the page comes with the control socket, which it needs, and goes before it', async t => {
  const { parts, calls } = fakeParts();
  const stop = new AbortController();
  stop.abort();
  const ui = { address: '127.0.0.1', port: 8286 };
  const { log, lines } = recordingLogger();
  const socket = join(t.testdir(), 'c.sock');
  await runCniOnly(daemonOptionsOf({ ui, control: { socket, given: true } }), parts, log, stop.signal);
  t.ok(calls.includes('startPageServer 127.0.0.1 8286'));
  t.ok(calls.indexOf('page closed') < calls.indexOf('control.close'));
  t.notOk(JSON.stringify(lines).includes('token'), 'its address, with the token, is not logged');
  await t.rejects(runCniOnly(daemonOptionsOf({ ui }), parts, log, stop.signal), { code: 'bad-option' });
});

t.test('a page never shows the daemon that has the default socket instead of this one', async t => {
  const { parts, calls, fail } = fakeParts();
  fail.set('serveControl /x', taken);
  const ui = { address: '127.0.0.1', port: 8286 };
  const options = daemonOptionsOf({ ui, control: { socket: '/x', given: false } });
  await t.rejects(runCniOnly(options, parts, recordingLogger().log, new AbortController().signal), {
    code: 'bad-option',
    message: /\/x is not this daemon's: give it one of its own with --control-socket$/,
  });
  t.notOk(calls.some(call => call.startsWith('startPageServer')));
});

t.test('docs/status.md lists what is answered, and nothing else', async t => {
  const { parts } = fakeParts();
  const stop = new AbortController();
  stop.abort();
  let routes: string[] = [];
  const listening = {
    ...parts,
    serveControl: async (_path: string, table: ControlRoutes) => {
      routes = table.list();
      return { close: async () => {} };
    },
  };
  await runCniOnly(
    daemonOptionsOf({ control: { socket: '/x', given: true } }),
    listening,
    recordingLogger().log,
    stop.signal,
  );
  const findRoot = (from: string): string => (existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from)));
  const text = readFileSync(join(findRoot(dirname(fileURLToPath(import.meta.url))), 'docs/status.md'), 'utf8');
  t.same(
    [...text.matchAll(/^\| `((?:GET|POST) [^`]+)` \|/gm)].map(match => match[1]).sort(),
    routes,
    'give each route a row there',
  );
});
