import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { checkTun, hasPrivileges } from '../../lib/lab/rootless.ts';

t.test('capabilities', async t => {
  const status = (effective: string) =>
    `Name:\tnode\nCapInh:\t0000000000000000\nCapEff:\t${effective}\nCapBnd:\t000001ffffffffff\n`;
  t.ok(hasPrivileges(status('000001ffffffffff')));
  t.notOk(hasPrivileges(status('0000000000000000')));
  t.notOk(hasPrivileges(status('00000000a80435fb')), 'the default container: no CAP_SYS_ADMIN, no CAP_NET_ADMIN');
  t.notOk(hasPrivileges(status('0000000000001000')), 'CAP_NET_ADMIN alone');
  t.notOk(hasPrivileges(status('0000000000200000')), 'CAP_SYS_ADMIN alone');
  t.ok(hasPrivileges(status('0000000000201000')));
  t.notOk(hasPrivileges(''));
});

t.test('no TUN device', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-lab-tun-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  t.throws(() => checkTun(join(folder, 'tun')), {
    code: 'no-tun',
    message: /is missing: load the module with "modprobe tun"/,
  });
  writeFileSync(join(folder, 'tun'), '');
  checkTun(join(folder, 'tun'));
});
