// `tulled --ui`: the live page of a real daemon, asked from inside its namespace.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { withNamespace } from '../../lib/sys/sys.ts';
import { makeNode, skip } from '../daemon/node.ts';

t.setTimeout(120_000);

/** What a program in the namespace prints, as JSON; it fails when that fails. */
function inside(namespace: string, script: string): unknown {
  const { stdout, stderr, status } = withNamespace(namespace, () =>
    spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', timeout: 60_000 }),
  );
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

t.test('its page: the node, its journal; with the token a capture, without it none', { skip }, async t => {
  const world = makeNode(t);
  const tulled = world.start('-node-id=node1', '--ui=127.0.0.1:18286', `--control-socket=${join(world.run, 'c.sock')}`);
  await tulled.saw(/ ready /);
  const file = join(world.run, 'c.url');
  const url = /^http:\/\/127\.0\.0\.1:18286\/\?token=([\w-]{32})\n$/.exec(readFileSync(file, 'utf8'));
  t.ok(url, 'it is in a file');
  t.equal(statSync(file).mode & 0o777, 0o600, 'that nobody else can read');
  t.notOk(tulled.stderr().includes(url![1]), 'and not in what a journal keeps');
  t.match(tulled.stderr(), `The microscope: its address, with the token, is in ${file}\n`);

  const told = inside(
    world.node,
    `const page = 'http://127.0.0.1:18286';
    const headers = { authorization: 'Bearer ${url![1]}' };
    const hello = await (await fetch(page + '/api/hello', { headers })).json();
    const html = await (await fetch(page + '/')).text();
    const post = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"on":true}' };
    const refused = (await fetch(page + '/api/act/capture', post)).status;
    const events = await fetch(page + '/api/events', { headers });
    const news = {};
    let rest = '';
    for await (const chunk of events.body.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + chunk).split('\\n\\n');
      rest = blocks.pop();
      for (const block of blocks) {
        const [, name, data] = /^event: (\\w+)\\ndata: (.*)$/.exec(block) ?? [];
        if (name !== undefined) news[name] = JSON.parse(data);
        if (name === 'history') await fetch(page + '/api/act/capture', { ...post, headers: { ...post.headers, ...headers } });
      }
      if (news.capture?.on === true && news.network?.nodes[0].subnet !== '' && news.history) break;
    }
    console.log(JSON.stringify({ hello, refused, title: /<title>(.*?)<\\/title>/.exec(html)[1], news }));
    process.exit(0);`,
  ) as { hello: object; refused: number; title: string; news: Record<string, Record<string, unknown>> };
  t.match(told.hello, { kind: 'node', title: 'tulled on node1', mayAct: true, actions: ['capture'] });
  t.match(told.title, /microscope/);
  t.equal(told.refused, 401);
  const [lease] = world.leases();
  t.match(told.news['network'], {
    network: '10.5.0.0/16',
    registry: 'file',
    nodes: [{ name: 'node1', address: '10.88.0.1', subnet: lease.replace('-24', '/24'), healthy: true }],
  });
  t.match(told.news['history'], { changes: [{ kind: 'put', key: lease }] });
  t.equal((await tulled.end('SIGTERM')).code, 0, tulled.stderr());
  t.notOk(existsSync(file), 'gone with it');
});

t.test('a port that is taken, and a page without a control socket: one line each', { skip }, async t => {
  const world = makeNode(t);
  const first = world.start('-node-id=node1', '--ui=127.0.0.1:18286', `--control-socket=${join(world.run, 'a.sock')}`);
  await first.saw(/ ready /);
  const second = world.start('-node-id=node2', '--ui=127.0.0.1:18286', `--control-socket=${join(world.run, 'b.sock')}`);
  t.equal((await second.ended).code, 1);
  t.match(
    second.stderr(),
    /^tulled: cannot serve the page on 127\.0\.0\.1 port 18286: something else listens there.*\n$/,
  );
  const third = world.start('-node-id=node3', '--ui=127.0.0.1:18287', '--control-socket=none');
  t.equal((await third.ended).code, 1);
  t.match(third.stderr(), /^tulled: --ui shows what the control socket tells: give one\n$/);
  await first.end('SIGTERM');
});
