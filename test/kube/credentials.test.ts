// Who we are to the API server, and what is said when it does not believe it: kubeconfigs, service accounts, tokens that
// rotate, TLS, permissions. Certificates are made with openssl, as an administrator makes them.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openCredentials } from '../../lib/kube/credentials.ts';
import { ApiFailure, failureOf, statusMessage, unreachable } from '../../lib/kube/failure.ts';
import type { KubeApiOptions } from '../../lib/lab/kube-api/server.ts';
import { announced, follow, openBench, until } from './support.ts';

const user = 'system:serviceaccount:kube-tulle:tulle';
const hasOpenssl = spawnSync('openssl', ['version']).status === 0;

const kubeconfig = (server: string, more: { cluster?: object; user?: object } = {}): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'c', cluster: { server, ...more.cluster } }],
    users: [{ name: 'u', user: more.user ?? {} }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  });

t.test('a kubeconfig that is wrong is one line', async t => {
  const base = JSON.parse(kubeconfig('https://10.0.0.1:6443'));
  const cases: [string, string, RegExp][] = [
    ['empty', '', /empty is empty$/],
    ['broken', 'clusters: [\n  - {', /broken is none: /],
    ['text', 'hello', /(is none|no current-context)/],
    [
      'context',
      JSON.stringify({ ...base, 'current-context': 'y' }),
      /has no context "y", which is its current-context$/,
    ],
    ['cluster', JSON.stringify({ ...base, clusters: [] }), /has no cluster "c", which its context "x" names$/],
    ['user', JSON.stringify({ ...base, users: [] }), /has no user "u", which its context "x" names$/],
    ['server', kubeconfig(''), /server is missing/],
    ['url', kubeconfig('10.0.0.1'), /"10\.0\.0\.1" is no URL like https:/],
    ['scheme', kubeconfig('ftp://10.0.0.1'), /begins with neither https:\/\/ nor http:\/\/$/],
  ];
  const directory = t.testdir(Object.fromEntries(cases.map(([name, text]) => [name, text])));
  for (const [name, , message] of cases) {
    const open = (): unknown => openCredentials({ kubeconfigFile: join(directory, name) });
    t.throws(open, { code: 'bad-kubeconfig', message }, name);
    try {
      open();
    } catch (error) {
      t.notMatch(String(error), /\n/, `${name}: one line`);
    }
  }
  const { server } = openCredentials({ kubeconfigFile: join(directory, 'url'), apiUrl: 'https://10.9.9.9:6443/k8s/' });
  t.equal(server, 'https://10.9.9.9:6443/k8s', '-kube-api-url counts more');
});

