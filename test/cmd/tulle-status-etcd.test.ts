// The status of a node whose etcd freezes.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { findEtcd, startEtcd } from '../../etcd/server.ts';
import type { StatusDocument } from '../../lib/observe/status.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { statusWhen } from '../daemon/ask.ts';
import { makeNode, skip } from '../daemon/node.ts';
import { environment } from '../daemon/process.ts';
import { freeze } from '../support/freeze.ts';

t.setTimeout(150_000);
const registryChild = fileURLToPath(new URL('../../lib/lab/registry-child.js', import.meta.url));
const isWell = (status: StatusDocument): boolean => status.healthy;
const withoutEtcd = skip || (findEtcd() === undefined ? 'needs an etcd server' : false);

t.test('an etcd that freezes: not well and why; past the deadline fenced', { skip: withoutEtcd }, async t => {
  const world = makeNode(t);
  const socket = join(world.run, 'tulled.sock');
  const endpoint = 'http://10.88.0.2:2379';
  const server = await startEtcd({
    directory: join(world.run, 'etcd'),
    clientAddress: '10.88.0.2',
    namespace: world.far,
  });
  t.teardown(() => {
    process.kill(server.pid, 'SIGCONT');
    return server.stop();
  });
  withNamespace(world.far, () =>
    spawnSync(
      process.execPath,
      [
        registryChild,
        'config',
        endpoint,
        '/coreos.com/network',
        '{"Network":"10.5.0.0/16","Backend":{"Type":"tulle"}}',
      ],
      { env: environment },
    ),
  );
  const tulled = world.start(
    `-etcd-endpoints=${endpoint}`,
    '-node-id=node1',
    `--control-socket=${socket}`,
    '-lease-ttl=14s',
  );
  const well = await statusWhen(socket, isWell);
  t.match(well.registry, { kind: 'etcd', healthy: true, endpoints: [endpoint] });
  await freeze(server.pid);
  const sick = await statusWhen(socket, status => !status.registry.healthy);
  t.match(sick, { healthy: false, registry: { reason: /./ } });
  t.equal(sick.lease.fenced, false, 'it still has time');
  t.match(sick.problems[0], { code: 'registry', severity: 'error', text: /its registry is not well for/ });
  const fenced = await statusWhen(socket, status => status.lease.fenced);
  t.equal(fenced.problems[0]?.code, 'fenced');
  process.kill(server.pid, 'SIGCONT');
  await statusWhen(socket, isWell);
  await tulled.end('SIGTERM');
});
