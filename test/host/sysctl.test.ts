import { readFileSync } from 'node:fs';
import t from 'tap';
import { getSysctl, setSysctl, sysctlPath } from '../../lib/host/sysctl.ts';
import { makeSandbox, whyNot } from '../netlink/sandbox.ts';

const skip = whyNot();
const sandbox = makeSandbox();
t.teardown(() => sandbox.remove());

t.test('keys become files, and only those below /proc/sys', async t => {
  t.equal(sysctlPath('net.ipv4.ip_forward'), '/proc/sys/net/ipv4/ip_forward');
  t.equal(sysctlPath('net/ipv4/conf/eth0.100/forwarding'), '/proc/sys/net/ipv4/conf/eth0.100/forwarding');
  for (const key of ['', '.', 'net..ipv4', '../etc/passwd', 'net/../../x', '/net/ipv4', 'net.ipv4.a b', 'a\0b']) {
    t.throws(() => sysctlPath(key), { code: 'EINVAL', message: /is not a kernel setting/ }, JSON.stringify(key));
  }
  t.match(getSysctl(undefined, 'kernel.ostype'), 'Linux');
  t.throws(() => getSysctl(undefined, 'net.ipv4.nothing'), {
    code: 'ENOENT',
    message: 'read sysctl net.ipv4.nothing: ENOENT (this kernel does not have it)',
  });
});

t.test('each namespace has its own', { skip }, async t => {
  const path = sandbox.namespace('one');
  const other = sandbox.namespace('two');
  const own = readFileSync('/proc/sys/net/ipv4/ip_default_ttl', 'latin1');
  t.equal(setSysctl(path, 'net.ipv4.ip_default_ttl', 77), '64', 'gives the value before');
  t.equal(setSysctl(path, 'net.ipv4.ip_default_ttl', '78'), '77');
  t.equal(getSysctl(path, 'net.ipv4.ip_default_ttl'), '78');
  t.equal(getSysctl(other, 'net.ipv4.ip_default_ttl'), '64');
  t.equal(readFileSync('/proc/sys/net/ipv4/ip_default_ttl', 'latin1'), own, 'and this thread is where it was');
  t.throws(() => setSysctl(path, 'net.ipv4.ip_default_ttl', 'many'), {
    code: 'EINVAL',
    message: /^set sysctl net\.ipv4\.ip_default_ttl=many: EINVAL/,
  });
  t.throws(() => getSysctl('/nowhere', 'net.ipv4.ip_default_ttl'), { code: 'ENOENT', message: /\/nowhere/ });
});
