// The table of nodes against a naive twin, and readers of Node objects against whatever may come.
import t from 'tap';
import { annotationNames, attributesOf, ownAnnotations } from '../../lib/kube/annotations.ts';
import { type NodeFacts, readNode, tenureOf } from '../../lib/kube/node.ts';
import { createNodeTable } from '../../lib/kube/table.ts';
import { createVersions } from '../../lib/kube/versions.ts';
import { subnetKey } from '../../lib/lease/lease.ts';
import type { LeaseEvent } from '../../lib/lease/registry.ts';
import { silentLogger } from '../../lib/util/log.ts';
import { below, pick, prng, testSeed } from '../support/prng.ts';
import { announced, prefix } from './support.ts';

const names = annotationNames(prefix);
const both = { four: true, six: true };
const chance = (random: () => number, part: number): boolean => below(random, 1000) < part * 1000;

t.test('whatever happens to nodes, the events lead where a new snapshot would', async t => {
  const seed = testSeed();
  for (let run = 0; run < 60; run++) {
    const random = prng(seed + run);
    const table = createNodeTable(names, createVersions(), silentLogger);
    const cluster = new Map<string, NodeFacts>();
    /** What a watcher would believe: key → address and lease key. */
    const believed = new Map<string, string>();
    const apply = (events: LeaseEvent[]): void => {
      for (const event of events) {
        if (event.kind === 'put') {
          believed.set(subnetKey(event.lease), `${event.lease.attributes.PublicIP} ${event.lease.createRevision}`);
        } else believed.delete(subnetKey(event));
      }
    };
    let version = 1;
    for (let step = 0; step < 120; step++) {
      const name = `node${below(random, 5)}`;
      const before = cluster.get(name);
      version++;
      if (before !== undefined && chance(random, 0.25)) {
        cluster.delete(name);
        apply(table.remove(name));
      } else {
        const isNew = before === undefined;
        const address = `10.88.0.${below(random, 4)}`;
        const subnet = pick(random, [undefined, '10.42.1.0/24', '10.42.2.0/24', '10.42.3.0/24']);
        const object = {
          metadata: {
            name,
            uid: isNew ? `uid${version}` : before.uid,
            resourceVersion: String(version),
            creationTimestamp: isNew
              ? new Date(version * 1000).toISOString()
              : new Date(before.createdAtMs).toISOString(),
            annotations: pick(random, [{}, announced(name, address), announced(name, address)]),
          },
          // A pod CIDR that was given stays.
          spec: { podCIDR: before?.subnets === undefined ? subnet : subnetKey(before.subnets).replace('-', '/') },
        };
        const facts = readNode(object, names, both)!;
        cluster.set(name, facts);
        apply(table.put(facts));
        if (!t.same(table.put(facts), [], 'the same again is no news')) return;
      }

      // The twin: of the nodes of each subnet the oldest, if it announces anything.
      const expected = new Map<string, string>();
      const oldestFirst = [...cluster.values()].sort((a, b) => a.createdAtMs - b.createdAtMs);
      const seen = new Set<string>();
      for (const facts of oldestFirst) {
        if (facts.subnets === undefined) continue;
        const key = subnetKey(facts.subnets);
        const attributes = attributesOf(facts.annotations, names);
        if (!seen.has(key) && attributes) expected.set(key, `${attributes.PublicIP} ${tenureOf(facts, facts.subnets)}`);
        seen.add(key);
      }
      const sorted = (map: Map<string, string>): string[][] => [...map].sort();
      if (JSON.stringify(sorted(believed)) !== JSON.stringify(sorted(expected))) {
        t.same(sorted(believed), sorted(expected), `seed ${seed + run}, step ${step}`);
        return;
      }
      const { leases } = table.snapshot(version);
      const snapshot = new Map(
        leases.map(lease => [subnetKey(lease), `${lease.attributes.PublicIP} ${lease.createRevision}`]),
      );
      if (JSON.stringify(sorted(snapshot)) !== JSON.stringify(sorted(expected))) {
        t.same(sorted(snapshot), sorted(expected), `the snapshot, seed ${seed + run}, step ${step}`);
        return;
      }
    }
  }
  t.pass('60 clusters, 120 steps each');
});

t.test('a Node that anybody may have written', async t => {
  const random = prng(testSeed());
  const scraps: unknown[] = [
    undefined,
    null,
    0,
    -1,
    'x',
    '',
    '10.42.1.0/24',
    'fd00::/64',
    '10.42.1.7/24',
    '999.1.1.1/33',
    [],
    {},
    ['10.42.1.0/24', 'fd00:42::/64'],
    ['10.42.1.0/24', '10.42.2.0/24'],
    [null],
    { type: 'NetworkUnavailable' },
    [{ type: 'NetworkUnavailable', status: {} }],
    { [`${prefix}/kube-subnet-manager`]: 'true', [`${prefix}/backend-data`]: '[1' },
    '2026-01-01T00:00:00Z',
  ];
  const scrap = (): unknown => pick(random, scraps);
  const table = createNodeTable(names, createVersions(), silentLogger);
  let read = 0;
  for (let i = 0; i < 20_000; i++) {
    const metadata = {
      name: chance(random, 0.7) ? 'a' : scrap(),
      uid: chance(random, 0.7) ? 'u' : scrap(),
      resourceVersion: chance(random, 0.9) ? '1' : scrap(),
      creationTimestamp: scrap(),
      annotations: scrap(),
    };
    const object = chance(random, 0.05)
      ? scrap()
      : {
          metadata: chance(random, 0.95) ? metadata : scrap(),
          spec: chance(random, 0.5) ? scrap() : { podCIDR: scrap(), podCIDRs: scrap() },
          status: chance(random, 0.5) ? scrap() : { conditions: scrap() },
        };
    const facts = readNode(object, names, both);
    if (facts === undefined) continue;
    read++;
    if (/^[0-9]{1,15}$/.test(facts.version)) table.put(facts);
  }
  t.ok(read > 5000, `${read} were nodes`);
});

t.test('names, prefixes, and what is kept of a node', async t => {
  t.equal(annotationNames('a.b').publicIp, 'a.b/public-ip');
  t.equal(annotationNames('a.b/c').publicIp, 'a.b/c-public-ip');
  t.equal(annotationNames('a.b/c-').publicIp, 'a.b/c-public-ip');
  for (const wrong of ['', 'a', 'a.b/c/d', 'A.b', 'a.b/ c'])
    t.throws(() => annotationNames(wrong), { code: 'bad-option' });
  t.same(ownAnnotations({ 'x/y': 'large', [names.publicIp]: '10.0.0.1', [names.managed]: 7 }, names), {
    [names.publicIp]: '10.0.0.1',
  });
});

t.test('versions as numbers that never go back', async t => {
  const versions = createVersions();
  const first = versions.revisionOf('5000');
  t.ok(first > 0xffff_ffff, 'above every lease key');
  t.ok(versions.revisionOf('5001') > first);
  t.equal(versions.atPresent('6000'), false);
  t.equal(versions.isOlder('6000'), false);
  const before = versions.revisionOf('6000');
  t.equal(versions.isOlder('100'), true);
  t.equal(versions.atPresent('100'), true, 'restored from a backup');
  t.ok(versions.revisionOf('100') > before);
  t.equal(versions.atPresent('101'), false);
  for (const nonsense of ['', 'abc', '-1', '1e9', '99999999999999999999']) {
    t.throws(() => versions.revisionOf(nonsense), { code: 'unavailable' }, nonsense);
  }
});
