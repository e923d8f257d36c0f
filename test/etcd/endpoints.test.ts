import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { parseEndpoints, readCertificates } from '../../etcd/endpoints.ts';

t.test('endpoints', async t => {
  const urls = parseEndpoints([
    'http://10.0.0.1:2379',
    'https://etcd.example:23790/',
    '127.0.0.1:4001',
    'https://[fd00::1]',
  ]);
  t.same(urls, [
    { url: 'http://10.0.0.1:2379', secure: false },
    { url: 'https://etcd.example:23790', secure: true },
    { url: 'http://127.0.0.1:4001', secure: false },
    { url: 'https://[fd00::1]:2379', secure: true },
  ]);
  t.throws(() => parseEndpoints([]), { code: 'bad-config' });
  for (const bad of ['', 'ftp://x', 'http://', 'http://x:0', 'http://x:99999', 'http://x/y', 'a b']) {
    t.throws(() => parseEndpoints([bad]), { code: 'bad-config' }, bad);
  }
});

t.test('a password in an endpoint is refused and not repeated', async t => {
  try {
    parseEndpoints(['http://a:1', 'http://root:hunter2@10.0.0.1:2379']);
    t.fail('accepted');
  } catch (error) {
    t.match(`${error}`, /etcd endpoint 2 of 2/);
    t.notMatch(`${error}`, /hunter2/);
  }
});

t.test('certificates', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-etcd-pem-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const [pem, junk] = [join(folder, 'a.pem'), join(folder, 'junk')];
  writeFileSync(pem, '-----BEGIN CERTIFICATE-----\n');
  writeFileSync(junk, 'secret words');
  t.same(Object.keys(readCertificates({ endpoints: [], caFile: pem })), ['ca'], 'a CA alone is enough');
  t.throws(() => readCertificates({ endpoints: [], certFile: pem }), {
    code: 'bad-config',
    message: /key file is missing/,
  });
  t.throws(() => readCertificates({ endpoints: [], keyFile: pem }), {
    code: 'bad-config',
    message: /certificate file is missing/,
  });
  t.throws(() => readCertificates({ endpoints: [], caFile: `${folder}/none` }), {
    code: 'bad-config',
    message: /ENOENT/,
  });
  t.throws(() => readCertificates({ endpoints: [], caFile: junk }), {
    code: 'bad-config',
    message: /holds no PEM text/,
  });
});
