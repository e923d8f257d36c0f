// Results: byte by byte what each version prints (test/cni/golden), and every version read back.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { CNI_VERSIONS, type CniResult } from '../../../lib/cni/plugin.ts';
import { printJson } from '../../../lib/cni/protocol/answer.ts';
import { Fields, lenient, strict } from '../../../lib/cni/protocol/fields.ts';
import { printResult, readResult } from '../../../lib/cni/protocol/result.ts';
import { twoFamilies } from '../fake-plugin.ts';

function findRoot(from: string): string {
  return existsSync(join(from, 'tsconfig.json')) ? from : findRoot(dirname(from));
}
const golden = join(findRoot(dirname(fileURLToPath(import.meta.url))), 'test/cni/golden');

for (const version of CNI_VERSIONS) {
  t.test(version, async t => {
    const printed = printJson(printResult(twoFamilies, version));
    t.equal(printed, readFileSync(join(golden, `result-${version}.golden`), 'utf8'));
    const again = readResult(new Fields(JSON.parse(printed), '', strict), '1.1.0');
    t.equal(printJson(printResult(again, version)), printed, 'read and printed again it is the same');
  });
}

t.test('the newest version loses nothing', async t => {
  const raw = JSON.parse(printJson(printResult(twoFamilies, '1.1.0')));
  t.same(readResult(new Fields(raw, '', strict), '0.1.0'), twoFamilies, 'and its own version counts, not the config');
});

t.test('what is empty', async t => {
  const nothing: CniResult = { interfaces: [], ips: [], routes: [], dns: {} };
  t.same(printResult(nothing, '1.0.0'), { cniVersion: '1.0.0', dns: {} });
  t.same(printResult(nothing, '0.3.1'), { cniVersion: '0.3.1', dns: {} });
  for (const version of ['0.1.0', '0.2.0'] as const) {
    t.throws(() => printResult(nothing, version), { message: /^cannot convert: no valid IP addresses/, cniCode: 999 });
  }
  const only6 = { ...nothing, ips: [{ address: 'fd00::2/64' }] };
  t.same(printResult(only6, '0.2.0'), { cniVersion: '0.2.0', ip6: { ip: 'fd00::2/64' }, dns: {} });
});

t.test('a prevResult', async t => {
  const read = (raw: Record<string, unknown>, version: (typeof CNI_VERSIONS)[number] = '1.0.0') =>
    readResult(new Fields(raw, 'prevResult', strict), version);
  const empty = { interfaces: [], ips: [], routes: [], dns: {} };

  t.test('lacks what it likes', async t => {
    t.same(read({}), empty);
    t.same(read({ interfaces: null, ips: null, routes: null, dns: null }), empty, 'routes may be null');
    t.same(read({ dns: {} }), empty, 'dns may be {}');
  });

  t.test('without a version is in that of the configuration', async t => {
    const old = { ip4: { ip: '10.0.0.2/24', gateway: '10.0.0.1', routes: [{ dst: '0.0.0.0/0' }] } };
    const wanted = { ...empty, ips: [{ address: '10.0.0.2/24', gateway: '10.0.0.1' }], routes: [{ dst: '0.0.0.0/0' }] };
    t.same(read(old, '0.2.0'), wanted);
    t.same(read({ cniVersion: '0.1.0', ...old }, '1.1.0'), wanted);
    t.same(read(old, '1.0.0'), empty, 'ip4 is an unknown key there');
  });

  t.test('keys match without case, unknown keys are passed over', async t => {
    const raw = {
      Interfaces: [{ Name: 'eth0', MAC: '02:00:00:00:00:01', color: 'red' }],
      IPs: [{ Address: '10.0.0.2/24' }],
    };
    t.same(read(raw), {
      ...empty,
      interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01' }],
      ips: [{ address: '10.0.0.2/24' }],
    });
  });

  t.test('that is wrong is refused by name and value', async t => {
    for (const [raw, message] of [
      [{ cniVersion: '9.9.9' }, /^prevResult.cniVersion: "9.9.9": /],
      [{ ips: {} }, /^prevResult.ips: \{\}: it must be a list/],
      [{ ips: [5] }, /^prevResult.ips\[0\]: 5: it must be an object/],
      [{ ips: [{}] }, /^prevResult.ips\[0\].address: "": /],
      [{ ips: [{ address: '10.0.0.2' }] }, /^prevResult.ips\[0\].address: "10.0.0.2": /],
      [{ ips: [{ address: '10.0.0.2/24', gateway: 'x' }] }, /^prevResult.ips\[0\].gateway: "x": /],
      [{ ips: [{ address: '10.0.0.2/24', interface: '0' }] }, /^prevResult.ips\[0\].interface: "0": /],
      [{ routes: [{ gw: '10.0.0.1' }] }, /^prevResult.routes\[0\].dst: "": /],
      [{ interfaces: [{ name: 7 }] }, /^prevResult.interfaces\[0\].name: 7: it must be a string/],
      [{ dns: { nameservers: 'x' } }, /^prevResult.dns.nameservers: "x": it must be a list/],
    ] as const) {
      t.throws(() => read(raw), { message, cniCode: 6 }, JSON.stringify(raw));
      t.doesNotThrow(() => readResult(new Fields(raw, '', lenient), '1.0.0'), 'a DEL passes over it');
    }
  });
});
