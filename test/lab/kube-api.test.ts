// The lab's API server: the semantics that its clients depend on, asked in HTTP as a client asks.
import t, { type Test } from 'tap';
import { type ApiObject, RESOURCES } from '../../lib/lab/kube-api/objects.ts';
import { applyPatch, PATCH_TYPES } from '../../lib/lab/kube-api/patch.ts';
import { type KubeApi, type KubeApiOptions, startKubeApi } from '../../lib/lab/kube-api/server.ts';
import { below, prng, testSeed } from '../support/prng.ts';

interface Answer {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: JSON whose shape the tests compare
  body: any;
  headers: Headers;
}

async function open(t: Test, options: KubeApiOptions = {}) {
  const api: KubeApi = await startKubeApi(options);
  t.teardown(() => api.close());
  const ask = async (
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer> => {
    const response = await fetch(`${api.url}${path}`, {
      method,
      headers,
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, body: text.startsWith('{') ? JSON.parse(text) : text, headers: response.headers };
  };
  const patch = (path: string, type: keyof typeof PATCH_TYPES, body: unknown) =>
    ask('PATCH', path, body, { 'content-type': PATCH_TYPES[type] });
  const add = (name: string, more: object = {}) => ask('POST', '/api/v1/nodes', { metadata: { name }, ...more });
  return { api, ask, patch, add };
}

/** The events of a watch until it ends, or until `count` came. */
async function watch(
  api: KubeApi,
  query: string,
  count = Number.POSITIVE_INFINITY,
): Promise<{ type: string; object: ApiObject }[]> {
  const response = await fetch(`${api.url}/api/v1/nodes?watch=true&${query}`);
  const events: { type: string; object: ApiObject }[] = [];
  let rest = '';
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop()!;
    for (const line of lines) events.push(JSON.parse(line));
    if (events.length >= count) break;
  }
  return events;
}

t.test('versions, conflicts, and what a write may change', async t => {
  const { add, ask, patch } = await open(t);
  const made = await add('a', { spec: { podCIDR: '10.42.1.0/24' } });
  t.equal(made.status, 201);
  t.match(made.body, { kind: 'Node', spec: { podCIDRs: ['10.42.1.0/24'] }, metadata: { uid: /^[0-9a-f-]{36}$/ } });
  t.match(await add('a'), { status: 409, body: { reason: 'AlreadyExists', message: 'nodes "a" already exists' } });
  t.match(await ask('GET', '/api/v1/nodes/b'), { status: 404, body: { message: 'nodes "b" not found', code: 404 } });

  const version = made.body.metadata.resourceVersion;
  const one = await patch('/api/v1/nodes/a', 'merge', { metadata: { labels: { x: '1' }, resourceVersion: version } });
  t.equal(one.status, 200);
  t.ok(Number(one.body.metadata.resourceVersion) > Number(version));
  t.match(await patch('/api/v1/nodes/a', 'merge', { metadata: { labels: { x: '2' }, resourceVersion: version } }), {
    status: 409,
    body: {
      reason: 'Conflict',
      message:
        'Operation cannot be fulfilled on nodes "a": the object has been modified; please apply your changes to the latest version and try again',
    },
  });
  const same = await patch('/api/v1/nodes/a', 'merge', { metadata: { labels: { x: '1' } } });
  t.equal(same.body.metadata.resourceVersion, one.body.metadata.resourceVersion, 'what changes nothing is no write');

  await patch('/api/v1/nodes/a', 'merge', { status: { phase: 'x' }, spec: { unschedulable: true } });
  await patch('/api/v1/nodes/a/status', 'merge', { status: { phase: 'y' }, spec: { unschedulable: false } });
  const { body } = await ask('GET', '/api/v1/nodes/a');
  t.match(body, { spec: { unschedulable: true }, status: { phase: 'y' } }, 'each resource its own half');
  const moved = await patch('/api/v1/nodes/a', 'merge', {
    spec: { podCIDR: '10.42.2.0/24', podCIDRs: ['10.42.2.0/24'] },
  });
  t.match(moved, { status: 422, body: { message: /may not change podCIDR/ } });
  t.equal((await ask('DELETE', '/api/v1/nodes/a')).status, 200);
  t.equal((await ask('DELETE', '/api/v1/nodes/a')).status, 404);
});

t.test('a list in pages is of one version; a compaction ends it', async t => {
  const { api, add, ask } = await open(t);
  for (const name of ['a', 'b', 'c', 'd', 'e']) await add(name);
  const first = await ask('GET', '/api/v1/nodes?limit=2');
  t.match(first.body, { kind: 'NodeList', metadata: { remainingItemCount: 3 } });
  await ask('DELETE', '/api/v1/nodes/d');
  await add('bb');
  const names = ({ body }: Answer): string[] => body.items.map((item: ApiObject) => item.metadata.name);
  const second = await ask('GET', `/api/v1/nodes?limit=2&continue=${first.body.metadata.continue}`);
  t.same(
    [names(first), names(second)],
    [
      ['a', 'b'],
      ['c', 'd'],
    ],
    'as it was when the list began',
  );
  t.equal(second.body.metadata.resourceVersion, first.body.metadata.resourceVersion);
  api.store.compact();
  const gone = await ask('GET', `/api/v1/nodes?limit=2&continue=${second.body.metadata.continue}`);
  t.match(gone, { status: 410, body: { reason: 'Expired' } });
  t.match(await ask('GET', '/api/v1/nodes?continue=x'), { status: 410 });
  t.same(names(await ask('GET', '/api/v1/nodes?fieldSelector=metadata.name%3Dc')), ['c']);
  t.same(names(await ask('GET', '/api/v1/nodes?fieldSelector=metadata.name!%3Dc')), ['a', 'b', 'bb', 'e']);
  t.equal((await ask('GET', '/api/v1/nodes?fieldSelector=colour%3Dred')).status, 400);
});

t.test('a watch from a version, with bookmarks, through a selector, and past a compaction', async t => {
  const { api, add, patch, ask } = await open(t, { bookmarkMs: 20 });
  const { body } = await add('a');
  const from = body.metadata.resourceVersion;
  await add('b');
  await patch('/api/v1/nodes/a', 'merge', { spec: { unschedulable: true } });
  await ask('DELETE', '/api/v1/nodes/a');
  const told = (events: { type: string; object: ApiObject }[]): string[] =>
    events.map(({ type, object }) => `${type} ${object.metadata.name}`);
  t.same(told(await watch(api, `resourceVersion=${from}`, 3)), ['ADDED b', 'MODIFIED a', 'DELETED a']);
  t.same(told(await watch(api, 'resourceVersion=0&timeoutSeconds=0.1')), ['ADDED b'], 'from nowhere: what there is');
  const [mark] = await watch(api, `resourceVersion=${api.store.revision}&allowWatchBookmarks=true`, 1);
  t.match(mark, {
    type: 'BOOKMARK',
    object: { kind: 'Node', metadata: { resourceVersion: String(api.store.revision) } },
  });

  const selected = watch(api, `resourceVersion=${api.store.revision}&fieldSelector=spec.unschedulable%3Dtrue`, 2);
  await new Promise(resolve => setTimeout(resolve, 100));
  await patch('/api/v1/nodes/b', 'merge', { spec: { unschedulable: true } });
  await patch('/api/v1/nodes/b', 'merge', { spec: { unschedulable: false } });
  t.same(told(await selected), ['ADDED b', 'DELETED b'], 'what begins and ceases to match');

  api.store.compact();
  const [error] = await watch(api, `resourceVersion=${from}`);
  t.match(error, { type: 'ERROR', object: { kind: 'Status', code: 410, reason: 'Expired' } });
});

t.test('who may what', async t => {
  const { ask } = await open(t, {
    tokens: new Map([['good', 'system:serviceaccount:kube-tulle:tulle']]),
    authorize: (_user, { verb, resource }) => !(verb === 'patch' && resource === 'nodes/status') && resource !== 'pods',
  });
  t.match(await ask('GET', '/api/v1/nodes'), {
    status: 401,
    body: { reason: 'Unauthorized', message: 'Unauthorized' },
  });
  const authorization = 'Bearer good';
  t.equal((await ask('GET', '/api/v1/nodes', undefined, { authorization })).status, 200);
  const refused = await ask(
    'PATCH',
    '/api/v1/nodes/a/status',
    {},
    { authorization, 'content-type': PATCH_TYPES.merge },
  );
  t.equal(refused.status, 403);
  t.equal(
    refused.body.message,
    'nodes "a" is forbidden: User "system:serviceaccount:kube-tulle:tulle" cannot patch resource "nodes/status" in API group "" at the cluster scope',
  );
  const pods = await ask('GET', '/api/v1/namespaces/x/pods/p', undefined, { authorization });
  t.match(pods.body.message, /cannot get resource "pods" in API group "" in the namespace "x"$/);
});

t.test('the three kinds of patches', async t => {
  const { nodes } = RESOURCES;
  const node: ApiObject = {
    apiVersion: 'v1',
    kind: nodes.kind,
    metadata: { name: 'a', uid: 'u', resourceVersion: '1', creationTimestamp: '', annotations: { 'x/y': '1', z: '2' } },
    spec: { podCIDRs: ['10.42.1.0/24'], taints: [{ key: 'a' }] },
    status: { conditions: [{ type: 'Ready', status: 'True', reason: 'x' }] },
  };
  const strategic = applyPatch(node, PATCH_TYPES.strategic, {
    metadata: { annotations: { z: null, new: '3' } },
    spec: { taints: [{ key: 'b' }] },
    status: {
      conditions: [
        { type: 'NetworkUnavailable', status: 'False' },
        { type: 'Ready', status: 'False' },
      ],
    },
  });
  t.same(strategic.metadata.annotations, { 'x/y': '1', new: '3' });
  t.same(strategic.spec?.['taints'], [{ key: 'b' }], 'a list without a merge key is replaced');
  t.same(strategic.status?.['conditions'], [
    { type: 'Ready', status: 'False', reason: 'x' },
    { type: 'NetworkUnavailable', status: 'False' },
  ]);
  const less = applyPatch(node, PATCH_TYPES.strategic, {
    status: { conditions: [{ type: 'Ready', $patch: 'delete' }] },
  });
  t.same(less.status, { conditions: [] });
  t.throws(() => applyPatch(node, PATCH_TYPES.strategic, { status: { conditions: [{ status: 'x' }] } }), { code: 400 });

  const merged = applyPatch(node, PATCH_TYPES.merge, {
    metadata: { annotations: { z: null } },
    status: { conditions: [] },
  });
  t.same([merged.metadata.annotations, merged.status], [{ 'x/y': '1' }, { conditions: [] }], 'lists are replaced');

  const json = applyPatch(node, PATCH_TYPES.json, [
    { op: 'test', path: '/metadata/annotations/x~1y', value: '1' },
    { op: 'replace', path: '/metadata/annotations/x~1y', value: '9' },
    { op: 'add', path: '/spec/taints/0', value: { key: 'first' } },
    { op: 'add', path: '/spec/taints/-', value: { key: 'last' } },
    { op: 'remove', path: '/metadata/annotations/z' },
    { op: 'copy', from: '/metadata/name', path: '/spec/copied' },
    { op: 'move', from: '/spec/copied', path: '/spec/moved' },
  ]);
  t.same(json.metadata.annotations, { 'x/y': '9' });
  t.same(json.spec, {
    podCIDRs: ['10.42.1.0/24'],
    taints: [{ key: 'first' }, { key: 'a' }, { key: 'last' }],
    moved: 'a',
  });
  for (const operation of [
    { op: 'test', path: '/metadata/name', value: 'b' },
    { op: 'replace', path: '/spec/nothing', value: 1 },
    { op: 'remove', path: '/spec/taints/7' },
    { op: 'paint', path: '/spec' },
    { op: 'add', path: 'spec', value: 1 },
  ]) {
    t.throws(() => applyPatch(node, PATCH_TYPES.json, [operation]), JSON.stringify(operation));
  }
  t.equal(node.metadata.annotations?.['x/y'], '1', 'the object itself is never touched');
  t.throws(() => applyPatch(node, 'text/plain', {}), { code: 415 });
});

t.test('a merge patch against a naive twin', async t => {
  const random = prng(testSeed());
  const value = (depth: number): unknown => {
    const kind = below(random, depth > 2 ? 3 : 5);
    if (kind === 0) return null;
    if (kind === 1) return below(random, 3);
    if (kind === 2) return [below(random, 3)];
    return Object.fromEntries(['a', 'b', 'c'].filter(() => below(random, 10) < 6).map(key => [key, value(depth + 1)]));
  };
  /** RFC 7386 §2, word for word. */
  const twin = (target: unknown, patch: unknown): unknown => {
    if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
    const isObject = typeof target === 'object' && target !== null && !Array.isArray(target);
    const result = new Map(isObject ? Object.entries(target as object) : []);
    for (const [name, part] of Object.entries(patch)) {
      if (part === null) result.delete(name);
      else result.set(name, twin(result.get(name), part));
    }
    return Object.fromEntries(result);
  };
  const metadata = { name: 'a', uid: '', resourceVersion: '', creationTimestamp: '' };
  for (let i = 0; i < 2000; i++) {
    const object = { apiVersion: 'v1', kind: 'Node', metadata, extra: value(0) };
    const patch = { extra: value(0) };
    const expected = twin(object, patch);
    const got = applyPatch(object, PATCH_TYPES.merge, patch);
    const same = JSON.stringify(sorted(got)) === JSON.stringify(sorted(expected));
    if (!same) t.same(got, expected, JSON.stringify({ object, patch }));
  }
  t.pass('2000 of them');
});

const sorted = (value: unknown): unknown =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.fromEntries(
        Object.entries(value)
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([key, part]) => [key, sorted(part)]),
      )
    : value;
