import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { machineNodeId } from '../../lib/daemon/node-id.ts';
import { checkMachine } from '../../lib/daemon/preflight.ts';

t.test('what is missing is named, with what to do', async t => {
  const directory = t.testdir({
    tun: '',
    admin: 'Name:\tx\nCapEff:\t0000000000001000\n',
    none: 'CapEff:\t000001ffffffefff\n',
  });
  const path = (name: string) => join(directory, name);
  t.doesNotThrow(() => checkMachine(path('tun'), path('admin')));
  t.throws(() => checkMachine(path('tun'), path('none')), { code: 'no-permission', message: /CAP_NET_ADMIN/ });
  t.throws(() => checkMachine(path('absent'), path('admin')), { code: 'no-tun', message: /modprobe tun/ });
  t.throws(() => checkMachine(directory, path('admin')), { code: 'no-tun', message: /^cannot open / });
});

t.test('the node id is the machine id, else the host name', async t => {
  const file = join(t.testdir(), 'machine-id');
  const { hostname } = await import('node:os');
  t.equal(machineNodeId(file), hostname());
  writeFileSync(file, '0123456789abcdef0123456789abcdef\n');
  t.equal(machineNodeId(file), '0123456789abcdef0123456789abcdef');
  writeFileSync(file, 'uninitialized\n');
  t.equal(machineNodeId(file), hostname());
});