t.test("a pod's service account, and a token that is rotated", async t => {
  const tokens = new Map([['one', user]]);
  const bench = await openBench(t, { tokens });
  bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
  const account = join(bench.directory, 'var/run/secrets/kubernetes.io/serviceaccount');
  mkdirSync(account, { recursive: true });
  writeFileSync(join(account, 'token'), 'one\n');
  writeFileSync(join(account, 'ca.crt'), '');
  const { KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT } = process.env;
  t.teardown(() => {
    for (const [name, value] of Object.entries({ KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT })) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
  delete process.env['KUBERNETES_SERVICE_HOST'];
  const place = { rootDirectory: bench.directory };
  t.throws(() => openCredentials(place), { message: /this is no pod \(KUBERNETES_SERVICE_HOST is not set\)/ });
  Object.assign(process.env, { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' });
  t.equal(openCredentials(place).server, 'https://[fd00::1]');
  t.throws(() => openCredentials({ rootDirectory: '/no/such' }), { message: /this pod has no \/no\/such.*token/ });

  // The same with a server that we can reach: a kubeconfig that names the file.
  const file = join(bench.directory, 'kubeconfig');
  const write = (): void => {
    const token = readFileSync(join(account, 'token'), 'utf8');
    writeFileSync(file, kubeconfig(bench.api.url, { user: { token } }));
  };
  write();
  const registry = bench.registry(undefined, { kubeconfigFile: file, apiUrl: bench.api.url });
  const peer = follow(t, registry);
  await until('the watch', () => bench.api.watches.size === 1);
  tokens.clear();
  tokens.set('two', user);
  bench.api.dropConnections();
  await until('it is not known any more', () =>
    bench.lines.some(line => line.includes('does not know who we are (401')),
  );
  writeFileSync(join(account, 'token'), 'two\n');
  write();
  await until('the new token', () => bench.api.watches.size === 1);
  bench.addNode('node2', ['10.42.2.0/24'], announced('node2', '10.88.0.2'));
  await until('node2', () => peer.view().length === 2);
  t.notMatch(bench.lines.join('\n'), /\b(one|two)\b/, 'a token is never said');
});

t.test('a permission that is missing is named', async t => {
  const missing = new Set<string>();
  const bench = await openBench(t, {
    tokens: new Map([['token', user]]),
    authorize: (_, { verb, resource }) => !missing.has(`${verb} ${resource}`),
  });
  bench.addNode('node1', ['10.42.1.0/24']);
  const file = join(bench.directory, 'kubeconfig');
  writeFileSync(file, kubeconfig(bench.api.url, { user: { token: 'token' } }));
  const registry = bench.registry('node1', { kubeconfigFile: file });
  missing.add('get nodes');
  await t.rejects(registry.config(), {
    code: 'denied',
    message: /cannot get resource "nodes".*allow "get" on "nodes"/,
  });
  missing.clear();
  await registry.config();
  missing.add('list nodes');
  await t.rejects(registry.list(), { code: 'denied', message: /allow "list" on "nodes" in the ClusterRole/ });
  missing.clear();
  const { assigned } = await registry.list();
  missing.add('patch nodes/status');
  await t.rejects(registry.update(assigned!, { PublicIP: '10.88.0.1', PublicIPv6: null }, null), {
    code: 'denied',
    message:
      /User "system:serviceaccount:kube-tulle:tulle" cannot patch resource "nodes\/status".*allow "patch" on "nodes\/status"/,
  });
  missing.add('watch nodes');
  follow(t, registry);
  await until('the watch is refused', () => bench.lines.some(line => line.includes('allow "watch" on "nodes"')));
  missing.clear();
  await until('and allowed', () => bench.api.watches.size === 1);
});

/** A CA, and certificates that it signed; `days` may lie in the past. */
function makeCertificates(directory: string) {
  const openssl = (...args: string[]): void => {
    const { status, stderr } = spawnSync('openssl', args, { cwd: directory, encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  for (const ca of ['ca', 'other']) {
    openssl('req', '-x509', ...key, '-keyout', `${ca}.key`, '-out', `${ca}.crt`, '-subj', `/CN=${ca}`, '-days', '30');
  }
  const sign = (name: string, dates: string[], san = 'IP:127.0.0.1'): void => {
    writeFileSync(join(directory, 'san'), `subjectAltName=${san}\n`);
    openssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    const files = ['-in', `${name}.csr`, '-out', `${name}.crt`, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial'];
    openssl('x509', '-req', ...files, '-extfile', 'san', ...dates);
  };
  sign('good', ['-days', '30']);
  sign('past', ['-days', '-1']);
  sign('elsewhere', ['-days', '30'], 'IP:192.0.2.1');
  return (name: string): string => readFileSync(join(directory, name), 'utf8');
}

t.test('TLS', { skip: hasOpenssl ? false : 'there is no openssl here' }, async t => {
  const directory = t.testdir({});
  const read = makeCertificates(directory);
  const attempt = async (name: string, cluster: object, changes: KubeApiOptions = {}) => {
    const tls = { cert: read(`${name}.crt`), key: read(`${name}.key`) };
    const bench = await openBench(t, { tls, ...changes });
    bench.addNode('node1', ['10.42.1.0/24'], announced('node1', '10.88.0.1'));
    const file = join(bench.directory, 'kubeconfig');
    writeFileSync(file, kubeconfig(bench.api.url, { cluster }));
    return bench.registry(undefined, { kubeconfigFile: file, deadlineMs: 20_000 }).list();
  };
  const ca = { 'certificate-authority': join(directory, 'ca.crt') };
  t.equal((await attempt('good', ca)).leases.length, 1, 'a CA in a file');
  const data = { 'certificate-authority-data': Buffer.from(read('ca.crt')).toString('base64') };
  t.equal((await attempt('good', data)).leases.length, 1, 'a CA in the kubeconfig');
  const cases: [string, object, RegExp][] = [
    ['good', { 'certificate-authority': join(directory, 'other.crt') }, /not signed by the CA that we were given/],
    ['good', {}, /not signed by the CA that we were given/],
    ['elsewhere', ca, /its certificate is for another name or address/],
    ['past', ca, /its certificate has expired: is the clock right\? Here it is 20\d\d-/],
  ];
  const bench = await openBench(t, { tls: { cert: read('good.crt'), key: read('good.key') } });
  const file = join(bench.directory, 'kubeconfig');
  const write = (name: string): void => {
    const inline = { 'certificate-authority-data': Buffer.from(read(name)).toString('base64') };
    writeFileSync(file, kubeconfig(bench.api.url, { cluster: inline }));
  };
  write('other.crt');
  const registry = bench.registry(undefined, { kubeconfigFile: file, deadlineMs: 20_000 });
  await t.rejects(registry.list(), { message: /not signed by the CA/ });
  write('ca.crt');
  t.equal((await registry.list()).leases.length, 0, 'a CA in the kubeconfig that was replaced');
  for (const [name, cluster, message] of cases) {
    await t.rejects(attempt(name, cluster), { code: 'unavailable', message }, `${name}: ${message}`);
  }
});

t.test('every failure is one line with a code', async t => {
  const purpose = { verb: 'get', resource: 'nodes' } as const;
  const body = (message: string): string => JSON.stringify({ kind: 'Status', message });
  for (const [status, code] of [
    [401, 'denied'],
    [403, 'denied'],
    [404, 'missing'],
    [409, 'conflict'],
    [410, 'unavailable'],
    [429, 'unavailable'],
    [500, 'unavailable'],
    [503, 'unavailable'],
  ] as const) {
    const failure = failureOf('https://api', purpose, status, body('one\n  two'));
    t.match(failure, { code, status });
    t.match(failure.message, /^the API server at https:\/\/api[: ].*one two/);
  }
  t.equal(failureOf('x', purpose, 429, '', '7').retryAfterMs, 7000);
  t.equal(failureOf('x', purpose, 429, '', '86400').retryAfterMs, 60_000, 'a minute at most');
  t.equal(failureOf('x', purpose, 429, '', 'soon').retryAfterMs, undefined);
  t.equal(failureOf('x', purpose, 503, '', new Date(Date.now() - 5000).toUTCString()).retryAfterMs, 0);
  t.equal(statusMessage('<html>\n<body>Bad Gateway</body>'), '<html> <body>Bad Gateway</body>');
  t.equal(statusMessage(''), 'no reason given');
  t.equal(statusMessage('x'.repeat(10_000)).length, 300);
  const said = (code: string, message = code): string =>
    unreachable('https://api', Object.assign(new Error(message), { code })).message;
  t.match(said('CERT_NOT_YET_VALID'), /is not valid yet: is the clock right\? Here it is \d{4}-\d\d-\d\dT[\d:]{8}Z$/);
  t.match(said('ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED'), /our certificate expired: is the clock right/);
  t.match(said('ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE'), /does not trust our client certificate/);
  t.match(said('ECONNREFUSED'), /does not answer: connection refused$/);
  t.match(said('ENOTFOUND'), /its name cannot be resolved$/);
  t.match(said('HPE_INVALID_CONSTANT', 'Parse Error'), /does not speak HTTP/);
  t.match(said('', 'one\n two'), /does not answer: one two$/);
  t.ok(failureOf('x', purpose, 500, 'null') instanceof ApiFailure, 'a body that is JSON and no object');
});
