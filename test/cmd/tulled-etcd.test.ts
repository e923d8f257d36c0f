// The same node with a real etcd, which is not there yet when tulled starts.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { findEtcd, startEtcd } from '../../etcd/server.ts';
import { parseSubnetEnv } from '../../lib/lease/subnet-env.ts';
import { withNamespace } from '../../lib/sys/sys.ts';
import { makeNode, skip } from '../daemon/node.ts';
import { environment } from '../daemon/process.ts';
import { freeze } from '../support/freeze.ts';

const registryChild = fileURLToPath(new URL('../../lib/lab/registry-child.js', import.meta.url));
const ENDPOINT = 'http://10.88.0.2:2379';
const PREFIX = '/coreos.com/network';

/** Runs lib/lab's small program that speaks to etcd, in a namespace. */
function speak(namespace: string, ...args: string[]): string {
  const result = withNamespace(namespace, () =>
    spawnSync(process.execPath, [registryChild, args[0], ENDPOINT, PREFIX, ...args.slice(1)], {
      encoding: 'utf8',
      env: environment,
      timeout: 20_000,
    }),
  );
  if (result.status !== 0) throw new Error(result.stderr);
  return result.stdout;
}

const without = skip || (findEtcd() === undefined ? 'needs an etcd server' : false);

t.test('away, empty, there: one line, then ready; the lease lives in etcd', { skip: without }, async t => {
  const world = makeNode(t);
  const args = [`-etcd-endpoints=${ENDPOINT}`, '-node-id=node1'];
  const tulled = world.start(...args);
  await tulled.saw(/waiting for the registry/);
  const server = await startEtcd({
    directory: join(world.run, 'etcd'),
    clientAddress: '10.88.0.2',
    namespace: world.far,
  });
  t.teardown(() => server.stop());
  speak(world.far, 'config', '{"Network":"10.5.0.0/16","Backend":{"Type":"tulle"}}');
  await tulled.saw(/ ready /);
  t.equal(tulled.stderr().match(/ warn /g)?.length, 1, tulled.stderr());

  const subnet = () => parseSubnetEnv(readFileSync(world.subnetFile, 'utf8')).subnets[0]?.address;
  const before = subnet();
  t.equal(JSON.parse(speak(world.far, 'leases')).length, 1);
  t.equal((await tulled.end('SIGTERM')).code, 0, tulled.stderr());
  t.equal(JSON.parse(speak(world.far, 'leases')).length, 1, 'the lease stays');

  const again = world.start(...args, '--release-on-exit');
  await again.saw(/ ready /);
  t.equal(subnet(), before);
  t.equal((await again.end('SIGTERM')).code, 0, again.stderr());
  t.same(JSON.parse(speak(world.far, 'leases')), [], 'the lease was given back');
});

t.test('a clean stop while etcd is frozen still ends within 5 s', { skip: without }, async t => {
  const world = makeNode(t);
  const server = await startEtcd({
    directory: join(world.run, 'etcd'),
    clientAddress: '10.88.0.2',
    namespace: world.far,
  });
  t.teardown(() => server.stop());
  speak(world.far, 'config', '{"Network":"10.5.0.0/16","Backend":{"Type":"tulle"}}');
  const tulled = world.start(`-etcd-endpoints=${ENDPOINT}`, '-node-id=node1', '--release-on-exit');
  await tulled.saw(/ ready /);
  await freeze(server.pid);
  const { code, ms } = await tulled.end('SIGTERM');
  t.equal(code, 0, tulled.stderr());
  t.ok(ms < 5000, `it took ${Math.round(ms)} ms`);
  t.notOk(world.links().includes('tulle0'));
});
