import { join } from 'node:path';
import t from 'tap';
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
