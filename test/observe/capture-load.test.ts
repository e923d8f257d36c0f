/**
 * A capture under load: the data path loses no packet by it, while the capture loses what nobody reads fast enough, and counts
 * that. What the data path allocates with a capture and without is held by test/datapath/allocation.test.ts.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Overlay } from '../../lib/backend/overlay.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { nodeOf, readFile, serveCaptures } from '../support/captured.ts';
import { addressOf, leaseOf, twoNodes } from '../support/overlays.ts';

if (process.getuid?.() !== 0) {
  t.pass('SKIPPED: needs root for namespaces', { skip: 'needs root' });
  process.exit(0);
}

const findRoot = (from: string): string => (existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from)));
const child = join(findRoot(dirname(fileURLToPath(import.meta.url))), 'dist/lib/lab/traffic-child.js');

async function until(done: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!done()) {
    if (performance.now() > deadline) throw new Error(`60 s passed and not ${what}`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

/** What the data path has counted, once that has not changed for half a second. */
async function settled(overlay: Overlay) {
  const look = () => {
    const counted = overlay.counters();
    return {
      read: counted['egress-packets'],
      sent: counted['egress-datagrams'],
      came: counted['ingress-datagrams'],
      written: counted['ingress-packets'],
    };
  };
  let last = look();
  let since = performance.now();
  await until(() => {
    const now = look();
    if (JSON.stringify(now) !== JSON.stringify(last)) since = performance.now();
    last = now;
    return performance.now() - since > 500;
  }, 'quiet');
  return last;
}

const dropsOf = (overlay: Overlay): Record<string, number> =>
  Object.fromEntries(
    Object.entries(overlay.drops()).filter(([name, count]) => count > 0 && !name.includes('link-local')),
  );

t.test('a transfer under capture: no packet is lost, captures are, and both say so', async t => {
  const nodes = twoNodes();
  const [one, two] = [await nodes.start(1), await nodes.start(2)];
  one.apply([{ kind: 'add', lease: leaseOf(2) }]);
  two.apply([{ kind: 'add', lease: leaseOf(1) }]);
  const server = await serveCaptures(nodeOf(one, 'node1', [leaseOf(2)]));
  t.teardown(async () => {
    await Promise.all([server.close(), one.stop(), two.stop()]);
    nodes.remove();
  });
  // Whole packets for one who reads nothing, and a second reader who reads all.
  const lazy = await server.open('/capture?snaplen=0&id=lazy');
  const eager = await server.open('/capture?snaplen=0&id=eager');
  const eagerFile = eager.read();
  await until(() => server.captures.size === 2, 'captured');
  const megabytes = 96;
  const run = (namespace: string, ...args: string[]) => {
    const program = withNamespace(namespace, () => spawn(process.execPath, [child, ...args]));
    let text = '';
    program.stdout.on('data', part => {
      text += part;
    });
    const last = (): Record<string, unknown> => JSON.parse(text.trim().split('\n').at(-1) ?? '{}');
    return { hasSpoken: () => text.includes('\n'), last, ended: once(program, 'close') };
  };
  const sender = run(nodes.namespaces[0], 'send', addressOf(1), 'bytes', String(megabytes << 20), '3');
  await until(sender.hasSpoken, 'listening');
  const receiver = run(nodes.namespaces[1], 'receive', addressOf(1), String(sender.last()['port']), 'hash');
  await Promise.all([sender.ended, receiver.ended]);
  t.equal(receiver.last()['sha256'], sender.last()['sha256'], 'the bytes are whole');
  t.same(dropsOf(one), {}, 'and no packet was dropped on its account');
  t.same(dropsOf(two), {});
  // The connection's last words may come late on a busy machine: what is counted must stand still before it is compared.
  const { read, sent, came, written } = await settled(one);
  t.equal(await server.post('/capture/end?id=eager'), 200);
  t.equal(await server.post('/capture/end?id=lazy'), 200);
  const files = [readFile(await eagerFile), readFile(await lazy.read())];
  for (const [i, { packets, interfaces }] of files.entries()) {
    const lost = interfaces[0].statistics?.lost ?? 0;
    const told = packets.reduce((sum, packet) => sum + packet.drops, 0);
    const all = packets.length + lost;
    const name = ['who reads all', 'who reads nothing'][i];
    t.equal(
      all,
      read + sent + came + written,
      `${name}: ${packets.length} captured and ${lost} lost are all there were`,
    );
    t.ok(told <= lost, 'the packets tell of what was lost before them');
    if (i === 1) t.ok(lost > 0, 'a slow reader loses captures');
    t.equal(
      interfaces.reduce((sum, { statistics }) => sum + (statistics?.delivered ?? 0), 0),
      packets.length,
    );
  }
});
