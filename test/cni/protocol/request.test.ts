// Requests: what is refused, with which code and words, and what becomes of what is not. Each row is one mistake in an
// otherwise good call.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type CniCommand, CniError, type CniRequest } from '../../../lib/cni/plugin.ts';
import { openFrame, printVersions, readRequest, versionOf } from '../../../lib/cni/protocol/request.ts';
import { createNamespace, removeNamespace } from '../../../lib/sys/sys.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root for a network namespace';
const RESULT = { cniVersion: '1.1.0', ips: [{ address: '10.0.0.2/24' }] };

t.test('requests', { skip }, async t => {
  const folder = mkdtempSync('/tmp/tulle-test-cni-');
  writeFileSync(join(folder, 'file'), '');
  const pod = join(folder, 'pod');
  createNamespace(pod);
  t.teardown(() => {
    removeNamespace(pod);
    rmSync(folder, { recursive: true });
  });

  const variables = {
    CNI_CONTAINERID: 'pod1',
    CNI_NETNS: pod,
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/opt/cni/bin:/usr/lib/cni',
    'client.pid': '1',
    'client.netns': '4:1',
    'cni.netns': '4:2',
  };
  const config = { cniVersion: '1.1.0', name: 'net', type: 'tulle-cni', prevResult: RESULT };
  interface Change {
    environment?: Record<string, string>;
    config?: object;
    input?: string;
  }
  const read = (command: string, change: Change = {}): CniRequest => {
    const environment = new Map(Object.entries({ CNI_COMMAND: command, ...variables, ...change.environment }));
    const input = change.input ?? JSON.stringify({ ...config, ...change.config });
    const opened = openFrame({ environment, input });
    return readRequest({ ...opened, command: opened.command as CniCommand }, AbortSignal.timeout(60_000));
  };
  const refused = (command: string, change: Change): { code: number; message: string; details: string | undefined } => {
    try {
      read(command, change);
    } catch (error) {
      if (error instanceof CniError) return { code: error.cniCode, message: error.message, details: error.details };
      throw error;
    }
    return { code: 0, message: 'not refused', details: undefined };
  };

  t.test('a good call', async t => {
    t.match(read('ADD'), {
      command: 'ADD',
      containerId: 'pod1',
      ifname: 'eth0',
      netns: pod,
      path: ['/opt/cni/bin', '/usr/lib/cni'],
      config: { cniVersion: '1.1.0', name: 'net', type: 'tulle-cni' },
      prevResult: { ips: [{ address: '10.0.0.2/24' }] },
      raw: config,
    });
    t.equal(read('ADD', { config: { prevResult: undefined } }).prevResult, undefined);
    t.equal(read('ADD', { environment: { CNI_PATH: '' } }).path.length, 0, 'the specification does not ask for it');
  });

  t.test('the environment', async t => {
    const rows: [string, Record<string, string>, number, string | RegExp][] = [
      ['ADD', { CNI_CONTAINERID: '' }, 4, 'required env variables [CNI_CONTAINERID] missing'],
      [
        'CHECK',
        { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' },
        4,
        'required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing',
      ],
      [
        'DEL',
        { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' },
        4,
        'required env variables [CNI_CONTAINERID,CNI_IFNAME] missing',
      ],
      ['GC', { CNI_PATH: '' }, 4, 'required env variables [CNI_PATH] missing'],
      ['', {}, 4, 'required env variables [CNI_COMMAND] missing'],
      ['UPDATE', {}, 4, 'unknown CNI_COMMAND: UPDATE'],
      ['add', {}, 4, 'unknown CNI_COMMAND: add'],
      ['ADD', { CNI_CONTAINERID: 'a/b' }, 4, 'invalid characters in containerID: CNI_CONTAINERID "a/b"'],
      ['ADD', { CNI_CONTAINERID: '_a' }, 4, /CNI_CONTAINERID "_a"/],
      ['ADD', { CNI_CONTAINERID: 'a\n' }, 4, /CNI_CONTAINERID "a\\n"/],
      ['DEL', { CNI_CONTAINERID: 'a b' }, 4, /CNI_CONTAINERID "a b"/],
      ['ADD', { CNI_IFNAME: '0123456789abcdef' }, 4, 'interface name is too long: CNI_IFNAME "0123456789abcdef"'],
      ['ADD', { CNI_IFNAME: '.' }, 4, 'interface name is . or ..: CNI_IFNAME "."'],
      ['ADD', { CNI_IFNAME: '..' }, 4, /interface name is . or ../],
      ['ADD', { CNI_IFNAME: 'a/b' }, 4, /interface name contains \/ or : or whitespace characters: CNI_IFNAME "a\/b"/],
      ['ADD', { CNI_IFNAME: 'a:b' }, 4, /contains \/ or : or whitespace/],
      ['ADD', { CNI_IFNAME: 'a\tb' }, 4, /contains \/ or : or whitespace/],
      ['CHECK', { CNI_IFNAME: 'a\u00a0b' }, 4, /contains \/ or : or whitespace/],
      ['ADD', { CNI_ARGS: 'K8S_POD_NAME=x' }, 4, /^CNI_ARGS: unknown args \["K8S_POD_NAME=x"\]/],
      ['ADD', { CNI_ARGS: 'IgnoreUnknown=0;A=b;C=d' }, 4, /^CNI_ARGS: unknown args \["A=b" "C=d"\]/],
      ['ADD', { CNI_ARGS: 'IgnoreUnknown=1;' }, 4, /^CNI_ARGS: invalid pair ""/],
      ['ADD', { CNI_ARGS: 'IgnoreUnknown=1;a=b=c' }, 4, /^CNI_ARGS: invalid pair "a=b=c"/],
      ['ADD', { CNI_ARGS: 'IgnoreUnknown=yes' }, 4, /^CNI_ARGS: error parsing value of pair "IgnoreUnknown=yes"/],
      ['ADD', { CNI_ARGS: 'MAC=zz' }, 7, /^CNI_ARGS.mac: "zz": it is not a MAC address/],
      ['ADD', { CNI_ARGS: 'IP=10.0.0' }, 7, /^CNI_ARGS.IP: "10.0.0": it is not an IP address/],
    ];
    for (const [command, environment, code, message] of rows) {
      const outcome = refused(command, { environment });
      t.equal(outcome.code, code, `${command} ${JSON.stringify(environment)}: ${outcome.message}`);
      t.match(outcome.message, message);
    }
    t.equal(read('ADD', { environment: { CNI_IFNAME: '0123456789abcde' } }).ifname.length, 15);
    const args = read('ADD', { environment: { CNI_ARGS: 'IgnoreUnknown=TRUE;K8S_POD_NAME=web' } }).args;
    t.same(
      [...args],
      [
        ['IgnoreUnknown', 'TRUE'],
        ['K8S_POD_NAME', 'web'],
      ],
    );
    t.doesNotThrow(() => read('DEL', { environment: { CNI_ARGS: 'no pair;MAC=zz' } }), 'a DEL passes over it');
    t.equal(read('STATUS', { environment: { CNI_CONTAINERID: 'a/b', CNI_IFNAME: '' } }).containerId, '');
  });

  t.test('the namespace', async t => {
    const same = { 'cni.netns': variables['client.netns'] };
    const words = /^plugin's netns and netns from CNI_NETNS should not be the same/;
    for (const command of ['ADD', 'CHECK']) {
      t.match(refused(command, { environment: same }), { code: 8, message: words }, command);
      t.match(
        refused(command, { environment: { CNI_NETNS: '/proc/self/ns/net', 'client.pid': String(process.pid) } }),
        {
          code: 8,
          message: words,
        },
      );
      for (const CNI_NETNS of ['/no/such', join(folder, 'file'), folder, 'pod', '/proc/999999999/ns/net']) {
        t.match(refused(command, { environment: { CNI_NETNS } }), { code: 8, message: `CNI_NETNS "${CNI_NETNS}": ` });
      }
    }
    for (const CNI_NETNS_OVERRIDE of ['1', 'true', 'TRUE']) {
      t.equal(read('ADD', { environment: { ...same, CNI_NETNS_OVERRIDE } }).netns, pod);
    }
    t.equal(read('DEL').netns, pod);
    for (const CNI_NETNS of ['', '/no/such', join(folder, 'file'), 'pod', '/proc/999999999/ns/net']) {
      t.equal(read('DEL', { environment: { CNI_NETNS } }).netns, '', `a DEL with ${CNI_NETNS || 'none'}`);
    }
    t.equal(read('DEL', { environment: same }).netns, '', 'a process number that was given anew: never touch the host');
  });

  t.test('the configuration as a document', async t => {
    const rows: [Change, number, string | RegExp][] = [
      [{ input: '' }, 6, /^error unmarshall network config: it is not JSON/],
      [{ input: '{' }, 6, /^error unmarshall network config/],
      [{ input: '[]' }, 6, /^error unmarshall network config: it is not a JSON object/],
      [{ input: 'null' }, 6, /^error unmarshall network config: it is not a JSON object/],
      [{ config: { name: undefined } }, 7, 'missing network name: name'],
      [{ config: { name: null } }, 7, 'missing network name: name'],
      [{ config: { name: '' } }, 7, 'missing network name: name'],
      [{ config: { name: 5 } }, 6, 'name: 5: it must be a string'],
      [{ config: { name: 'a b' } }, 7, 'invalid characters found in network name: name "a b"'],
      [{ config: { name: '.net' } }, 7, /invalid characters found in network name/],
      [{ config: { cniVersion: '0.5.0' } }, 1, 'incompatible CNI versions: cniVersion "0.5.0"'],
      [{ config: { cniVersion: '1.0' } }, 1, /incompatible CNI versions/],
      [{ config: { cniVersion: 'v1.0.0' } }, 1, /incompatible CNI versions/],
      [{ config: { cniVersion: 1 } }, 6, 'cniVersion: 1: it must be a string'],
    ];
    for (const command of ['ADD', 'DEL']) {
      for (const [change, code, message] of rows) {
        t.match(refused(command, change), { code, message }, `${command} ${JSON.stringify(change)}`);
      }
    }
    t.equal(
      refused('ADD', { config: { cniVersion: '2.0.0' } }).details,
      'config is "2.0.0", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]',
    );
    t.equal(read('ADD', { config: { cniVersion: undefined } }).config.cniVersion, '0.1.0');
    t.equal(read('ADD', { config: { cniVersion: '' } }).config.cniVersion, '0.1.0');
  });

  t.test('what a version does not know yet', async t => {
    for (const [command, too, since] of [
      ['CHECK', '0.3.1', '0.4.0'],
      ['GC', '1.0.0', '1.1.0'],
      ['STATUS', '1.0.0', '1.1.0'],
    ]) {
      const message = `config version does not allow ${command}`;
      t.match(refused(command, { config: { cniVersion: too, prevResult: undefined } }), { code: 1, message });
      t.equal(read(command, { config: { cniVersion: since } }).config.cniVersion, since);
    }
    t.match(refused('CHECK', { config: { cniVersion: undefined, prevResult: undefined } }), { code: 1 });
  });

  t.test('CHECK needs the last result', async t => {
    t.match(refused('CHECK', { config: { prevResult: undefined } }), { code: 7, message: /^prevResult: / });
    t.match(refused('CHECK', { config: { prevResult: 'x' } }), {
      code: 6,
      message: 'prevResult: "x": it must be an object',
    });
    t.doesNotThrow(() => read('DEL', { config: { prevResult: { ips: 'nonsense' } } }));
  });

  t.test('GC: the list of what is in use', async t => {
    const list = [{ containerID: 'a', ifname: 'eth0' }];
    const wanted = [{ containerId: 'a', ifname: 'eth0' }];
    t.same(read('GC', { config: { 'cni.dev/valid-attachments': list } }).validAttachments, wanted);
    t.same(read('GC', { config: { 'cni.dev/attachments': list } }).validAttachments, wanted, "libcni's other key");
    t.same(read('GC', { config: { 'cni.dev/valid-attachments': [] } }).validAttachments, [], 'empty has a meaning');
    t.equal(read('GC').validAttachments, undefined, 'absent has another');
    for (const [value, code] of [
      ['a', 6],
      [['a'], 6],
      [[{ containerID: 'a' }], 7],
      [[{ ifname: 'eth0' }], 7],
      [[{ containerID: 5, ifname: 'eth0' }], 6],
    ] as const) {
      const outcome = refused('GC', { config: { 'cni.dev/valid-attachments': value } });
      t.equal(outcome.code, code, JSON.stringify(value));
      t.match(outcome.message, /^cni.dev\/valid-attachments/);
    }
  });

  t.test('keys match without case', async t => {
    const input = '{"CNIVersion":"1.0.0","NAME":"net","Type":"x","MTU":1400,"ipmasq":true,"bridge":null,"unknown":{}}';
    t.match(read('ADD', { input }).config, {
      cniVersion: '1.0.0',
      name: 'net',
      type: 'x',
      mtu: 1400,
      ipMasq: true,
      bridge: 'cni0',
    });
    t.equal(read('ADD', { input: '{"name":"net","MTU":1,"mtu":2}' }).config.mtu, 2, 'the last one counts');
    t.equal(read('ADD', { input: '{"name":"net","mtu":1,"MTU":2}' }).config.mtu, 2);
  });
});

t.test('the version of an error', async t => {
  t.equal(versionOf('{"cniVersion":"0.4.0"}'), '0.4.0');
  t.equal(versionOf('{}'), '0.1.0');
  t.equal(versionOf('{"cniVersion":"7"}'), '1.1.0');
  t.equal(versionOf('nonsense'), '0.1.0');
});

t.test('VERSION', async t => {
  const supportedVersions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'];
  t.same(printVersions(''), { cniVersion: '1.1.0', supportedVersions });
  t.same(printVersions('{"cniVersion":"0.2.0"}'), { cniVersion: '0.2.0', supportedVersions });
});
